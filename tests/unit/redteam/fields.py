"""Attacks by what is written into an object: each is refused at admission, by the schema or a rule of the CRD.

Through means: the object is taken as it is, with the hostile value in it. In a copy of the schema that lacks just its
guard, it is. tests/e2e/test_redteam.py tries the same on a real API server."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.story.kube import load
from tests.story.stage import EXAMPLES
from tests.unit.redteam.attack import Attack, Scene
from truekeep.cli import admission

Json = dict[str, Any]
BOUNDS = ("pattern", "minLength", "maxLength", "minimum", "maximum", "maxItems", "maxProperties", "enum", "format")
DIGEST = "sha256:" + "0" * 64
IMAGE = {"reference": "registry.example/team/fit:1", "format": "ONNX"}


def _model() -> Json:
    model: Json = load(EXAMPLES / "flight-delay" / "model.yaml")[0]
    model["metadata"] = {"name": "flight-delay"}
    return model


def _document(kind: str, name: str, **spec: Any) -> Json:
    return {"apiVersion": "truekeep.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def good() -> dict[str, Json]:
    """An object of each kind that is taken, by what is attacked in it."""
    flight = {"name": "flight-delay"}
    policy = load(EXAMPLES / "flight-delay" / "driftpolicy.yaml")[0]
    policy["metadata"] = {"name": "flight-delay"}
    policy["spec"]["webhook"] = {"url": "https://alerts.example.com/t", "tokenSecretRef": {"name": "pager"}}
    with_image, on_volume, serving_image = _model(), _model(), _model()
    with_image["spec"]["training"] = {"image": dict(IMAGE)}
    with_image["spec"]["evaluation"].pop("refit", None)
    on_volume["spec"]["data"]["source"] = {"pvc": {"claimName": "flights", "path": "lake"}}
    serving_image["spec"]["serving"]["image"] = {"reference": "registry.example/team/serve:1", "port": 9000}
    model = _model()
    model["spec"]["pods"] = {}
    model["spec"]["store"]["s3"]["caBundleRef"] = {"name": "ca"}
    return {
        "Model": model,
        "Model with a training image": with_image,
        "Model with a serving image": serving_image,
        "Model on a volume": on_volume,
        "DriftPolicy": policy,
        "TrainingRun": _document("TrainingRun", "by-hand", modelRef=flight),
        "ModelApproval": _document(
            "ModelApproval", "mine", modelRef=flight, artifactDigest=DIGEST, decision="Approve", approver="bob",
            reason="why not",
        ),
    }  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A value at a path of one of the good objects. `rule`: a part of the text of the rule that refuses it, where no
    bound of the field does."""

    group: str
    name: str
    target: str
    path: str
    value: Any
    rule: str = ""

    def document(self) -> Json:
        """The object as the attacker writes it."""
        made = copy.deepcopy(good()[self.target])
        node: Any = made
        *way, last = self.path.split(".")
        for part in way:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = self.value
        else:
            node[last] = self.value
        return made

    def attack(self) -> Attack:
        """As one of the suite's."""

        def attempt(scene: Scene) -> bool:
            return admission.faults(self.document()) == []

        def unguard(scene: Scene) -> None:
            weak = copy.deepcopy(dict(admission.schemas()))
            self._weaken(weak[self.document()["kind"]])
            scene.patch.setattr(admission, "schemas", lambda: weak)

        return Attack(self.group, self.name, attempt, unguard)

    def _weaken(self, schema: Json) -> None:
        """Takes the guard out of a copy of the schema: the field is known, has no bounds, and no such rule is there."""
        node = schema
        for part in self.path.split("."):
            if self.rule:
                rules = node.get("x-kubernetes-validations", [])
                node["x-kubernetes-validations"] = [each for each in rules if self.rule not in each["message"]]
            inside = node["items"] if part.isdigit() else None
            node = inside if inside is not None else node.setdefault("properties", {}).setdefault(part, {})
        if not self.rule:
            for bound in BOUNDS:
                node.pop(bound, None)
            if isinstance(node.get("items"), dict):
                node["items"] = {}
            if isinstance(self.value, dict | list) and not node.get("type"):
                node.clear()


PODSPEC = "fields of a PodSpec"
HOST = "host paths and `..`"
OTHERS = "other namespaces"
IMAGES = "images"
LARGE = "oversized values"
NAMES = "hostile names"
URIS = "URIs"
ROOT_POD = {"containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}]}

WRITTEN = [
    Written(PODSPEC, "a volume of the host", "Model", "spec.pods.volumes", [{"name": "h", "hostPath": {"path": "/"}}]),
    Written(PODSPEC, "the host's network", "Model", "spec.pods.hostNetwork", True),
    Written(PODSPEC, "the host's processes", "Model", "spec.pods.hostPID", True),
    Written(PODSPEC, "root", "Model", "spec.pods.securityContext", {"runAsUser": 0}),
    Written(PODSPEC, "a token", "Model", "spec.pods.automountServiceAccountToken", True),
    Written(PODSPEC, "a patch of the pod", "Model", "spec.training.podSpecPatch", '{"hostNetwork": true}'),
    Written(PODSPEC, "a whole pod", "Model", "spec.serving.template", {"spec": ROOT_POD}),
    Written(PODSPEC, "privileges of a training image", "Model with a training image",
            "spec.training.image.securityContext", {"privileged": True}),
    Written(PODSPEC, "mounts of a serving image", "Model with a serving image",
            "spec.serving.image.volumeMounts", [{"name": "secret-0", "mountPath": "/s"}]),
    Written(PODSPEC, "the environment from a Secret", "Model with a training image",
            "spec.training.image.envFrom", [{"secretRef": {"name": "payroll"}}]),
    Written(HOST, "up from a volume", "Model on a volume", "spec.data.source.pvc.path", "../../etc"),
    Written(HOST, "from the root", "Model on a volume", "spec.data.source.pvc.path", "/etc"),
    Written(HOST, "up from within", "Model on a volume", "spec.data.source.pvc.path", "lake/../../etc"),
    Written(HOST, "a folder called dots", "Model on a volume", "spec.data.source.pvc.path", "lake/.../..//x"),
    Written(HOST, "a NUL", "Model on a volume", "spec.data.source.pvc.path", "lake\x00/etc"),
    Written(HOST, "a prefix that goes up", "Model", "spec.data.source.s3.uri", "s3://lake/../models/"),
    Written(HOST, "a key that goes up", "Model", "spec.store.s3.caBundleRef.key", ".."),
    Written(HOST, "a claim that is a path", "Model on a volume", "spec.data.source.pvc.claimName", "../host"),
    Written(HOST, "a key of a token that goes up", "DriftPolicy", "spec.webhook.tokenSecretRef.key", "../namespace"),
    Written(OTHERS, "a Secret", "Model", "spec.store.s3.credentialsSecretRef.namespace", "kube-system"),
    Written(OTHERS, "a Secret by its name", "Model", "spec.store.s3.credentialsSecretRef.name", "kube-system/admin"),
    Written(OTHERS, "a claim", "Model on a volume", "spec.data.source.pvc.claimName", "other/flights"),
    Written(OTHERS, "a Model of a policy", "DriftPolicy", "spec.modelRef.namespace", "other"),
    Written(OTHERS, "a Model of a run", "TrainingRun", "spec.modelRef.name", "other/flight-delay"),
    Written(OTHERS, "a Model of an approval", "ModelApproval", "spec.modelRef.namespace", "other"),
    Written(OTHERS, "a token", "DriftPolicy", "spec.webhook.tokenSecretRef.namespace", "kube-system"),
    Written(OTHERS, "certificates", "Model", "spec.store.s3.caBundleRef.name", "other/ca"),
    Written(IMAGES, "one that changes each day", "Model with a training image", "spec.training.image.reference",
            "registry.example/team/fit"),
    Written(IMAGES, "the tag latest", "Model with a training image", "spec.training.image.reference",
            "registry.example/team/fit:latest", rule="tag latest"),
    Written(IMAGES, "half a digest", "Model with a training image", "spec.training.image.reference",
            "registry.example/team/fit@sha256:0b9c"),
    Written(IMAGES, "an option of a tool", "Model with a training image", "spec.training.image.reference",
            "--privileged registry.example/fit:1"),
    Written(IMAGES, "a path", "Model with a training image", "spec.training.image.reference", "../../operator:1"),
    Written(IMAGES, "the operator's own monitor", "DriftPolicy", "spec.image", "registry.example/mine:1"),
    Written(IMAGES, "our port", "Model with a serving image", "spec.serving.image.port", 8080, rule="8080 or 8081"),
    Written(IMAGES, "our folder", "Model with a serving image", "spec.serving.image.env",
            [{"name": "TRUEKEEP_MODEL_DIR", "value": "/"}], rule="TRUEKEEP_MODEL_DIR"),
    Written(LARGE, "replicas", "Model", "spec.serving.replicas", 10**9),
    Written(LARGE, "a name of a column", "Model", "spec.data.key", "k" * 100_000),
    Written(LARGE, "features", "Model", "spec.data.features",
            [*_model()["spec"]["data"]["features"], *({"name": f"f{n}", "type": "Number"} for n in range(251))]),
    Written(LARGE, "a reason", "ModelApproval", "spec.reason", "x" * 1_000_000),
    Written(LARGE, "a window to roll back in", "Model", "spec.serving.rollbackWindowSeconds", 2**62),
    Written(LARGE, "a schedule", "DriftPolicy", "spec.schedule", "* " * 100_000),
    Written(LARGE, "memory", "Model", "spec.training.resources.limits.memory", "9" * 40 + "Gi"),
    Written(LARGE, "a time to train", "Model", "spec.training.timeoutSeconds", 2**62),
    Written(NAMES, "too long for its children", "Model", "metadata.name", "x" * 41, rule="metadata.name"),
    Written(NAMES, "one that is no host", "Model", "metadata.name", "1.2.3.4", rule="metadata.name"),
    Written(NAMES, "a column with markup", "Model", "spec.data.key", "<script>alert(1)</script>"),
    Written(NAMES, "a column with a line's end", "Model", "spec.data.label.column", "late\nadmin: true"),
    Written(NAMES, "a column that is a formula", "Model", "spec.data.timeColumn", '=HYPERLINK("http://x")'),
    Written(NAMES, "a rule that is a shell's", "Model", "spec.data.rules.0.name", "$(reboot)"),
    Written(NAMES, "a letter that looks like another", "Model", "spec.data.key", "flight_іd"),
    Written(NAMES, "a member of Python", "Model", "spec.training.recipe.estimator", "os.system"),
    Written(URIS, "a file", "Model", "spec.data.source.s3.uri", "file:///etc/passwd"),
    Written(URIS, "an endpoint with a password", "Model", "spec.store.s3.endpoint", "http://me:secret@s3.example"),
    Written(URIS, "an endpoint with a path", "Model", "spec.store.s3.endpoint", "http://169.254.169.254/latest/x?"),
    Written(URIS, "an endpoint of another scheme", "Model", "spec.store.s3.endpoint", "gopher://s3.example"),
    Written(URIS, "a webhook that writes headers", "DriftPolicy", "spec.webhook.url", "http://x/\r\nX-Admin: 1"),
    Written(URIS, "a webhook with a password", "DriftPolicy", "spec.webhook.url", "https://me:secret@alerts.example/"),
    Written(URIS, "a webhook of a file", "DriftPolicy", "spec.webhook.url", "file:///var/run/secrets/token"),
    Written(URIS, "an address of brackets", "Model", "spec.store.s3.endpoint", "http://[::ffff:169.254.169.254]"),
]  # fmt: skip


def attacks() -> Iterator[Attack]:
    """All of these."""
    for each in WRITTEN:
        yield each.attack()
