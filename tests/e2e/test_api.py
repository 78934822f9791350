"""The kinds on a real API server: served, structural, described, and refusing what they should, each rule by itself."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.story.kube import Kube, KubectlError
from truekeep.api.common import API_VERSION, GROUP
from truekeep.api.crd import render

Json = dict[str, Any]
CRDS = Path(__file__).resolve().parents[2] / "crds"
PLURALS = {
    "Model": "models",
    "TrainingRun": "trainingruns",
    "DriftPolicy": "driftpolicies",
    "ModelApproval": "modelapprovals",
}
SHORT = {"Model": "tkm", "TrainingRun": "tkr", "DriftPolicy": "tkd", "ModelApproval": "tka"}

MODEL: Json = {
    "apiVersion": API_VERSION,
    "kind": "Model",
    "metadata": {"name": "late"},
    "spec": {
        "store": {"s3": {"uri": "s3://models/"}},
        "data": {
            "source": {"s3": {"uri": "s3://lake/flights/"}},
            "timeColumn": "at",
            "key": "id",
            "label": {"column": "late"},
            "features": [
                {"name": "hour", "type": "Number", "minimum": "0", "maximum": "24"},
                {"name": "carrier", "type": "Category", "maxCategories": 50},
            ],
        },
        "training": {"recipe": {"estimator": "sklearn.linear_model.LogisticRegression"}},
    },
}
RUN: Json = {
    "apiVersion": API_VERSION,
    "kind": "TrainingRun",
    "metadata": {"name": "late-1"},
    "spec": {"modelRef": {"name": "late"}},
}
POLICY: Json = {
    "apiVersion": API_VERSION,
    "kind": "DriftPolicy",
    "metadata": {"name": "late"},
    "spec": {"modelRef": {"name": "late"}, "schedule": "* * * * *", "window": {"hours": 24}},
}
APPROVAL: Json = {
    "apiVersion": API_VERSION,
    "kind": "ModelApproval",
    "metadata": {"name": "late-r1"},
    "spec": {
        "modelRef": {"name": "late"},
        "artifactDigest": f"sha256:{'ab' * 32}",
        "decision": "Approve",
        "reason": "looked at the slices",
        "approver": "somebody",  # replaced by whoever asks
    },
}
BASE = {"Model": MODEL, "TrainingRun": RUN, "DriftPolicy": POLICY, "ModelApproval": APPROVAL}

Change = tuple[str, Any]  # a path with dots, and the value to set there


@dataclass(frozen=True)
class Case:
    """For one rule: changes of the sound object that it takes, and that it refuses."""

    where: str  # the schema's path
    says: str  # part of the rule's message
    good: tuple[Change, ...]
    bad: tuple[Change, ...]
    update: bool = False  # the rule compares with the stored object

    @property
    def kind(self) -> str:
        return self.where.split(".")[0]


TRIGGER_POLICY = {
    "name": "weekly",
    "uid": "u",
    "revision": 1,
    "windowStart": "2026-01-01T00:00:00Z",
    "windowEnd": "2026-01-08T00:00:00Z",
    "finding": "hour moved",
}
LONG = "a" * 40
SCALING: Json = {"minReplicas": 1, "maxReplicas": 3}
PERFORMANCE_RESPONSE = [{"finding": "Performance", "action": "Alert"}]
CAPTURE: Json = {"s3": {"uri": "s3://lake/captures/"}}


RECIPE: Json = {"estimator": "sklearn.linear_model.LogisticRegression"}
IMPORT: Json = {"s3": {"uri": "s3://imports/"}, "digest": f"sha256:{'0' * 64}"}
PVC: Json = {"pvc": {"claimName": "lake", "path": "flights/2024"}}
IMPORTED: Change = ("spec.training", {"import": IMPORT})


def stepped(*steps: Json) -> Change:
    return ("spec.training", {"recipe": {**RECIPE, "transformers": list(steps)}})


def timed(*features: Json) -> Change:
    return ("spec.data.features", [*MODEL["spec"]["data"]["features"], {"name": "seen", "type": "Time"}, *features])


LOG: Json = {"name": "log", "columns": ["hour"], "log": {}}
PARTS: Json = {"name": "parts", "columns": ["seen"], "dateParts": {"parts": ["Hour"]}}


STURDY: Change = (
    "spec.evaluation",
    {"robustness": [{"name": "r", "metric": "roc_auc", "maxDrop": "0.1", "columns": ["hour"]}]},
)
COSTS: Json = {"falsePositive": "1", "falseNegative": "40"}
COSTLY: Json = {"name": "cost", "metric": "expected_cost", "maximum": "0.5"}


def ruled(**limit: Any) -> Change:
    return ("spec.data.rules", [{"name": "r", **limit}])


def fair(column: str) -> Change:
    gate = {"name": "f", "column": column, "metric": "demographic_parity_difference", "maximum": "0.1"}
    return ("spec.evaluation", {"fairness": [gate]})


def joined(source: Json) -> Change:
    return ("spec.data.joins", [{"name": "weather", "timeColumn": "seen_at", "source": source}])


def gated(gate: Json) -> Change:
    return ("spec.evaluation", {"gates": [{"name": "g", "metric": "roc_auc", **gate}]})


def trained(**image: Any) -> Change:
    """A team's own image that trains."""
    return ("spec.training", {"image": {"reference": "team/fit:1", "format": "ONNX", **image}})


def benchmarked(gate: Json, source: Json | None = None) -> Change:
    own = [{"name": "g", "metric": "roc_auc", **gate}]
    source = source or {"s3": {"uri": "s3://sets/"}}
    return ("spec.evaluation", {"benchmarks": [{"name": "b", "source": source, "gates": own}]})


def tuned(parameters: Json | None = None, /, **changes: Any) -> Change:
    """A recipe that tunes; parameters: of the one that is tuned."""
    one = {"name": "C", "values": ["1", "2"]} if parameters is None else {"name": "C", **parameters}
    return ("spec.training", {"recipe": {**RECIPE, "tuning": {"search": "Grid", "parameters": [one], **changes}}})


def ranged(**changes: Any) -> Change:
    return tuned({"range": {"low": "1", "high": "10", **changes}}, search="Random", trials=5)


def grid(*sizes: int) -> Change:
    names = [{"name": f"p{n}", "values": [str(v) for v in range(size)]} for n, size in enumerate(sizes)]
    return tuned(parameters=names)


def features(**changes: Any) -> list[Json]:
    return [{"name": "hour", "type": "Number", **changes}]


CASES = [
    Case(
        "Model.spec",
        "a transformer takes data.features and columns",
        (stepped(LOG, {"name": "share", "ratio": {"numerator": "hour", "denominator": "hour"}}),),
        (stepped(LOG, {"name": "share", "ratio": {"numerator": "hour", "denominator": "days"}}),),
    ),
    Case(
        "Model.spec",
        "oneHot, ordinal and targetEncode take features of type Category",
        (stepped({"name": "mean", "columns": ["carrier"], "targetEncode": {}}),),
        (stepped({"name": "mean", "columns": ["hour"], "targetEncode": {}}),),
    ),
    Case(
        "Model.spec",
        "scale, log and clip take numbers",
        (
            stepped(
                {"name": "mean", "columns": ["carrier"], "targetEncode": {}},
                {"name": "same", "columns": ["carrier", "hour"], "scale": {"method": "MinMax"}},
            ),
        ),
        (stepped({"name": "same", "columns": ["carrier", "hour"], "scale": {"method": "MinMax"}}),),
    ),
    Case(
        "Model.spec",
        "dateParts takes features of type Time",
        (timed(), stepped(PARTS)),
        (timed(), stepped({**PARTS, "columns": ["seen", "hour"]})),
    ),
    Case(
        "Model.spec",
        "a feature of type Time needs a transformer dateParts",
        (timed(), IMPORTED),
        (timed(), stepped(LOG)),
    ),
    Case(
        "Model.spec.training.recipe.transformers[]",
        "a transformer has exactly one of impute, scale",
        (stepped(LOG),),
        (stepped({**LOG, "scale": {"method": "Robust"}}),),
    ),
    Case(
        "Model.spec.training.recipe.transformers[]",
        "columns are named for every kind but ratio",
        (stepped({"name": "share", "ratio": {"numerator": "hour", "denominator": "hour"}}),),
        (stepped({"name": "log", "log": {}}),),
    ),
    Case(
        "Model.spec.training.recipe.transformers[].impute",
        "value goes with strategy: Constant",
        (stepped({"name": "fill", "columns": ["hour"], "impute": {"strategy": "Constant", "value": "0"}}),),
        (stepped({"name": "fill", "columns": ["hour"], "impute": {"strategy": "Median", "value": "0"}}),),
    ),
    Case(
        "Model.spec.training.recipe.transformers[].clip",
        "clip has no limit",
        (stepped({"name": "cut", "columns": ["hour"], "clip": {"low": "0"}}),),
        (stepped({"name": "cut", "columns": ["hour"], "clip": {}}),),
    ),
    Case(
        "Model.spec.training.recipe.transformers[].clip",
        "each side has one limit",
        (stepped({"name": "cut", "columns": ["hour"], "clip": {"low": "0", "highQuantile": "0.9"}}),),
        (stepped({"name": "cut", "columns": ["hour"], "clip": {"low": "0", "lowQuantile": "0.1"}}),),
    ),
    Case(
        "Model.spec.training.recipe.transformers[].clip",
        "low must not be greater than high",
        (stepped({"name": "cut", "columns": ["hour"], "clip": {"low": "-1", "high": "1"}}),),
        (stepped({"name": "cut", "columns": ["hour"], "clip": {"low": "2", "high": "1"}}),),
    ),
    Case(
        "Model.spec.training.recipe.transformers[].clip",
        "lowQuantile must not be greater than highQuantile",
        (stepped({"name": "cut", "columns": ["hour"], "clip": {"lowQuantile": "0.1", "highQuantile": "0.9"}}),),
        (stepped({"name": "cut", "columns": ["hour"], "clip": {"lowQuantile": "0.9", "highQuantile": "0.1"}}),),
    ),
    Case("Model", "metadata.name", (("metadata.name", LONG),), (("metadata.name", LONG + "a"),)),
    *(
        Case(f"Model.spec.{where}", "exactly one of s3, pvc and dvc", (wrapped(good),), (wrapped(bad),))
        for where, wrapped in (
            ("data.source", lambda source: ("spec.data.source", source)),
            ("data.label.source", lambda source: ("spec.data.label.source", source)),
            ("data.joins[].source", joined),
            ("evaluation.benchmarks[].source", lambda source: benchmarked({"minimum": "0.6"}, source)),
        )
        for good, bad in ((PVC, {**PVC, "s3": {"uri": "s3://lake/"}}),)
    ),
    Case(
        "Model.spec.data.sample",
        "exactly one of maxRows and fraction",
        (("spec.data.sample", {"maxRows": 1000}),),
        (("spec.data.sample", {"maxRows": 1000, "fraction": "0.5"}),),
    ),
    Case(
        "Model.spec.data.sample",
        "fraction must be greater than 0",
        (("spec.data.sample", {"fraction": "0.000000001"}),),
        (("spec.data.sample", {"fraction": "0.0"}),),
    ),
    Case("TrainingRun", "metadata.name", (("metadata.name", "a" * 63),), (("metadata.name", "a.b"),)),
    Case("DriftPolicy", "metadata.name", (("metadata.name", LONG),), (("metadata.name", "1a"),)),
    Case(
        "ModelApproval.spec",
        "can't be changed",
        (("metadata.labels", {"team": "risk"}),),
        (("spec.reason", "another"),),
        update=True,
    ),
    Case(
        "Model.spec.training.recipe",
        "either set in parameters or tuned",
        (("spec.training", {"recipe": {**tuned()[1]["recipe"], "parameters": [{"name": "tol", "value": "1"}]}}),),
        (("spec.training", {"recipe": {**tuned()[1]["recipe"], "parameters": [{"name": "C", "value": "1"}]}}),),
    ),
    Case(
        "Model.spec.training",
        "timeoutSeconds must be less than training.timeoutSeconds",
        (("spec.training", {**tuned(timeoutSeconds=600)[1], "timeoutSeconds": 601}),),
        (("spec.training", {**tuned(timeoutSeconds=600)[1], "timeoutSeconds": 600}),),
    ),
    *(
        Case(f"Model.spec.training.recipe.tuning{where}", says, (good,), (bad,))
        for where, says, good, bad in (
            (".parameters[].range", "low must be less than high", ranged(), ranged(high="1")),
            (".parameters[].range", "on the scale Log", ranged(scale="Log"), ranged(scale="Log", low="0")),
            (".parameters[].range", "must be whole", ranged(type="Integer"), ranged(type="Integer", low="1.5")),
            (".parameters[]", "exactly one of values and range", tuned(), tuned({})),
            ("", "search Grid tries every combination", tuned(), tuned({"range": {"low": "1", "high": "2"}})),
            ("", "at most 100 combinations", grid(4, 5, 5), grid(2, 50, *[1] * 7, 2)),
            ("", "search Random needs trials", tuned(search="Random", trials=5), tuned(trials=5)),
            ("", "minTrials can't be more", grid(2, 3), tuned(minTrials=3)),
        )
    ),
    Case(
        "Model.spec",
        "column of a slice",
        (("spec.evaluation", {"slices": [{"name": "s", "column": "carrier", "metric": "f1", "minimum": "0.5"}]}),),
        (("spec.evaluation", {"slices": [{"name": "s", "column": "dest", "metric": "f1", "minimum": "0.5"}]}),),
    ),
    Case(
        "Model.spec",
        "column of a fairness gate",
        (fair("carrier"),),
        (fair("age"),),
    ),
    Case(
        "Model.spec",
        "columns of a robustness gate",
        (STURDY, ("spec.data.features", features(nulls="Allow"))),
        (STURDY, ("spec.data.features", features(nulls="Refuse"))),
    ),
    *(
        Case(f"Model.spec.evaluation.{where}", says, (wrapped(good),), (wrapped(bad),))
        for where, wrapped in (("gates[]", gated), ("benchmarks[].gates[]", benchmarked))
        for says, good, bad in (
            ("exactly one of minimum and maximum", {"minimum": "0.6"}, {"minimum": "0.6", "maximum": "0.9"}),
            (
                "better when lower",
                {"metric": "calibration_error", "maximum": "0.1"},
                {"metric": "calibration_error", "minimum": "0.1"},
            ),
            (
                "at is the false-positive rate",
                {"metric": "recall_at_false_positive_rate", "at": "0.01", "minimum": "0.4"},
                {"at": "0.01", "minimum": "0.4"},
            ),
            (
                "k is the number of rows",
                {"metric": "precision_at_k", "k": 100, "minimum": "0.4"},
                {"metric": "precision_at_k", "minimum": "0.4"},
            ),
        )
    ),
    Case(
        "Model.spec.evaluation.decision",
        "value is for the rules",
        (("spec.evaluation", {"decision": {"rule": "LeastCost"}, "costs": COSTS}),),
        (("spec.evaluation", {"decision": {"rule": "Fixed"}}),),
    ),
    Case(
        "Model.spec.evaluation",
        "go by evaluation.costs; add",
        (("spec.evaluation", {"gates": [COSTLY], "costs": COSTS}),),
        (("spec.evaluation", {"gates": [COSTLY]}),),
    ),
    Case(
        "Model.spec.training",
        "exactly one of recipe, import and image",
        (trained(),),
        (("spec.training", {"recipe": RECIPE, **trained()[1]}),),
    ),
    Case(
        "Model.spec",
        "training.image is run once",
        (trained(), ("spec.evaluation", {"refit": "Never", "decision": {"rule": "Fixed", "value": "0.3"}})),
        (trained(), ("spec.evaluation", {"refit": "OnAllRows"})),
    ),
    Case(
        "Model.spec",
        "Opaque needs serving.image",
        (trained(format="Opaque"), ("spec.serving", {"image": {"reference": "team/server:1"}})),
        (trained(format="Opaque"),),
    ),
    Case(
        "Model.spec.training.image",
        "of the tag latest",
        (trained(reference="registry.example/team/fit:1"),),
        (trained(reference="registry.example/team/fit:latest"),),
    ),
    Case(
        "Model.spec.training.image",
        "names that begin with TRUEKEEP_",
        (trained(env=[{"name": "ROUNDS", "value": "$(TRUEKEEP_SEED)"}]),),
        (trained(env=[{"name": "TRUEKEEP_SEED", "value": "8"}]),),
    ),
    Case(
        "Model.spec",
        "brings its own cut-off",
        (IMPORTED, ("spec.evaluation", {"gates": [{"name": "a", "metric": "roc_auc", "minimum": "0.6"}]})),
        (IMPORTED, ("spec.evaluation", {"decision": {"rule": "Fixed", "value": "0.3"}})),
    ),
    Case(
        "Model.spec",
        "is never fitted",
        (IMPORTED, ("spec.evaluation", {"refit": "Never"})),
        (IMPORTED, ("spec.evaluation", {"refit": "OnAllRows"})),
    ),
    Case(
        "Model.spec",
        "an imported model can't be trained again",
        (IMPORTED, ("spec.retraining", {"suspend": "Now"})),
        (IMPORTED, ("spec.retraining", {"schedule": {"cron": "0 3 * * 1"}})),
    ),
    Case(
        "Model.spec",
        "capture.drop",
        (("spec.serving", {"capture": {"s3": {"uri": "s3://lake/captures/"}, "drop": ["carrier"]}}),),
        (("spec.serving", {"capture": {"s3": {"uri": "s3://lake/captures/"}, "drop": ["age"]}}),),
    ),
    Case(
        "Model.spec",
        "capture.hash may name only",
        (("spec.serving", {"capture": {**CAPTURE, "hash": ["carrier", "id"], "hashKeySecretRef": {"name": "h"}}}),),
        (("spec.serving", {"capture": {**CAPTURE, "hash": ["age"], "hashKeySecretRef": {"name": "h"}}}),),
    ),
    Case(
        "Model.spec.serving.autoscaling",
        "must not be above",
        (("spec.serving", {"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}),),
        (("spec.serving", {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),),
    ),
    Case(
        "Model.spec.serving",
        "a change of serving.replicas would do nothing",
        (("spec.serving", {"autoscaling": SCALING, "replicas": 0}),),
        (("spec.serving", {"autoscaling": SCALING, "replicas": 5}),),
        update=True,
    ),
    Case(
        "Model.spec.serving",
        "Shadow needs serving.gateway",
        (("spec.serving", {"rollout": {"strategy": "Shadow"}, "gateway": {"name": "public"}}),),
        (("spec.serving", {"rollout": {"strategy": "Shadow"}}),),
    ),
    Case(
        "Model.spec.serving.image",
        "of the tag latest",
        (("spec.serving", {"image": {"reference": "registry.example:5000/team/mlserver:1.7.1"}}),),
        (("spec.serving", {"image": {"reference": "registry.example:5000/team/mlserver:latest"}}),),
    ),
    Case(
        "Model.spec.serving.image",
        "must not be 8080 or 8081",
        (("spec.serving", {"image": {"reference": f"mlserver@sha256:{'ab' * 32}", "port": 8082}}),),
        (("spec.serving", {"image": {"reference": f"mlserver@sha256:{'ab' * 32}", "port": 8081}}),),
    ),
    Case(
        "Model.spec.serving.image",
        "must not hold TRUEKEEP_MODEL_DIR",
        (("spec.serving", {"image": {"reference": "m:1", "env": [{"name": "X", "value": "$(PORT)"}]}}),),
        (("spec.serving", {"image": {"reference": "m:1", "env": [{"name": "PORT", "value": "1"}]}}),),
    ),
    Case(
        "Model.spec.serving.capture",
        "capture.hash needs a key",
        (("spec.serving", {"capture": {**CAPTURE, "hash": []}}),),
        (("spec.serving", {"capture": {**CAPTURE, "hash": ["id"]}}),),
    ),
    Case(
        "Model.spec.serving.capture",
        "hashKeySecretRef is for capture.hash",
        (("spec.serving", {"capture": {**CAPTURE, "hash": ["hour"], "hashKeySecretRef": {"name": "h"}}}),),
        (("spec.serving", {"capture": {**CAPTURE, "hashKeySecretRef": {"name": "h"}}}),),
    ),
    Case(
        "Model.spec.serving.capture",
        "either in capture.drop or in capture.hash",
        (
            (
                "spec.serving",
                {"capture": {**CAPTURE, "drop": ["carrier"], "hash": ["hour"], "hashKeySecretRef": {"name": "h"}}},
            ),
        ),
        (
            (
                "spec.serving",
                {"capture": {**CAPTURE, "drop": ["hour"], "hash": ["hour"], "hashKeySecretRef": {"name": "h"}}},
            ),
        ),
    ),
    Case(
        "Model.spec.data",
        "label's column must not be a feature",
        (("spec.data.label.column", "delayed"),),
        (("spec.data.label.column", "hour"),),
    ),
    Case(
        "Model.spec.data",
        "timeColumn and key identify",
        (("spec.data.key", "flight_id"),),
        (("spec.data.key", "hour"),),
    ),
    Case(
        "Model.spec.data",
        "three different columns",
        (("spec.data.timeColumn", "scheduled_at"),),
        (("spec.data.timeColumn", "id"),),
    ),
    Case(
        "Model.spec.data",
        "the column of a rule with range",
        (ruled(column="late", maxNullFraction="0.1"),),
        (ruled(column="carrier", range={"minimum": "1"}),),
    ),
    Case(
        "Model.spec.data.features[]",
        "minimum and maximum are for type Number",
        (("spec.data.features", features(minimum="1")),),
        (("spec.data.features", features(type="Category", minimum="1")),),
    ),
    Case(
        "Model.spec.data.features[]",
        "kept for what is captured",
        (("spec.data.features", features(name="truekeeper")),),
        (("spec.data.features", features(name="truekeep.key")),),
    ),
    Case(
        "Model.spec.data.features[]",
        "maxCategories is for type Category",
        (("spec.data.features", features(type="Category", maxCategories=3)),),
        (("spec.data.features", features(maxCategories=3)),),
    ),
    Case(
        "Model.spec.data.features[]",
        "greater than maximum",
        (("spec.data.features", features(minimum="-1.5", maximum="-1.5")),),
        (("spec.data.features", features(minimum="10", maximum="9")),),
    ),
    Case(
        "Model.spec",
        "a rule with skew compares",
        (ruled(skew={"minimumEffect": "0.2"}), ("spec.serving", {"capture": CAPTURE})),
        (ruled(skew={"minimumEffect": "0.2"}),),
    ),
    Case(
        "Model.spec.data.rules[]",
        "exactly one of",
        (ruled(minRows=5),),
        (ruled(minRows=5, maxAgeSeconds=5),),
    ),
    Case(
        "Model.spec.data.rules[]",
        "names the column that it is for",
        (ruled(column="hour", range={"minimum": "1"}),),
        (ruled(range={"minimum": "1"}),),
    ),
    Case(
        "Model.spec.data.rules[]",
        "are about all rows",
        (ruled(column="ticket", maxDuplicateFraction="0"),),
        (ruled(column="hour", minRows=5),),
    ),
    Case(
        "Model.spec.data.rules[].range",
        "neither minimum nor maximum",
        (ruled(column="hour", range={"maximum": "24", "maxFraction": "0.1"}),),
        (ruled(column="hour", range={"maxFraction": "0.1"}),),
    ),
    Case(
        "Model.spec.data.rules[].range",
        "must not be greater",
        (ruled(column="hour", range={"minimum": "9.5", "maximum": "10"}),),
        (ruled(column="hour", range={"minimum": "10", "maximum": "9.5"}),),
    ),
    Case(
        "Model.spec.data.rules[].categories",
        "either allowed",
        (ruled(column="carrier", categories={"asIn": "Champion", "maxFraction": "0.1"}),),
        (ruled(column="carrier", categories={"asIn": "Champion", "allowed": ["AA"]}),),
    ),
    Case(
        "Model.spec.data.rules[].lastRun",
        "neither rows nor positiveRate",
        (ruled(lastRun={"rows": {"minimum": "0.5"}}),),
        (ruled(lastRun={}),),
    ),
    *(
        Case(
            f"Model.spec.data.rules[].lastRun.{field}",
            says,
            (ruled(lastRun={field: {"minimum": "0.5", "maximum": "10"}}),),
            (ruled(lastRun={field: bad}),),
        )
        for field in ("rows", "positiveRate")
        for says, bad in (
            ("give minimum, maximum, or both", {}),
            ("must not be greater", {"minimum": "10", "maximum": "9"}),
        )
    ),
    Case(
        "Model.spec.evaluation.holdout",
        "latestFraction",
        (("spec.evaluation", {"holdout": {"latestFraction": "0.9"}}),),
        (("spec.evaluation", {"holdout": {"latestFraction": "0.95"}}),),
    ),
    Case(
        "Model.spec.serving.rollout",
        "growing order",
        (
            (
                "spec.serving.rollout.steps",
                [{"weightPercent": 10, "durationSeconds": 5}, {"weightPercent": 50, "durationSeconds": 5}],
            ),
        ),
        (
            (
                "spec.serving.rollout.steps",
                [{"weightPercent": 50, "durationSeconds": 5}, {"weightPercent": 10, "durationSeconds": 5}],
            ),
        ),
    ),
    Case(
        "TrainingRun.spec",
        "can't be changed",
        (("metadata.labels", {"team": "ops"}),),
        (("spec.trigger.message", "another reason"),),
        update=True,
    ),
    Case(
        "TrainingRun.spec.trigger",
        "names its policy",
        (("spec.trigger", {"type": "DriftPolicy", "policy": TRIGGER_POLICY}),),
        (("spec.trigger", {"type": "DriftPolicy"}),),
    ),
    Case(
        "DriftPolicy.spec",
        "modelRef can't be changed",
        (("spec.schedule", "*/5 * * * *"),),
        (("spec.modelRef.name", "other"),),
        update=True,
    ),
    Case(
        "DriftPolicy.spec",
        "finding Performance needs spec.performance",
        (("spec.responses", PERFORMANCE_RESPONSE), ("spec.performance", {"metric": "roc_auc"})),
        (("spec.responses", PERFORMANCE_RESPONSE),),
    ),
    Case(
        "DriftPolicy.spec",
        "minNewLabels needs",
        (("spec.minNewLabels", 100), ("spec.performance", {"metric": "roc_auc"})),
        (("spec.minNewLabels", 100),),
    ),
    Case(
        "DriftPolicy.spec",
        "SameHoursOfWeek needs windows",
        (("spec.data", {"reference": "SameHoursOfWeek"}), ("spec.window.hours", 24)),
        (("spec.data", {"reference": "SameHoursOfWeek"}), ("spec.window.hours", 25)),
    ),
    Case(
        "DriftPolicy.spec.performance",
        "maxDrop must be above 0",
        (("spec.performance", {"metric": "roc_auc", "maxDrop": "0.001"}),),
        (("spec.performance", {"metric": "roc_auc", "maxDrop": "0"}),),
    ),
    Case(
        "DriftPolicy.spec.performance",
        "performance.entity is for join EntityTime",
        (
            (
                "spec.performance",
                {
                    "metric": "roc_auc",
                    "join": "EntityTime",
                    "entity": {"column": "account", "timeColumn": "at", "toleranceSeconds": 60},
                },
            ),
        ),
        (("spec.performance", {"metric": "roc_auc", "join": "EntityTime"}),),
    ),
    Case(
        "DriftPolicy.spec.blackouts[]",
        "must start before it ends",
        (("spec.blackouts", [{"name": "x", "start": "2026-12-24T00:00:00Z", "end": "2026-12-27T00:00:00Z"}]),),
        (("spec.blackouts", [{"name": "x", "start": "2026-12-27T00:00:00Z", "end": "2026-12-24T00:00:00Z"}]),),
    ),
    Case(
        "DriftPolicy.spec.responses[]",
        "action Rollback is for finding Performance",
        (
            ("spec.responses", [{"finding": "Performance", "action": "Rollback"}]),
            ("spec.performance", {"metric": "roc_auc"}),
        ),
        (("spec.responses", [{"finding": "DataDrift", "action": "Rollback"}]),),
    ),
    Case(
        "Model.spec.serving.rollout.queries[]",
        "minimum, maximum or both",
        (("spec.serving", {"rollout": {"queries": [{"name": "q", "query": "up", "minimum": "1"}]}}),),
        (("spec.serving", {"rollout": {"queries": [{"name": "q", "query": "up"}]}}),),
    ),
    Case(
        "Model.spec.serving.rollout.queries[]",
        "nothing else in double braces",
        (("spec.serving", {"rollout": {"queries": [{"name": "q", "query": "up{x='{{model}}'}", "minimum": "1"}]}}),),
        (("spec.serving", {"rollout": {"queries": [{"name": "q", "query": "up{x='{{pod}}'}", "minimum": "1"}]}}),),
    ),
    Case(
        "DriftPolicy.spec.responses[]",
        "broken data never retrains",
        (("spec.responses", [{"finding": "DataQuality", "action": "Alert"}]),),
        (("spec.responses", [{"finding": "DataQuality", "action": "Retrain"}]),),
    ),
]


def crds() -> Iterator[Json]:
    for file in sorted(CRDS.glob(f"{GROUP}_*.yaml")):
        yield yaml.safe_load(file.read_text())


def nodes(schema: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Every schema within a schema, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def all_nodes() -> list[tuple[str, Json]]:
    found = []
    for crd in crds():
        (version,) = crd["spec"]["versions"]
        found += nodes(version["schema"]["openAPIV3Schema"], crd["spec"]["names"]["kind"])
    return found


def rules() -> list[tuple[str, str]]:
    """Path and message of every rule."""
    return [(path, rule["message"]) for path, node in all_nodes() for rule in node.get("x-kubernetes-validations", [])]


def changed(base: Json, changes: tuple[Change, ...]) -> Json:
    document = copy.deepcopy(base)
    for path, value in changes:
        *parents, last = path.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return document


@pytest.fixture(scope="module", autouse=True)
def installed(kube: Kube) -> None:
    """The kinds of this checkout, as a user installs them."""
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=truekeep-install")
    kube.kubectl(*apply, "-k", str(CRDS.parent / "manifests" / "crds"))
    names = [f"crd/{plural}.{GROUP}" for plural in PLURALS.values()]
    kube.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names, timeout=70)


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    name = f"api-{uuid.uuid4().hex[:8]}"
    kube.kubectl("create", "namespace", name)
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def stored(kube: Kube, namespace: str) -> None:
    """One of each kind, for rules that compare with what is stored. No operator needs to run for it."""
    kube.apply(
        namespace, [changed(MODEL, (("spec.serving", {"autoscaling": SCALING}),)), RUN, POLICY, signed(kube, APPROVAL)]
    )


def signed(kube: Kube, document: Json) -> Json:
    """A ModelApproval in the name of whoever asks; anything else as it is."""
    if document["kind"] != "ModelApproval":
        return document
    who = kube.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    return changed(document, (("spec.approver", who),))


def attempt(kube: Kube, namespace: str, document: Json) -> None:
    """Ask for the object without storing it."""
    document = signed(kube, document)
    kube.apply(namespace, [document], "--dry-run=server", "--validate=strict")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.where}: {case.says}")
@pytest.mark.usefixtures("stored")
def test_a_rule_takes_what_is_right_and_refuses_what_is_not(kube: Kube, namespace: str, case: Case) -> None:
    base = copy.deepcopy(BASE[case.kind])
    if not case.update:
        base["metadata"]["name"] = "other"
    attempt(kube, namespace, changed(base, case.good))
    (message,) = (text for path, text in rules() if path == case.where and case.says in text)
    with pytest.raises(KubectlError) as refused:
        attempt(kube, namespace, changed(base, case.bad))
    assert message in str(refused.value)


def test_every_rule_has_a_case_and_every_case_a_rule() -> None:
    found = [[rule for rule in rules() if rule[0] == case.where and case.says in rule[1]] for case in CASES]
    assert [len(each) for each in found] == [1] * len(CASES)
    assert sorted(rule for each in found for rule in each) == sorted(rules())


def test_the_committed_kinds_are_current() -> None:
    committed = {file.name: file.read_text() for file in CRDS.glob(f"{GROUP}_*.yaml")}
    assert committed == render(), "make crds"


@pytest.mark.parametrize("kind", sorted(PLURALS))
def test_a_kind_is_served_as_it_is_committed(kube: Kube, kind: str) -> None:
    name = f"{PLURALS[kind]}.{GROUP}"
    served = json.loads(kube.kubectl("get", "crd", name, "-o", "json"))
    conditions = {each["type"]: each["status"] for each in served["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    (committed,) = (crd for crd in crds() if crd["metadata"]["name"] == name)
    (wanted,), (version,) = committed["spec"]["versions"], served["spec"]["versions"]
    assert version["schema"] == wanted["schema"]
    assert version.get("subresources") == wanted.get("subresources")
    assert served["spec"]["names"]["shortNames"] == [SHORT[kind]]


def test_every_field_is_described() -> None:
    silent = [path for path, node in all_nodes() if not node.get("description") and path[-1] not in "]}"]
    assert [path for path in silent if not path.endswith(".metadata")] == []


def test_every_list_and_string_of_a_spec_is_bounded() -> None:
    for path, node in all_nodes():
        if ".spec" not in path:
            continue
        if node["type"] == "array":
            assert "maxItems" in node, path
            assert "x-kubernetes-list-type" in node, path
        elif node["type"] == "string":
            assert {"maxLength", "enum", "format"} & node.keys(), path
        elif node["type"] == "integer":
            assert {"minimum", "maximum"} <= node.keys(), path
        assert node["type"] != "number", f"{path}: no floats in a spec"


def test_no_default_stands_in_a_list_item() -> None:
    """It would break the keys of server-side apply."""
    assert [path for path, node in all_nodes() if "[]" in path and "default" in node] == []


def test_no_default_stands_in_a_status() -> None:
    assert [path for path, node in all_nodes() if ".status" in path and "default" in node] == []


def test_explain_tells_of_every_field(kube: Kube) -> None:
    text = kube.kubectl("explain", f"{PLURALS['Model']}.{GROUP}.spec", "--recursive")
    for field in ("maturesAfterSeconds", "latestFraction", "rollbackWindowSeconds", "pinnedRevision", "caBundleRef"):
        assert field in text
    one = kube.kubectl("explain", f"{PLURALS['Model']}.{GROUP}.spec.serving.rollbackWindowSeconds")
    assert "Default: 600." in one


@pytest.mark.usefixtures("stored")
def test_a_table_tells_the_story(kube: Kube, namespace: str) -> None:
    header = kube.kubectl("get", "tkm", "-n", namespace).splitlines()[0].split()
    assert header == ["NAME", "READY", "REASON", "REVISION", "CANDIDATE", "METRIC", "DRIFT", "AGE"]
    assert "MODEL" in kube.kubectl("get", "tkr", "-n", namespace)
    assert "DRIFT" in kube.kubectl("get", "tkd", "-n", namespace)
    everything = kube.kubectl("get", "truekeep", "-n", namespace, "-o", "name").split()
    for kind in PLURALS:
        assert any(line.startswith(f"{kind.lower()}.{GROUP}/late") for line in everything)


@pytest.mark.usefixtures("stored")
def test_defaults_are_filled_in_by_the_api_server(kube: Kube, namespace: str) -> None:
    spec = json.loads(kube.kubectl("get", "tkm", "late", "-n", namespace, "-o", "json"))["spec"]
    assert spec["evaluation"]["holdout"] == {"latestFraction": "0.2"}
    assert spec["serving"]["replicas"] == 2
    assert spec["training"]["timeoutSeconds"] == 3600
    assert spec["approval"] == {"mode": "Automatic", "author": "MustNotApprove"}


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("kind", sorted(set(PLURALS) - {"ModelApproval"}))  # it has no status
def test_the_operator_writes_the_status_and_nothing_else(kube: Kube, namespace: str, kind: str) -> None:
    """No annotation, label or finalizer in an object that Git may own. Needs the operator (`make install`)."""
    name = BASE[kind]["metadata"]["name"]

    def seen() -> Json | None:
        item = kube.get(namespace, PLURALS[kind], name)
        return item if item and (item.get("status") or {}).get("observedGeneration") else None

    metadata = kube.wait(f"the operator to see {kind} {name}", 60, seen)["metadata"]
    assert "finalizers" not in metadata
    assert metadata.keys() - {"annotations", "managedFields"} == {
        "creationTimestamp",
        "generation",
        "name",
        "namespace",
        "resourceVersion",
        "uid",
    }
    assert metadata["annotations"].keys() == {"kubectl.kubernetes.io/last-applied-configuration"}
    ours = [entry for entry in metadata["managedFields"] if not entry["manager"].startswith("kubectl")]
    assert [(entry["manager"], entry.get("subresource")) for entry in ours] == [("truekeep", "status")]
    assert metadata["generation"] == 1


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.serving.replicas", 101, "less than or equal to 100"),
        ("spec.serving.image", {"reference": "team/mlserver"}, "should match"),
        ("spec.training.image", {"reference": "team/fit", "format": "ONNX"}, "should match"),
        ("spec.training.image", {"reference": "team/fit:1", "format": "Pickle"}, "supported values"),
        ("spec.serving.image", {"reference": "team/mlserver:1", "command": ["sh"]}, "unknown field"),
        ("spec.training.recipe.estimator", "os.system", "Unsupported value"),
        ("spec.store.s3.uri", "file:///etc/", "should match"),
        ("spec.store.s3.uri", "s3://models/../x/", "should match"),
        ("spec.store.s3.endpoint", "http://user:pass@host", "should match"),
        ("spec.training.resources", {"limits": {"cpu": "lots"}}, "should match"),
        ("spec.data.features", [], "at least 1 items"),
        ("spec.podSpec", {"hostNetwork": True}, "unknown field"),
        ("spec.evaluation", {"gates": [{"name": "a", "metric": "f1", "minimum": 0.5}]}, "must be of type string"),
    ],
)
def test_the_schema_refuses_what_is_no_model(kube: Kube, namespace: str, path: str, value: Any, words: str) -> None:
    base = copy.deepcopy(MODEL)
    base["metadata"]["name"] = "other"
    with pytest.raises(KubectlError) as refused:
        attempt(kube, namespace, changed(base, ((path, value),)))
    assert words in str(refused.value)
    assert path.split(".")[-1] in str(refused.value)
