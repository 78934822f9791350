"""The drift benches in small, for `make bench`; `errors.py` and `speed.py` say how to run the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.drift import decay, errors, speed, worlds

WINDOWS = 60
POWER_WINDOWS = 30


@pytest.mark.parametrize("rows", [500, 5000])
def test_quiet_windows_stay_quiet(rows: int) -> None:
    found = errors.quiet(rows, WINDOWS)
    print(f"\n{rows:,} rows: {found['alarms']} of {WINDOWS} windows alarmed: {' '.join(found['columns'])}")
    assert found["insufficient"] == 0
    assert found["alarms"] <= 2  # at a rate of 0.4 % three or more would come once in 500 trials


def test_shifts_are_found() -> None:
    print()
    for shift, hits, of in errors.power(POWER_WINDOWS):
        print(f"{shift.column:<14} {shift.what:<28} {hits}/{of}, goal {shift.power:.0%}")
        # Fewer than these would be a rate below the goal, not the luck of 30 windows.
        assert hits >= of * (0.9 if shift.power >= 0.99 else 0.6), shift


def test_a_hundredth_of_a_deviation_is_no_drift() -> None:
    assert errors.tiny(2) == 0


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    """In a process of its own each; a row more must not cost a byte, up to what the allocator keeps."""
    peaks: dict[int, float] = {}
    for rows in (300_000, 1_500_000):
        speed.prepare(tmp_path, rows)
        for name in ("truekeep", "truekeep_now"):
            found = speed.turn(name, rows, tmp_path)
            assert found["drifted"] == sorted(speed.MOVED)
            peaks[rows] = max(peaks.get(rows, 0), found["peak"])
    print(f"\npeaks in MiB: {peaks}")
    assert max(peaks.values()) < 300
    assert peaks[1_500_000] < 1.15 * peaks[300_000] + 16


def test_all_of_the_world_is_compared() -> None:
    assert len(worlds.FEATURES) == 30


def test_silent_decay_on_the_flights_is_found_by_labels_and_by_the_estimate() -> None:
    accuracy, auc = decay.watch(168, {"accuracy": "0.02", "roc_auc": "0.03"})
    print("\n" + decay.told([accuracy, auc], 168))
    onset = accuracy.onset()
    assert onset is not None
    assert accuracy.found(accuracy.by_labels) == onset
    late = accuracy.found(accuracy.by_estimate)
    assert late is not None
    assert 0 < late - onset <= 4
    assert accuracy.false(accuracy.by_labels) == auc.false(auc.by_labels) == 0
    # What the inputs mean changed, not what they are: no estimate can see that, and ours does not claim to.
    assert auc.found(auc.by_labels) == auc.onset()
    assert not any(auc.by_estimate)
