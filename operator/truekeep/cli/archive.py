"""What the cluster knows no more of a Model, because its run was pruned or deleted, as the Model's store has it.

Read with the credentials of whoever asks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from truekeep.api.common import S3Location
from truekeep.cli import stores
from truekeep.cli.kube import Json, refuse

RUN_NAME = re.compile(r"(.+)-[0-9a-f]{10}")  # MODEL-…, as the operator names runs


def gone(model: Json, runs: Sequence[Json]) -> list[int]:
    """Numbers of the revisions whose runs are not in the cluster any more. `runs`: those of the Model."""
    latest = int((model.get("status") or {}).get("latestRevision") or 0)
    there = {(run.get("status") or {}).get("revision") for run in runs}
    return [number for number in range(1, latest + 1) if number not in there]


def spans(numbers: Sequence[int]) -> str:
    """Numbers that rise, for a person: 1 to 3, 7."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ", ".join(" to ".join(map(str, each)) for each in found)


def revision(namespace: str, model: Json, number: int, endpoint: str | None) -> dict[str, Any]:
    """What made a revision, as `lineage` tells it. Ends with 2 where the store does not know it, or does not answer."""
    from truekeep.cli import ledger
    from truekeep.storage import StoreError

    name = model["metadata"]["name"]
    try:
        store = stores.opened(location(model, endpoint))
        entries, faults = ledger.entries(store, ledger.read(store, namespace, name), only=number)
    except StoreError as error:
        refuse(f"revision {number} of {namespace}/{name} has no run in the cluster any more, and its store: {error}")
    if faults:
        refuse(f"revision {number} of {namespace}/{name} has no run in the cluster any more, and {faults[0]}")
    if not entries:
        refuse(f"{namespace}/{name} has no revision {number}, neither in the cluster nor in {store.uri('')}")
    return entries[0]


def record_of_run(
    namespace: str, models: Sequence[Json], run: str, endpoint: str | None
) -> tuple[S3Location, str] | None:
    """Store and digest of the record of a run that became a revision of one of these Models. None where it did not.
    StoreError."""
    from truekeep.cli import ledger

    named = RUN_NAME.fullmatch(run)
    for model in models:
        name = model["metadata"]["name"]
        if named is None or named[1] != name:
            continue
        place = location(model, endpoint)
        for one in ledger.read(stores.opened(place), namespace, name).decisions:
            if one.kind == "Revision" and one.run == run and one.record:
                return place, one.record
    return None


def as_run(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of `lineage` in the shape of a TrainingRun."""
    return {"spec": {"trigger": entry["trigger"]}, "status": entry}


def location(model: Json, endpoint: str | None) -> S3Location:
    """Where the Model's store is, as seen from here."""
    return stores.own(S3Location.model_validate(model["spec"]["store"]["s3"]), endpoint)
