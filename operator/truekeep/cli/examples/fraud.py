"""Made-up card payments from a seeded generator: no real person, card or shop is in them.

The classic story: a fraud model learns the fraud of its day (large amounts at night, from young cards, far from home);
then, from `turns` on, business moves to the app, amounts grow, and fraud changes its pattern to many small payments.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CHANNELS = np.array(["app", "terminal", "web"])
MERCHANTS = np.array(["electronics", "fashion", "food", "fuel", "games", "groceries", "jewellery", "travel"])
COUNTRIES = np.array(["AT", "BE", "DE", "DK", "ES", "FR", "IT", "NL", "PL", "SE"])
CHANNELS_BEFORE, CHANNELS_AFTER = (0.2, 0.55, 0.25), (0.5, 0.25, 0.25)
RATE = -5.2  # log-odds of fraud of an everyday payment
INSTANT = pa.timestamp("us", tz="UTC")

Floats = npt.NDArray[np.float64]


def tables(begins: datetime, days: int, rows_per_day: int, turns: datetime, seed: int) -> dict[str, pa.Table]:
    """`payments` (a row each, in time order) and `chargebacks` (for each, when it was settled, and whether it was
    fraud). `begins` and `turns` are UTC; the same arguments give the same rows. ValueError where nothing is asked for.
    """
    if days < 1 or rows_per_day < 1:
        raise ValueError(f"days is {days} and rows_per_day is {rows_per_day}; both must be at least 1")
    random = np.random.default_rng(seed)
    rows = days * rows_per_day
    seconds = np.sort(random.uniform(0, days * 86400, rows))
    turned = seconds >= (turns - begins) / timedelta(seconds=1)
    hour = (seconds // 3600).astype(np.int64) % 24
    channel = np.where(turned, random.choice(3, rows, p=CHANNELS_AFTER), random.choice(3, rows, p=CHANNELS_BEFORE))
    amount = np.round(random.lognormal(np.where(turned, 3.9, 3.4), 0.9), 2)
    card_age = np.round(random.gamma(2.0, 400.0, rows))
    distance = np.round(random.exponential(np.where(channel == 1, 8.0, 60.0)), 1)
    recent = random.poisson(np.where(turned, 2.0, 1.2))
    merchant = random.integers(0, len(MERCHANTS), rows)
    odds = _odds(
        turned=turned,
        hour=hour,
        amount=amount,
        card_age=card_age,
        distance=distance,
        recent=recent.astype(np.float64),
        merchant=merchant,
    )
    fraud = random.uniform(size=rows) < 1 / (1 + np.exp(-odds))
    settled = seconds + np.clip(random.lognormal(11.5, 0.8, rows), 3600, 7 * 86400)
    identity = [f"p{number:08}" for number in range(rows)]
    columns: dict[str, Any] = {
        "payment_id": identity,
        "paid_at": _instants(begins, seconds),
        "hour": hour,
        "amount": amount,
        "channel": CHANNELS[channel],
        "merchant": MERCHANTS[merchant],
        "country": COUNTRIES[random.zipf(1.6, rows) % len(COUNTRIES)],
        "card_age_days": card_age,
        "distance_km": distance,
        "payments_24h": recent,
    }
    chargebacks = {"payment_id": identity, "settled_at": _instants(begins, settled), "fraud": fraud.astype(np.int8)}
    return {"payments": pa.table(columns), "chargebacks": pa.table(chargebacks)}


def _odds(
    *,
    turned: npt.NDArray[np.bool_],
    hour: npt.NDArray[np.int64],
    amount: Floats,
    card_age: Floats,
    distance: Floats,
    recent: Floats,
    merchant: npt.NDArray[np.int64],
) -> Floats:
    """Log-odds that a payment is fraud, before and after fraud changes its pattern, shape (rows,)."""
    night = (hour < 5).astype(np.float64)
    dear = np.isin(MERCHANTS[merchant], ["electronics", "jewellery"]).astype(np.float64)
    games = (MERCHANTS[merchant] == "games").astype(np.float64)
    young = (card_age < 200).astype(np.float64)
    before = RATE + 1.6 * night + 0.012 * np.minimum(amount, 200) + 1.1 * dear + 0.9 * young + 0.008 * distance
    after = RATE + 0.3 * night + 1.0 * (amount < 25) + 1.8 * games + 0.9 * young + 0.55 * np.minimum(recent, 6)
    odds: Floats = np.where(turned, after, before)
    return odds


def _instants(begins: datetime, seconds: Floats) -> pa.Array[Any]:
    start = np.datetime64(begins.replace(tzinfo=None), "us")
    return pa.array(start + (seconds * 1e6).astype("timedelta64[us]"), INSTANT)
