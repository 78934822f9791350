"""The operator's reconcilers on a cluster in memory, driven by the queue and a clock that is moved by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.unit.controller.fake_cluster import Clock, FakeApi, KilledError, Nodes
from truekeep.cluster import kinds
from truekeep.cluster.kinds import Kind
from truekeep.cluster.observe import Observer
from truekeep.cluster.write import Writer
from truekeep.controller.keys import key_of
from truekeep.controller.loop import Loop
from truekeep.controller.queue import WorkQueue
from truekeep.controller.reconcilers import Tools, reconcilers
from truekeep.controller.state_metrics import StateMetrics
from truekeep.domain.observed import DeploymentView, Traffic
from truekeep.domain.plan import Settings

NAMESPACE = "demo"
SPEC: dict[str, Any] = {
    "store": {"s3": {"uri": "s3://models/", "credentialsSecretRef": {"name": "lake"}}},
    "data": {
        "source": {"s3": {"uri": "s3://lake/flights/"}},
        "timeColumn": "at",
        "key": "id",
        "label": {"column": "late"},
        "features": [{"name": "hour", "type": "Number"}],
    },
    "training": {"recipe": {"estimator": "sklearn.linear_model.LogisticRegression"}},
    "serving": {
        "replicas": 2,
        "rollout": {"steps": [{"weightPercent": 33, "durationSeconds": 10}], "minRequests": 5},
        "rollbackWindowSeconds": 60,
        "capture": {"s3": {"uri": "s3://lake/captures/"}},
    },
}
POLICY: dict[str, Any] = {"modelRef": {"name": "m"}, "schedule": "* * * * *", "window": {"hours": 24}}


class FakeMetrics:
    """Pods that count: a hundred good requests each."""

    errors = 0

    async def traffic(self, deployments: list[DeploymentView], seconds: int) -> dict[str, Traffic]:
        return {each.meta.name: Traffic(100, self.errors) for each in deployments if each.ready}


class NoMeter:
    def __init__(self) -> None:
        self.results: list[tuple[str, str]] = []

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        self.results.append((kind, result))

    def waited(self, kind: str, seconds: float) -> None:
        pass


@dataclass
class World:
    """The operator can be killed and started again: all that it remembers is lost."""

    clock: Clock = field(default_factory=Clock)
    settings: Settings = field(default_factory=Settings)
    metrics: FakeMetrics = field(default_factory=FakeMetrics)

    def __post_init__(self) -> None:
        self.api = FakeApi(self.clock)
        self.nodes = Nodes(self.api)
        self.start()

    def start(self) -> None:
        """A new process."""
        import asyncio

        self.queue = WorkQueue(self.clock.seconds)
        tools = Tools(
            observer=Observer(self.api, self.metrics, self.settings, self.clock),  # type: ignore[arg-type]
            writer=Writer(self.api, self.settings, "operator-0"),  # type: ignore[arg-type]
            settings=self.settings,
            clock=self.clock,
            wake=self.queue.add_all,
            others_wait=self.queue.others_wait,
            states=StateMetrics(self.clock),
        )
        self.states = tools.states
        self.meter = NoMeter()
        self.loop = Loop(self.queue, reconcilers(tools), asyncio.Event(), self.meter, self.clock.seconds)

    def apply(self, kind: Kind, name: str, spec: dict[str, Any], annotations: dict[str, str] | None = None) -> None:
        live = self.api.objects.get((kind.kind, NAMESPACE, name), {})
        metadata = {"annotations": annotations or {}, **live.get("metadata", {}), "name": name, "namespace": NAMESPACE}
        if annotations:
            metadata["annotations"] = annotations
        self.api.put(kind, {**live, "metadata": metadata, "spec": spec})

    def resync(self) -> None:
        for kind in kinds.OWN:
            for item in self.api.all(kind):
                key = key_of(kind.kind, item)
                assert key is not None
                self.queue.add(key)

    async def work(self, limit: int = 200) -> None:
        """Look at everything that is due."""
        for _ in range(limit):
            key = self.queue.pop()
            if key is None:
                return
            await self.loop.look_at(key)
        raise AssertionError(f"it never comes to rest: {self.api.writes[-20:]}")

    async def rounds(self, count: int, seconds: float = 3.0) -> None:
        """Let the cluster and the operator work in turns. A killed operator is started again."""
        for _ in range(count):
            self.nodes.run()
            self.resync()
            try:
                await self.work()
            except KilledError:
                self.api.kill_at = None
                self.start()
            self.clock.pass_(seconds)

    def model(self) -> dict[str, Any]:
        return self.api.objects[("Model", NAMESPACE, "m")]

    def status(self) -> dict[str, Any]:
        return self.model().get("status") or {}

    def condition(self, item: dict[str, Any], kind: str) -> dict[str, Any]:
        (found,) = (each for each in item["status"]["conditions"] if each["type"] == kind)
        return dict(found)
