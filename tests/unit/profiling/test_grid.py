"""Counting on a grid is counting by look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truekeep.profiling import cells
from truekeep.profiling.grid import BUCKETS, Grid

RNG = np.random.default_rng(0)
N = 20_000
SHAPES: dict[str, Any] = {
    "normal": RNG.normal(size=N),
    "far from zero": RNG.normal(1e9, 1e-3, N),
    "tiny": RNG.normal(0, 1e-300, N),
    "huge": RNG.normal(0, 1e307, N),
    "cauchy": RNG.standard_cauchy(N),
    "log-normal": np.exp(RNG.normal(0, 4, N)),
    "negative log-normal": -np.exp(RNG.normal(0, 4, N)),
    "hours": RNG.integers(0, 24, N).astype(float),
    "cents": np.round(np.exp(RNG.normal(3, 1, N)), 2),
    "one wild value": np.append(RNG.normal(size=N), 1.7e308),
    "two wild values": np.append(RNG.normal(size=N), [1.7e308, -1.7e308]),
    "one value": np.full(N, 3.0),
    "zeros of both signs": np.where(RNG.random(N) < 0.5, 0.0, -0.0),
    "subnormal": RNG.integers(-5, 5, N) * 5e-324,
}


def by_look_up(values: Any, edges: Any) -> Any:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)


@pytest.mark.parametrize("name", SHAPES)
def test_counts_are_those_of_a_look_up(name: str) -> None:
    edges = cells.edges(np.sort(SHAPES[name]))
    grid = Grid(edges)
    for other, values in SHAPES.items():
        assert grid.count(values).tolist() == by_look_up(values, edges).tolist(), other


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    hnp.arrays(np.float64, st.integers(0, 60), elements=finite, unique=True),
    hnp.arrays(np.float64, st.integers(1, 80), elements=finite),
)
def test_counts_of_any_edges_and_values(edges: Any, values: Any) -> None:
    edges = np.unique(edges)
    near = np.concatenate([values, edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    near = near[np.isfinite(near)]
    assert Grid(edges).count(near).tolist() == by_look_up(near, edges).tolist()


def test_more_edges_than_buckets() -> None:
    edges = np.sort(RNG.normal(size=2 * BUCKETS))
    values = RNG.normal(size=N)
    assert Grid(edges).count(values).tolist() == by_look_up(values, edges).tolist()
