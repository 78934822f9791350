"""Every rule of the data, on either side of its limit, with either severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainer.lake import START, Lake, csv_of, data_of, events, parquet, replaced, with_value
from truekeep.contract.requests import LastRun
from truekeep.trainer.data import rules
from truekeep.trainer.data.dataset import DataFault, Dataset, load
from truekeep.trainer.data.rules import Known
from truekeep.trainer.text import EPOCH

FILE = "s3://lake/rows/a.parquet"
NOW = START + timedelta(minutes=590, hours=1)  # an hour after the newest of 60 events
LABELS = {"source": {"s3": {"uri": "s3://lake/labels/"}}, "column": "late", "maturesAfterSeconds": 6 * 3600}


def table() -> pa.Table:
    """60 rows: three amounts missing, one far out; kinds b and c rare; a ticket that repeats; two labels missing."""
    found = replaced(events(60), "kind", ["a"] * 57 + ["b", "b", "c"])
    found = replaced(found, "amount", [float(number) for number in range(60)])
    for row in (1, 2, 3):
        found = with_value(found, "amount", row, None)
    found = with_value(found, "amount", 40, 900.0)
    found = replaced(found, "late", [0, 1] * 30)
    found = found.append_column("ticket", pa.array([f"t{number}" for number in [0, 0, *range(59)][:60]]))
    return with_value(with_value(found, "late", 8, None), "late", 9, None)


def loaded(found: pa.Table | dict[str, bytes], known: Known | None = None, **declared: Any) -> Dataset:
    lake = Lake(found if isinstance(found, dict) else {"rows/a.parquet": parquet(found)})
    now = round((NOW - EPOCH).total_seconds() * 1_000_000)
    return load(data_of(**declared), (), lake.open, now, lambda _: None, known or Known(defaults=False))


LAST = LastRun(run="late-7", rows=58, positives=29, rows_digest=rules.rows_digest(data_of()))
KNOWN = Known(defaults=False, last=LAST, categories=lambda: {"kind": ["a", "b"]})

# rule, limit that holds, limit that is just broken, column, count, row of the first, words
TABLE: list[tuple[str, Any, Any, str | None, int, int | None, str]] = [
    ("minRows", 58, 59, None, 58, None, "58 labelled rows, fewer than minRows 59"),
    ("maxAgeSeconds", 3600, 3599, "at", 1, 60, "3,600 s ago, more than maxAgeSeconds 3,599"),
    ("maxNullFraction", "0.05", "0.049", "amount", 3, 2, "3 of 60 rows (0.0500) without a value, more than"),
    ("range", {"maximum": "900"}, {"maximum": "899.9"}, "amount", 1, 41, "1 of 57 values (0.0175) are above 899.9"),
    ("range", {"minimum": "0"}, {"minimum": "0.5"}, "amount", 1, 1, "1 of 57 values (0.0175) are below 0.5"),
    (
        "range",
        {"minimum": "1", "maximum": "100", "maxFraction": "0.036"},
        {"minimum": "1", "maximum": "100", "maxFraction": "0.035"},
        "amount", 2, 1, "2 of 57 values (0.0351) are below 1 or above 100, more than maxFraction 0.035",
    ),
    (
        "categories",
        {"allowed": ["a", "b", "c"]},
        {"allowed": ["a", "b"]},
        "kind", 1, 60, "1 of 60 values (0.0167) are none of the 2 that the rule allows, more than maxFraction 0 ('c'",
    ),
    (
        "categories",
        {"allowed": ["a"], "maxFraction": "0.05"},
        {"allowed": ["a"], "maxFraction": "0.049"},
        "kind", 3, 58, "('b' 2, 'c' 1)",
    ),
    (
        "categories",
        {"asIn": "Champion", "maxFraction": "0.017"},
        {"asIn": "Champion", "maxFraction": "0.016"},
        "kind", 1, 60, "none of the 2 that the live revision was trained on",
    ),
    ("lastRun", {"rows": {"minimum": "1"}}, {"rows": {"minimum": "1.01"}}, None, 58, None, "1.0000 times the 58"),
    ("lastRun", {"rows": {"maximum": "1"}}, {"rows": {"maximum": "0.99"}}, None, 58, None, "more than lastRun.row"),
]  # fmt: skip


@pytest.mark.parametrize("severity", ["Fail", "Warn"])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case[0]}-{case[2]}")
def test_a_rule_holds_at_its_limit_and_is_broken_beyond(case: tuple[Any, ...], severity: str) -> None:
    limit, holds, broken, column, count, row, words = case
    named = {"column": column} if limit in ("range", "categories") else {}
    right = loaded(table(), KNOWN, rules=[{"name": "r", "severity": severity, limit: holds, **named}])
    assert right.read.violations == []
    assert right.read.warnings == []
    assert right.read.not_judged == []
    wrong = [{"name": "r", "severity": severity, limit: broken, **named}]
    if severity == "Warn":
        dataset = loaded(table(), KNOWN, rules=wrong)
        read, details = dataset.read, [one.dump() for one in dataset.violations]
        assert len(dataset) == 58, "it trains all the same"
        assert (read.failed_checks, read.warned_checks, len(read.warnings)) == (0, 1, 1)
    else:
        with pytest.raises(DataFault) as caught:
            loaded(table(), KNOWN, rules=wrong)
        read, details = caught.value.read, caught.value.details
        assert words in str(caught.value)
        assert (read.failed_checks, read.warned_checks, read.warnings) == (1, 0, [])
        assert (read.rows, read.unlabelled) == (58, 2), "what there was is told of a run that is refused, too"
        assert read.window_end is None, "nothing was used: the same rows are new once they are mended"
    (told,) = read.violations
    assert words in told.problem
    assert (told.check, told.column, told.severity, told.count) == ("r", column, severity, count)
    assert (told.file, told.row) == ((FILE, row) if row else (None, None))
    (detail,) = details
    assert (detail["count"], detail["severity"], detail["check"]) == (count, severity, "r")


def test_the_key_may_repeat_so_often_and_no_more() -> None:
    old = replaced(table().slice(10, 5), "amount", [9.0] * 5)
    files = {"rows/0.parquet": parquet(old), "rows/a.parquet": parquet(table())}
    assert loaded(files, rules=[{"name": "once", "maxDuplicateFraction": "0.154"}]).read.violations == []
    with pytest.raises(DataFault) as caught:
        loaded(files, rules=[{"name": "once", "maxDuplicateFraction": "0.153"}])
    (told,) = caught.value.read.violations
    assert (told.column, told.count, told.file, told.row) == ("id", 10, "s3://lake/rows/0.parquet", 1)


def test_any_column_may_have_to_be_unique_also_one_that_is_no_feature() -> None:
    rule = {"name": "tickets", "column": "ticket", "maxDuplicateFraction": "0"}
    with pytest.raises(DataFault) as caught:
        loaded(table(), rules=[rule])
    assert "ticket: rule tickets: 3 of 60 values (0.0500) occur more than once" in str(caught.value)
    (told,) = caught.value.read.violations
    assert (told.count, told.file, told.row) == (3, FILE, 1)
    dataset = loaded(table(), rules=[{**rule, "maxDuplicateFraction": "0.05"}])
    assert {want.name for want in dataset.columns} == {"amount", "kind"}, "and it is no feature for that"
    with pytest.raises(DataFault, match="amount: rule tickets: 2 of 57 values"):
        loaded(with_value(table(), "amount", 7, 0.0), rules=[{**rule, "column": "amount"}])
    with pytest.raises(DataFault, match="other: no object of source below s3://lake/rows/ has this column"):
        loaded(table(), rules=[{**rule, "column": "other"}])


def rates(rows: int, positives: int, digest: str | None = LAST.rows_digest) -> Known:
    last = LAST.model_copy(update={"rows": rows, "positives": positives, "rows_digest": digest})
    return Known(defaults=False, last=last)


@pytest.mark.parametrize(
    ("bounds", "last", "holds"),
    [
        ({"minimum": "0.5"}, rates(300, 300), True),
        ({"minimum": "0.51"}, rates(300, 300), False),
        ({"maximum": "1"}, rates(300, 156), True),
        ({"maximum": "0.96"}, rates(300, 156), False),
    ],
)
def test_the_share_of_positives_is_held_against_the_last_run(bounds: Any, last: Known, holds: bool) -> None:
    rule = {"name": "share", "lastRun": {"positiveRate": bounds}}
    if holds:
        assert loaded(table(), last, rules=[rule]).read.violations == []
    else:
        with pytest.raises(DataFault, match=r"late: rule share: 29 of 58 rows \(0.5000\) are positive"):
            loaded(table(), last, rules=[rule])


@pytest.mark.parametrize(
    ("known", "rule", "why"),
    [
        (Known(defaults=False), {"lastRun": {"rows": {"minimum": "1"}}}, "there is no earlier run to compare with"),
        (
            rates(300, 150, "sha256:" + "0" * 64),
            {"lastRun": {"rows": {"minimum": "1"}}},
            "source, time column, key, window, label or sample changed since run late-7",
        ),
        (rates(300, 5), {"lastRun": {"positiveRate": {"minimum": "1"}}}, "fewer than the 30 that it takes"),
        (
            Known(defaults=False, last=LAST.model_copy(update={"positives": None})),
            {"lastRun": {"positiveRate": {"minimum": "1"}}},
            "run late-7 did not tell how many of its labels were 1",
        ),
        (Known(defaults=False), {"column": "kind", "categories": {"asIn": "Champion"}}, "there is no live revision"),
        (
            Known(defaults=False, categories=lambda: {"other": ["a"]}),
            {"column": "kind", "categories": {"asIn": "Champion"}},
            "the live revision knows no categories of kind",
        ),
        (Known(defaults=False), {"skew": {}}, "no request of a live revision is captured"),
        (Known(defaults=False), {"leakage": {}}, "the rarer label has 29 rows, it takes 50"),
    ],
)  # fmt: skip
def test_what_can_not_be_judged_is_told_and_holds_nothing_up(known: Known, rule: dict[str, Any], why: str) -> None:
    dataset = loaded(table(), known, rules=[{"name": "r", **rule}])
    assert dataset.read.violations == []
    (said,) = dataset.read.not_judged
    assert said.startswith("r: not judged: ")
    assert why in said


def test_all_that_is_wrong_is_told_the_gravest_first() -> None:
    declared = [
        {"name": "soft", "severity": "Warn", "minRows": 1000},
        {"name": "hard", "minRows": 500},
        {"name": "known", "column": "kind", "categories": {"allowed": ["a"]}},
    ]
    with pytest.raises(DataFault) as caught:
        loaded(table(), rules=declared)
    read = caught.value.read
    assert [one.check for one in read.violations] == ["hard", "known", "soft"]
    assert (read.failed_checks, read.warned_checks) == (2, 1)
    assert "soft" not in str(caught.value), "a warning is no reason"
    assert [one["check"] for one in caught.value.details] == ["hard", "known", "soft"]


@given(
    values=st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=1, max_size=40),
    bounds=st.tuples(st.integers(-10, 10), st.integers(-10, 10)).map(sorted),
    tolerated=st.integers(0, 20),
)
@settings(max_examples=60)
def test_a_range_counts_exactly_what_lies_outside(
    values: list[float | None], bounds: list[int], tolerated: int
) -> None:
    rows = len(values)
    found = replaced(events(rows + 2), "amount", [*values, 0.0, 0.0])
    found = replaced(found, "late", [0, 1] * (rows // 2 + 1) + [0] * (rows % 2))
    low, high = bounds
    fraction = tolerated / 20
    rule = {"name": "r", "column": "amount", "severity": "Warn",
            "range": {"minimum": str(low), "maximum": str(high), "maxFraction": f"{fraction:.2f}"}}  # fmt: skip
    present = [value for value in [*values, 0.0, 0.0] if value is not None]
    outside = sum(value < low or value > high for value in present)
    told = loaded(found, rules=[rule]).read.violations
    if outside / len(present) > fraction:
        assert [one.count for one in told] == [outside]
    else:
        assert told == []


def test_only_ripe_labels_train_whatever_the_label_source_says_of_the_others() -> None:
    """The label's source already holds a 0 for what is not ripe, and nothing for others: neither may be a negative."""
    rows = replaced(events(100, minutes=60), "late", [1] * 100)
    rows = replaced(rows, "late", [0 if number < 20 else 1 for number in range(100)])
    labels = rows.select(["id", "late"])
    preliminary = [0 if number >= 94 else late for number, late in enumerate(labels["late"].to_pylist())]
    labels = replaced(labels, "late", preliminary).filter(pa.array([not 30 <= n < 40 for n in range(100)]))
    files = {"rows/a.parquet": parquet(rows.drop_columns("late")), "labels/a.csv": csv_of(labels)}
    dataset = loaded(files, label=LABELS)
    # The newest event is hour 99: rows of hours 94 to 99 are younger than 6 hours; of hours 30 to 39 nothing is known.
    assert (dataset.read.unripe, dataset.read.unlabelled, dataset.read.rows) == (6, 10, 84)
    assert dataset.read.positives == 64
    assert (dataset.labels == 0).sum() == 20, "the declared negatives and no other row"
    assert dataset.times.max() == round((START + timedelta(hours=93) - EPOCH).total_seconds() * 1_000_000)


def test_a_label_that_is_declared_later_is_not_missing_before() -> None:
    """Rows without a label are no negatives even where all of a class are missing: then there is nothing to train."""
    rows = replaced(events(100, minutes=60), "late", [1] * 100)
    files = {"rows/a.parquet": parquet(rows.drop_columns("late")), "labels/a.csv": csv_of(rows.select(["id", "late"]))}
    with pytest.raises(DataFault, match=r"all 94 labelled rows are 1 \(0 without a label, 6 too young for one\)"):
        loaded(files, label=LABELS)


MESSAGES: Sequence[tuple[str, Mapping[str, bytes], str]] = [
    (
        "text in one of several files",
        {
            **{f"rows/{n:02}.parquet": parquet(events(20).slice(2 * n, 2)) for n in range(9)},
            "rows/12.parquet": parquet(replaced(events(20), "amount", ["x"] * 20).slice(18)),
        },
        "amount: is of type string, a Number must be numeric or boolean (double in other files), "
        "namely s3://lake/rows/12.parquet",
    ),
    (
        "infinity",
        {"rows/a.parquet": parquet(with_value(events(20), "amount", 5, float("-inf")))},
        "amount: 1 value is not finite, namely '-inf' in s3://lake/rows/a.parquet row 6",
    ),
    (
        "NaN where a value must be",
        {"rows/a.parquet": parquet(with_value(events(20), "amount", 5, float("nan")))},
        "amount: 1 row without a value (null or NaN), and the Model declares nulls: Refuse, "
        "namely s3://lake/rows/a.parquet row 6",
    ),
    (
        "an empty column",
        {"rows/a.parquet": parquet(replaced(events(20), "amount", [None] * 20))},
        "amount: no row has a value, so the model can't use it",
    ),
]


@pytest.mark.parametrize(("name", "files", "words"), MESSAGES, ids=[name for name, *_ in MESSAGES])
def test_what_is_no_number_has_a_message_of_its_own(name: str, files: dict[str, bytes], words: str) -> None:
    features = [{"name": "amount", "type": "Number", "nulls": "Refuse"}, {"name": "kind", "type": "Category"}]
    if name == "an empty column":
        warned = loaded(files, features=[{"name": "amount", "type": "Number"}, features[1]]).read.warnings
        assert words in " ".join(warned)
        return
    with pytest.raises(DataFault) as caught:
        loaded(files, features=features)
    assert words in str(caught.value)


def test_a_run_is_compared_with_runs_that_used_the_same_rows_alone() -> None:
    plain = rules.rows_digest(data_of())
    assert rules.rows_digest(data_of(rules=[{"name": "r", "minRows": 5}])) == plain
    assert rules.rows_digest(data_of(features=[{"name": "amount", "type": "Number"}])) == plain
    assert rules.rows_digest(data_of(window={"days": 3})) != plain
    assert rules.rows_digest(data_of(label=LABELS)) != plain
    assert np.unique([plain, rules.rows_digest(data_of())]).size == 1
