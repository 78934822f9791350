"""Performance of the windows that were judged for drift: estimated at once, measured when their labels are ripe.

What labels said is final and written once (`START.performance.json`). What was estimated before (`START.estimate.json`)
is written again when the label source has other files, so that labels that come later than promised still count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from truekeep.api.driftpolicy import PerformancePolicy, PerformanceVerdict
from truekeep.contract import layout
from truekeep.contract.artifact import Performance
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import Labels, MonitorRequest
from truekeep.monitor import events, labels, windows
from truekeep.monitor.captures import CaptureFile, Skipped
from truekeep.monitor.labels import Found
from truekeep.monitor.performance import Case, Ripe, judge
from truekeep.monitor.predictions import MOST_ROWS, Predicted, Scope, predicted
from truekeep.monitor.report import StoredPerformance
from truekeep.storage import ArtifactInvalid, ObjectMissing, artifacts
from truekeep.storage.hash_key import HashKeyError
from truekeep.storage.s3 import Bucket

MEASURED = ".performance.json"
ESTIMATED = ".estimate.json"
KEPT = 15  # verdicts by labels that a result repeats, and as many of windows whose labels are awaited
PATIENCE_WINDOWS = 30  # so many windows after its labels were due, a window is given up


@dataclass(frozen=True)
class Window:
    """One that was judged for drift."""

    start: int  # ms
    end: int
    rows: int
    key: str  # of its report


@dataclass(frozen=True)
class Scene:
    """Where to look."""

    request: MonitorRequest
    store: Bucket
    lake: Bucket
    files: Sequence[CaptureFile]
    every: Sequence[CaptureFile]  # of all revisions of the model
    clock: windows.Clock
    now: datetime
    listed: set[str]  # keys of all that is stored of the revision's windows


@dataclass
class Outcome:
    """What came of it. `notes`: for the result's message."""

    verdicts: list[PerformanceVerdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def watch(scene: Scene, judged: Iterable[Window], say: Callable[[str], None]) -> Outcome:
    """Estimate and measure what is to be, and return the recent verdicts. StoreError where a store is at fault."""
    settings, where = scene.request.performance, scene.request.labels
    if settings is None or where is None:
        return Outcome()
    baseline, fault = read_baseline(scene.store, scene.request.artifact_digest)
    if baseline is None:
        return Outcome(notes=[f"performance is not watched: {fault}"])
    look = _Look(scene, settings, where, baseline)
    every = sorted(judged, key=lambda window: window.start)
    outcome = Outcome()
    try:
        for stored in look.fresh(every):
            for line in describe(stored):
                say(line)
    except HashKeyError as error:
        outcome.notes.append(f"performance is not measured: {error}")
    outcome.verdicts = look.recent(every)
    return outcome


def oldest_start(scene: Scene) -> datetime:
    """Windows that began before are given up: of the labels that they lack none will come any more."""
    newest, where = scene.clock.newest_event, scene.request.labels
    if newest is None or where is None:
        return windows.EPOCH
    length = scene.request.window.hours * windows.HOUR
    return windows.moment(newest - where.matures_after_seconds * 1000 - (PATIENCE_WINDOWS + 1) * length)


def read_baseline(store: Bucket, digest: str) -> tuple[Performance | None, str]:
    """What the revision showed on its holdout, or why that is not known."""
    try:
        files = artifacts.read(store, digest, only={layout.PERFORMANCE})
        return Performance.model_validate_json(files[layout.PERFORMANCE]), ""
    except (ArtifactInvalid, ValidationError) as error:
        why = "can't be read" if isinstance(error, ValidationError) else str(error)
        told = "an earlier version judged it: train again (where it is imported: truekeep import --label)"
        return None, f"{layout.PERFORMANCE} of the revision: {why}; {told}"


def describe(stored: StoredPerformance) -> list[str]:
    """What a person reads in the log of the pod."""
    verdict = stored.verdict
    head = f"{verdict.start:%Y-%m-%d %H:%M} to {verdict.end:%Y-%m-%d %H:%M}: {verdict.metric} "
    lines = []
    if stored.measured is not None:
        lines.append(
            f"{head}{verdict.value} ({verdict.low} to {verdict.high}), {verdict.verdict}, on {verdict.labelled:,} "
            f"labelled rows, {float(verdict.coverage):.1%} of the window; the gates had {verdict.baseline}"
        )
        if stored.unmatched:
            lines.append(f"{head}{stored.unmatched:,} labels of the window belong to no captured row")
    elif stored.label_files:
        lines.append(f"{head}is not measured: {stored.why_not}")
    if stored.estimated is not None:
        lines.append(
            f"{head}{verdict.estimate} ({verdict.estimate_low} to {verdict.estimate_high}) by estimate, "
            f"{verdict.estimated}; the gates had {verdict.baseline}"
        )
    return lines + [f"  {group.slice}={group.group}: {group.metric} {group.value:.4f} ({group.low:.4f} to "
                    f"{group.high:.4f}) on {group.rows:,} rows" for group in stored.groups] + [
        f"  label: {problem}" for problem in stored.problems]  # fmt: skip


class _Look:
    def __init__(self, scene: Scene, settings: PerformancePolicy, where: Labels, baseline: Performance) -> None:
        self.scene = scene
        self.settings = settings
        self.where = where
        self.baseline = baseline
        self.written: dict[str, StoredPerformance] = {}
        self.place = events.Place.of(settings.entity, where) if settings.entity else None
        self._source: labels.Files | None = None

    @property
    def source(self) -> labels.Files:
        """The label source, listed once, when it is first of interest."""
        if self._source is None:
            self._source = labels.files(self.where)
        return self._source

    def fresh(self, every: Sequence[Window]) -> Iterator[StoredPerformance]:
        """Judge what is due, as many windows at a time as memory is meant for."""
        waiting: list[tuple[Window, Predicted, bool]] = []
        for window, ripe in self._due(every):
            waiting.append((window, self._predicted(window), ripe))
            if sum(len(rows) for _, rows, _ in waiting) >= MOST_ROWS:
                yield from self._judge(waiting)
                waiting = []
        yield from self._judge(waiting)

    def recent(self, every: Sequence[Window]) -> list[PerformanceVerdict]:
        """The newest verdicts by labels and the newest that wait for them, by turns."""
        there = self._there(every)
        measured = [window for window in every if window.key in there and there[window.key].endswith(MEASURED)]
        waiting = [window for window in every if window.key in there and there[window.key].endswith(ESTIMATED)]
        chosen = [[*reversed(part)][:KEPT] for part in (measured, waiting)]
        turns = chain.from_iterable(zip_longest(*chosen))
        found = [self._read(there[window.key]) for window in turns if window is not None]
        return [stored.verdict for stored in found if stored is not None]

    def _due(self, every: Sequence[Window]) -> Iterator[tuple[Window, bool]]:
        there = self._there(every)
        matures = self.where.matures_after_seconds * 1000
        for window in every:
            known = there.get(window.key)
            stored = self._read(known) if known is not None and self._may_change(window, known) else None
            if known is not None and known.endswith(MEASURED):
                continue
            ripe = self.scene.clock.closes(window.end + matures)
            if stored is not None:
                if stored.settings == self.settings and not (ripe and self._other_files(window, stored)):
                    continue
            elif known is not None:
                continue
            yield window, ripe

    def _may_change(self, window: Window, known: str) -> bool:
        """Whether labels may still come; else the estimate stays."""
        newest = self.scene.clock.newest_event
        length = self.scene.request.window.hours * windows.HOUR
        last = window.end + self.where.matures_after_seconds * 1000 + PATIENCE_WINDOWS * length
        return known.endswith(ESTIMATED) and (newest is None or newest <= last)

    def _other_files(self, window: Window, stored: StoredPerformance) -> bool:
        return self._files_of(window.start).state != stored.label_files

    def _files_of(self, start: int) -> labels.Files:
        """Those that may hold labels of a window that starts then (ms), or a later one."""
        early = 2 * self.place.tolerance if self.place else 0
        return self.source.since(windows.moment(start - early))

    def _there(self, every: Sequence[Window]) -> dict[str, str]:
        """By the key of a window's report, what is known of its performance: by labels, else by estimate."""
        found = {}
        for window in every:
            for suffix in (MEASURED, ESTIMATED):
                if (key := layout.beside(window.key, suffix)) in self.scene.listed:
                    found[window.key] = key
                    break
        return found

    def _read(self, key: str) -> StoredPerformance | None:
        if key in self.written:
            return self.written[key]
        try:
            return StoredPerformance.model_validate(json.loads(self.scene.store.get(key)))
        except (ObjectMissing, ValueError, RecursionError):
            return None

    def _predicted(self, window: Window) -> Predicted:
        request = self.scene.request
        hidden = {*request.hashed, *request.dropped}
        groups = tuple(dict.fromkeys(one.column for one in request.slices if one.column not in hidden))
        scope = Scope(window.start, window.end, window.rows, self.settings.join, groups)
        files = [file for file in self.scene.files if file.name.first < window.end and file.name.last >= window.start]
        if self.place is not None:
            return events.predicted(self.scene.lake, files, self.scene.every, scope, self.place, Skipped())
        return predicted(self.scene.lake, files, scope, Skipped())

    def _judge(self, waiting: Sequence[tuple[Window, Predicted, bool]]) -> Iterator[StoredPerformance]:
        ripe = [(window, rows) for window, rows, is_ripe in waiting if is_ripe]
        known = dict(zip((window.key for window, _ in ripe), self._labels(ripe), strict=True))
        for window, rows, _ in waiting:
            stored = judge(self._case(window), rows, known.get(window.key), self.scene.now)
            key = layout.beside(window.key, MEASURED if stored.final else ESTIMATED)
            first = self.scene.store.put(key, canonical_json(stored.dump()), only_if_absent=stored.final)
            self.scene.listed.add(key)
            if first:
                self.written[key] = stored
            yield stored if first else (self._read(key) or stored)  # somebody was quicker; what labels said first holds

    def _labels(self, ripe: Sequence[tuple[Window, Predicted]]) -> Iterator[Ripe]:
        """Of several windows with one reading of the label files."""
        if not ripe:
            return
        newest = self.scene.clock.newest_event
        for (window, _), (found, unmatched, problems) in zip(ripe, self._joined(ripe), strict=True):
            since = None if newest is None else max(0, newest - window.end) // 1000
            yield Ripe(found, self._files_of(window.start).state, since, problems, unmatched)

    def _joined(self, ripe: Sequence[tuple[Window, Predicted]]) -> Iterator[tuple[Found, int | None, tuple[str, ...]]]:
        """By window: labels, how many of its time belong to no event (where that is known), and what was wrong."""
        source = self._files_of(min(window.start for window, _ in ripe))
        if self.place is not None and self.settings.entity is not None:
            spans = [self.place.span(window.start, window.end) for window, _ in ripe]
            known = events.read(source, self.where, self.settings.entity, spans)
            for window, rows in ripe:
                yield *events.labels_of(rows, known, self.place, (window.start, window.end)), known.problems
            return
        keys: Any = pa.concat_arrays([rows.keys for _, rows in ripe])
        read = labels.read(source, self.where, keys)
        ends = np.cumsum([len(rows) for _, rows in ripe])
        for part in np.split(read.labels, ends[:-1]):
            yield part, None, read.problems

    def _case(self, window: Window) -> Case:
        request = self.scene.request
        return Case(
            start=windows.moment(window.start),
            end=windows.moment(window.end),
            revision=request.revision,
            policy_uid=request.policy_uid,
            artifact_digest=request.artifact_digest,
            settings=self.settings,
            baseline=self.baseline,
            alpha=request.drift.false_alarms_per_thousand_windows / 1000,
            min_rows=request.window.min_rows,
            slices=request.slices,
        )
