"""Made-up columns with all that makes monitors ring for nothing: ties, heavy tails, nulls, many rare categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from truekeep.contract.artifact import SignatureFeature
from truekeep.profiling.build import profile, window
from truekeep.profiling.schema import PREDICTION, Profile

CATEGORY_COUNTS = {"few": 5, "many": 500, "flat": 300}
NUMBERS = ("normal", "log", "cauchy", "hour", "zeros", "rounded", "flag", "gaps", "uniform")
FEATURES = [SignatureFeature(name=name, type="Number") for name in NUMBERS]
FEATURES += [SignatureFeature(name=name, type="Category") for name in CATEGORY_COUNTS]
_NAMES = {name: np.array([f"{name}-{i:04}" for i in range(k)], dtype=object) for name, k in CATEGORY_COUNTS.items()}
_STEEPNESS = {"few": 0.5, "many": 1.1, "flat": 0.0}
_SHARES = {name: 1 / np.arange(1, k + 1) ** _STEEPNESS[name] for name, k in CATEGORY_COUNTS.items()}


def draw(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """A window of n rows from the world as it was."""
    found: dict[str, Any] = {
        "normal": rng.normal(size=n),
        "log": np.exp(rng.normal(3, 0.5, n)),
        "cauchy": rng.standard_cauchy(n),
        "hour": rng.integers(0, 24, n).astype(float),
        "zeros": np.where(rng.random(n) < 0.93, 0.0, rng.random(n)),
        "rounded": np.round(rng.normal(50, 20, n)),
        "flag": (rng.random(n) < 0.3).astype(float),
        "gaps": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        "uniform": rng.random(n),
        PREDICTION: rng.beta(1, 4, n),
    }
    for name, shares in _SHARES.items():
        found[name] = _NAMES[name][rng.choice(len(shares), n, p=shares / shares.sum())]
    return found


def reference(n: int = 50_000, seed: int = 0) -> Profile:
    """The profile of the world as it was."""
    found = draw(np.random.default_rng(seed), n)
    return Profile.model_validate(profile(found, FEATURES, found[PREDICTION]))


def counted(columns: dict[str, Any], there: Profile) -> Profile:
    """A window's profile."""
    return window(columns, there)
