"""Carrying out what was decided. Every write is one that a repeat does not double: names follow from causes, and what
already holds is not written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from truekeep.api.names import FIELD_MANAGER, MANAGED_BY
from truekeep.cluster import kinds
from truekeep.cluster.api import Api
from truekeep.cluster.errors import AlreadyExists, NameTaken, NotFound, Refused, Terminating
from truekeep.cluster.kinds import Kind
from truekeep.cluster.together import NOT_READ, There, Together
from truekeep.cluster.views import controller_uid, frozen_template, meta
from truekeep.domain.observed import Meta, ModelView
from truekeep.domain.plan import DeploymentIntent, Note, Settings
from truekeep.resources.compare import holds, left_over
from truekeep.resources.serving_deployment import serving_deployment

Json = dict[str, Any]
logger = logging.getLogger(__name__)
SCALED_BY = f"{FIELD_MANAGER}-scale"  # field manager of the replicas that an autoscaler has not changed yet
NOTE_LIMIT = 1024  # of an Event's note, by the API
UNORDERED = ("conditions", "metrics")  # lists by key: the API server may keep them in another order


class Writer:
    """Writes what reconcilers decided."""

    def __init__(self, api: Api, settings: Settings, instance: str) -> None:
        self._api = api
        self._reads = Together(api)
        self._settings = settings
        self._instance = instance

    async def _live(self, kind: Kind, namespace: str, name: str, there: There) -> Json | None:
        if (kind, name) in there.objects:
            return there.objects[kind, name]
        return await self._reads.get(kind, namespace, name)

    async def ensure(self, kind: Kind, manifest: Json, there: There = NOT_READ) -> bool:
        """Make the manifest hold, restoring what somebody changed. Whether anything was written.

        NameTaken where an object of this name belongs to somebody else: it is left alone."""
        about = manifest["metadata"]
        return await self._ensure(kind, manifest, await self._live(kind, about["namespace"], about["name"], there))

    async def _ensure(self, kind: Kind, manifest: Json, live: Json | None) -> bool:
        """The same where the object was read already."""
        about = manifest["metadata"]
        if live is not None:
            self._must_be_ours(kind, live, manifest)
            # Of a Deployment the replicas are left out on purpose, and the rest never changes.
            beyond = kind != kinds.DEPLOYMENT and left_over(manifest, live, FIELD_MANAGER)
            if holds(manifest, live) and not beyond:
                return False
        applied = await self._api.apply(kind, manifest)
        if not holds(manifest, applied):
            # What others added to a list of ours stays in an apply; only a replacement takes it away.
            version = {"resourceVersion": applied["metadata"]["resourceVersion"]}
            whole = {**manifest, "metadata": {**about, **version}}
            if kind == kinds.DEPLOYMENT:  # what an autoscaler decides about is left out of an apply, but may not go
                whole["spec"] = {"replicas": applied["spec"]["replicas"], **manifest["spec"]}
            await self._api.replace(kind, whole)
        return True

    async def create(self, kind: Kind, manifest: Json) -> bool:
        """Create an object, once. False where it is there already. NameTaken where that one is somebody else's."""
        try:
            await self._api.create(kind, manifest)
        except AlreadyExists:
            about = manifest["metadata"]
            live = await self._api.get(kind, about["namespace"], about["name"])
            if live is not None:
                self._must_be_ours(kind, live, manifest)
            return False
        return True

    async def deployment(self, model: ModelView, intent: DeploymentIntent, there: There = NOT_READ) -> bool:
        """Make a serving Deployment, or scale and restore the one that is there; its pods stay as they were first
        made, server image included. Whether anything was written."""
        namespace = model.meta.namespace
        live = await self._live(kinds.DEPLOYMENT, namespace, intent.name, there)
        if live is None:
            return await self._ensure(kinds.DEPLOYMENT, serving_deployment(model, intent, self._settings), None)
        template = frozen_template(live) or live["spec"]["template"]
        scaled = intent.scaled or await self._scaled_by_others(model.meta, intent.name, there)
        manifest = serving_deployment(model, intent, self._settings, template, scaled_by_others=scaled)
        if scaled and not holds(manifest, live):
            await self._hand_over_replicas(live)
        return await self._ensure(kinds.DEPLOYMENT, manifest, live)

    async def _hand_over_replicas(self, live: Json) -> None:
        """Give the replicas of a Deployment to another field manager, where they are ours: what we leave out of an
        apply and nobody else owns would fall back to 1."""
        about = meta(live)
        if not _owns_replicas(live):
            return
        manifest = {
            "apiVersion": kinds.DEPLOYMENT.api_version,
            "kind": "Deployment",
            "metadata": {
                "namespace": about.namespace,
                "name": about.name,
                "resourceVersion": about.resource_version,
            },
            "spec": {"replicas": live["spec"]["replicas"]},
        }
        await self._api.apply(kinds.DEPLOYMENT, manifest, SCALED_BY)

    async def _scaled_by_others(self, owner: Meta, name: str, there: There) -> bool:
        """Whether an autoscaler that is not ours owns the replicas of a Deployment."""
        autoscalers = there.autoscalers
        if autoscalers is None:
            autoscalers = await self._reads.list(kinds.AUTOSCALER, owner.namespace)
        for autoscaler in autoscalers:
            if controller_uid(autoscaler) == owner.uid:
                continue
            target = (autoscaler.get("spec") or {}).get("scaleTargetRef") or {}
            if target.get("kind") == "Deployment" and target.get("name") == name:
                return True
        return False

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> bool:
        """Delete an object, what it owns in the background. False where it was gone already."""
        return await self._api.delete(kind, namespace, name, uid)

    async def delete_owned(self, kind: Kind, owner: Meta, name: str, there: There = NOT_READ) -> bool:
        """Delete the owner's child of this name. False where there is none."""
        live = await self._live(kind, owner.namespace, name, there)
        if live is None or controller_uid(live) != owner.uid or meta(live).deleting:
            return False
        return await self._api.delete(kind, owner.namespace, name, meta(live).uid)

    async def status(self, kind: Kind, about: Meta, stored: Mapping[str, Any], status: Json) -> bool:
        """Write a status, whole, unless it is stored already. Conflict where the object changed since it was read.

        What somebody else wrote into a status stays in an apply, or leaves null where an object was, which the schema
        refuses for ever. Then the status is replaced, and its other owners are forgotten."""
        if _ordered(stored) == _ordered(status):
            return False
        version = about.resource_version
        try:
            applied = await self._api.apply_status(kind, about.namespace, about.name, version, status)
        except Refused as error:
            live = await self._api.get(kind, about.namespace, about.name)
            if live is None or not _others_wrote(live):
                raise
            logger.warning("somebody else wrote into the status, which is replaced: %s", error)
        else:
            if _ordered(applied.get("status") or {}) == _ordered(status) or not _others_wrote(applied):
                return True
            live, version = applied, str(applied["metadata"]["resourceVersion"])
        owners = [each for each in live["metadata"].get("managedFields") or [] if each.get("subresource") != "status"]
        await self._api.set_status(kind, about.namespace, about.name, version, status, owners)
        return True

    async def event(self, kind: Kind, about: Meta, note: Note, moment: datetime) -> None:
        """Say something about an object. The same about the same state of it is said once."""
        cause = "\n".join((about.uid, about.resource_version, note.type, note.reason, note.message))
        manifest: Json = {
            "apiVersion": kinds.EVENT.api_version,
            "kind": "Event",
            "metadata": {
                "name": f"{about.name}.{hashlib.sha256(cause.encode()).hexdigest()[:16]}",
                "namespace": about.namespace,
                "labels": dict(MANAGED_BY),
            },
            "eventTime": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": note.type,
            "reason": note.reason[:128],
            "note": _shortened(note.message),
            "action": "Reconcile",
            "reportingController": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
                "resourceVersion": about.resource_version,
            },
        }
        try:
            await self._api.create(kinds.EVENT, manifest)
        except (AlreadyExists, NotFound, Terminating):  # it was said, or its namespace goes
            return
        except Refused as error:  # a quota on Events must not keep the rest from going on
            logger.warning("an Event could not be written: %s", error)

    def _must_be_ours(self, kind: Kind, live: Json, manifest: Json) -> None:
        """An object without an owner, but with our label, was orphaned on purpose: it is taken back."""
        owner = controller_uid(live)
        wanted = controller_uid(manifest)
        labels = (live.get("metadata") or {}).get("labels") or {}
        if owner == wanted or (owner is None and MANAGED_BY.items() <= labels.items()):
            return
        about = meta(live)
        whose = "belongs to an object that is gone; it is removed soon" if _leftover(live, manifest) else "is not ours"
        raise NameTaken(
            f"{kind.kind} {about.namespace}/{about.name} {whose}; delete it, or give the Model or policy another name"
        )


def _others_wrote(item: Json) -> bool:
    """Whether parts of a status are not ours by apply alone."""
    return any(
        each.get("subresource") == "status" and (each.get("manager"), each.get("operation")) != (FIELD_MANAGER, "Apply")
        for each in item["metadata"].get("managedFields") or []
    )


def _owns_replicas(deployment: Json) -> bool:
    """Whether the operator is who said last how many replicas there are."""
    return any(
        each.get("manager") == FIELD_MANAGER
        and not each.get("subresource")
        and "f:replicas" in ((each.get("fieldsV1") or {}).get("f:spec") or {})
        for each in deployment["metadata"].get("managedFields") or []
    )


def _leftover(live: Json, manifest: Json) -> bool:
    """Whether the object was made for an owner of the same kind and name that is gone."""
    (wanted,) = manifest["metadata"]["ownerReferences"]
    for reference in live["metadata"].get("ownerReferences") or []:
        if (reference.get("kind"), reference.get("name")) == (wanted["kind"], wanted["name"]):
            return True
    return False


def _ordered(status: Mapping[str, Any]) -> Json:
    """A status with its lists by key in a fixed order."""
    result = dict(status)
    for name in UNORDERED:
        if isinstance(result.get(name), list):
            result[name] = sorted(result[name], key=lambda item: str(item.get("type") or item.get("name")))
    return result


def _shortened(text: str) -> str:
    """At most as long as an Event may be, in bytes of UTF-8."""
    if len(text.encode()) <= NOTE_LIMIT:
        return text
    return text.encode()[: NOTE_LIMIT - 4].decode(errors="ignore") + "…"
