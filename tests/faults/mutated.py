"""What becomes of a mutated spec: what a real API server says of it, and where the operator comes to with it.

The API server is asked by a dry run, so that it says what a person would hear, and gives back the spec as it would be
stored, defaults filled in. The operator's reconcilers then meet that spec in a cluster in memory, with a clock that is
moved by hand: new, as a change in the middle of a rollout, and taken back."""

from __future__ import annotations

import copy
import http.client
import json
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.cluster.plane import Plane
from tests.unit.controller.world import NAMESPACE, World
from truekeep.cluster import kinds
from truekeep.cluster.kinds import Kind

Json = dict[str, Any]
KINDS: dict[str, tuple[Kind, str]] = {
    "models": (kinds.MODEL, "m"),
    "driftpolicies": (kinds.DRIFT_POLICY, "p"),
    "trainingruns": (kinds.TRAINING_RUN, "r"),
    "modelapprovals": (kinds.MODEL_APPROVAL, "a"),
}
# Rounds and the seconds between them: a rollout's steps, then its window and a cooldown, then whatever may take days.
STEPS = ((14, 3.0), (4, 120.0), (3, 100_000.0))


@dataclass
class Admission:
    """The API server's word on objects that are never stored."""

    plane: Plane

    def __post_init__(self) -> None:
        pki, url = self.plane.layout.pki, urlsplit(self.plane.server)
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        self._connection = http.client.HTTPSConnection(str(url.hostname), url.port, context=context, timeout=30)

    def asked(self, plural: str, spec: Json) -> tuple[int, Json]:
        """Status code, and the object as it would be stored, or what is said against it."""
        kind, name = KINDS[plural]
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, "namespace": "default"},
            "spec": spec,
        }
        path = f"/apis/{kind.api_version}/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict"
        for _ in range(3):
            with suppress(OSError, http.client.HTTPException):  # it closes a connection that rested too long
                self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = self._connection.getresponse()
                return answer.status, json.loads(answer.read())
            self._connection.close()
        raise RuntimeError("the API server does not answer")


class Life:
    """A Model and its policy in a cluster of their own."""

    def __init__(self, model: Json, policy: Json) -> None:
        self.world = World()
        self._specs = {"models": model, "driftpolicies": policy}

    async def apply(self, plural: str, spec: Json | None = None) -> None:
        """What a person applies."""
        kind, name = KINDS[plural]
        self._specs[plural] = copy.deepcopy(self._specs[plural] if spec is None else spec)
        self.world.apply(kind, name, copy.deepcopy(self._specs[plural]))

    async def begin(self, rounds: int) -> None:
        """Both are applied, and some time passes."""
        for plural in self._specs:
            await self.apply(plural)
        await self.world.rounds(rounds)

    async def settle(self) -> None:
        """Time passes until nothing is to come. AssertionError where writes never end."""
        for count, seconds in STEPS:
            await self.world.rounds(count, seconds)
        before = len(self.world.api.writes)
        await self.world.rounds(2)
        late = self.world.api.writes[before:]
        assert not late, f"it never comes to rest: {late[:6]}"

    def crashes(self) -> set[str]:
        """Kinds whose reconciler crashed, which no spec may bring about."""
        return {kind for kind, result in self.world.meter.results if result == "error"}

    def state(self) -> Json:
        """Where it stands, without what tells one history from another: names, numbers, digests and times."""
        api = self.world.api
        children: Json = {
            kind.kind: sorted(json.dumps(_bare(item), sort_keys=True) for item in api.all(kind))
            for kind in (kinds.CRON_JOB, kinds.AUTOSCALER, kinds.DISRUPTION_BUDGET)  # those that a spec shapes
        }
        live = self.world.status().get("active", {}).get("deployment")
        children["Deployment"] = sorted(
            json.dumps(_bare(item), sort_keys=True)
            for item in api.all(kinds.DEPLOYMENT)
            if item["metadata"]["name"] == live
        )
        children["Service"] = [
            json.dumps(_bare(item), sort_keys=True)
            for item in api.all(kinds.SERVICE)
            if item["metadata"]["name"] == KINDS["models"][1]
        ]
        conditions = {plural: self.conditions(plural) for plural in self._specs}
        return {**children, "conditions": conditions}

    def conditions(self, plural: str) -> dict[str, tuple[str, str]]:
        """Status and reason of each."""
        kind, name = KINDS[plural]
        status = self.world.api.objects[(kind.kind, NAMESPACE, name)].get("status") or {}
        return {each["type"]: (each["status"], each["reason"]) for each in status.get("conditions") or ()}

    def is_told(self, plural: str) -> bool:
        """Whether the conditions speak of the spec as it is now, and say that it is met, or what is in the way."""
        kind, name = KINDS[plural]
        item = self.world.api.objects[(kind.kind, NAMESPACE, name)]
        found = {each["type"]: each for each in (item.get("status") or {}).get("conditions") or ()}
        if {"Ready", "Reconciling", "Stalled"} - found.keys():
            return False
        current = all(each.get("observedGeneration") == item["metadata"]["generation"] for each in found.values())
        reported = found["Ready"]["status"] == "True" or bool(found["Ready"]["message"])
        return current and reported


def _bare(item: Json) -> Json:
    """What an object is for, with the marks of its history made the same."""
    text = json.dumps(item.get("spec"), sort_keys=True)
    for pattern, word in (
        (r"sha256:[0-9a-f]{64}", "DIGEST"),
        (r"\bm-r\d+-[0-9a-f]{6}\b", "DEPLOYMENT"),
        (r"\bm-[0-9a-f]{10}\b", "RUN"),
        (r'(truekeep\.dev/revision\\*": \\*")\d+', r"\1N"),
        (r'(revision\\*":\s*)\d+', r"\1N"),
        (r"\buid-\d+\b", "UID"),
        (r"20\d\d-\d\d-\d\dT[0-9:.]+(Z|\+00:00)", "TIME"),
    ):
        text = re.sub(pattern, word, text)
    return dict(json.loads(text))
