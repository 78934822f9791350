"""What people and clusters do to the operator's objects behind its back, at rest; and what there has to be soon after.

Each strikes when the story's third chapter is over: revision 2 is live, revision 1 warm, two runs are done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.faults.script import MODEL
from tests.faults.upstream import Json, Mirror, Upstream, place

AT = 2  # the chapter after which they strike
DIGEST = f"sha256:{'0' * 64}"


class Victim(Protocol):
    """The story that they happen to."""

    namespace: str

    @property
    def upstream(self) -> Upstream: ...

    @property
    def mirror(self) -> Mirror: ...


Act = Callable[[Victim], Awaitable[None]]


@dataclass(frozen=True)
class Mishap:
    """`forgiven`: differences that may stay, as a pattern."""

    name: str
    act: Act
    forgiven: str = ""

    def remaining(self, lines: list[str]) -> list[str]:
        """The differences that are not forgiven."""
        return [line for line in lines if not self.forgiven or not re.match(self.forgiven, line)]


def _deleted(plural: str, pick: Callable[[Victim], str]) -> Act:
    async def act(victim: Victim) -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        await victim.upstream.do("DELETE", f"{place(plural, victim.namespace)}/{pick(victim)}", body)

    return act


def _changed(plural: str, pick: Callable[[Victim], str], patch: Json, sub: str = "") -> Act:
    async def act(victim: Victim) -> None:
        await victim.upstream.patch(plural, victim.namespace, pick(victim), patch, sub)

    return act


def _status(plural: str, status: Any) -> Act:
    return _changed(plural, _model, {"status": status}, "/status")


def _model(_: Victim) -> str:
    return MODEL


def _monitor(victim: Victim) -> str:
    (cronjob,) = victim.mirror.all("cronjobs", victim.namespace)
    return str(cronjob["metadata"]["name"])


def _live(victim: Victim) -> str:
    model = victim.mirror.get("models", victim.namespace, MODEL) or {}
    return str(model["status"]["active"]["deployment"])


def _done_job(victim: Victim) -> str:
    model = victim.mirror.get("models", victim.namespace, MODEL) or {}
    return str(model["status"]["active"]["run"])


async def _another_image(victim: Victim) -> None:
    live = victim.mirror.get("deployments", victim.namespace, _live(victim)) or {}
    containers = [{**each, "image": "localhost/another:1"} for each in live["spec"]["template"]["spec"]["containers"]]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    await victim.upstream.patch("deployments", victim.namespace, _live(victim), patch)


async def _nonsense_and_back(victim: Victim) -> None:
    """While it stands, the Model says that it is not understood; what serves goes on."""
    for value in ("../../etc", None):
        patch = {"metadata": {"annotations": {"truekeep.dev/rollback": value}}}
        model = await victim.upstream.patch("models", victim.namespace, MODEL, patch)
        live = model["status"]["active"]["revision"]
        wanted = value is not None
        for _ in range(100):
            status = (victim.mirror.get("models", victim.namespace, MODEL) or {})["status"]
            assert status["active"]["revision"] == live
            if wanted == any(each["reason"] == "RollbackUnclear" for each in status["conditions"]):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"the Model does not say what it makes of {value!r}: {status['conditions']}")


async def _every_pod_goes(victim: Victim) -> None:
    for pod in victim.mirror.all("pods", victim.namespace):
        path = f"{place('pods', victim.namespace)}/{pod['metadata']['name']}?gracePeriodSeconds=0"
        await victim.upstream.ask("DELETE", path)


BY_HAND = (
    Mishap("the live Deployment is deleted", _deleted("deployments", _live)),
    Mishap("the live Deployment is scaled", _changed("deployments", _live, {"spec": {"replicas": 5}})),
    Mishap("the live Deployment is scaled to nothing", _changed("deployments", _live, {"spec": {"replicas": 0}})),
    Mishap(
        "the live Deployment gets another image",
        _another_image,
    ),
    Mishap(
        "marks of the live Deployment become garbage",
        _changed(
            "deployments",
            _live,
            {"metadata": {"annotations": {"truekeep.dev/serving-key": "?", "truekeep.dev/artifact-digest": "\n"}}},
        ),
    ),
    Mishap("the Service is deleted", _deleted("services", _model)),
    Mishap("the Service selects nobody", _changed("services", _model, {"spec": {"selector": {"nobody": "there"}}})),
    Mishap("the Service is orphaned", _changed("services", _model, {"metadata": {"ownerReferences": None}})),
    Mishap("the revision's own Service is deleted", _deleted("services", _live)),
    Mishap("the disruption budget is deleted", _deleted("poddisruptionbudgets", _model)),
    Mishap("the disruption budget allows all", _changed("poddisruptionbudgets", _model,
           {"spec": {"minAvailable": None, "maxUnavailable": "100%"}})),
    # Its Jobs go with it; what they found is in the policy's status.
    Mishap("the monitor's CronJob is deleted", _deleted("cronjobs", _monitor),
           r"jobs/flight-delay-monitor-\d: is missing"),
    Mishap("the monitor's CronJob is suspended", _changed("cronjobs", _monitor, {"spec": {"suspend": True}})),
    Mishap("every pod is deleted by force", _every_pod_goes),
    Mishap("the Job of a finished run is deleted", _deleted("jobs", _done_job), r"jobs/run-2: is missing"),
)  # fmt: skip
KEPT_JOB = r"jobs/run-2: is missing|"
# What only the status knew of former times is lost with it.
PAST = KEPT_JOB + r"models/flight-delay\.(status\.(history|lastRollout|previous|former|lastFailure|handled)|generation)"
# A status that names another live revision is believed until the right one was rolled out in its place.
BELIEVED = PAST + r"|(deployments|services)/deployment-(1|77)|made\.answered"
GARBAGE = (
    Mishap(
        "the Model's status names what never was",
        _status(
            "models",
            {
                "active": {"revision": 77, "run": "gone", "artifactDigest": DIGEST, "deployment": "gone"},
                "candidate": {
                    "revision": 99,
                    "run": "gone",
                    "artifactDigest": DIGEST,
                    "deployment": "gone-too",
                    "startedAt": "1970-01-01T00:00:00Z",
                },
                "history": [],
            },
        ),
        BELIEVED,
    ),
    Mishap("the Model's conditions are gone", _status("models", {"conditions": None}), PAST),
    Mishap("the Model's status is gone", _status("models", None), PAST),
    Mishap(
        "the policy's status counts what it never saw",
        _status("driftpolicies", {"consecutive": 50, "watchedRevision": 44, "summary": "?", "conditions": None}),
        PAST,
    ),
    Mishap("an annotation asks for a rollback to nonsense, and is taken back", _nonsense_and_back, PAST),
)
