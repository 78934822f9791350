"""Thirty columns with all that makes monitors ring for nothing, and the shifts that they must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from truekeep.contract.artifact import SignatureFeature

Rng = np.random.Generator
Draw = Callable[[Rng, int], Any]

NUMBERS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "normal_large": lambda rng, n: rng.normal(1e6, 10, n),
    "normal_small": lambda rng, n: rng.normal(0, 1e-9, n),
    "log_half": lambda rng, n: np.exp(rng.normal(3, 0.5, n)),
    "log_one": lambda rng, n: np.exp(rng.normal(size=n)),
    "log_two": lambda rng, n: np.exp(rng.normal(0, 2, n)),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "student": lambda rng, n: rng.standard_t(2, n),
    "pareto": lambda rng, n: rng.pareto(1.1, n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "two_hills": lambda rng, n: rng.normal(size=n) + 6 * (rng.random(n) < 0.5),
    "hour": lambda rng, n: rng.integers(0, 24, n).astype(float),
    "count": lambda rng, n: rng.poisson(3, n).astype(float),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.93, 0.0, rng.random(n)),
    "rounded": lambda rng, n: np.round(rng.normal(50, 20, n)),
    "cents": lambda rng, n: np.round(np.exp(rng.normal(3, 1, n)), 2),
    "flag": lambda rng, n: (rng.random(n) < 0.3).astype(float),
    "rare_flag": lambda rng, n: (rng.random(n) < 0.01).astype(float),
    "gaps": lambda rng, n: np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
}


@dataclass(frozen=True)
class Kinds:
    """A column of so many categories, the i-th with a share in proportion to i^-steepness."""

    count: int
    steepness: float

    @property
    def shares(self) -> Any:
        """Of each category, shape (count,)."""
        found = np.arange(1, self.count + 1) ** -self.steepness
        return found / found.sum()


CATEGORIES = {
    "two": Kinds(2, 0.5),
    "five": Kinds(5, 0.5),
    "dozen": Kinds(12, 1.0),
    "fifty": Kinds(50, 0.8),
    "hundred": Kinds(100, 0.0),
    "flat_300": Kinds(300, 0.0),
    "steep_500": Kinds(500, 1.1),
    "steep_1000": Kinds(1000, 1.0),
    "steep_2000": Kinds(2000, 1.0),
    "flat_2000": Kinds(2000, 0.0),
}
FEATURES = [SignatureFeature(name=name, type="Number") for name in NUMBERS]
FEATURES += [SignatureFeature(name=name, type="Category") for name in CATEGORIES]
_NAMES = {name: pa.array([f"{name}-{i:04}" for i in range(kinds.count)]) for name, kinds in CATEGORIES.items()}
_EDGES = {name: np.cumsum(kinds.shares)[:-1] for name, kinds in CATEGORIES.items()}


def column(name: str, rng: Rng, n: int) -> Any:
    """A column of n rows from the world as it was: float64, or codes into `named`."""
    if name in NUMBERS:
        return NUMBERS[name](rng, n)
    return np.searchsorted(_EDGES[name], rng.random(n)).astype(np.int32)


def named(name: str, values: Any, further: tuple[str, ...] = ()) -> Any:
    """A column as a table has it: categories by name, `further` ones after the known, -1 as null."""
    if name in NUMBERS:
        return values
    names = pa.concat_arrays([_NAMES[name], pa.array(further, pa.string())])
    return pa.DictionaryArray.from_arrays(pa.array(values, mask=values < 0), names)


def draw(rng: Rng, n: int) -> dict[str, Any]:
    """All thirty columns, n rows."""
    return {feature.name: named(feature.name, column(feature.name, rng, n)) for feature in FEATURES}


@dataclass(frozen=True)
class Shift:
    """A change of one column that must be found with at least this probability at 5,000 rows."""

    column: str
    what: str
    power: float
    change: Draw


def _some(rng: Rng, n: int, share: float) -> Any:
    return rng.random(n) < share


def _number(name: str, change: Callable[[Rng, Any], Any]) -> Draw:
    return lambda rng, n: change(rng, column(name, rng, n))


def _category(name: str, change: Callable[[Rng, Any], Any], further: tuple[str, ...] = ()) -> Draw:
    return lambda rng, n: named(name, change(rng, column(name, rng, n)), further)


def _all_to_one(share: float, to: int) -> Callable[[Rng, Any], Any]:
    """Points move from all values, in proportion, to one."""
    return lambda rng, x: np.where(_some(rng, len(x), share), to, x).astype(np.int32)


def _first_to(points: float, name: str, to: int) -> Callable[[Rng, Any], Any]:
    """Points move from the most frequent value, or as many as it takes, to another."""
    until = np.cumsum(CATEGORIES[name].shares)
    givers = int(np.searchsorted(until, points * 1.2)) + 1
    share = points / until[givers - 1]
    return lambda rng, x: np.where((x < givers) & _some(rng, len(x), share), to, x).astype(np.int32)


def _null(rng: Rng, x: Any) -> Any:
    return np.where(_some(rng, len(x), 0.02), -1 if x.dtype == np.int32 else np.nan, x).astype(x.dtype)


def _shifts() -> list[Shift]:
    found = [
        Shift(name, "mean + 0.2 sd", 0.99, _number(name, lambda _, x, sd=sd: x + 0.2 * sd))
        for name, sd in (("normal", 1.0), ("normal_large", 10.0), ("normal_small", 1e-9), ("gaps", 1.0))
    ]
    found += [
        Shift(name, "scale + 15 %", 0.99, _number(name, lambda _, x: x * 1.15))
        for name in ("log_half", "log_one", "cents")
    ]
    for name, kinds in CATEGORIES.items():
        last = kinds.count - 1
        found.append(Shift(name, "5 points, first to last", 0.99, _category(name, _first_to(0.05, name, last))))
        if kinds.count > 2:
            share = 0.05 / (1 - kinds.shares[last // 2])
            change = _all_to_one(share, last // 2)
            found.append(Shift(name, "5 points, all to one", 0.99, _category(name, change)))
        further = _category(name, _all_to_one(0.02, kinds.count), ("a new one",))
        found.append(Shift(name, "new category, 2 %", 0.99, further))
    found += [Shift(name, "nulls 0 to 2 %", 0.99, _number(name, _null)) for name in ("normal", "zeros", "hour")]
    found += [Shift(name, "nulls 0 to 2 %", 0.99, _category(name, _null)) for name in ("two", "flat_2000")]
    contaminations: dict[str, Callable[[Rng, Any], Any]] = {
        "normal around 3": lambda rng, x: rng.normal(3, 1, len(x)),
        "standard normal": lambda rng, x: rng.normal(0, 1, len(x)),
        "one value inside": lambda rng, x: np.full(len(x), 0.37),
        "upper tenth": lambda rng, x: 0.9 + 0.1 * rng.random(len(x)),
        "middle tenth": lambda rng, x: 0.45 + 0.1 * rng.random(len(x)),
    }
    for what, other in contaminations.items():
        change = _number("uniform", lambda rng, x, other=other: np.where(_some(rng, len(x), 0.05), other(rng, x), x))
        found.append(Shift("uniform", f"5 % are {what}", 0.8, change))
    return found


SHIFTS = _shifts()
