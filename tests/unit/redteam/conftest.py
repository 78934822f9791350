"""The table of classes, cases and escapes, at the end of every run of these tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from _pytest.terminal import TerminalReporter


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """`guarded`: an attack on the product as it is; `bare`: the same without its guard, where it must succeed."""
    tried: Counter[tuple[str, str, bool]] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            told = dict(report.user_properties)
            if report.when == "call" and "attack" in told:
                tried[told["attack"], told["tried"], outcome == "passed"] += 1
    groups = sorted({group for group, _, _ in tried})
    if not groups:
        return
    terminalreporter.section("red team")
    terminalreporter.line(f"{'class':52} {'cases':>6} {'escapes':>8} {'succeed unguarded':>18}")
    for group in groups:
        cases = tried[group, "guarded", True] + tried[group, "guarded", False]
        numbers = (cases, tried[group, "guarded", False], tried[group, "bare", True])
        terminalreporter.line(f"{group:52} {numbers[0]:6} {numbers[1]:8} {numbers[2]:18}")
    cases = sum(count for (_, how, _), count in tried.items() if how == "guarded")
    escapes = sum(count for (_, how, passed), count in tried.items() if how == "guarded" and not passed)
    terminalreporter.line(f"{len(groups)} classes, {cases} cases, {escapes} escapes")


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Say of which class an attack is, and whether its guard was there."""

    def say(group: str, how: str) -> None:
        record_property("attack", group)
        record_property("tried", how)

    return say
