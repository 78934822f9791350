"""What a store has of a Model whose cluster is lost, and the TrainingRuns that bring it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from truekeep.api.common import API_VERSION
from truekeep.api.names import LABEL_MODEL
from truekeep.cli.kube import Json
from truekeep.cli.stores import folders
from truekeep.contract import layout
from truekeep.contract.canonical import sha256
from truekeep.contract.heritage import Heritage, heritage
from truekeep.contract.results import TrainResult
from truekeep.storage import ObjectMissing
from truekeep.storage import decisions as stored
from truekeep.storage.artifacts import Store

THREADS = 8
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Former:
    """One run that ended, as the store has it."""

    name: str
    run_uid: str
    reason: str
    finished: datetime
    trigger: Mapping[str, Any] = field(default_factory=dict)
    revision: int | None = None
    artifact: str | None = None  # digest

    def manifest(self, namespace: str, model: str, lost: Lost) -> dict[str, Any]:
        """The TrainingRun that is this one again."""
        restore = {"runUid": self.run_uid, "modelUid": lost.model_uid, "latestRevision": lost.latest}
        if self.revision is not None:
            restore["revision"] = self.revision
        return {
            "apiVersion": API_VERSION,
            "kind": "TrainingRun",
            "metadata": {"name": self.name, "namespace": namespace, "labels": {LABEL_MODEL: model}},
            "spec": {"modelRef": {"name": model}, "trigger": dict(self.trigger), "restore": restore},
        }


@dataclass(frozen=True)
class Lost:
    """A Model as its store remembers it. `champion`: what answered last; `others`: UIDs of other Models of this name;
    `notes`: what is not restored, and why; `faults`: what was altered or lost."""

    model_uid: str
    runs: tuple[Former, ...] = ()
    latest: int = 0
    champion: int | None = None
    since: datetime | None = None
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def lost(store: Store, namespace: str, model: str, model_uid: str | None, most_unsuccessful: int) -> Lost | None:
    """What is there of a Model, of the newest of its name unless a UID is given; None for nothing. StoreError."""
    pages = stored.read(store, namespace, model)
    runs, broken = _runs(store, namespace, model)
    uid = model_uid or (pages.decisions[-1].model_uid if pages.decisions else _newest(runs))
    if uid is None:
        return None
    known = heritage(pages.decisions, uid)
    uids = known.model_uids or frozenset({uid})
    mine = [(former, of) for former, of in runs if of in uids or known.of_run(former.run_uid)]
    numbered, notes = _numbered(known, [former for former, _ in mine])
    failed = sorted((one for one, _ in mine if one.artifact is None), key=lambda one: one.finished, reverse=True)
    if len(failed) > most_unsuccessful:
        notes.append(f"{len(failed) - most_unsuccessful} older runs that made no revision stay in the store alone")
    restored = [*numbered, *failed[:most_unsuccessful]]
    there = {one.run_uid for one in numbered}
    for number, made in sorted(known.revisions.items()):
        if made.run_uid not in there:
            notes.append(f"revision {number} (run {made.run}) has no readable result in the store: it stays lost")
    numbers = [one.revision for one in numbered if one.revision]
    others = {one.model_uid for one in pages.decisions} | {of for _, of in runs if of}
    champion = known.champion
    return Lost(
        model_uid=uid,
        runs=tuple(sorted(restored, key=lambda one: (one.finished, one.name))),
        latest=max([known.latest, *numbers], default=0),
        champion=champion.revision if champion else None,
        since=champion.time if champion else None,
        others=tuple(sorted(others - uids)),
        notes=tuple(notes),
        faults=(*pages.faults, *broken),
    )


def models(store: Store, namespace: str) -> list[str]:
    """Names of the Models of a namespace that have runs in the store."""
    return [name for name in folders(store, f"{namespace}/") if any(folders(store, f"{namespace}/{name}/runs/"))]


def _numbered(known: Heritage, runs: list[Former]) -> tuple[list[Former], list[str]]:
    """The revisions. What ended after the last one whose number was written down gets the numbers that follow."""
    found, notes = [], []
    newest = max((one.time for one in known.revisions.values()), default=LONG_AGO)
    next_number = known.latest + 1
    for one in sorted((one for one in runs if one.artifact), key=lambda one: (one.finished, one.name)):
        made = known.of_run(one.run_uid)
        if made is not None:
            found.append(_with(one, made.revision))
        elif one.finished < newest:
            notes.append(f"run {one.name} made an artifact that never got a number: it is not restored")
        else:
            words = "its number had not been written down when the cluster was lost"
            notes.append(f"run {one.name} becomes revision {next_number}: {words}")
            found.append(_with(one, next_number))
            next_number += 1
    return found, notes


def _with(one: Former, revision: int | None) -> Former:
    return Former(one.name, one.run_uid, one.reason, one.finished, one.trigger, revision, one.artifact)


def _newest(runs: list[tuple[Former, str]]) -> str | None:
    """Whose the newest run is."""
    return max(runs, key=lambda each: each[0].finished)[1] if runs else None


def _runs(store: Store, namespace: str, model: str) -> tuple[list[tuple[Former, str]], list[str]]:
    """All runs that ended, each with the UID of its Model, and what is wrong with others."""
    prefix = f"{namespace}/{model}/runs/"
    uids = list(folders(store, prefix))
    found: list[tuple[Former, str]] = []
    faults: list[str] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as pool:
        for seen in pool.map(lambda uid: _run(store, namespace, model, uid), uids):
            if isinstance(seen, str):
                faults.append(seen)
            elif seen is not None:
                found.append(seen)
    return found, faults


def _run(store: Store, namespace: str, model: str, uid: str) -> tuple[Former, str] | str | None:
    """A run, or what is wrong with it; None where it never came to a result."""
    key = layout.run_result(namespace, model, uid)
    try:
        result = TrainResult.model_validate_json(store.get(key))
    except ObjectMissing:
        return None
    except ValidationError as error:
        return f"{store.uri(key)} is no result: {error.errors(include_url=False)[0]['msg']}"
    if result.record is None:
        return f"{store.uri(key)} names no record, so that nobody knows which run it was"
    key = layout.record(result.record.id)
    try:
        content = store.get(key)
    except ObjectMissing:
        return f"{store.uri(key)} is missing: the record was taken away or lost"
    if sha256(content) != result.record.id:
        return f"{store.uri(key)}: THE RECORD WAS ALTERED, do not trust it"
    record = json.loads(content)
    run = record["run"]
    return (
        Former(
            name=run["name"],
            run_uid=uid,
            reason=result.reason,
            finished=datetime.fromisoformat(record["times"]["finished"]),
            trigger=run["trigger"],
            artifact=result.artifact.digest if result.reason == "Succeeded" and result.artifact else None,
        ),
        run["modelUid"],
    )


@dataclass(frozen=True)
class Step:
    """What becomes of one run. `delete`: it is there, but came to nothing, and is made again."""

    former: Former
    what: str  # There, Create, Again
    delete: bool = False


class ConflictError(Exception):
    """What is in the cluster does not go with what is to be restored, in words."""


def steps(state: Lost, runs: list[Json]) -> list[Step]:
    """What is to be done. `runs`: those that the namespace has, of whatever Model. ConflictError."""
    there = {str(run["metadata"]["name"]): run for run in runs}
    holders = {run["status"]["revision"]: run for run in runs if (run.get("status") or {}).get("revision")}
    found = []
    for former in state.runs:
        live = there.get(former.name)
        holder = holders.get(former.revision)
        if holder is not None and _digest(holder) != former.artifact:
            raise ConflictError(
                f"revision {former.revision} is run {holder['metadata']['name']} here, but run {former.name} in the "
                "store. Delete the Model and its runs, restore, then apply the Model again"
            )
        if live is None:
            found.append(Step(former, "Create"))
        elif not _is(live, former):
            raise ConflictError(
                f"there is another TrainingRun {former.name} in this cluster, made at "
                f"{live['metadata'].get('creationTimestamp')}. Delete it, then restore"
            )
        elif _came_to_nothing(live):
            found.append(Step(former, "Again", delete=True))
        else:
            found.append(Step(former, "There"))
    return found


def trained_anew(model: Json | None, runs: list[Json]) -> list[str]:
    """Runs that are under way because the Model was applied before its revisions were restored."""
    if model is None or ((model.get("status") or {}).get("active")):
        return []
    return [
        str(run["metadata"]["name"])
        for run in runs
        if not run["spec"].get("restore")
        and (run["spec"].get("trigger") or {}).get("type") == "Spec"
        and not _ended(run)
    ]


def _is(live: Json, former: Former) -> bool:
    return former.run_uid in {(live["spec"].get("restore") or {}).get("runUid"), live["metadata"].get("uid")}


def _came_to_nothing(live: Json) -> bool:
    status = live.get("status") or {}
    return bool(live["spec"].get("restore")) and _ended(live) and not status.get("restored")


def _ended(run: Json) -> bool:
    conditions = (run.get("status") or {}).get("conditions") or []
    return any(each["type"] in {"Complete", "Failed"} and each["status"] == "True" for each in conditions)


def _digest(run: Json) -> str | None:
    return ((run.get("status") or {}).get("artifact") or {}).get("digest")
