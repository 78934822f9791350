"""What a person who waits is told."""

from __future__ import annotations

import io

import pytest
from tests.cluster.progress import Progress, Step, duration, roughly, running_line

BUILD = Step("building Kubernetes 1.34.4", 400, "once per machine")
START = Step("starting the control plane", 12)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_running_step_says_what_how_long_and_how_much_is_left() -> None:
    assert running_line(0, [BUILD, START], 130) == (
        "[1/2] building Kubernetes 1.34.4 (about 7 min, once per machine) … 2:10, about 5 min left in all"
    )
    assert (
        running_line(1, [BUILD, START], 3)
        == "[2/2] starting the control plane (about 12 s) … 0:03, about 9 s left in all"
    )


def test_a_step_that_takes_long_is_not_promised_to_end_now() -> None:
    assert running_line(1, [BUILD, START], 60).endswith("… 1:00, longer than usual")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (130, "2:10"), (3725, "62:05")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "about 1 s"), (89, "about 89 s"), (400, "about 7 min")])
def test_rough_durations(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


def test_a_log_gets_one_line_a_step() -> None:
    times = iter([0.0, 130.0, 130.0, 133.0])
    stream = io.StringIO()
    progress = Progress([BUILD, START], stream, lambda: next(times))
    for _ in range(2):
        with progress.step():
            pass
    assert stream.getvalue() == (
        "[1/2] building Kubernetes 1.34.4: done in 2:10\n[2/2] starting the control plane: done in 0:03\n"
    )


def test_a_step_that_fails_says_so_and_the_error_goes_on() -> None:
    times = iter([0.0, 5.0])
    stream = io.StringIO()
    progress = Progress([START], stream, lambda: next(times))
    with pytest.raises(RuntimeError, match="no"), progress.step():
        raise RuntimeError("no")
    assert stream.getvalue() == "[1/1] starting the control plane: failed after 0:05\n"


def test_a_terminal_gets_one_line_that_is_painted_over() -> None:
    times = iter([0.0, 3.0])
    stream = Terminal()
    with Progress([START], stream, lambda: next(times)).step():
        pass
    assert stream.getvalue() == "\r\033[K[1/1] starting the control plane: done in 0:03\n"
