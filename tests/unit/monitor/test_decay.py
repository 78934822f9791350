"""Performance on a real S3 store: estimated at once, measured when labels are ripe, final once."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.monitor.test_look import LATER, MONDAY, NOW, PROFILE, WEEK, Scene, quiet
from truekeep.api.common import Source
from truekeep.api.driftpolicy import PerformancePolicy
from truekeep.api.evaluation import Slice
from truekeep.contract import hashing, layout
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import SECRETS_DIR_ENV, Labels, MonitorRequest
from truekeep.contract.results import MonitorResult
from truekeep.monitor import decay, labels, predictions
from truekeep.monitor.look import look
from truekeep.monitor.report import StoredPerformance
from truekeep.scores.metrics import Scored, value
from truekeep.scores.results import results
from truekeep.sources.columns import NO_LABEL
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket

DAY = timedelta(days=1)
POLICY = PerformancePolicy(metric="roc_auc", max_drop="0.05", min_labels=200)


def truth(random: np.random.Generator, probabilities: np.ndarray, skill: float = 1.0) -> np.ndarray:
    """Labels that the probabilities mean; with less skill some of them are drawn anew, whatever the probability."""
    honest = random.random(len(probabilities)) < probabilities
    drawn = random.random(len(probabilities)) < probabilities.mean()
    return np.where(random.random(len(probabilities)) < skill, honest, drawn).astype(np.int64)


def holdout() -> bytes:
    random = np.random.default_rng(99)
    probabilities = random.beta(1, 4, 5000)
    return canonical_json(results(Scored(truth(random, probabilities), probabilities, 0.5)).dump())


HOLDOUT = holdout()


class Place(Scene):
    """A model whose results on the holdout are known, captures with keys, and labels."""

    def __init__(self, s3: Versitygw, performance: bytes | None = HOLDOUT) -> None:
        super().__init__(s3)
        files = {"signature.json": b"{}", layout.PROFILE: PROFILE}
        files |= {layout.PERFORMANCE: performance} if performance is not None else {}
        self.digest = artifacts.write(Bucket.open(self.store), files).digest
        self.labels = s3.location("arrivals/")
        self.known: dict[int, np.ndarray] = {}

    def request(self, revision: int = 1, **changed: Any) -> MonitorRequest:
        about = {"performance": POLICY, "matures": 86400, "slices": (), "hash_key_secret": None}
        own = {name: changed.pop(name, default) for name, default in about.items()}
        where = Labels(
            source=Source(s3=self.labels), key="id", column="late", matures_after_seconds=own["matures"],
            hash_key_secret=own["hash_key_secret"],
        )  # fmt: skip
        return (
            super()
            .request(revision, **changed)
            .model_copy(update={"performance": own["performance"], "labels": where, "slices": own["slices"]})
        )

    def served(self, number: int, rows: int = 2000, skill: float = 1.0, **changed: Any) -> None:
        """A week of predictions, and what became of them, which nobody knows yet."""
        random = np.random.default_rng(1000 + number)
        probabilities = random.beta(1, 4, rows)
        self.known[number] = truth(random, probabilities, skill)
        changed = {"key": lambda _: pa.array([f"w{number}-{row}" for row in range(rows)])} | changed
        self.week(number, rows=rows, probability=lambda _: probabilities, **changed)

    def capture(self, *args: Any, **changed: Any) -> str:
        own = {f"truekeep.{name}": changed.pop(name) for name in ("key", "row", "request_id") if name in changed}
        return super().capture(*args, **changed, **own)

    def landed(self, number: int, share: float = 1.0, name: str = "", key: Any = None, **columns: Any) -> None:
        """Labels of a week."""
        known = self.known[number][: int(share * len(self.known[number]))]
        make = key or (lambda row: f"w{number}-{row}")
        table = pa.table({"id": [make(row) for row in range(len(known))], "late": known, **columns})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        Bucket.open(self.labels).put(name or f"{number}-{share}.parquet", sink.getvalue().to_pybytes())

    def stored(self, suffix: str) -> list[str]:
        return [key for key in self.everything() if key.endswith(suffix)]

    def of(self, key: str) -> StoredPerformance:
        return StoredPerformance.model_validate_json(Bucket.open(self.store).get(key))


@pytest.fixture
def place(versitygw: Versitygw) -> Place:
    return Place(versitygw)


def told(result: MonitorResult) -> dict[int, tuple[str, str]]:
    """By the number of the week: what labels say, and what the estimate says."""
    return {(one.start - MONDAY) // WEEK: (one.verdict, one.estimated) for one in result.performance}


def test_a_window_is_estimated_at_once_and_measured_when_its_labels_are_ripe(place: Place) -> None:
    place.served(0)
    place.served(1, rows=20)
    place.landed(0)  # there already, but by the label's clock they may still change
    request = place.request(matures=int(WEEK.total_seconds()))
    first = look(request, NOW, quiet)
    assert told(first) == {0: ("InsufficientData", "Holds")}
    assert first.performance[0].value is None
    assert place.stored(decay.MEASURED) == []
    place.served(2, rows=20)
    lines: list[str] = []
    second = look(request, NOW, lines.append)
    assert told(second)[0] == ("Holds", "Holds")
    found = next(one for one in second.performance if one.start == MONDAY)
    random = np.random.default_rng(1000)
    expected = value("roc_auc", Scored(place.known[0], random.beta(1, 4, 2000), 0.5))
    assert found.value == f"{expected:.4f}"
    assert (found.labelled, found.coverage) == (2000, "1.0000")
    assert float(found.low or 1) < expected < float(found.high or 0)
    assert found.known_after_seconds is not None
    assert WEEK.total_seconds() <= found.known_after_seconds < 2 * WEEK.total_seconds()
    assert any("roc_auc" in line and "Holds, on 2,000 labelled rows, 100.0% of the window" in line for line in lines)
    assert any("by estimate" in line for line in lines)
    assert len(place.stored(decay.MEASURED)) == 1
    assert MonitorResult.model_validate_json(second.to_message()).performance == second.performance


def test_decay_is_found_by_labels_and_the_estimate_is_blind_to_it(place: Place) -> None:
    place.served(0, skill=1.0)
    place.served(1, skill=0.3)
    place.served(2, rows=20)
    place.landed(0)
    place.landed(1)
    result = look(place.request(matures=0), NOW, quiet)
    assert told(result)[0] == ("Holds", "Holds")
    assert told(result)[1] == ("Decayed", "Holds")
    stored = place.of(place.stored(decay.MEASURED)[1])
    assert stored.measured is not None
    assert stored.measured.p_value < 0.002
    assert [window.verdict for window in result.windows] == ["NoDrift", "NoDrift"]  # silent: the inputs did not move


def test_the_newest_page_shows_performance(place: Place) -> None:
    for number in range(3):
        place.served(number, skill=0.3 if number == 1 else 1.0)
    place.served(3, rows=20)
    place.landed(0)
    place.landed(1)
    look(place.request(matures=0), NOW, quiet)
    newest = Bucket.open(place.store).get(place.stored(".html")[-1]).decode()
    assert "<h2>Performance: roc_auc</h2>" in newest
    assert (newest.count('<circle class="dot Holds"'), newest.count('<circle class="dot Decayed"')) == (1, 1)
    assert newest.count('<circle class="guess') == 3


def test_labels_that_are_late_are_waited_for_and_what_they_say_is_final(place: Place) -> None:
    place.served(0)
    place.served(1, rows=20)
    request = place.request(matures=0)
    assert told(look(request, NOW, quiet))[0][0] == "InsufficientData"
    place.landed(0, share=0.3)
    lines: list[str] = []
    assert told(look(request, NOW, lines.append))[0][0] == "InsufficientData"
    assert any("30 % of the rows have a label, minLabelFraction is 0.5" in line for line in lines)
    lines.clear()
    look(request, NOW, lines.append)
    assert not any("roc_auc" in line for line in lines)  # no other file: nothing is read again
    place.landed(0, share=0.9)
    third = look(request, NOW, quiet)
    assert (told(third)[0][0], third.performance[0].labelled) == ("Holds", 1800)
    before = Bucket.open(place.store).get(place.stored(decay.MEASURED)[0])
    place.known[0] = 1 - place.known[0]
    place.landed(0)
    assert look(request, NOW + timedelta(minutes=10), quiet).performance == third.performance
    assert Bucket.open(place.store).get(place.stored(decay.MEASURED)[0]) == before


def test_too_few_labels_are_no_verdict(place: Place) -> None:
    place.served(0, rows=600)
    place.served(1, rows=20)
    place.landed(0)
    strict = place.request(matures=0, performance=POLICY.model_copy(update={"min_labels": 1000}))
    assert told(look(strict, NOW, quiet))[0][0] == "InsufficientData"
    assert place.of(place.stored(decay.ESTIMATED)[0]).why_not == "600 rows have a label, minLabels is 1,000"
    # Another policy is judged anew, though no label file is new.
    assert told(look(place.request(matures=0), NOW, quiet))[0][0] == "Holds"


def test_a_repeated_request_is_one_event_and_a_corrected_label_counts(place: Place) -> None:
    keys = [f"w0-{row // 2 * 2}" for row in range(2000)]
    place.served(0, key=lambda _: pa.array(keys))
    place.served(1, rows=20)
    place.landed(0, name="0-old.parquet", key=lambda row: f"w0-{row}")
    place.known[0] = np.ones(2000, dtype=np.int64)
    place.landed(0, name="1-new.parquet", key=lambda row: f"w0-{row // 2 * 2}")
    look(place.request(matures=0), NOW, quiet)
    stored = place.of(place.stored(decay.ESTIMATED)[0])
    assert (stored.rows, stored.repeated, stored.verdict.labelled) == (1000, 1000, 1000)
    assert stored.why_not == "roc_auc is not defined on these labels"  # all are 1: the newer file holds


def test_rows_without_a_key_have_no_label(place: Place) -> None:
    place.served(0, key=lambda _: pa.nulls(2000, pa.string()))
    place.served(1, rows=20)
    place.landed(0)
    look(place.request(matures=0), NOW, quiet)
    stored = place.of(place.stored(decay.ESTIMATED)[0])
    assert (stored.rows, stored.without_key) == (2000, 2000)
    assert stored.why_not == "no request carried the key that joins labels"


def test_labels_by_request_id(place: Place) -> None:
    """The first row of a request has its id, the others ID/1, ID/2, …"""
    place.served(
        0,
        request_id=lambda _: pa.array([f"r{row // 4}" for row in range(2000)]),
        row=lambda _: pa.array([row % 4 for row in range(2000)], pa.int32()),
    )
    place.served(1, rows=20, request_id=lambda _: pa.array([f"s{row}" for row in range(20)]))
    place.landed(0, key=lambda row: f"r{row // 4}" + (f"/{row % 4}" if row % 4 else ""))
    by_id = POLICY.model_copy(update={"join": "RequestId"})
    result = look(place.request(matures=0, performance=by_id), NOW, quiet)
    assert (told(result)[0][0], result.performance[0].labelled) == ("Holds", 2000)


def test_labels_join_hashed_keys(place: Place) -> None:
    secret = b"0123456789abcdef"
    place.served(0, key=lambda _: pa.array([hashing.hashed(secret, "id", f"w0-{row}") for row in range(2000)]))
    place.served(1, rows=20)
    place.landed(0)
    folder = Path(os.environ[SECRETS_DIR_ENV]) / "capture-hash"
    request = place.request(matures=0, hash_key_secret="capture-hash")
    first = look(request, NOW, quiet)
    assert "performance is not measured: Secret capture-hash, key HASH_KEY: can't be read" in first.message
    folder.mkdir()
    (folder / hashing.HASH_KEY).write_bytes(secret)
    result = look(request, NOW, quiet)
    assert (told(result)[0][0], result.performance[0].labelled) == ("Holds", 2000)


def test_slices_are_told(place: Place) -> None:
    place.served(0, few=lambda column: np.where(np.arange(2000) % 2 == 0, "even", "odd"))
    place.served(1, rows=20)
    place.landed(0)
    by_few = Slice(name="by-few", column="few", metric="roc_auc", minimum="0.5", min_rows=100)
    lines: list[str] = []
    look(place.request(matures=0, slices=(by_few,)), NOW, lines.append)
    groups = place.of(place.stored(decay.MEASURED)[0]).groups
    assert [(one.group, one.rows) for one in groups] == [("even", 1000), ("odd", 1000)]
    assert all(one.low < one.value < one.high for one in groups)
    assert any(line.startswith("  by-few=even: roc_auc 0.") for line in lines)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,late\nw0-1,perhaps\n", "late is no label"),
        (b"id,delay\nw0-1,1\n", "has a column late"),
        (b"\x00\x01", "late"),
    ],
)
def test_label_files_that_are_not_in_order_are_told_and_end_nothing(place: Place, content: bytes, words: str) -> None:
    place.served(0)
    place.served(1, rows=20)
    Bucket.open(place.labels).put("bad.csv", content)
    result = look(place.request(matures=0), NOW, quiet)
    assert told(result)[0] == ("InsufficientData", "Holds")
    assert any(words in problem for problem in place.of(place.stored(decay.ESTIMATED)[0]).problems)


@pytest.mark.parametrize("performance", [None, b"{", b"[]"])
def test_without_results_of_the_holdout_drift_is_still_judged(versitygw: Versitygw, performance: bytes | None) -> None:
    place = Place(versitygw, performance)
    place.served(0)
    place.served(1, rows=20)
    result = look(place.request(), NOW, quiet)
    assert [window.verdict for window in result.windows] == ["NoDrift"]
    assert result.performance == ()
    assert "performance is not watched: performance.json of the revision" in result.message
    assert "train again" in result.message


def test_files_that_are_older_than_a_window_are_not_read(place: Place) -> None:
    place.served(0)
    place.landed(0)
    where = place.request().labels
    assert where is not None
    everything = labels.files(where)
    assert len(everything.since(NOW).infos) == 1
    assert len(everything.since(NOW + 3 * DAY).infos) == 0
    assert everything.since(NOW).state != everything.since(NOW + 3 * DAY).state
    none = labels.read(everything.since(NOW + 3 * DAY), where, pa.array(["w0-1", None]))
    assert none.labels.tolist() == [NO_LABEL, NO_LABEL]


def test_many_windows_with_late_labels_are_all_measured_in_time(place: Place) -> None:
    """Labels that take longer than the windows that a status holds."""
    for number in range(34):
        place.served(number, rows=300)
    request = place.request(matures=int((32 * WEEK).total_seconds()), hours=168)
    first = look(request, NOW, quiet)
    assert {one.verdict for one in first.performance} == {"InsufficientData"}
    for number in range(34):
        place.landed(number)
    second = look(request, NOW, quiet)
    assert told(second)[0][0] == "Holds"
    assert second.performance[0].start == MONDAY  # by turns: what labels say is not lost behind what waits for them
    assert len(second.performance) == 1 + decay.KEPT
    everything = look(request, LATER, quiet)
    assert len(place.stored(decay.MEASURED)) == 34
    assert [one.verdict for one in everything.performance] == ["Holds"] * decay.KEPT


def test_of_very_many_rows_a_part_is_drawn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MOST_ROWS", 500)
    place.served(0)
    place.served(1, rows=20)
    place.landed(0)
    result = look(place.request(matures=0), NOW, quiet)
    assert told(result)[0][0] == "Holds"
    assert 400 < result.performance[0].labelled < 600


def test_a_policy_without_performance_reads_no_label(place: Place) -> None:
    place.served(0)
    place.served(1, rows=20)
    nowhere = place.labels.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    gone = place.request(performance=None).model_copy(
        update={"labels": Labels(source=Source(s3=nowhere), key="id", column="late")}
    )
    assert look(gone, NOW, quiet).performance == ()
