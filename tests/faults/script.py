"""The story that every plan tells: the demo's, with scripted results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tests.faults.kubelet import NO_GOOD, TOO_SMALL
from tests.faults.upstream import Json

MODEL = "flight-delay"
BEGINS = datetime(2013, 3, 1, tzinfo=UTC)
WINDOW = timedelta(days=28)


class Team(Protocol):
    """What people, and time, do to the cluster; and what they see."""

    async def apply(self, plural: str, document: Json) -> None: ...

    async def patch(self, plural: str, patch: Json) -> None: ...

    async def look(self, finds: Json) -> None: ...

    def see(self, plural: str) -> Json: ...


@dataclass(frozen=True)
class Chapter:
    """`act`: what happens. `done`: how one sees that the operator has answered it."""

    name: str
    act: Callable[[Team], Awaitable[None]]
    done: Callable[[Team], bool]


def model() -> Json:
    """The Model, as it is at first."""
    spec: dict[str, Any] = {
        "store": {"s3": {"uri": "s3://models/", "credentialsSecretRef": {"name": "lake"}}},
        "data": {
            "source": {"s3": {"uri": "s3://lake/flights/"}},
            "timeColumn": "at",
            "key": "id",
            "label": {"column": "late"},
            "features": [{"name": "hour", "type": "Number"}],
        },
        "training": _recipe("120"),
        "evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.65"}]},
        "serving": {
            "replicas": 2,
            "resources": _memory("1Gi"),
            "rollout": {"steps": [{"weightPercent": 33, "durationSeconds": 2}], "minRequests": 5},
            "rollbackWindowSeconds": 86400,
            "capture": {"s3": {"uri": "s3://lake/captures/"}},
        },
    }
    return {"apiVersion": "truekeep.dev/v1alpha1", "kind": "Model", "metadata": {"name": MODEL}, "spec": spec}


def policy() -> Json:
    """The DriftPolicy. Its own schedule never comes: the story says when it looks."""
    spec = {
        "modelRef": {"name": MODEL},
        "schedule": "0 0 29 2 *",
        "window": {"hours": 672},
        "consecutiveWindows": 2,
        "responses": [{"finding": "DataDrift", "action": "Retrain"}],
        "cooldownSeconds": 3600,
        "maxRunsPerWeek": 3,
    }
    return {"apiVersion": "truekeep.dev/v1alpha1", "kind": "DriftPolicy", "metadata": {"name": MODEL}, "spec": spec}


def _recipe(iterations: str) -> Json:
    estimator = "sklearn.ensemble.HistGradientBoostingClassifier"
    return {"recipe": {"estimator": estimator, "parameters": [{"name": "max_iter", "value": iterations}]}}


def _memory(much: str) -> Json:
    return {"requests": {"memory": much}, "limits": {"memory": much}}


def found(windows: int) -> Json:
    """What a monitor reports after so many windows, all of which drifted."""
    verdicts = [
        {
            "start": (BEGINS + number * WINDOW).isoformat(),
            "end": (BEGINS + (number + 1) * WINDOW).isoformat(),
            "revision": 1,
            "rows": 30_000,
            "verdict": "Drift",
            "kinds": ["DataDrift"],
            "columns": 1,
        }
        for number in reversed(range(windows))
    ]
    finding = {
        "kind": "DataDrift",
        "column": "hour",
        "statistic": "KolmogorovSmirnov",
        "value": "0.6",
        "threshold": "0.5",
        "message": "hour moved",
    }
    return {"windows": verdicts, "findings": [finding]}


def _condition(item: Json, kind: str) -> Json:
    conditions = (item.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})


def _current(item: Json) -> bool:
    generation = item["metadata"]["generation"] if item else 0
    return bool(item) and (item.get("status") or {}).get("observedGeneration") == generation


def _serves(team: Team, revision: int, reason: str | None = None) -> bool:
    item = team.see("models")
    status = item.get("status") or {}
    ready = _condition(item, "Ready")
    return (
        _current(item)
        and (status.get("active") or {}).get("revision") == revision
        and status.get("candidate") is None
        and (ready.get("status") == "True" if reason is None else ready.get("reason") == reason)
    )


def _consecutive(team: Team) -> int:
    return int((team.see("driftpolicies").get("status") or {}).get("consecutive") or 0)


async def _ask(team: Team) -> None:
    await team.apply("models", model())
    await team.apply("driftpolicies", policy())


async def _retrain(team: Team) -> None:
    await team.patch("models", {"metadata": {"annotations": {"truekeep.dev/retrain": NO_GOOD}}})


async def _push_bad(team: Team) -> None:
    training, serving = _recipe("140"), {"resources": _memory(TOO_SMALL)}
    await team.patch("models", {"spec": {"training": training, "serving": serving}})


async def _mend(team: Team) -> None:
    await team.patch("models", {"spec": {"serving": {"resources": _memory("1Gi")}}})


def _gate_failed(team: Team) -> bool:
    status = team.see("models").get("status") or {}
    failure = status.get("lastFailure") or {}
    return status.get("handledRetrain") == NO_GOOD and failure.get("reason") == "GatesFailed" and not status.get("run")


def _pin(revision: int | None) -> Callable[[Team], Awaitable[None]]:
    async def act(team: Team) -> None:
        await team.patch("models", {"spec": {"serving": {"pinnedRevision": revision}}})

    return act


CHAPTERS = (
    Chapter(
        "train, gate, serve",
        _ask,
        lambda team: _serves(team, 1) and _condition(team.see("driftpolicies"), "Ready").get("status") == "True",
    ),
    Chapter("an odd window", lambda team: team.look(found(1)), lambda team: _consecutive(team) == 1),
    Chapter(
        "drift, retrain, canary, promote",
        lambda team: team.look(found(2)),
        lambda team: _serves(team, 2) and (team.see("driftpolicies").get("status") or {}).get("watchedRevision") == 2,
    ),
    Chapter("a run by hand fails the gates", _retrain, _gate_failed),
    Chapter("a bad change is rolled back", _push_bad, lambda team: _serves(team, 2, "RolledBack")),
    Chapter("it is mended", _mend, lambda team: _serves(team, 3)),
    Chapter("back by a pin", _pin(2), lambda team: _serves(team, 2, "Pinned")),
    Chapter("and home", _pin(None), lambda team: _serves(team, 3)),
)
