"""How rows arrived, as against what is in them: how many, and how often the same one. Pure.

| finding | of what | Breach from | Notice from |
| --- | --- | --- | --- |
| Duplicates | rows whose key occurs more than once in the window | the Model's rule `maxDuplicateFraction`, if it has one | 1 % |
| Volume | rows, per usual row: the median of at most eight windows before, at the same hours of the week | under 1/4, over 4 | under 1/2, over 2 |

Both are DataQuality, and neither is a Break: what came may still be learned from.
"""

# ruff: noqa: E501  the table

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from truekeep.monitor import words
from truekeep.monitor.report import ReportFinding, Severity, WindowReport
from truekeep.monitor.seasons import WEEK_HOURS

ROWS = "(rows)"  # stands for the column in a finding
MOST_KEYS = 200_000  # that are told apart at once; of more, a sample by their checksum
FEW_DUPLICATES = 0.01
USUAL_WINDOWS = 8
LEAST_WINDOWS = 3
MANY, VERY_MANY = 2.0, 4.0


class Repeats:
    """How many rows share their key with another one, in bounded memory: of many keys, those are counted whose
    checksum ends in so many zeros (distinct sampling, Gibbons 2001), and all rows of a key are or none."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._mask = 0

    def update(self, keys: Any) -> None:
        """Take in a batch; nulls are no keys."""
        if pa.types.is_dictionary(keys.type):
            keys = keys.dictionary_decode()
        counted: Any = pc.value_counts(keys.cast(pa.string(), safe=False).drop_null())
        for key, count in zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True):
            if not self._mask or not self._checksum(key) & self._mask:
                self._counts[key] = self._counts.get(key, 0) + count
        while len(self._counts) > MOST_KEYS:
            self._mask = self._mask << 1 | 1
            self._counts = {key: n for key, n in self._counts.items() if not self._checksum(key) & self._mask}

    @property
    def fraction(self) -> float:
        """Of the rows with a key, those whose key occurs more than once."""
        rows = sum(self._counts.values())
        return sum(count for count in self._counts.values() if count > 1) / rows if rows else 0.0

    @staticmethod
    def _checksum(key: str) -> int:
        return zlib.crc32(key.encode("utf-8", "surrogatepass"))


def usual_rows(index: int, hours: int, rows: Mapping[int, int]) -> float | None:
    """How many rows a window usually has: `rows` of earlier windows by their number. None where too few are known."""
    step = max(1, WEEK_HOURS // hours) if WEEK_HOURS % hours == 0 else 1
    known = [rows[one] for one in range(index - step, index - step * USUAL_WINDOWS - 1, -step) if one in rows]
    return float(median(known)) if len(known) >= LEAST_WINDOWS else None


def with_arrivals(report: WindowReport, repeated: float, allowed: float | None, usual: float | None) -> WindowReport:
    """The report with what is to be said of the rows' number and keys. `allowed`: fraction of duplicates, by a rule."""
    found = [*_duplicates(repeated, allowed), *_volume(report.rows, usual)]
    if not found:
        return report
    counts = any(finding.severity == "Breach" for finding in found)
    kinds = ("DataQuality", *report.kinds) if counts and "DataQuality" not in report.kinds else report.kinds
    return report.model_copy(update={"findings": _ranked([*report.findings, *found]), "kinds": kinds})


def _duplicates(repeated: float, allowed: float | None) -> list[ReportFinding]:
    if allowed is not None and repeated > allowed:
        words_ = f"{words.percent(repeated)} of the rows have a key that occurs more than once, a rule allows "
        return [_finding("Duplicates", "Breach", repeated, allowed, words_ + words.percent(allowed))]
    if repeated >= FEW_DUPLICATES and allowed is None:
        text = f"{words.percent(repeated)} of the rows have a key that occurs more than once"
        return [_finding("Duplicates", "Notice", repeated, FEW_DUPLICATES, text)]
    return []


def _volume(rows: int, usual: float | None) -> list[ReportFinding]:
    if not usual:
        return []
    ratio = max(rows, 1) / usual
    apart = max(ratio, 1 / ratio)
    if apart < MANY:
        return []
    severity: Severity = "Breach" if apart >= VERY_MANY else "Notice"
    text = f"{rows:,} rows, usual are {usual:,.0f} at these hours"
    return [_finding("Volume", severity, ratio, MANY if ratio > 1 else 1 / MANY, text)]


def _finding(statistic: str, severity: Severity, value: float, threshold: float, text: str) -> ReportFinding:
    return ReportFinding(
        kind="DataQuality",
        column=ROWS,
        statistic=statistic,
        value=f"{value:.4g}",
        threshold=f"{threshold:.4g}",
        message=text,
        severity=severity,
        effect=min(1.0, value),
        score=min(1.0, value),
    )


def _ranked(findings: Sequence[ReportFinding]) -> tuple[ReportFinding, ...]:
    grave: tuple[Severity, ...] = ("Break", "Breach", "Notice")
    return tuple(sorted(findings, key=lambda one: grave.index(one.severity)))  # the order within a severity stays
