"""One look of the monitor: what is closed and not judged yet is judged, in order, and the report is stored.

A report in the store is final: it is written only where there is none, so that a pod that is repeated, or two at a
time, judge nothing twice. The result repeats the recent windows, so that a lost termination message is no loss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ValidationError

from truekeep.api.driftpolicy import Finding, PerformanceVerdict, WindowVerdict
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import MonitorRequest
from truekeep.contract.results import MonitorResult
from truekeep.monitor import arrivals, captures, decay, seasons, shards, windows
from truekeep.monitor.captures import CaptureFile, Skipped
from truekeep.monitor.judge import Settings, judge, settings_of
from truekeep.monitor.publish import publish, subject_of
from truekeep.monitor.report import StoredReport
from truekeep.monitor.shards import Shard
from truekeep.profiling.schema import Profile
from truekeep.storage import ArtifactInvalid, ObjectMissing, artifacts
from truekeep.storage.s3 import Bucket

KEPT_WINDOWS = 30
KEPT_FINDINGS = 20
WINDOWS_AT_ONCE = 500
KEY_TIME = "%Y-%m-%dT%H"


class ProfileMissingError(Exception):
    """The artifact has no profile that can be read. A second try can't help."""


@dataclass(frozen=True)
class Captures:
    """What lies in the capture store."""

    files: tuple[CaptureFile, ...]  # of the revision, in the order of their keys
    every: tuple[CaptureFile, ...]  # of all revisions
    clock: windows.Clock
    odd: int  # Parquet files of the revision whose names say no time

    def between(self, start: int, end: int, *, every: bool = False) -> list[CaptureFile]:
        """Files that may have rows in it, of the revision or of all."""
        return [
            file for file in (self.every if every else self.files) if file.name.first < end and file.name.last >= start
        ]


class Counted(NamedTuple):
    """A window's profile, and what came with it."""

    profile: Profile
    skipped: Skipped
    repeated: float  # fraction of the rows that share a key
    files: int


class Judged(NamedTuple):
    """A window with its report."""

    report: StoredReport
    window: Profile
    basis: Profile  # that drift was judged against


@dataclass(frozen=True)
class Subject:
    """What is looked at, and what it is compared with."""

    request: MonitorRequest
    lake: Bucket
    reference: Profile
    found: Captures
    rows: dict[int, int]  # of the windows that were judged, by their number
    shard: Shard | None = None  # where several pods count


def look(
    request: MonitorRequest, now: datetime, say: Callable[[str], None], shard: Shard | None = None
) -> MonitorResult:
    """Judge what is to be judged. StoreError where a store does not do what it must, ProfileMissingError.

    `shard`: what this pod counts, where several share a window; the first of them also looks at performance."""
    store, lake = Bucket.open(request.store), Bucket.open(request.capture)
    reference = read_profile(store, request.artifact_digest)
    found = list_captures(lake, request, now)
    listed = {info.key for info in store.list(_folder(request))}
    judged = _judged(listed, request)
    recent = {start: _read(store, judged[start]) for start in sorted(judged, reverse=True)[:KEPT_WINDOWS]}
    skipped = Skipped()
    due = _due(lake, found, _done(request, judged, recent.values()), skipped)
    say(_opening(request, found, len(judged), len(due)))
    fresh: dict[datetime, StoredReport] = {}
    subject = Subject(request, lake, reference, found, _rows(request, recent.values()), shard)
    last: Judged | None = None
    for index in due[:WINDOWS_AT_ONCE]:
        counted = _count(subject, index)
        if counted is None:
            continue  # another pod will find all parts
        last = _judge_one(subject, index, counted, now)
        start = last.report.window.start
        key = _key(request, start)
        if not store.put(key, canonical_json(last.report.dump()), only_if_absent=True):
            # Somebody was quicker; the first report holds.
            last = last._replace(report=_read(store, key) or last.report)
        if shard is not None:
            shards.clean(store, key, shard.of)
        report = last.report
        fresh[start] = report
        _publish(store, subject, last, [*recent.values(), *fresh.values()])
        for line in describe(report):
            say(line)
    listed |= {_key(request, start) for start in fresh}
    scene = decay.Scene(request, store, lake, found.files, found.every, found.clock, now, listed)
    performance = _performance(subject, scene, recent | fresh, judged, say)
    if last and performance.verdicts:  # now the newest page can tell how good the model was
        _publish(store, subject, last, [*recent.values(), *fresh.values()], performance.verdicts)
    newest = sorted(recent.keys() | fresh.keys(), reverse=True)[:KEPT_WINDOWS]
    reports = [kept for start in newest if (kept := fresh.get(start) or recent[start]) is not None]
    skipped.reasons += [reason for report in fresh.values() for reason in report.skipped]
    skipped_files = max(len(skipped.keys), sum(report.skipped_files for report in fresh.values()))
    parts = [
        f"revision {request.revision}: {len(fresh)} windows judged now, {len(reports)} recent ones reported",
        f"{len(due) - len(fresh)} more are left for the next look" if len(due) > len(fresh) else "",
        f"{skipped_files} capture files could not be read and were skipped ({skipped.reasons[0]})"
        if skipped.reasons
        else "",
        f"{found.odd} capture files have names without times" if found.odd else "",
        "" if found.files else "nothing is captured of it yet",
        _left_out(request, reference),
        *performance.notes,
    ]
    message = "; ".join(part for part in parts if part)
    return _result(request, found.clock.newest_event, reports, message).model_copy(
        update={"performance": tuple(performance.verdicts)}
    )


def _left_out(request: MonitorRequest, reference: Profile) -> str:
    """What is not compared, because training has no hashes, or captures no such column."""
    names = {column.name for column in reference.columns}
    parts = [
        f"not compared, because {how}: {', '.join(sorted(names & set(columns)))}"
        for how, columns in (("only hashes are captured", request.hashed), ("they are not captured", request.dropped))
        if names & set(columns)
    ]
    return "; ".join(parts)


def read_profile(store: Bucket, digest: str) -> Profile:
    """The profile that training saved. ProfileMissingError where the artifact has none that can be read."""
    try:
        files = artifacts.read(store, digest, only={layout.PROFILE})
        return Profile.model_validate_json(files[layout.PROFILE])
    except ArtifactInvalid as error:
        raise ProfileMissingError(str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in first["loc"][:4])
        raise ProfileMissingError(
            f"artifact {digest}: {layout.PROFILE} is no profile that this version reads, at {at}: {first['msg']}; "
            "watch it with the version that trained it, or train again"
        ) from error


def list_captures(lake: Bucket, request: MonitorRequest, now: datetime) -> Captures:
    """Files of the revision, and the clock, which goes by the files of all revisions of the model."""
    prefix = layout.captures(request.namespace, request.model)
    mine = layout.captures(request.namespace, request.model, request.revision)
    seen = windows.Seen(request.window, now)
    files, every = [], []
    odd = 0
    for info in lake.list(prefix):
        name = layout.parse_capture_file(info.key)
        if name is None or not windows.plausible(name):
            odd += info.key.startswith(mine) and info.key.endswith(".parquet")
            continue
        seen.add(name, info.last_modified)
        file = CaptureFile(info.key, info.size, name)
        every.append(file)
        if info.key.startswith(mine):
            files.append(file)
    return Captures(tuple(files), tuple(every), seen.clock(), odd)


def describe(report: StoredReport) -> list[str]:
    """What a person reads in the log of the pod."""
    window = report.window
    lines = [
        f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M}: {window.verdict}, {window.rows:,} rows in "
        f"{report.files} files" + (f", {report.skipped_files} skipped" if report.skipped_files else "")
    ]
    if window.verdict == "InsufficientData":
        lines[0] += f" (window.minRows is {report.cut.min_rows:,})"
    lines += [
        f"  {finding.severity.lower():6} {finding.kind:15} {finding.message} "
        f"[{finding.statistic} {finding.value}, from {finding.threshold}"
        + (f", p {finding.p_value}]" if finding.p_value is not None else "]")
        for finding in report.report.findings[:KEPT_FINDINGS]
    ]
    return lines + [f"  skipped {reason}" for reason in report.skipped]


def _key(request: MonitorRequest, start: datetime) -> str:
    return layout.window_report(request.namespace, request.model, request.policy_uid, request.revision, start)


def _folder(request: MonitorRequest) -> str:
    return _key(request, windows.EPOCH).rpartition("/")[0] + "/"


def _judged(listed: Iterable[str], request: MonitorRequest) -> dict[datetime, str]:
    """Windows with a report, by their start."""
    folder = _folder(request)
    found = {}
    for key in listed:
        try:
            start = datetime.strptime(key.removeprefix(folder), f"{KEY_TIME}.json").replace(tzinfo=UTC)
        except ValueError:
            continue
        found[start] = key
    return found


def _performance(
    subject: Subject,
    scene: decay.Scene,
    known: Mapping[datetime, StoredReport | None],
    judged: Mapping[datetime, str],
    say: Callable[[str], None],
) -> decay.Outcome:
    """Performance of the windows that were judged. Older ones are looked at while their labels may still come."""
    if subject.request.performance is None or (subject.shard is not None and subject.shard.index):
        return decay.Outcome()
    reports = dict(known)
    oldest = decay.oldest_start(scene)
    for start, key in judged.items():
        if start not in reports and start >= oldest and layout.beside(key, decay.MEASURED) not in scene.listed:
            reports[start] = _read(scene.store, key)
    found = [
        decay.Window(
            windows.milliseconds(report.window.start), windows.milliseconds(report.window.end), report.window.rows,
            _key(subject.request, report.window.start),
        )
        for report in reports.values()
        if report is not None and report.window.verdict != "Blackout"
    ]  # fmt: skip
    return decay.watch(scene, found, say)


@dataclass(frozen=True)
class Done:
    """What was judged before, perhaps in windows of another length, if the policy was changed since."""

    cut: windows.Cut
    indices: frozenset[int]
    spans: tuple[tuple[int, int], ...]  # start and end of the recent ones

    def __contains__(self, index: int) -> bool:
        start = self.cut.start(index)
        return index in self.indices or any(first <= start < end for first, end in self.spans)


def _done(request: MonitorRequest, judged: Iterable[datetime], recent: Iterable[StoredReport | None]) -> Done:
    cut = windows.Cut(request.window.hours)
    indices = frozenset(cut.index(windows.milliseconds(start)) for start in judged)
    known = [report.window for report in recent if report is not None]
    spans = tuple((windows.milliseconds(window.start), windows.milliseconds(window.end)) for window in known)
    return Done(cut, indices, spans)


def _due(lake: Bucket, found: Captures, done: Done, skipped: Skipped) -> list[int]:
    """Windows that are closed, have rows and were not judged, in order."""
    cut, clock = done.cut, found.clock
    due: set[int] = set()
    for file in found.files:
        touched = cut.touched(file.name)
        if len(touched) > windows.WIDE or any(index not in done and clock.closes(cut.end(index)) for index in touched):
            due |= captures.windows_with_rows(lake, file, cut, skipped)
    return sorted(index for index in due if index not in done and clock.closes(cut.end(index)))


def _publish(
    store: Bucket,
    subject: Subject,
    judged: Judged,
    known: Iterable[StoredReport | None],
    performance: Iterable[PerformanceVerdict] = (),
) -> None:
    """The page on a window. `known`: other windows, of which it shows those before it."""
    report, window, basis = judged
    watched = subject.request.performance
    publish(
        store,
        _key(subject.request, report.window.start),
        subject_of(
            report,
            basis,
            window,
            _settings(subject.request),
            sorted((one for one in known if one), key=lambda one: one.window.start)[-KEPT_WINDOWS:],
            performance,
            float(watched.max_drop) if watched else None,
        ),
    )


def _rows(request: MonitorRequest, recent: Iterable[StoredReport | None]) -> dict[int, int]:
    """Rows of recent windows of the same length, by their number; not of those in a blackout."""
    cut = windows.Cut(request.window.hours)
    known = [one for one in recent if one and one.cut.hours == cut.hours and one.window.verdict != "Blackout"]
    return {cut.index(windows.milliseconds(one.window.start)): one.window.rows for one in known}


def _settings(request: MonitorRequest) -> Settings:
    return settings_of(request.drift, request.window.min_rows, frozenset(request.dropped) | frozenset(request.hashed))


def _season(subject: Subject, index: int) -> Profile | None:
    """The same hours of the weeks before; None where training is to be compared with, or they have too few rows."""
    request, drift = subject.request, subject.request.drift
    if drift.reference != "SameHoursOfWeek":
        return None
    cut = windows.Cut(request.window.hours)
    parts, own = [], True
    for earlier in seasons.before(index, cut.hours, drift.reference_weeks):
        start, end = cut.start(earlier), cut.end(earlier)
        if seasons.blackout(request.blackouts, windows.moment(start), windows.moment(end)) is not None:
            continue
        files = subject.found.between(start, end, every=True)
        own = own and len(files) == len(subject.found.between(start, end))
        without = frozenset(request.dropped) | frozenset(request.hashed)
        counted = captures.count(
            subject.lake, files, subject.reference, start=start, end=end, skipped=Skipped(), without=without,
            together=drift.together is not None,
        ).profile()  # fmt: skip
        # What was broken is nothing to compare with.
        if counted.rows and judge(subject.reference, counted, _settings(request)).verdict != "DataQuality":
            parts.append(counted)
    found = seasons.merged(subject.reference, parts, prediction=own)
    return found if found.rows >= request.window.min_rows else None


def _count(subject: Subject, index: int) -> Counted | None:
    """A window, counted; by several pods, once all of their parts are there, else None."""
    request, cut = subject.request, windows.Cut(subject.request.window.hours)
    start, end = cut.start(index), cut.end(index)
    files, shard = subject.found.between(start, end), subject.shard
    skipped, repeats = Skipped(), arrivals.Repeats()
    settings = _settings(request)
    together = settings.together is not None
    profile = captures.count(
        subject.lake, files if shard is None else shard.mine(files), subject.reference, start=start, end=end,
        skipped=skipped, without=settings.dropped, keys=None if shard else repeats.update, together=together,
    ).profile()  # fmt: skip
    if shard is None:
        return Counted(profile, skipped, repeats.fraction, len(files))
    store, key = Bucket.open(request.store), _key(request, windows.moment(start))
    shards.write(store, key, shard, files, profile, skipped)
    whole = shards.gather(store, key, shard.of, files, subject.reference, together=together)
    if whole is None:
        return None
    # Keys of several pods can't be told apart without storing them: whoever puts the parts together reads them again.
    for batch in captures.between(subject.lake, files, [captures.KEY], start=start, end=end, skipped=Skipped()):
        if captures.KEY in batch:
            repeats.update(batch[captures.KEY])
    return Counted(*whole, repeats.fraction, len(files))


def _judge_one(subject: Subject, index: int, counted: Counted, now: datetime) -> Judged:
    request, found = subject.request, subject.found
    cut = windows.Cut(request.window.hours)
    start, end = cut.start(index), cut.end(index)
    window, skipped = counted.profile, counted.skipped
    season = _season(subject, index)
    report = judge(subject.reference, window, _settings(request), season)
    usual = arrivals.usual_rows(index, cut.hours, subject.rows)
    report = arrivals.with_arrivals(report, counted.repeated, request.max_duplicate_fraction, usual)
    subject.rows[index] = report.rows
    if (excuse := seasons.blackout(request.blackouts, windows.moment(start), windows.moment(end))) is not None:
        report = seasons.excused(report, excuse)
    begins = windows.moment(start)
    stored = StoredReport(
        namespace=request.namespace,
        model=request.model,
        policy=request.policy,
        policy_uid=request.policy_uid,
        artifact_digest=request.artifact_digest,
        window=WindowVerdict(
            start=begins,
            end=windows.moment(end),
            revision=request.revision,
            rows=report.rows,
            verdict=report.verdict,
            kinds=list(report.kinds),
            columns=report.drifted,
            report=Bucket.open(request.store).uri(_key(request, begins))[:1024],
        ),
        settings=request.drift,
        cut=request.window,
        judged_at=now,
        closed_by="NewestEvent" if found.clock.passed(end) else "Idle",
        files=counted.files,
        skipped=tuple(skipped.reasons),
        skipped_files=len(skipped.keys),
        report=report,
    )
    return Judged(stored, window, season or subject.reference)


def _read(store: Bucket, key: str) -> StoredReport | None:
    """A stored report; None where it is gone, or is none that this version reads."""
    try:
        return StoredReport.model_validate(json.loads(store.get(key)))
    except (ObjectMissing, ValueError, RecursionError):
        return None


def _result(
    request: MonitorRequest, newest_event: int | None, reports: list[StoredReport], message: str
) -> MonitorResult:
    """`reports`: the newest first."""
    findings = reports[0].report.findings[:KEPT_FINDINGS] if reports else ()
    return MonitorResult(
        policy_uid=request.policy_uid,
        revision=request.revision,
        reason="Looked",
        message=message[:1024],
        windows=tuple(report.window for report in reports),
        findings=tuple(Finding.model_validate(finding.dump()) for finding in findings),
        newest_event=windows.moment(newest_event) if newest_event is not None else None,
    )


def _opening(request: MonitorRequest, found: Captures, judged: int, due: int) -> str:
    newest = found.clock.newest_event
    event = f"newest event {windows.moment(newest):%Y-%m-%d %H:%M}" if newest is not None else "no event"
    idle = ", nothing comes any more" if found.clock.idle else ""
    return (
        f"{request.namespace}/{request.model}, policy {request.policy}, revision {request.revision}: "
        f"{len(found.files)} capture files, {event}{idle}; {judged} windows were judged, {due} are due"
    )
