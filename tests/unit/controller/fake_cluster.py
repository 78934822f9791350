"""An API server in memory, with what the operator's calls rely on: versions, conflicts, owners, status apart from spec.

`faults` kills the operator at a numbered write, before or after it was done. `Nodes` plays the controllers and nodes:
Deployments get ready pods, Jobs end with a message."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from truekeep.cluster import kinds
from truekeep.cluster.api import Labels
from truekeep.cluster.errors import AlreadyExists, Conflict, NotFound, Refused
from truekeep.cluster.kinds import Kind
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.requests import KeepRequest, RestoreRequest
from truekeep.contract.results import TrainResult
from truekeep.monitor import restore
from truekeep.monitor.keep import keep
from truekeep.storage.errors import ObjectMissing
from truekeep.storage.s3 import Fetched, ObjectInfo

Json = dict[str, Any]


def copied(value: Any) -> Any:
    """A deep copy, quickly."""
    return pickle.loads(pickle.dumps(value))


class KilledError(BaseException):
    """The operator was killed, here and now."""


@dataclass
class Clock:
    """Wall clock and monotonic clock in one, moved by hand."""

    moment: datetime = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def seconds(self) -> float:
        return self.moment.timestamp()

    def pass_(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class FakeApi:
    clock: Clock
    objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    kill_at: int | None = None  # number of the write
    kill_after: bool = False  # it was done before the operator died
    missing: set[str] = field(default_factory=set)  # kinds that the cluster does not have
    forbidden: set[str] = field(default_factory=set)  # kinds that the operator may not get
    refuse: Callable[[str, Kind, Json], str | None] = lambda verb, kind, manifest: None
    _version: int = 0

    # what the operator calls

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        if kind.kind in self.forbidden:
            raise Refused(f"{kind.plural} {name!r} is forbidden")
        return copied(self.objects.get((kind.kind, namespace, name)))

    async def list(
        self, kind: Kind, namespace: str | None, labels: Labels | None = None, fields: str | None = None
    ) -> list[Json]:
        if kind.kind in self.missing:
            raise NotFound("the server could not find the requested resource")
        found = [
            item
            for (name, where, _), item in sorted(self.objects.items())
            if name == kind.kind and namespace in (None, where) and _labelled(item, labels) and _selected(item, fields)
        ]
        return copied(found)

    async def each(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Labels | None = None,
        fields: str | None = None,
        page: int = 500,
    ) -> AsyncIterator[Json]:
        for item in await self.list(kind, namespace, labels, fields):
            yield item

    async def create(self, kind: Kind, manifest: Json) -> Json:
        def do() -> Json:
            if self._key(kind, manifest) in self.objects:
                raise AlreadyExists("already exists")
            return self._store(kind, copied(manifest))

        return self._write("create", kind, manifest, do)

    async def apply(self, kind: Kind, manifest: Json, manager: str = "truekeep") -> Json:
        def do() -> Json:
            live = self.objects.get(self._key(kind, manifest))
            if kind != kinds.CRON_JOB:
                return self._store(kind, _merged(live, manifest) if live else copied(manifest))
            known = (live or {}).get("metadata", {}).get("managedFields") or [{"fieldsV1": {}}]
            left = _without(live, known[0]["fieldsV1"], manifest) if live else {}
            applied = _merged(left, manifest)
            fields = _fields({key: manifest[key] for key in ("spec",)})
            applied["metadata"]["managedFields"] = [{"manager": manager, "operation": "Apply", "fieldsV1": fields}]
            return self._store(kind, applied)

        return self._write("apply", kind, manifest, do)

    async def replace(self, kind: Kind, manifest: Json) -> Json:
        def do() -> Json:
            live = self.objects.get(self._key(kind, manifest))
            if live is None:
                raise NotFound("not found")
            if manifest["metadata"].get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
                raise Conflict("changed")
            return self._store(kind, copied(manifest))

        return self._write("replace", kind, manifest, do)

    async def apply_status(self, kind: Kind, namespace: str, name: str, resource_version: str, status: Json) -> Json:
        def do() -> Json:
            live = self.objects.get((kind.kind, namespace, name))
            if live is None:
                raise NotFound("not found")
            if live["metadata"]["resourceVersion"] != resource_version:
                raise Conflict("changed")
            return self._store(kind, {**live, "status": copied(status)})

        return self._write("status", kind, {"metadata": {"namespace": namespace, "name": name}}, do)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> bool:
        def do() -> Json:
            live = self.objects.get((kind.kind, namespace, name))
            if live is None or uid not in (None, live["metadata"]["uid"]):
                return {}
            self.remove(kind, namespace, name)
            return {"was": "there"}

        return bool(self._write("delete", kind, {"metadata": {"namespace": namespace, "name": name}}, do))

    # what tests do

    def put(self, kind: Kind, manifest: Json) -> Json:
        """As a person writes it; it counts as no write of the operator."""
        return self._store(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **copied(manifest)})

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """With all that it owns."""
        gone = self.objects.pop((kind.kind, namespace, name))
        for (other, where, child), item in list(self.objects.items()):
            owners = [each["uid"] for each in item["metadata"].get("ownerReferences") or []]
            if gone["metadata"]["uid"] in owners and (other, where, child) in self.objects:
                self.remove(kinds.BY_NAME[other], where, child)

    def all(self, kind: Kind) -> list[Json]:
        return [item for (name, _, _), item in sorted(self.objects.items()) if name == kind.kind]

    def one(self, kind: Kind) -> Json:
        (item,) = self.all(kind)
        return item

    def _write(self, verb: str, kind: Kind, manifest: Json, do: Callable[[], Json]) -> Json:
        why = self.refuse(verb, kind, manifest)
        if why:
            raise Refused(why)
        number = len(self.writes)
        if number == self.kill_at and not self.kill_after:
            raise KilledError
        answer = do()
        self.writes.append(f"{verb} {kind.kind} {manifest['metadata']['name']}")
        if number == self.kill_at:
            raise KilledError
        return copied(answer)

    def _key(self, kind: Kind, manifest: Json) -> tuple[str, str, str]:
        return kind.kind, manifest["metadata"]["namespace"], manifest["metadata"]["name"]

    def _store(self, kind: Kind, item: Json) -> Json:
        key = self._key(kind, item)
        live = self.objects.get(key)
        self._version += 1
        metadata = item["metadata"]
        old = live["metadata"] if live else {}
        metadata.setdefault("uid", old.get("uid", f"uid-{self._version}"))
        metadata["creationTimestamp"] = old.get("creationTimestamp", self.clock().strftime("%Y-%m-%dT%H:%M:%SZ"))
        changed = live is None or live.get("spec") != item.get("spec")
        metadata["generation"] = old.get("generation", 0) + (1 if changed else 0)
        if live is not None and {**live, "metadata": {**old, "resourceVersion": ""}} == {
            **item,
            "metadata": {**metadata, "resourceVersion": ""},
        }:
            return live
        metadata["resourceVersion"] = str(self._version)
        if live and "status" in live:
            item.setdefault("status", live["status"])
        self.objects[key] = item
        return item


def _fields(value: Any) -> Json:
    """What an apply owns, as managedFields say it; lists are one value here."""
    return {f"f:{key}": _fields(inside) for key, inside in value.items()} if isinstance(value, dict) else {}


def _without(live: Json, owned: Json, wanted: Json) -> Json:
    """An object without what was owned and is not wanted any more."""
    result = {}
    for key, value in live.items():
        mine = owned.get(f"f:{key}")
        if mine is None or not isinstance(value, dict) or key not in wanted:
            if mine is None or key in wanted:
                result[key] = copied(value)
        else:
            result[key] = _without(value, mine, wanted[key])
    return result


def _merged(live: Json, manifest: Json) -> Json:
    """A server-side apply in small: objects are merged, all else is taken over; a selector is one value."""
    result = copied(live)
    for name, value in manifest.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict) and name != "selector":
            result[name] = _merged(result[name], value)
        else:
            result[name] = copied(value)
    return result


def _labelled(item: Json, labels: Labels | None) -> bool:
    have = item["metadata"].get("labels") or {}
    return all(have.get(key) in ([value] if isinstance(value, str) else value) for key, value in (labels or {}).items())


def _selected(item: Json, fields: str | None) -> bool:
    if not fields:
        return True
    wanted = dict(part.split("=", 1) for part in fields.split(","))
    regarding = item.get("regarding") or {}
    have = {f"regarding.{key}": regarding.get(key) for key in ("kind", "name", "uid")} | {"type": item.get("type")}
    have["status.completionTime"] = (item.get("status") or {}).get("completionTime") or ""
    have["spec.modelRef.name"] = ((item.get("spec") or {}).get("modelRef") or {}).get("name")
    return all(have.get(key) == value for key, value in wanted.items())


class MemoryStore:
    """An object store."""

    endpoint = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def uri(self, key: str = "") -> str:
        return f"s3://models/{key}"

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > (start_after or ""):
                yield ObjectInfo(key, len(self.objects[key]), "", None, datetime(2026, 1, 1, tzinfo=UTC))

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]

    def fetch(self, key: str, version_id: str | None = None, *, limit: int | None = None) -> Fetched:
        return Fetched(self.objects[key], "", None)

    def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        if only_if_absent and key in self.objects:
            return False
        self.objects[key] = data
        return True


@dataclass
class Nodes:
    """Controllers and nodes: what becomes of Deployments and Jobs."""

    api: FakeApi
    store: MemoryStore = field(default_factory=MemoryStore)
    broken: Callable[[Json], Json | None] = lambda pod: None  # a container's state, for a server pod that fails
    reason: str = "Succeeded"

    def run(self) -> None:
        """One round."""
        for deployment in self.api.all(kinds.DEPLOYMENT):
            self._deployment(deployment)
        for job in self.api.all(kinds.JOB):
            self._job(job)

    def _deployment(self, deployment: Json) -> None:
        about, spec = deployment["metadata"], deployment["spec"]
        wanted = {f"{about['name']}-{number}" for number in range(spec.get("replicas", 1))}
        mine = {pod["metadata"]["name"]: pod for pod in self._pods_of(about["uid"])}
        for name in mine.keys() - wanted:
            self.api.remove(kinds.POD, about["namespace"], name)
        ready = 0
        for name in sorted(wanted):
            pod = mine.get(name) or self._pod(name, about, spec["template"], "Deployment")
            state = self.broken(pod)
            if state is None:
                conditions = [{"type": "Ready", "status": "True"}]
                status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}
                ready += 1
            else:
                status = {"phase": "Running", "containerStatuses": [state]}
            self._set_status(kinds.POD, pod, status)
        self._set_status(kinds.DEPLOYMENT, deployment, {"readyReplicas": ready})

    def _job(self, job: Json) -> None:
        if (job.get("status") or {}).get("conditions"):
            return
        about = job["metadata"]
        pods = self._pods_of(about["uid"])
        if not pods:
            self._pod(f"{about['name']}-x", about, job["spec"]["template"], "Job")
            return
        (pod,) = pods
        request = next(e["value"] for e in pod["spec"]["containers"][0]["env"] if e["name"] == "TRUEKEEP_REQUEST")
        stamp = self.api.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        done = {"exitCode": 0, "reason": "Completed", "message": self._result(request), "finishedAt": stamp}
        status = {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": done}}]}
        self._set_status(kinds.POD, pod, status)
        complete = {"type": "Complete", "status": "True", "lastTransitionTime": stamp}
        self._set_status(kinds.JOB, job, {"conditions": [complete]})

    def _result(self, request: str) -> str:
        import hashlib
        import json

        asked = json.loads(request)
        if "candidate" in asked:
            seen = {"rows": 10, "requests": 2, "failed": 0}
            return json.dumps({"candidate": asked["candidate"], "reason": "Rehearsed", "rehearsal": seen})
        if "decisions" in asked:
            request_ = KeepRequest.model_validate(asked)
            return keep(self.store, request_, self.api.clock()).model_dump_json(by_alias=True, exclude_none=True)
        if "restore" in asked:
            return self._restored(RestoreRequest.model_validate(asked))
        if "runUid" not in asked:
            return json.dumps({"policyUid": asked["policyUid"], "revision": asked["revision"], "reason": "Looked"})
        digest = f"sha256:{hashlib.sha256(asked['runUid'].encode()).hexdigest()}"
        result = {
            "runUid": asked["runUid"],
            "reason": self.reason,
            "message": "made up",
            "trainingFingerprint": asked["trainingFingerprint"],
            "data": {"objects": 1, "rows": 1000},
            "metrics": [{"name": "roc_auc", "value": "0.7"}],
        }
        if self.reason == "Succeeded":
            result["artifact"] = {"digest": digest, "uri": "s3://models/x", "sizeBytes": 1}
            self.store.put(layout.artifact_file(digest, layout.MANIFEST), asked["runUid"].encode())
        return self._kept(asked, result)

    def _kept(self, asked: Json, result: Json) -> str:
        """The message of a run, once its record and its result are in the store."""
        now = self.api.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        named = {name: asked[name] for name in ("modelUid", "modelGeneration", "trigger")}
        run = {"name": asked["run"], "uid": asked["runUid"], "author": asked.get("author"), **named}
        times = {"started": now, "finished": now}
        record = canonical_json({"run": run, "times": times, "environment": {"image": asked["image"]}})
        key = layout.record(sha256(record))
        self.store.put(key, record)
        result = {**result, "record": {"id": sha256(record), "uri": self.store.uri(key)}}
        told = TrainResult.model_validate(result)
        key = layout.run_result(asked["namespace"], asked["model"], asked["runUid"])
        self.store.put(key, told.model_dump_json(by_alias=True, exclude_none=True).encode(), only_if_absent=True)
        return told.to_message()

    def _restored(self, request: RestoreRequest) -> str:
        try:
            return restore.restore(self.store, request).to_message()
        except restore.RestoreError as error:
            return restore.failed(request, "RestoreInvalid", str(error)).to_message()

    def _pods_of(self, uid: str) -> list[Json]:
        return [
            pod
            for pod in self.api.all(kinds.POD)
            if any(each["uid"] == uid for each in pod["metadata"].get("ownerReferences") or [])
        ]

    def _pod(self, name: str, owner: Json, template: Json, kind: str) -> Json:
        reference = {"kind": kind, "name": owner["name"], "uid": owner["uid"], "controller": True}
        metadata = {
            "name": name,
            "namespace": owner["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": [reference],
        }
        return self.api.put(kinds.POD, {"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}})

    def _set_status(self, kind: Kind, item: Json, status: Json) -> None:
        if item.get("status") != status:
            self.api.put(kind, {**item, "status": status})
