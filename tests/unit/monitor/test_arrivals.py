"""How rows arrive: repeated keys, and how many rows there are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.monitor.test_decay import Place
from tests.unit.monitor.test_look import NOW, Scene, quiet
from truekeep.monitor import arrivals
from truekeep.monitor.arrivals import Repeats, usual_rows, with_arrivals
from truekeep.monitor.look import look
from truekeep.monitor.report import WindowReport


def repeated(keys: list[str | None]) -> float:
    repeats = Repeats()
    for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
        repeats.update(pa.array(part, pa.string()))
    return repeats.fraction


def test_rows_that_share_a_key() -> None:
    assert repeated(["a", "b", "a", "c", None, None]) == 0.5
    assert repeated(["a", "b", "c"]) == 0.0
    assert repeated([None, None]) == repeated([]) == 0.0


def test_of_very_many_keys_a_sample_tells_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str | None] = [f"k{number}" for number in range(40_000)] + [f"k{number}" for number in range(4_000)]
    exact = repeated(keys)
    assert exact == pytest.approx(8_000 / 44_000)
    monkeypatch.setattr(arrivals, "MOST_KEYS", 5000)
    repeats = Repeats()
    repeats.update(pa.array(keys))
    assert len(repeats._counts) <= 5000
    assert repeats.fraction == pytest.approx(exact, abs=0.025)


def test_usual_is_what_the_same_hours_had() -> None:
    nights_and_days = {number: 100 if number % 2 else 5000 for number in range(14 * 5)}
    assert usual_rows(70, 12, nights_and_days) == 5000
    assert usual_rows(71, 12, nights_and_days) == 100
    assert usual_rows(28, 12, nights_and_days) is None, "two weeks are not enough"
    assert usual_rows(9, 168, {number: number for number in range(9)}) == 4.5
    assert usual_rows(9, 100, {6: 1, 7: 2, 8: 9}) == 2


@pytest.mark.parametrize(
    ("rows", "usual", "severity"),
    [(100, 110.0, None), (100, None, None), (100, 201.0, "Notice"), (201, 100.0, "Notice"), (100, 401.0, "Breach"),
     (0, 500.0, "Breach"), (500, 0.0, None)],
)  # fmt: skip
def test_volume(rows: int, usual: float | None, severity: str | None) -> None:
    report = with_arrivals(WindowReport(rows=rows, verdict="NoDrift"), 0.0, None, usual)
    assert [finding.severity for finding in report.findings] == ([severity] if severity else [])
    assert report.kinds == (("DataQuality",) if severity == "Breach" else ())
    assert report.verdict == "NoDrift", "few rows may still be learned from"


@pytest.mark.parametrize(
    ("share", "allowed", "severity"),
    [(0.005, None, None), (0.02, None, "Notice"), (0.02, 0.05, None), (0.06, 0.05, "Breach"), (0.001, 0.0, "Breach")],
)
def test_duplicates(share: float, allowed: float | None, severity: str | None) -> None:
    report = with_arrivals(WindowReport(rows=9, verdict="Drift", kinds=("DataDrift",)), share, allowed, None)
    assert [finding.severity for finding in report.findings] == ([severity] if severity else [])
    assert ("DataQuality" in report.kinds) == (severity == "Breach")
    assert "DataDrift" in report.kinds


def test_a_look_tells_of_both(versitygw: Versitygw) -> None:
    place = Place(versitygw)
    for number in range(4):
        place.served(number, rows=2000)
    place.served(4, rows=450, key=lambda _: pa.array(np.repeat([f"x{n}" for n in range(225)], 2)))
    place.served(5, rows=600)
    request = place.request(min_rows=200).model_copy(update={"max_duplicate_fraction": 0.1})
    result = look(request, NOW, quiet)
    assert [window.kinds for window in result.windows] == [["DataQuality"], [], [], [], []]
    assert {finding.statistic for finding in result.findings} == {"Duplicates", "Volume"}
    assert result.findings[1].message == "450 rows, usual are 2,000 at these hours"
    assert [window.verdict for window in result.windows] == ["NoDrift"] * 5


def test_too_few_rows_can_still_be_too_few_of_them(versitygw: Versitygw) -> None:
    scene = Scene(versitygw)
    for number in range(3):
        scene.week(number)
    scene.week(3, rows=60)
    scene.week(4)
    newest = look(scene.request(), NOW, quiet).windows[0]
    assert (newest.verdict, newest.kinds) == ("InsufficientData", ["DataQuality"])
