"""Counting on a grid is counting by look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truekeep.profiling import cells
from truekeep.profiling.grid import BLOCK, BUCKETS, LOOKED_UP, Grid, settle

RNG = np.random.default_rng(0)
N = BLOCK + 7_000
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
    with np.errstate(over="ignore"):
        near = np.concatenate([values, edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    near = near[np.isfinite(near)]
    near = np.tile(near, 1 + LOOKED_UP // len(near))  # fewer are looked up
    assert Grid(edges).count(near).tolist() == by_look_up(near, edges).tolist()


def test_more_edges_than_buckets() -> None:
    edges = np.sort(RNG.normal(size=2 * BUCKETS))
    values = RNG.normal(size=N)
    assert Grid(edges).count(values).tolist() == by_look_up(values, edges).tolist()


@pytest.mark.parametrize("name", SHAPES)
def test_settled_edges_are_counted_by_look_up_too(name: str) -> None:
    """Edges that moved to where counting is fast are as exact as any, and cells stay about as they were."""
    values = np.sort(SHAPES[name])
    edges = cells.edges(values)
    settled = cells.edges(values, slack=0.125)
    grid = Grid(settled)
    for other, further in SHAPES.items():
        assert grid.count(further).tolist() == by_look_up(further, settled).tolist(), other
    before, after = by_look_up(values, edges), by_look_up(values, settled)
    several = np.ones(len(after), dtype=bool)
    several[1:-1] = settled[:-1] != np.nextafter(settled[1:], -np.inf)
    assert after[several].max(initial=0) <= 1.3 * N / cells.CELLS + 1
    assert len(settled) <= len(edges)
    assert len(after) >= len(before) - 12  # edges that fell together
    ties = edges[:-1][np.nextafter(edges[:-1], np.inf) == edges[1:]]
    assert np.isin(ties, settled).all()


def test_edges_move_no_further_than_told() -> None:
    values = np.sort(SHAPES["normal"])
    edges = cells.edges(values)
    settled = settle(edges, values, 5, edges[[0, -1]])
    assert settled[0] == edges[0]
    assert settled[-1] == edges[-1]
    assert not np.array_equal(settled, edges)
    passed = np.abs(np.searchsorted(values, settled, side="right") - np.searchsorted(values, edges, side="right"))
    assert 0 < passed.max() <= 5
