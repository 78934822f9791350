"""Skew between training and serving: what the live revision was asked, against the rows that train.

Where the requests carry keys that are among the rows, the same event is compared with itself: a feature counts when at
least the share `minimumEffect` of the rows has another value than its request had. That is the plain answer, and it
names rows. Else the two are compared as distributions (`profiling.compare`): of the time that both cover, so that drift
is not taken for skew, and where they share none, the newest rows with the newest requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from truekeep.api.data import Data
from truekeep.api.rules import Rule
from truekeep.contract.artifact import SignatureFeature
from truekeep.profiling.build import Arrays, profile_table, window
from truekeep.sources.columns import NO_TIME, Values, Want, empty, nulls, select
from truekeep.trainer.data.served import MOST_ROWS, Served, spread
from truekeep.trainer.data.violations import Place, Rows, Violation, broken, shown, shown_count
from truekeep.trainer.text import counted, decimal, iso

ALPHA = 0.001
RELATIVE = 1e-6  # numbers that are as near as that are the same: a request may have carried single precision

Positions = npt.NDArray[np.int64]


def judge(rows: Rows, data: Data, rule: Rule, served: Served, left_out: Sequence[str]) -> list[Violation] | str:
    """The features that were served otherwise than they train. A text where there is too little to tell."""
    if rule.skew is None:
        return []
    wants = [Want(one.name, one.type) for one in data.features if one.name not in left_out]
    wants = [want for want in wants if want in rows.columns]
    least = rule.skew.min_rows
    if len(served) < least:
        return f"{counted(len(served), 'captured request')} of the live revision, it takes {least:,}"
    asked, trained = same_events(rows, served)
    if len(asked) >= least:
        return _differing(rows, rule, served, wants, (asked, trained))
    placed = np.flatnonzero(rows.times != NO_TIME)
    placed = placed[np.argsort(rows.times[placed], kind="stable")]
    both, when = _together(rows.times[placed], served.times, least)
    if both is None:
        both, when = (placed[-MOST_ROWS:], np.arange(len(served))), "newest"
    else:
        both = (placed[both[0]], both[1])
    if len(both[0]) < least:
        return f"{counted(len(both[0]), 'row')}, it takes {least:,}"
    return _shifted(rows, rule, served, wants, both, when)


def same_events(rows: Rows, served: Served) -> tuple[Positions, Positions]:
    """Positions of requests and of the rows that have their keys, the last request of each."""
    keys: Any = rows.key
    found: Any = pc.index_in(served.keys, value_set=keys, skip_nulls=True)
    trained = np.array(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
    asked = np.flatnonzero(trained >= 0)
    _, last = np.unique(trained[asked][::-1], return_index=True)
    asked = np.sort(asked[::-1][last])
    return asked, trained[asked]


def _together(
    trained: npt.NDArray[np.int64], served: npt.NDArray[np.int64], least: int
) -> tuple[tuple[Positions, Positions] | None, str]:
    """Positions of both in the time that both cover, None where either has too few there; and that time in words."""
    if not len(trained) or not len(served):
        return None, ""
    first, last = max(trained.min(), served.min()), min(trained.max(), served.max())
    mine = np.flatnonzero((trained >= first) & (trained <= last))
    theirs = np.flatnonzero((served >= first) & (served <= last))
    if min(len(mine), len(theirs)) < least:
        return None, ""
    return (mine[spread(len(mine), MOST_ROWS)], theirs), f"{iso(int(first))} to {iso(int(last))}"


def _differing(
    rows: Rows, rule: Rule, served: Served, wants: Sequence[Want], same: tuple[Positions, Positions]
) -> list[Violation]:
    """By the same events."""
    asked, trained = same
    found = []
    for want in wants:
        theirs = _values(served, want, asked)
        mine = select(rows.columns[want], trained)
        wrong = np.flatnonzero(unequal(theirs, mine, want))
        if not len(wrong) or len(wrong) / len(asked) < float(rule.skew.minimum_effect if rule.skew else 1):
            continue
        problem = f"{shown_count(len(wrong), len(asked))} had another value when the live revision was asked"
        places = tuple(
            _pair(rows.origins[want].place(int(trained[row])), mine[int(row)], theirs[int(row)]) for row in wrong[:20]
        )
        remedy = "see which of the two computes it otherwise, or reads it at another time"
        found.append(broken(rule, want.name, problem, remedy, places, len(wrong)))
    return sorted(found, key=lambda one: (-one.count, one.column or ""))


def _pair(place: Place, mine: Any, theirs: Any) -> Place:
    return place._replace(value=f"{shown(mine)}, served as {shown(theirs)},")


def unequal(one: Values, other: Values, want: Want) -> npt.NDArray[np.bool_]:
    """Rows whose values differ, or of which one alone is missing. Shape (rows,)."""
    missing, absent = nulls(one, want.kind), nulls(other, want.kind)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        differs = ~np.isclose(one, other, rtol=RELATIVE, atol=1e-9) if want.kind == "Number" else one != other
    else:
        left, right = cast(Any, one), cast(Any, other)
        texts = cast(Any, pc.fill_null(pc.not_equal(left, right), False))
        differs = np.asarray(texts.to_numpy(zero_copy_only=False), dtype=np.bool_)
    return np.asarray((differs & ~missing & ~absent) | (missing != absent))


def _shifted(
    rows: Rows, rule: Rule, served: Served, wants: Sequence[Want], both: tuple[Positions, Positions], when: str
) -> list[Violation]:
    """By their distributions. Times always move, so they are left out."""
    from truekeep.profiling import compare  # brings SciPy, which a run without such a rule need not wait for

    mine, theirs = both
    compared = [want for want in wants if want.kind != "Time"]
    features = [SignatureFeature(name=want.name, type=want.kind) for want in compared]
    trained: dict[str, Any] = {want.name: select(rows.columns[want], mine) for want in compared}
    asked: dict[str, Any] = {want.name: _values(served, want, theirs) for want in compared}
    reference = profile_table(Arrays(trained, len(mine)), features, threads=1)
    counted_on = window(asked, reference)
    least = float(rule.skew.minimum_effect if rule.skew else 1)
    about = f"{len(theirs):,} captured requests against {counted(len(mine), 'row')}"
    about += " of the newest" if when == "newest" else f" of {when}"
    found = []
    for shift in compare.shifts(reference, counted_on, least, ALPHA):
        problem = f"what was served lies elsewhere ({shift.statistic} {decimal(shift.effect)}, at least "
        problem += f"{decimal(least)} counts; {about}): {shift.then} in training, {shift.now} in requests"
        remedy = "see which of the two computes it otherwise"
        found.append(broken(rule, shift.column, problem, remedy, count=len(theirs)))
    return found


def _values(served: Served, want: Want, which: Positions) -> Values:
    """A column of the requests, nulls where no file has it."""
    if want in served.columns:
        return select(served.columns[want], which)
    return empty(want.kind, len(which))
