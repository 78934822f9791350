"""How sure a fraction of a few tries is. The same for what an image measures and what the operator judges."""

from __future__ import annotations

import math

SURE = 3.0  # standard errors: chance alone goes as far in one case of 700


def interval(hits: float, tries: float, sure: float = SURE) -> tuple[float, float]:
    """Wilson's score interval of a fraction."""
    if not tries:
        return 0.0, 1.0
    fraction, spread = hits / tries, sure * sure / tries
    centre = (fraction + spread / 2) / (1 + spread)
    half = math.sqrt(fraction * (1 - fraction) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def surely_more(one: tuple[float, float], other: tuple[float, float]) -> float:
    """By how much the first fraction (hits, tries) is larger at least: the lower end of Newcombe's interval of the
    difference (method 10)."""
    (low, _), (_, high) = interval(*one), interval(*other)
    p, q = one[0] / one[1] if one[1] else 0.0, other[0] / other[1] if other[1] else 0.0
    return p - q - math.sqrt((p - low) ** 2 + (high - q) ** 2)
