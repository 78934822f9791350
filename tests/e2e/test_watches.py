"""What was changed by hand is restored because a watch told of it: the operator of this test looks at everything only
once in two hours. It is one of some namespaces, with the rights of its ServiceAccount and no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.bench.scale.world import connected, run_status
from tests.cluster.errors import ClusterError
from tests.cluster.on_demand import gateway_kinds
from tests.cluster.plane import Plane
from tests.e2e.installation import Installation, Json
from tests.e2e.shop import small_model
from truekeep.api.model import ModelSpec
from truekeep.api.names import LABEL_MODEL, MANAGED_BY
from truekeep.cluster import kinds
from truekeep.domain.fingerprints import training_fingerprint

pytestmark = pytest.mark.full
NAMESPACE = "team-a"
MODEL = "payments"
SELDOM = "7200"
SOON_SECONDS = 30.0
SERVING: Json = {
    "capture": None,
    "autoscaling": {"minReplicas": 2, "maxReplicas": 4},
    "gateway": {"name": "public", "namespace": "gateways", "hostnames": ["models.example.com"]},
}
BUDGET, AUTOSCALER, ROUTE = "poddisruptionbudgets", "horizontalpodautoscalers", "httproutes"


class Served(Installation):
    """A Model whose first revision is live, on nodes that are played."""

    def children(self, kind: str) -> list[Json]:
        return [each for each in self.get(kind, NAMESPACE) if "deletionTimestamp" not in each["metadata"]]

    def spec(self, kind: str) -> Json | None:
        """Of the only one, with its labels."""
        found = self.children(kind)
        return {"spec": found[0]["spec"], "labels": found[0]["metadata"]["labels"]} if len(found) == 1 else None

    def name(self, kind: str) -> str:
        (found,) = self.children(kind)
        return str(found["metadata"]["name"])

    def patch(self, kind: str, name: str, patch: Json) -> None:
        self.plane.kubectl("patch", kind, name, "-n", NAMESPACE, "--type=merge", f"--patch={json.dumps(patch)}")

    def restored(self, kind: str, act: Callable[[str], object]) -> None:
        """Something happens to a child, and soon it is as it was."""
        before = self.spec(kind)
        assert before is not None
        act(self.name(kind))
        self.until(f"{kind} to be as before", lambda: self.spec(kind) == before, SOON_SECONDS)

    def delete(self, kind: str) -> None:
        self.restored(kind, lambda name: self.plane.kubectl("delete", kind, name, "-n", NAMESPACE))

    def change(self, kind: str, patch: Json) -> None:
        self.restored(kind, lambda name: self.patch(kind, name, patch))


async def trained(plane: Plane, spec: Json) -> None:
    """A run of this spec that succeeded, made before its Model, so that nothing is to be trained."""
    api = await connected(plane.kubeconfig)
    try:
        run, fingerprint = f"{MODEL}-1", training_fingerprint(ModelSpec.model_validate(spec))
        manifest = {
            "apiVersion": kinds.TRAINING_RUN.api_version,
            "kind": "TrainingRun",
            "metadata": {"namespace": NAMESPACE, "name": run, "labels": {**MANAGED_BY, LABEL_MODEL: MODEL}},
            "spec": {"modelRef": {"name": MODEL}, "trigger": {"type": "Spec", "message": "spec.training changed"}},
        }
        there = await api.create(kinds.TRAINING_RUN, manifest)
        status = run_status(1, run, fingerprint, datetime.now(UTC) - timedelta(hours=1))
        await api.apply_status(kinds.TRAINING_RUN, NAMESPACE, run, there["metadata"]["resourceVersion"], status)
    finally:
        await api.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Plane(crds=None, nodes=1) as plane:
        on = Served(plane, tmp_path_factory.mktemp("watches"))
        on.apply("crds")
        on.established()
        for name in ("team-a", "team-b"):
            on.namespace(name)
        on.apply("namespaced/example")
        spec = small_model(MODEL, serving=SERVING)["spec"]
        asyncio.run(trained(plane, spec))
        about = {"name": MODEL, "namespace": NAMESPACE}
        plane.apply([{"apiVersion": kinds.MODEL.api_version, "kind": "Model", "metadata": about, "spec": spec}])
        with on.operator(TRUEKEEP_RESYNC_SECONDS=SELDOM):
            on.until("a revision to be live", lambda: on.spec(BUDGET) and on.spec(AUTOSCALER))
            yield on


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        (BUDGET, {"spec": {"maxUnavailable": "100%"}}),
        (BUDGET, {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
        (AUTOSCALER, {"spec": {"maxReplicas": 400}}),
    ],
)
def test_what_is_changed_by_hand_is_soon_as_before(served: Served, kind: str, patch: Json) -> None:
    served.change(kind, patch)


@pytest.mark.parametrize("kind", [BUDGET, AUTOSCALER])
def test_what_is_deleted_by_hand_is_soon_there_again(served: Served, kind: str) -> None:
    served.delete(kind)


def test_a_cluster_without_routes_makes_no_noise(served: Served) -> None:
    said = served.log.read_text()
    for word in ("httproutes", "Unresolved", "Traceback", "orbidden"):
        assert word not in said


def test_routes_are_watched_from_when_there_are_such_until_there_are_none(served: Served) -> None:
    text = gateway_kinds()
    served.plane.kubectl("apply", "--server-side", "--filename=-", stdin=text)
    served.until("routes to be served", lambda: serves(served.plane))
    served.patch("models", MODEL, {"spec": {"serving": {"gateway": {"pathPrefix": "/pay"}}}})
    served.until("the route", lambda: served.spec(ROUTE))
    served.change(ROUTE, {"spec": {"hostnames": ["elsewhere.example.com"]}})
    served.delete(ROUTE)
    served.change(BUDGET, {"spec": {"maxUnavailable": "100%"}})
    assert "Traceback" not in served.log.read_text()
    served.plane.kubectl("delete", "--filename=-", stdin=text)
    served.until("the watches to break", lambda: "set up again" in served.log.read_text())
    served.change(BUDGET, {"spec": {"maxUnavailable": "100%"}})
    served.delete(AUTOSCALER)
    assert "Unresolved" not in served.log.read_text()


def serves(plane: Plane) -> bool:
    try:
        plane.kubectl("get", ROUTE, "--all-namespaces")
    except ClusterError:
        return False
    return True
