"""One look on a real S3 store: which windows are judged, what is stored, what is handed over."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.monitor import made
from truekeep.api.driftpolicy import DataDrift, MonitorWindow
from truekeep.contract import layout
from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import REQUEST_ENV, TERMINATION_LOG_ENV, MonitorRequest
from truekeep.contract.results import MonitorResult
from truekeep.monitor import captures
from truekeep.monitor.look import ProfileMissingError, look
from truekeep.monitor.windows import milliseconds
from truekeep.profiling.build import profile
from truekeep.profiling.schema import PREDICTION
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket

MONDAY = datetime(2013, 3, 4, tzinfo=UTC)
WEEK = timedelta(days=7)
PROFILE = canonical_json(made.reference(20_000).dump())
# Parquet objects of the test are uploaded now; a clock that is far ahead of that is "nothing comes any more".
NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=400)


class Scene:
    """A model with a profile, and captures of it."""

    def __init__(self, s3: Versitygw, profile: bytes | None = PROFILE) -> None:
        self.store, self.lake = s3.location("models/"), s3.location("captures/")
        files = {"signature.json": b"{}"} | ({layout.PROFILE: profile} if profile is not None else {})
        self.digest = artifacts.write(Bucket.open(self.store), files).digest
        self.sequence = 0

    def request(self, revision: int = 1, **changed: Any) -> MonitorRequest:
        window = MonitorWindow(**({"hours": 168, "min_rows": 500, "idle_seconds": 3600} | changed))
        return MonitorRequest(
            namespace="ns", model="flight-delay", policy="watch", policy_uid="uid-1", revision=revision,
            artifact_digest=self.digest, store=self.store, capture=self.lake, window=window,
            drift=DataDrift(minimum_effect="0.05"),
        )  # fmt: skip

    def capture(
        self, start: datetime, end: datetime, rows: int = 800, revision: int = 1, seed: int = 0, **changed: Any
    ) -> str:
        """Rows between start and end, in one file; a column can be changed by a function, or left out by None."""
        rng = np.random.default_rng(seed)
        columns = made.draw(rng, rows)
        times = np.sort(rng.integers(milliseconds(start), milliseconds(end), rows))
        table: dict[str, Any] = {
            "truekeep.request_id": pa.array([f"r{i}" for i in range(rows)]),
            "truekeep.received_at": pa.array(np.full(rows, milliseconds(NOW) * 1000)).cast(pa.timestamp("us", "UTC")),
            "truekeep.event_time": pa.array(times * 1000).cast(pa.timestamp("us", "UTC")),
            "truekeep.probability": columns.pop(PREDICTION),
        } | columns
        own = ("event_time", "received_at", "probability")
        metadata = changed.pop("metadata", None)
        for name, change in changed.items():
            column = f"truekeep.{name}" if name in own else name
            if change is None:
                del table[column]
            else:
                table[column] = change(table.get(column))
        if captures.EVENT_TIME in table:
            times = captures.event_times(table)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(table, metadata=metadata), sink, row_group_size=300)
        return self.put(sink.getvalue().to_pybytes(), int(times.min()), int(times.max()), revision)

    def put(self, data: bytes, first: int, last: int, revision: int = 1) -> str:
        self.sequence += 1
        name = layout.CaptureName(first, last, "pod-a", self.sequence)
        key = layout.captures("ns", "flight-delay") + layout.capture_file(revision, NOW, name)
        Bucket.open(self.lake).put(key, data)
        return key

    def week(self, number: int, rows: int = 800, **changed: Any) -> str:
        start = MONDAY + number * WEEK
        return self.capture(start, start + WEEK, rows, seed=number, **changed)

    def everything(self) -> list[str]:
        return [info.key for info in Bucket.open(self.store).list("ns/")]

    def reports(self) -> list[str]:
        return [key for key in self.everything() if re.search(r"T\d\d\.json$", key)]


@pytest.fixture
def scene(versitygw: Versitygw) -> Scene:
    return Scene(versitygw)


def quiet(_: str) -> None:
    pass


def starts(result: MonitorResult) -> list[int]:
    """Weeks since the first Monday, the newest first."""
    return [(window.start - MONDAY) // WEEK for window in result.windows]


def test_closed_windows_are_judged_in_order_and_the_open_one_is_not(scene: Scene) -> None:
    for number in range(3):
        scene.week(number)
    lines: list[str] = []
    result = look(scene.request(), NOW, lines.append)
    assert result.reason == "Looked"
    assert starts(result) == [1, 0]
    assert [window.verdict for window in result.windows] == ["NoDrift", "NoDrift"]
    assert [window.rows for window in result.windows] == [800, 800]
    assert result.newest_event is not None
    assert result.newest_event < MONDAY + 3 * WEEK
    assert scene.reports() == [
        f"ns/flight-delay/monitor/uid-1/r1/{start}T00.json" for start in ("2013-03-04", "2013-03-11")
    ]
    assert result.windows[0].report == f"{scene.store.uri}{scene.reports()[1]}"
    assert any(line.startswith("2013-03-04 00:00 to 2013-03-11 00:00: NoDrift, 800 rows in 1 files") for line in lines)


def test_hashed_columns_are_not_compared_and_that_is_said(scene: Scene) -> None:
    """A hash has no distribution to compare: neither a number's (it is text now) nor a category's (all are unknown)."""

    def text(values: Any) -> Any:
        return pa.array([f"{value:0>32}" for value in values])

    for number in range(2):
        scene.week(number, hour=text, few=text, flat=None)
    asked = scene.request().model_copy(update={"hashed": ("few", "flight_id", "hour"), "dropped": ("flat",)})
    result = look(asked, NOW, quiet)
    assert [window.verdict for window in result.windows] == ["NoDrift"]
    assert "not compared, because only hashes are captured: few, hour" in result.message
    assert "not compared, because they are not captured: flat" in result.message
    stored = json.loads(Bucket.open(scene.store).get(scene.reports()[0]))["report"]
    assert set(stored["leftOut"]) == {"few", "flat", "hour"}
    assert not {"few", "flat", "hour"} & {column["name"] for column in stored["columns"]}


def test_a_file_says_itself_which_columns_are_hashes(scene: Scene) -> None:
    """Captured before the Model stopped hashing: the rows lack the column, and their hashes are no categories."""

    def text(values: Any) -> Any:
        return pa.array([f"{value:0>32}" for value in values])

    for number in range(2):
        scene.week(number, few=text, metadata={layout.HASHED_COLUMNS: "few"})
    (window,) = look(scene.request(), NOW, quiet).windows
    assert window.verdict == "DataQuality"
    findings = json.loads(Bucket.open(scene.store).get(scene.reports()[0]))["report"]["findings"]
    assert [(finding["column"], finding["statistic"]) for finding in findings] == [("few", "MissingColumn")]


def test_each_window_has_a_page_that_shows_those_before_it(scene: Scene) -> None:
    for number in range(4):
        scene.week(number, **({"normal": lambda x: x + 1} if number == 2 else {}))
    look(scene.request(), NOW, quiet)
    pages = [key for key in scene.everything() if key.endswith(".html")]
    assert [key.replace(".html", ".json") for key in pages] == scene.reports()
    first, _, third = (Bucket.open(scene.store).get(key).decode() for key in pages)
    assert "windows</h2>" not in first
    assert "The last 3 windows</h2>" in third
    assert third.count('<rect class="bNoDrift"') == 2
    assert third.count('<rect class="bDrift"') == 1
    assert "ns/flight-delay, revision 1, policy watch: 2013-03-18 00:00 to 2013-03-25 00:00 UTC" in third


def test_a_second_look_judges_nothing_again_and_repeats_the_windows(scene: Scene) -> None:
    for number in range(3):
        scene.week(number)
    first = look(scene.request(), NOW, quiet)
    before = [Bucket.open(scene.store).get(key) for key in scene.reports()]
    second = look(scene.request(), NOW + timedelta(seconds=5), quiet)
    assert (second.windows, second.findings) == (first.windows, first.findings)
    assert "0 windows judged now" in second.message
    assert [Bucket.open(scene.store).get(key) for key in scene.reports()] == before


def test_rows_count_by_event_time_whatever_their_file(scene: Scene) -> None:
    half = MONDAY + WEEK / 2
    scene.capture(half, half + 3 * WEEK, rows=6000)  # one file over four weeks
    scene.capture(MONDAY, MONDAY + 4 * WEEK, rows=1000, event_time=lambda column: pa.nulls(len(column), column.type))
    result = look(scene.request(), NOW, quiet)
    assert starts(result) == [3, 2, 1, 0]  # the rows without event time are of today, which closes all
    assert sum(window.rows for window in result.windows) == 6000
    assert [round(window.rows / 1000) for window in result.windows] == [1, 2, 2, 1]


def test_a_policy_with_another_length_of_window_goes_on_where_the_old_one_ended(scene: Scene) -> None:
    for number in range(2):
        scene.week(number)
    look(scene.request(), NOW, quiet)
    daily = look(scene.request(hours=24, min_rows=50), NOW, quiet)
    assert [window.start for window in daily.windows] == [
        *(MONDAY + WEEK + timedelta(days=day) for day in reversed(range(6))),
        MONDAY,
    ]


def test_memory_does_not_grow_with_rows(scene: Scene, tmp_path: Path) -> None:
    key = scene.week(0, rows=25_000)
    data, name = Bucket.open(scene.lake).get(key), layout.parse_capture_file(key)
    assert name is not None
    for _ in range(39):
        scene.put(data, name.first, name.last)
    scene.week(1)
    peak = "[line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1]"
    code = f"from truekeep.monitor.__main__ import main; main(); print({peak})"
    output = run(scene, tmp_path, program=["-c", code])[2]
    assert "NoDrift, 1,000,000 rows in 40 files" in output
    assert int(output.splitlines()[-1]) < 300 * 1024


def test_idleness_closes_the_last_window(scene: Scene) -> None:
    scene.week(0)
    assert starts(look(scene.request(), NOW, quiet)) == []
    result = look(scene.request(), LATER, quiet)
    assert starts(result) == [0]
    stored = json.loads(Bucket.open(scene.store).get(scene.reports()[0]))
    assert stored["closedBy"] == "Idle"


def test_other_revisions_move_the_clock_and_are_not_judged(scene: Scene) -> None:
    scene.week(0)
    scene.week(1, revision=2)
    result = look(scene.request(), NOW, quiet)
    assert [(window.start, window.rows) for window in result.windows] == [(MONDAY, 800)]
    assert starts(look(scene.request(revision=2), NOW, quiet)) == []


def test_too_few_rows(scene: Scene) -> None:
    scene.week(0, rows=100)
    scene.week(1)
    result = look(scene.request(), NOW, quiet)
    assert [(window.verdict, window.rows) for window in result.windows] == [("InsufficientData", 100)]
    assert result.findings == ()


def test_a_drifted_window_hands_over_its_findings(scene: Scene) -> None:
    scene.week(0)
    scene.week(1, normal=lambda x: x + 1, few=lambda x: np.where(np.arange(len(x)) % 4 == 0, "strange", x))
    scene.week(2)
    lines: list[str] = []
    result = look(scene.request(), NOW, lines.append)
    assert [window.verdict for window in result.windows] == ["Drift", "NoDrift"]
    assert result.windows[0].kinds == ["DataDrift"]
    assert result.windows[0].columns == 2
    assert result.findings[0].message.startswith("`normal`: median ")
    assert any("breach DataDrift" in line and "`normal`" in line for line in lines)
    stored = json.loads(Bucket.open(scene.store).get(scene.reports()[1]))
    assert stored["schema"] == "truekeep.dev/window-report/v1"
    assert {column["name"] for column in stored["report"]["columns"]} == {
        *made.NUMBERS,
        *made.CATEGORY_COUNTS,
        PREDICTION,
    }
    assert len(result.to_message().encode()) <= 4096


def test_broken_data_is_no_drift(scene: Scene) -> None:
    scene.week(0, normal=lambda x: pa.nulls(len(x), pa.float64()))
    scene.week(1, few=None)
    scene.week(2)
    result = look(scene.request(), NOW, quiet)
    assert [window.verdict for window in result.windows] == ["DataQuality", "DataQuality"]
    assert [window.kinds for window in result.windows] == [["DataQuality"], ["DataQuality"]]
    assert result.findings[0].statistic == "MissingColumn"


def test_categories_that_are_codes_and_names_with_dots(versitygw: Versitygw) -> None:
    features = [
        SignatureFeature(name="a", type="Number"),
        SignatureFeature(name="a.b", type="Category"),
        SignatureFeature(name="code", type="Category"),
    ]
    rng = np.random.default_rng(0)

    def draw(rows: int) -> dict[str, Any]:
        values = {"a": rng.random(rows), "a.b": rng.choice(["x", "y"], rows), "code": rng.integers(1, 4, rows)}
        return values | {PREDICTION: rng.beta(1, 4, rows)}

    columns = draw(3000)
    scene = Scene(versitygw, canonical_json(profile(columns, features, columns[PREDICTION])))
    for number in range(2):
        drawn = draw(800)
        changed: dict[str, Any] = {name: (lambda _, values=drawn[name]: values) for name in ("a", "a.b", "code")}
        changed |= dict.fromkeys((*made.NUMBERS, *made.CATEGORY_COUNTS))
        scene.week(number, **changed)
    result = look(scene.request(), NOW, quiet)
    assert [(window.verdict, window.rows) for window in result.windows] == [("NoDrift", 800)]
    stored = json.loads(Bucket.open(scene.store).get(scene.reports()[0]))["report"]
    assert [(column["name"], column["window"]["values"]) for column in stored["columns"]] == [
        ("a", 800), ("a.b", 800), ("code", 800), (PREDICTION, 800),
    ]  # fmt: skip


def test_files_that_can_not_be_read_are_counted_and_skipped(scene: Scene) -> None:
    good = scene.week(0)
    data = Bucket.open(scene.lake).get(good)
    first, last = milliseconds(MONDAY), milliseconds(MONDAY + WEEK) - 1
    torn = scene.put(data[: len(data) // 2], first, last)
    empty = scene.put(b"", first, last)
    rotten = scene.put(data[:2000] + bytes(len(data) - 2000 - 1000) + data[-1000:], first, last)
    timeless = scene.week(0, event_time=None, received_at=None)
    scene.week(1)
    folder = layout.captures("ns", "flight-delay", 1)
    Bucket.open(scene.lake).put(f"{folder}date=2013-03-04/9_5_pod_1.parquet", data)
    Bucket.open(scene.lake).put(f"{folder}date=2013-03-04/hello.parquet", data)
    result = look(scene.request(), NOW, quiet)
    assert [(window.verdict, window.rows) for window in result.windows] == [("NoDrift", 800)]
    stored = json.loads(Bucket.open(scene.store).get(scene.reports()[0]))
    assert stored["skippedFiles"] == 4
    assert [reason.split(": ")[0] for reason in stored["skipped"]] == sorted([torn, empty, rotten, timeless])
    assert "4 capture files could not be read" in result.message
    assert "2 capture files have names without times" in result.message


def test_a_file_that_is_gone_by_the_time_it_is_read_is_skipped(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = scene.week(0)
    scene.week(0, rows=700)
    scene.week(1)
    original = Bucket.get
    monkeypatch.setattr(Bucket, "get", lambda self, key, *a: original(self, key + ".gone" if key == gone else key, *a))
    assert [window.rows for window in look(scene.request(), NOW, quiet).windows] == [700]


def test_large_files_are_read_in_ranges(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.week(0)
    scene.week(1)
    whole = look(scene.request(), NOW, quiet)
    for key in scene.reports():
        Bucket.open(scene.store)._client.delete_object(Bucket=Bucket.open(scene.store).name, Key=f"models/{key}")
    monkeypatch.setattr(captures, "WHOLE_BYTES", 100)
    assert look(scene.request(), NOW, quiet).windows == whole.windows


def test_a_report_that_somebody_else_wrote_first_holds(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.week(0)
    scene.week(1)
    original = Bucket.put

    def quicker(self: Bucket, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        if "/monitor/" in key and key.endswith(".json"):
            theirs = json.loads(data)
            theirs["window"]["rows"] = 4711
            assert original(self, key, json.dumps(theirs).encode(), only_if_absent=True)
        return original(self, key, data, only_if_absent)

    monkeypatch.setattr(Bucket, "put", quicker)
    assert [window.rows for window in look(scene.request(), NOW, quiet).windows] == [4711]


def test_foreign_objects_among_the_reports_are_passed_over(scene: Scene) -> None:
    scene.week(0)
    scene.week(1)
    scene.week(2)
    store = Bucket.open(scene.store)
    for name, data in (("2013-03-04T00.json", b"[" * 5000), ("notes.txt", b"?"), ("2013-99-99T00.json", b"{}")):
        store.put(f"ns/flight-delay/monitor/uid-1/r1/{name}", data)
    assert starts(look(scene.request(), NOW, quiet)) == [1]


def test_without_captures_the_result_says_so(scene: Scene) -> None:
    result = look(scene.request(), NOW, quiet)
    assert (result.windows, result.newest_event) == ((), None)
    assert "nothing is captured of it yet" in result.message


def test_one_event_of_a_wrong_year_ends_no_window_and_loses_no_row(scene: Scene) -> None:
    scene.week(0, event_time=lambda column: pa.concat_arrays([column[1:], pa.array([10**16]).cast(column.type)]))
    assert starts(look(scene.request(), NOW, quiet)) == []
    result = look(scene.request(), LATER, quiet)
    assert [(window.start, window.rows) for window in result.windows] == [(MONDAY, 799)]


@pytest.mark.parametrize("profile", [None, b"{", b'{"columns": 7}', b"[]"])
def test_without_a_profile_there_is_nothing_to_compare_with(versitygw: Versitygw, profile: bytes | None) -> None:
    scene = Scene(versitygw, profile)
    with pytest.raises(ProfileMissingError, match=r"profile\.json"):
        look(scene.request(), NOW, quiet)


def run(
    scene: Scene, folder: Path, request: str | None = None, program: Sequence[str] = ("-m", "truekeep.monitor")
) -> tuple[int, dict[str, Any] | None, str]:
    """The pod's process: exit code, termination message, output."""
    message = folder / "termination"
    environment = os.environ | {
        TERMINATION_LOG_ENV: str(message),
        REQUEST_ENV: request if request is not None else scene.request().model_dump_json(by_alias=True),
        "PYTHONPATH": "operator",
    }
    done = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, check=False)
    result = json.loads(message.read_text()) if message.exists() else None
    return done.returncode, result, done.stdout + done.stderr


def test_the_pod_hands_its_result_over(scene: Scene, tmp_path: Path) -> None:
    scene.week(0)
    scene.week(1)
    code, result, output = run(scene, tmp_path)
    assert code == 0, output
    assert result is not None
    assert MonitorResult.model_validate(result).windows[0].rows == 800
    assert output.splitlines()[-1].startswith("Looked: revision 1: 1 windows judged now")
    assert "ns/flight-delay, policy watch, revision 1: 2 capture files, newest event 2013-03-17" in output


def test_the_pod_says_what_is_missing(scene: Scene, versitygw: Versitygw, tmp_path: Path) -> None:
    dead = scene.store.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    request = scene.request().model_copy(update={"store": dead}).model_dump_json(by_alias=True)
    code, result, output = run(scene, tmp_path, request)
    assert (code, result["reason"] if result else None) == (4, "StoreUnreachable"), output
    assert output.splitlines()[-1].startswith("StoreUnreachable: ")
    assert "127.0.0.1:9" in output.splitlines()[-1]

    code, result, output = run(Scene(versitygw, None), tmp_path)
    assert (code, result["reason"] if result else None) == (3, "ProfileMissing"), output
    assert "has no profile.json" in output.splitlines()[-1]


@pytest.mark.parametrize("request_", ["", "{", '{"namespace": "a"}', '["<script>"]'])
def test_the_pod_refuses_a_request_that_is_none(scene: Scene, tmp_path: Path, request_: str) -> None:
    code, result, output = run(scene, tmp_path, request_)
    assert (code, result) == (3, None)
    assert output.splitlines()[-1].startswith("TRUEKEEP_REQUEST holds no valid request")
