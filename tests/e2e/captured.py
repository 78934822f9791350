"""Windows of captured payments, written into the lake as the server writes them: nothing of them moved."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from truekeep.cli.examples import fraud
from truekeep.contract import layout
from truekeep.contract.layout import CaptureName
from truekeep.storage.s3 import Bucket

DAY = timedelta(days=1)
ROWS = 700  # a day
CAPTURED = {"serving": {"capture": {"s3": {"uri": "s3://lake/captures/"}, "flushSeconds": 1}}}


class Day(NamedTuple):
    """What a revision predicted, shape (ROWS,) each: keys, times in µs since 1970, probabilities."""

    keys: list[str]
    micro: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]


def first_day() -> datetime:
    """Six days ago: a probe's requests are events of today, and windows are given up when their labels are long due."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 6 * DAY


def parquet(rows: pa.Table | dict[str, Any]) -> bytes:
    """A file of them."""
    sink = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.table(rows), sink)
    return sink.getvalue()


def write_day(
    lake: Bucket, namespace: str, model: str, begin: datetime, seed: int, files: int = 1, keys: Sequence[str] = ()
) -> Day:
    """A day of revision 1, in so many files. `keys`: a few, which the rows take in turns, in place of one a row."""
    random = np.random.default_rng(seed)
    micro = np.sort(random.integers(0, 86_400_000_000, ROWS)) + round(begin.timestamp() * 1e6)
    probability = random.beta(1, 4, ROWS)
    named = [keys[row % len(keys)] if keys else f"late-{seed}-{row}" for row in range(ROWS)]
    columns: dict[str, Any] = {
        "truekeep.request_id": [f"r{seed}-{row}" for row in range(ROWS)],
        "truekeep.row": pa.array(np.zeros(ROWS), pa.int32()),
        "truekeep.revision": pa.array(np.ones(ROWS), pa.int32()),
        "truekeep.received_at": pa.array(micro).cast(pa.timestamp("us", "UTC")),
        "truekeep.event_time": pa.array(micro).cast(pa.timestamp("us", "UTC")),
        "truekeep.key": named,
        "truekeep.probability": probability,
        "truekeep.prediction": (probability > 0.5).astype(np.int64),
        "truekeep.cut_off": np.full(ROWS, 0.5),
        "hour": random.integers(0, 24, ROWS).astype(float),
        "amount": random.lognormal(3, 1, ROWS),
        "channel": random.choice(fraud.CHANNELS, ROWS),
        "merchant": random.choice(fraud.MERCHANTS, ROWS),
        "country": random.choice(fraud.COUNTRIES, ROWS),
        "card_age_days": random.integers(0, 900, ROWS).astype(float),
        "distance_km": random.lognormal(2, 1, ROWS),
    }
    table = pa.table(columns)
    for number in range(files):
        low, high = number * ROWS // files, (number + 1) * ROWS // files
        name = CaptureName(int(micro[low]) // 1000, int(micro[high - 1]) // 1000, f"pod-{number}", seed)
        key = layout.captures(namespace, model) + layout.capture_file(1, begin, name)
        lake.put(f"captures/{key}", parquet(table.slice(low, high - low)))
    return Day(named, micro, probability)
