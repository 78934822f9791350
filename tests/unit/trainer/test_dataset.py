"""From declared sources to training rows, and every way in which the data can be refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.trainer.lake import START, Lake, csv_of, data_of, events, parquet, replaced, with_value
from truekeep.api.data import Data
from truekeep.contract.canonical import digest_of
from truekeep.sources.columns import Want
from truekeep.trainer.data.dataset import DataFault, Dataset, load
from truekeep.trainer.faults import DataInvalid
from truekeep.trainer.text import EPOCH

AMOUNT, KIND = Want("amount", "Number"), Want("kind", "Category")
LABELS = {"source": {"s3": {"uri": "s3://lake/labels/"}}, "column": "late"}


def micros(moment: datetime) -> int:
    return round((moment - EPOCH).total_seconds() * 1_000_000)


def loaded(
    files: dict[str, bytes] | pa.Table, data: Data | None = None, also: tuple[Want, ...] = (), now: datetime = START
) -> Dataset:
    lake = Lake(files if isinstance(files, dict) else {"rows/a.parquet": parquet(files)})
    return load(data or data_of(), also, lake.open, micros(now), lambda _: None)


def refused(files: dict[str, bytes] | pa.Table, data: Data | None = None, now: datetime = START) -> DataFault:
    with pytest.raises(DataFault) as caught:
        loaded(files, data, now=now)
    assert len(str(caught.value)) <= 2048
    return caught.value


def test_rows_come_in_the_order_of_their_events() -> None:
    table = events(50)
    mixed = table.take(np.random.default_rng(0).permutation(50))
    dataset = loaded({"rows/a.csv": csv_of(mixed.slice(0, 20)), "rows/b.parquet": parquet(mixed.slice(20))})
    np.testing.assert_allclose(dataset.columns[AMOUNT], table["amount"].to_numpy(), rtol=1e-12)
    assert dataset.columns[KIND].to_pylist() == table["kind"].to_pylist()
    assert dataset.labels.tolist() == table["late"].to_pylist()
    assert (np.diff(dataset.times) > 0).all()
    read = dataset.read
    assert (read.objects, read.rows, read.unlabelled, read.unripe) == (2, 50, 0, 0)
    assert (read.window_start, read.window_end) == (START, START + timedelta(minutes=490))
    assert read.digest == digest_of(sorted([pin.uri, pin.size, pin.sha256] for pin in dataset.pins))
    assert read.replayable == "False"


def test_the_window_goes_back_from_the_newest_event() -> None:
    table = events(400, minutes=60)
    parts = {f"rows/{n}.parquet": parquet(table.slice(100 * n, 100), row_group_size=30) for n in range(4)}
    dataset = loaded(parts, data_of(window={"days": 2}))
    assert len(dataset) == 48
    assert dataset.read.window_start == START + timedelta(hours=352)
    shuffled = {f"rows/{9 - n}.parquet": data for n, data in enumerate(parts.values())}  # oldest name, newest rows
    assert loaded(shuffled, data_of(window={"days": 2})).times.tolist() == dataset.times.tolist()


def test_unlabelled_and_unripe_rows_are_counted_and_left_out() -> None:
    table = events(100, minutes=60)
    labels = table.select(["id", "late"]).filter(pa.array([n % 10 != 0 for n in range(100)]))
    data = data_of(label={**LABELS, "maturesAfterSeconds": 6 * 3600})
    dataset = loaded({"rows/a.parquet": parquet(table), "labels/a.csv": csv_of(labels)}, data)
    # The newest event is hour 99: rows of hours 94 to 99 are younger than 6 hours.
    assert dataset.read.unripe == 6
    assert dataset.read.unlabelled == 10
    assert len(dataset) == 84
    assert dataset.read.window_end == START + timedelta(hours=93)
    expected = [late for n, late in enumerate(table["late"].to_pylist()) if n % 10 and n < 94]
    assert dataset.labels.tolist() == expected, "and none of them became a negative"


def test_a_null_label_is_none() -> None:
    assert loaded(with_value(events(50), "late", 7, None)).read.unlabelled == 1


def test_the_last_label_of_a_key_counts() -> None:
    table = events(50)
    wrong = replaced(table, "late", [1 - late for late in table["late"].to_pylist()])
    labels = {
        "labels/1.csv": csv_of(wrong.select(["id", "late"])),
        "labels/2.csv": csv_of(table.select(["id", "late"])),
    }
    dataset = loaded({"rows/a.parquet": parquet(table.drop_columns("late")), **labels}, data_of(label=LABELS))
    assert dataset.labels.tolist() == table["late"].to_pylist()


def test_the_last_row_of_a_key_counts() -> None:
    table = events(50)
    old = replaced(table.slice(10, 5), "amount", [9.0] * 5)
    dataset = loaded({"rows/1.parquet": parquet(old), "rows/2.parquet": parquet(table)})
    assert len(dataset) == 50
    assert 9.0 not in dataset.columns[AMOUNT]
    assert dataset.superseded == 5
    fault = refused(
        {"rows/1.parquet": parquet(old), "rows/2.parquet": parquet(table)},
        data_of(rules=[{"name": "once", "maxDuplicateFraction": "0.18"}]),
    )
    assert "rule once: 10 of 55 rows (0.1818) share their key, more than maxDuplicateFraction 0.18" in str(fault)


def weather(rows: list[tuple[int, str, float]]) -> bytes:
    """Minutes after START at which it was known, the kind that it is of, and the value."""
    return parquet(
        pa.table(
            {
                "known_at": [START + timedelta(minutes=minutes) for minutes, _, _ in rows],
                "kind": [kind for _, kind, _ in rows],
                "temp": [value for _, _, value in rows],
            }
        )
    )


JOIN = {"name": "weather", "source": {"s3": {"uri": "s3://lake/weather/"}}, "timeColumn": "known_at", "by": ["kind"]}
JOINED = {
    "joins": [JOIN],
    "features": [
        {"name": "amount", "type": "Number"},
        {"name": "kind", "type": "Category"},
        {"name": "temp", "type": "Number"},
    ],
}


def test_a_join_takes_what_was_known_then_and_nothing_of_the_future() -> None:
    table = replaced(events(6), "kind", ["a", "b", "a", "a", "b", "a"])  # at minutes 0, 10, … 50
    table = replaced(table, "late", [0, 1, 0, 1, 0, 1])
    known = weather(
        [
            (-5, "a", 1.0),
            (20, "a", 2.0),  # known at the very moment of row 2
            (31, "a", 99.0),  # the trap: a minute after row 3, and the only one that is "nearest" to it
            (11, "b", 88.0),  # the trap: b was not known at row 1
            (45, "a", 3.0),
            (60, "a", 77.0),  # the trap: after everything
        ]
    )
    dataset = loaded({"rows/a.parquet": parquet(table), "weather/a.parquet": known}, data_of(**JOINED))
    np.testing.assert_array_equal(dataset.columns[Want("temp", "Number")], [1.0, np.nan, 2.0, 2.0, 88.0, 3.0])


def test_what_is_older_than_allowed_does_not_join() -> None:
    table = replaced(events(4), "kind", ["a"] * 4)
    table = replaced(table, "late", [0, 1, 0, 1])
    data = data_of(**{**JOINED, "joins": [{**JOIN, "maxAgeSeconds": 600}]})
    dataset = loaded({"rows/a.parquet": parquet(table), "weather/a.parquet": weather([(0, "a", 1.0)])}, data)
    np.testing.assert_array_equal(dataset.columns[Want("temp", "Number")], [1.0, 1.0, np.nan, np.nan])


def test_the_main_source_wins_over_a_join_of_the_same_column() -> None:
    table = events(4).append_column("temp", pa.array([5.0] * 4))
    files = {"rows/a.parquet": parquet(table), "weather/a.parquet": weather([(-9, kind, 1.0) for kind in "abc"])}
    assert loaded(files, data_of(**JOINED)).columns[Want("temp", "Number")].tolist() == [5.0] * 4


def test_further_columns_are_read_where_they_are() -> None:
    table = events(20).append_column("extra", pa.array(range(20)))
    also = (Want("extra", "Number"), Want("extra", "Category"), Want("gone", "Number"), AMOUNT)
    dataset = loaded(table, also=also)
    assert dataset.columns[also[0]].tolist() == list(range(20))
    assert dataset.columns[also[1]].to_pylist()[:2] == ["0", "1"]
    assert set(dataset.columns) == {AMOUNT, KIND, also[0], also[1]}


def test_a_column_that_only_the_champion_needs_is_no_reason_to_refuse() -> None:
    table = events(20).append_column("extra", pa.array(["x"] * 20))
    also = (Want("extra", "Number"), Want("kind", "Number"), Want("gone", "Number"))
    dataset = loaded(table, also=also)
    assert len(dataset) == 20
    assert set(dataset.columns) == {AMOUNT, KIND}
    parts = {"rows/1.csv": csv_of(table.slice(0, 10)), "rows/2.csv": csv_of(events(20).slice(10))}
    assert set(loaded(parts, also=(Want("extra", "Category"),)).columns) == {AMOUNT, KIND}


def test_a_declared_column_is_not_excused_because_the_champion_needs_it_too() -> None:
    parts = {"rows/1.parquet": parquet(events(20)), "rows/2.parquet": parquet(events(20).drop_columns("kind"))}
    lake = Lake(parts)
    with pytest.raises(DataFault, match="kind: is missing, but other files have it"):
        load(data_of(), (Want("kind", "Number"),), lake.open, 0, lambda _: None)


@pytest.mark.parametrize(
    ("name", "change", "declared", "expected"),
    [
        (
            "above the maximum",
            {"amount": {3: 7.5, 30: 9.0}},
            {"maximum": "7"},
            "amount: 2 values above the maximum 7, first 7.5 in s3://lake/rows/a.parquet row 4; "
            "correct them, or change the feature's maximum.",
        ),
        (
            "below the minimum",
            {"amount": {5: -7.5}},
            {"minimum": "-7"},
            "amount: 1 value below the minimum -7, namely -7.5 in s3://lake/rows/a.parquet row 6; "
            "correct them, or change the feature's minimum.",
        ),
        (
            "no value",
            {"amount": {0: None, 9: None}},
            {"nulls": "Refuse"},
            "amount: 2 rows without a value (null or NaN), and the Model declares nulls: Refuse, "
            "first None in s3://lake/rows/a.parquet row 1; fill them, or declare nulls: Allow.",
        ),
        (
            "infinite",
            {"amount": {8: float("inf")}},
            {},
            "amount: 1 value is not finite, namely 'inf' in s3://lake/rows/a.parquet row 9; "
            "leave it empty where it is unknown.",
        ),
        (
            "no key",
            {"id": {4: None}},
            {},
            "id: 1 row without a value, namely s3://lake/rows/a.parquet row 5; "
            "every row needs one; correct or remove these rows.",
        ),
        (
            "no time",
            {"at": {4: None}},
            {},
            "at: 1 row without a value, namely s3://lake/rows/a.parquet row 5; "
            "every row needs one; correct or remove these rows.",
        ),
        (
            "odd label",
            {"late": {6: 2}},
            {},
            "late: 1 value is no label, namely '2' in s3://lake/rows/a.parquet row 7; "
            "write 0 or 1, true or false, and nothing where the label is not known yet.",
        ),
    ],
)
def test_a_bad_value_is_named(
    name: str, change: dict[str, dict[int, Any]], declared: dict[str, Any], expected: str
) -> None:
    table = events(60)
    for column, places in change.items():
        for row, value in places.items():
            table = with_value(table, column, row, value)
    data = data_of(features=[{"name": "amount", "type": "Number", **declared}, {"name": "kind", "type": "Category"}])
    assert str(refused(table, data)).replace("first None in ", "first ") == expected.replace("first None in ", "first ")


def test_all_violations_are_counted_not_just_the_first() -> None:
    table = with_value(events(60), "amount", 3, 9.0)
    table = with_value(with_value(table, "kind", 5, None), "kind", 6, None)
    data = data_of(
        features=[
            {"name": "amount", "type": "Number", "maximum": "7"},
            {"name": "kind", "type": "Category", "nulls": "Refuse", "maxCategories": 2},
            {"name": "absent", "type": "Number"},
        ],
        rules=[{"name": "enough", "minRows": 1000}],
    )
    fault = refused(table, data)
    text = str(fault)
    assert text.startswith("5 checks of the data failed: (1) ")
    for words in (
        "absent: no source has this column; write the column, or correct the feature's name "
        "(source has id, at, amount, kind, late)",
        "amount: 1 value above the maximum 7",
        "kind: 2 rows without a value",
        "kind: 3 distinct values, more than maxCategories 2",
        "rule enough: 60 labelled rows, fewer than minRows 1,000",
    ):
        assert words in text
    assert [detail["check"] for detail in fault.details] == ["schema", "range", "null", "categories", "enough"]
    assert fault.details[1]["places"] == [{"file": "s3://lake/rows/a.parquet", "row": 4, "value": "9"}]
    assert fault.read.objects == 1
    assert fault.pins[0].uri == "s3://lake/rows/a.parquet"


def test_a_long_list_of_violations_fits_a_message() -> None:
    names = [f"feature_{number:03d}" for number in range(100)]
    fault = refused(events(60), data_of(features=[{"name": name, "type": "Number"} for name in names]))
    assert "more, all in the run's record." in str(fault)
    assert len(fault.details) == 100


def test_what_lies_outside_of_the_window_or_is_superseded_does_not_matter() -> None:
    table = events(300, minutes=60)
    broken = {
        "rows/1.csv": b"at,id,amount,kind,late\n2023-01-01T00:00:00Z,old,oops,a,maybe\n",
        "rows/2.parquet": parquet(with_value(table, "amount", 0, float("inf"))),
        "rows/3.csv": b"at,id,amount,kind,late\n2024-01-13T10:00:00Z,fixed,oops,a,0\n",
        "rows/4.csv": b"at,id,amount,kind,late\n2024-01-13T10:00:00Z,fixed,1,a,0\n",
    }
    dataset = loaded(broken, data_of(window={"days": 5}))
    assert len(dataset) == 121
    assert "oops" in str(refused(broken))


def test_a_file_of_a_wrong_type_is_named() -> None:
    table = events(30)
    texts = replaced(table, "amount", ["1"] * 30)
    fault = refused({"rows/1.parquet": parquet(table.slice(0, 10)), "rows/2.parquet": parquet(texts.slice(10))})
    assert str(fault) == (
        "amount: is of type string, a Number must be numeric or boolean (double in other files), "
        "namely s3://lake/rows/2.parquet; write it as double there, too."
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {},
            "no Parquet or CSV object lies below s3://lake/rows/ (source); write files that end in .parquet, .csv, "
            ".csv.gz, .csv.zst",
        ),
        ({"rows/a.csv": b"at,id,amount,kind,late\n"}, "there is no row below s3://lake/rows/; write some first"),
        ({"rows/a.parquet": b"PAR1"}, "is no readable Parquet file"),
        (
            {"rows/a.csv": b"when,id,amount,kind,late\n2024-01-01,k,1,a,0\n"},
            "at: no object of source below s3://lake/rows/ has this column; write it, or correct the name in the "
            "Model; there are when, id, amount, kind, late",
        ),
        ({"rows/a.csv": b"at,id,amount,kind,late\nnever,k,1,a,0\n"}, "at: 1 value is no time, namely 'never' in"),
    ],
)
def test_nothing_that_can_be_used(files: dict[str, bytes], words: str) -> None:
    fault = refused(files)
    assert words in str(fault)
    assert fault.read.objects == len(files)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({}, "no Parquet or CSV object lies below s3://lake/labels/ (label)"),
        ({"labels/a.csv": b"id,outcome\nk1,0\n"}, "late: no object of label below s3://lake/labels/ has this column"),
        (
            {"labels/a.csv": b"id,late\nzz,0\n"},
            "late: there is no labelled row (60 without a label, 0 too young for one)",
        ),
        ({"labels/a.parquet": b"x"}, "is no readable Parquet file"),
    ],
)
def test_labels_that_cannot_be_used(labels: dict[str, bytes], words: str) -> None:
    table = events(60).drop_columns("late")
    assert words in str(refused({"rows/a.parquet": parquet(table), **labels}, data_of(label=LABELS)))


def test_labels_of_one_class_are_refused() -> None:
    table = replaced(events(60), "late", [0] * 60)
    assert "late: all 60 labelled rows are 0" in str(refused(table))


def test_a_join_that_cannot_be_used() -> None:
    table = {"rows/a.parquet": parquet(events(20))}
    fault = refused({**table, "weather/a.csv": b"known_at,temp\n2024-01-01,1\n"}, data_of(**JOINED))
    assert "kind: no object of join weather below s3://lake/weather/ has this column" in str(fault)
    fault = refused({**table, "weather/a.csv": b"known_at,kind,temp\nnever,a,1\n"}, data_of(**JOINED))
    assert "known_at: 1 value is no time, namely 'never' in s3://lake/weather/a.csv row 1" in str(fault)


def test_a_bad_value_of_a_join_is_named_where_it_lies() -> None:
    features = [*JOINED["features"][:2], {"name": "temp", "type": "Number", "maximum": "50"}]  # type: ignore[index]
    data = data_of(joins=[JOIN], features=features)
    known = weather([(-9, "a", 1.0), (-8, "b", 60.0), (-7, "c", 1.0)])
    fault = refused({"rows/a.parquet": parquet(events(20)), "weather/w.parquet": known}, data)
    used = events(20)["kind"].to_pylist().count("b")
    assert f"temp: {used} values above the maximum 50, first 60 in s3://lake/weather/w.parquet row 2" in str(fault)


@pytest.mark.parametrize(
    ("rule", "holds", "words"),
    [
        ({"minRows": 60}, True, ""),
        ({"minRows": 61}, False, "60 labelled rows, fewer than minRows 61"),
        ({"maxNullFraction": "0.05"}, True, ""),
        ({"maxNullFraction": "0.04"}, False, "amount: rule r: 3 of 60 rows (0.0500) without a value, more than"),
        ({"maxNullFraction": "0.04", "column": "kind"}, True, ""),
        ({"maxNullFraction": "0.01", "column": "late"}, False, "late: rule r: 2 of 60 rows"),
        ({"maxAgeSeconds": 3600}, True, ""),
        ({"maxAgeSeconds": 3599}, False, "the newest event is of 2024-01-01T09:50:00Z, 3,600 s ago, more than"),
        ({"maxDuplicateFraction": "0"}, True, ""),
    ],
)
def test_rules(rule: dict[str, Any], holds: bool, words: str) -> None:
    table = events(60)
    for row in (1, 2, 3):
        table = with_value(table, "amount", row, None)
    table = with_value(with_value(table, "late", 8, None), "late", 9, None)
    labelled = {"minRows": rule["minRows"] - 2} if "minRows" in rule else rule
    words = words.replace("60 labelled", "58 labelled").replace("minRows 61", "minRows 59")
    now = START + timedelta(minutes=590, hours=1)
    hard = data_of(rules=[{"name": "r", **labelled}])
    soft = data_of(rules=[{"name": "r", **labelled, "severity": "Warn"}])
    warnings = loaded(table, soft, now=now).read.warnings
    if holds:
        assert len(loaded(table, hard, now=now)) == 58
        assert warnings == []
    else:
        assert words in str(refused(table, hard, now=now))
        assert len(warnings) == 1
        assert words in warnings[0]


def test_text_that_is_no_category_is_refused() -> None:
    table = replaced(events(60), "kind", [f"text {number} " + "x" * 300 for number in range(60)])
    assert "60 values longer than 256 characters" in str(refused(table))


def test_categories_are_bounded_by_default() -> None:
    table = replaced(events(300), "kind", [f"kind {number}" for number in range(300)])
    assert "kind: 300 distinct values, more than maxCategories 250" in str(refused(table))


def test_the_message_of_a_single_fault_is_a_sentence() -> None:
    with pytest.raises(DataInvalid, match=r"^there is no row below"):
        loaded({"rows/a.csv": b"at,id,amount,kind,late\n"})
