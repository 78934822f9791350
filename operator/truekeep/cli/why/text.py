"""A decision for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from truekeep.contract.hashing import number_text
from truekeep.explain.attribution import WORDS, Attribution

if TYPE_CHECKING:
    from truekeep.cli.why.command import Told
    from truekeep.contract.decisions import Decision

SCHEMA = "truekeep.dev/why/v1"
WIDTH, INDENT = 79, 14
HASH = "(keyed hash)"


def lines(told: Told) -> Iterator[str]:
    """One row, whole."""
    row, behind, checked = told.row, told.behind, told.checked
    whose = f"{row.namespace}/{row.model}, revision {row.revision}"
    yield f"request {row.request_id}, row {row.row} of {told.rows}: {whose}"
    yield from said("received", moment(row.received))
    yield from said("event", moment(row.event_time))
    yield from said("key", f"{row.key} {HASH}" if row.key and is_hash(told, None) else row.key)
    yield ""
    side = "at or above" if row.prediction else "below"
    yield from said(
        "decision", f"{row.prediction}: score {row.probability:.6g} is {side} the cut-off {row.cut_off:.6g}"
    )
    again = f"{checked.recomputed:.6g}, " if checked.recomputed is not None else ""
    yield from said("recomputed", f"{again}{checked.message}")
    yield ""
    yield from features(told)
    yield ""
    for name, value in facts(told):
        yield from said(name, value)
    for fault in behind.faults:
        yield from said("FAULT", fault)
    for gap in behind.gaps:
        yield from said("not known", gap)


def features(told: Told) -> Iterator[str]:
    """A line a feature, the one that mattered most first."""
    found = told.checked.attribution
    if found is None:
        yield "features as captured"
        for name, value in told.row.features.items():
            yield f"  {name:<28.28} {shown(told, name, value)[:48]}"
        yield from said("attribution", f"none: {told.checked.unexplained or 'it was not asked for'}")
        return
    yield f"{'features as captured':<48} added, {found.scale}"
    for name, added in found.ranked():
        error = f" ± {found.errors[name]:.2g}" if found.errors else ""
        value = shown(told, name, told.row.features.get(name))
        yield f"  {name:<24.24} {value[:20]:<20} {added:+.4f}{error}"
    yield f"  {'base, the mean of the background':<45} {found.base:+.4f}"
    yield f"  {'all of it':<45} {found.answer:+.4f}"
    yield from said("method", method(told, found))


def method(told: Told, found: Attribution) -> str:
    """How it was attributed, and against what."""
    whose = "of the artifact's own answer, not the captured one: " if told.checked.state == "Differs" else ""
    return f"{whose}{WORDS[found.method]}; against {told.behind.background_is}"


def shown(told: Told, name: str, value: Any) -> str:
    """A captured value for a person."""
    if name in told.row.dropped:
        return "(not captured)"
    if value is None:
        return "null"
    text = number_text(value) or "null" if isinstance(value, float) else str(value)
    return f"{text} {HASH}" if is_hash(told, name) else text


def is_hash(told: Told, name: str | None) -> bool:
    """Whether a feature, or (None) the key, is captured as a keyed hash. The file names the key by its own column."""
    if name is not None:
        return name in told.row.hashed
    return bool(told.row.hashed - set(told.row.features))


def facts(told: Told) -> Iterator[tuple[str, str]]:
    """What made the revision, who decided, and when it answered; name and value."""
    behind, record = told.behind, told.behind.record or {}
    run, data, environment = (record.get(part) or {} for part in ("run", "data", "environment"))
    trigger = run.get("trigger") or {}
    yield "artifact", behind.artifact or ""
    yield (
        "run",
        ", ".join(part for part in (behind.run or "", trigger.get("message") or trigger.get("type", "")) if part),
    )
    if data.get("rows") is not None:
        span = f"{short(data.get('windowStart'))} to {short(data.get('windowEnd'))}"
        objects = len(data.get("objects") or [])
        read = "1 object" if objects == 1 else f"{objects:,} objects"
        yield "data", f"{data['rows']:,} rows, {span}, from {read}; {data.get('digest')}"
    if record:
        yield (
            "code",
            ", ".join(
                part
                for part in (
                    environment.get("image") or "",
                    f"truekeep {environment.get('truekeep')}",
                    f"lock {environment.get('lockDigest')}" if environment.get("lockDigest") else "",
                )
                if part
            ),
        )
        gates = (record.get("evaluation") or {}).get("gates") or []
        yield (
            "gates",
            "; ".join(f"{one['name']} {one['value']} ({one['result'].lower()})" for one in gates) or "none declared",
        )
    for one in behind.decisions:
        if one.kind in {"Approved", "Rejected"}:
            yield one.kind.lower(), f"{one.approver}, {moment(one.time)}: {one.reason}"
    if not any(one.kind == "Approved" for one in behind.decisions):
        yield "approved", approval_words(behind.decisions)
    spans = answered(told)
    yield "answered", "; ".join(spans)
    failed = [one for one in behind.decisions if one.kind == "Failed"]
    yield "failed", "; ".join(f"{moment(one.time)}: {one.reason}" for one in failed)
    yield "record", " ".join(part for part in (behind.record_id or "", behind.record_uri or "") if part)
    yield "report", behind.report_uri or ""


def approval_words(decisions: Sequence[Decision]) -> str:
    """Who approved, where there is no word of a person."""
    promoted = next((one for one in decisions if one.kind == "Promoted"), None)
    if promoted is None:
        return "not known: no decision on this artifact is kept"
    if promoted.approver:
        return f"{promoted.approver}"
    return "by its gates alone, nobody was asked (spec.approval.mode Automatic)"


def answered(told: Told) -> list[str]:
    """When the row's artifact was live."""
    return [
        f"{moment(one.time)} to {moment(until) if until else 'now, or the end of what is known'}"
        for one, until in told.ledger.intervals()
        if one.artifact_digest == told.behind.artifact
    ]


def doubts(told: Sequence[Told]) -> list[str]:
    """What does not hold, each once: for standard error, and for the exit code."""
    found = []
    for one in told:
        if one.checked.state == "Differs":
            found.append(f"request {one.row.request_id}, row {one.row.row}: {one.checked.message}")
        found += one.behind.faults
    return list(dict.fromkeys(found))


def said(name: str, text: str | None) -> Iterator[str]:
    """A name and its text, wrapped. Nothing where there is no text."""
    if text:
        first = f"  {name}".ljust(INDENT)
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=first, subsequent_indent=" " * INDENT, break_on_hyphens=False,
            break_long_words=False,
        )  # fmt: skip


def moment(time: datetime | None) -> str:
    """A time for a person."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else ""


def short(time: str | None) -> str:
    """The same, of a record's text, to the minute."""
    return time[:16].replace("T", " ") if time else "?"


def as_json(told: Sequence[Told], notes: Sequence[str]) -> dict[str, Any]:
    """The whole for a program."""
    return {"schema": SCHEMA, "decisions": [_one(each) for each in told], "notes": list(notes), "doubts": doubts(told)}


def _one(told: Told) -> dict[str, Any]:
    row, behind, checked = told.row, told.behind, told.checked
    return {
        "requestId": row.request_id,
        "row": row.row,
        "rows": told.rows,
        "namespace": row.namespace,
        "model": row.model,
        "revision": row.revision,
        "receivedAt": row.received.isoformat(),
        "eventTime": row.event_time.isoformat() if row.event_time else None,
        "key": row.key,
        "score": row.probability,
        "cutOff": row.cut_off,
        "decision": row.prediction,
        "features": {name: _plain(value) for name, value in row.features.items()},
        "hashed": sorted(row.hashed),
        "dropped": sorted(row.dropped),
        "file": row.file,
        "recomputed": {"state": checked.state, "score": checked.recomputed, "message": checked.message},
        "attribution": _attribution(told, checked.attribution),
        "artifact": behind.artifact,
        "run": behind.run,
        "record": {"id": behind.record_id, "uri": behind.record_uri, "content": behind.record},
        "report": behind.report_uri,
        "decisions": [one.dump() for one in behind.decisions],
        "answered": [
            {"since": one.time.isoformat(), "until": until.isoformat() if until else None}
            for one, until in told.ledger.intervals()
            if one.artifact_digest == behind.artifact
        ],
        "faults": list(behind.faults),
        "notKnown": [*behind.gaps, *([checked.unexplained] if checked.unexplained else [])],
    }


def _attribution(told: Told, found: Attribution | None) -> Mapping[str, Any] | None:
    if found is None:
        return None
    return {
        "method": found.method,
        "scale": found.scale,
        "background": told.behind.background_is,
        "base": found.base,
        "answer": found.answer,
        "values": dict(found.ranked()),
        "standardErrors": found.errors,
    }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
