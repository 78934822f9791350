"""A Model with everything set, one with nothing that has a default, and what is built for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from truekeep.api.common import Condition
from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus
from truekeep.api.model import Candidate, ModelSpec, ModelStatus, ServedRevision
from truekeep.api.trainingrun import Restore, TrainingRunSpec, TrainingRunStatus, Trigger
from truekeep.api.tuning import Tuning
from truekeep.api.webhook import Webhook
from truekeep.contract.decisions import Decision
from truekeep.contract.requests import Champion
from truekeep.domain.notices import Due
from truekeep.domain.observed import Meta, ModelView, PolicyView, RunView
from truekeep.domain.plan import (
    FIRST_ATTEMPT,
    AutoscalerIntent,
    BudgetIntent,
    DeploymentIntent,
    RouteIntent,
    RunIntent,
    ServiceIntent,
    Settings,
)
from truekeep.resources.autoscaler import autoscaler
from truekeep.resources.decisions_job import decisions_job
from truekeep.resources.disruption_budget import disruption_budget
from truekeep.resources.fit_job import fit_job
from truekeep.resources.httproute import httproute
from truekeep.resources.monitor_cronjob import Watched, monitor_cronjob
from truekeep.resources.notice_job import notice_job
from truekeep.resources.rehearsal_job import rehearsal_job
from truekeep.resources.restore_job import restore_job
from truekeep.resources.retention_cronjob import retention_cronjob
from truekeep.resources.services import deployment_service, stable_service
from truekeep.resources.serving_deployment import serving_deployment
from truekeep.resources.training_job import training_job
from truekeep.resources.training_run import training_run
from truekeep.resources.tuning_job import tuning_job

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
KEY = "sha256:" + "cd" * 32
SETTINGS = Settings(
    trainer_image="registry.example/trainer:1",
    server_image="registry.example/server:1",
    monitor_image="registry.example/monitor:1",
    operator_version="1.2.3",
)

PLAIN: dict[str, Any] = {
    "store": {"s3": {"uri": "s3://models/"}},
    "data": {
        "source": {"s3": {"uri": "s3://lake/flights/"}},
        "timeColumn": "scheduled_at",
        "key": "flight_id",
        "label": {"column": "late"},
        "features": [{"name": "hour", "type": "Number"}],
    },
    "training": {"recipe": {"estimator": "sklearn.linear_model.LogisticRegression"}},
}

TUNED: dict[str, Any] = {
    **PLAIN["training"]["recipe"],
    "tuning": {
        "search": "Random",
        "trials": 8,
        "parallelism": 3,
        "minTrials": 2,
        "timeoutSeconds": 900,
        "parameters": [
            {"name": "C", "range": {"low": "0.001", "high": "10", "scale": "Log"}},
            {"name": "penalty", "values": ["l1", "l2"]},
        ],
    },
}

FULL: dict[str, Any] = {
    "store": {
        "s3": {
            "uri": "s3://models/",
            "endpoint": "https://s3.demo:7070",
            "region": "eu-central-1",
            "credentialsSecretRef": {"name": "lake"},
            "caBundleRef": {"name": "store-ca"},
        }
    },
    "data": {
        **PLAIN["data"],
        "window": {"days": 60},
        "label": {
            "column": "late",
            "source": {"s3": {"uri": "s3://lake/arrivals/", "credentialsSecretRef": {"name": "arrivals.reader"}}},
            "maturesAfterSeconds": 86400,
        },
        "joins": [
            {
                "name": "weather",
                "source": {
                    "s3": {
                        "uri": "s3://weather/",
                        "endpoint": "http://elsewhere:9000",
                        "caBundleRef": {"name": "store-ca", "key": "other.pem"},
                    }
                },
                "timeColumn": "observed_at",
                "by": ["origin"],
            }
        ],
        "features": [
            {"name": "hour", "type": "Number", "minimum": "0", "maximum": "24"},
            {"name": "carrier", "type": "Category", "maxCategories": 50},
        ],
        "rules": [{"name": "enough", "minRows": 10000}],
    },
    "training": {
        "recipe": {
            "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
            "parameters": [{"name": "max_iter", "value": "120"}],
            "seed": 7,
        },
        "timeoutSeconds": 1800,
        "resources": {"requests": {"memory": "6Gi"}, "limits": {"cpu": "1500m"}},
    },
    "evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.65"}], "refit": "OnAllRows"},
    "serving": {
        "replicas": 3,
        "gateway": {
            "name": "public",
            "namespace": "gateways",
            "sectionName": "https",
            "hostnames": ["models.example.com"],
            "pathPrefix": "/flights",
        },
        "autoscaling": {"minReplicas": 2, "maxReplicas": 8, "cpuPercent": 70},
        "resources": {"limits": {"cpu": "250m", "memory": "128Mi"}},
        "connectionMaxAgeSeconds": 5,
        "capture": {
            "s3": {"uri": "s3://lake/captures/", "credentialsSecretRef": {"name": "captures"}},
            "drop": ["carrier"],
            "retentionDays": 90,
        },
    },
    "pods": {
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "ssd", "arch": "amd64"},
        "tolerations": [
            {"key": "ml", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
            {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
        "priorityClassName": "batch-low",
    },
}


def meta(name: str, uid: str, generation: int = 1) -> Meta:
    return Meta(namespace="demo", name=name, uid=uid, created=CREATED, generation=generation, resource_version="7")


def model(spec: dict[str, Any] | None = None) -> ModelView:
    return ModelView(meta("flight-delay", "model-uid", 4), ModelSpec.model_validate(spec or FULL), ModelStatus())


def run(trigger: Trigger | None = None) -> RunView:
    spec = TrainingRunSpec.model_validate(
        {"modelRef": {"name": "flight-delay"}, "trigger": (trigger or Trigger()).dump()}
    )
    return RunView(meta("flight-delay-0a1b2c3d4e", "run-uid"), spec, TrainingRunStatus())


def policy() -> PolicyView:
    spec = {
        "modelRef": {"name": "flight-delay"},
        "schedule": "*/5 * * * *",
        "window": {"hours": 168, "minRows": 2000},
        "data": {"minimumEffect": "0.03", "ignore": ["hour"]},
        "performance": {"metric": "roc_auc"},
    }
    return PolicyView(meta("weekly", "policy-uid"), DriftPolicySpec.model_validate(spec), DriftPolicyStatus())


def serving_model() -> ModelView:
    """The Model with everything set, of which revision 2 serves."""
    active = ServedRevision(
        revision=2, run="flight-delay-1", artifact_digest=DIGEST, deployment="flight-delay-r2-cdcdcd"
    )
    return replace(model(), status=ModelStatus(active=active))


IMAGE: dict[str, Any] = {
    **FULL,
    "serving": {
        **FULL["serving"],
        "image": {
            "reference": "registry.example/team/mlserver@sha256:" + "ef" * 32,
            "port": 9001,
            "timeoutSeconds": 7,
            "tolerance": "0.00001",
            "env": [{"name": "MLSERVER_HTTP_PORT", "value": "$(PORT)"}, {"name": "OMP_NUM_THREADS", "value": "3"}],
        },
    },
}

FITTING: dict[str, Any] = {
    **FULL,
    "training": {
        "image": {
            "reference": "registry.example/team/fit@sha256:" + "5c" * 32,
            "format": "ONNX",
            "command": ["python", "/fit.py"],
            "args": ["--rounds", "80"],
            "env": [{"name": "DEPTH", "value": "4"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
            "seed": 7,
        },
        "timeoutSeconds": 1800,
        "resources": {"requests": {"memory": "6Gi"}, "limits": {"cpu": "1500m"}},
    },
    "evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.65"}]},
}
OPAQUE: dict[str, Any] = {
    **FITTING,
    "training": {**FITTING["training"], "image": {**FITTING["training"]["image"], "format": "Opaque"}},
    "serving": IMAGE["serving"],
}

CANDIDATE = Candidate(
    revision=3,
    run="flight-delay-0a1b2c3d4e",
    artifact_digest=DIGEST,
    deployment="flight-delay-r3-cdcdcd",
    started_at=CREATED,
)
PROMOTED = Decision(
    id="promoted/5f0c/flight-delay-r3-cdcdcd/2026-01-05T12:00:00Z",
    kind="Promoted",
    time=CREATED,
    model_uid="5f0c",
    artifact_digest=DIGEST,
    revision=3,
    run="flight-delay-0a1b2c3d4e",
    deployment="flight-delay-r3-cdcdcd",
)
INTENT = DeploymentIntent("flight-delay-r3-cdcdcd", 3, "flight-delay-0a1b2c3d4e", DIGEST, KEY, replicas=2)
CHAMPION = Champion(revision=2, artifact_digest=DIGEST, trained_until=CREATED)


DUE = Due(
    "DriftDetected",
    Condition(
        type="DriftDetected",
        status="True",
        observed_generation=2,
        last_transition_time=CREATED,
        reason="Breach",
        message="2 windows in a row",
    ),
    "flight-delay-notice-0a1b2c3d4e",
    "ab" * 16,
)


def telling() -> PolicyView:
    """The policy with a webhook."""
    told = Webhook.model_validate({"url": "https://alerts.example.com/t", "tokenSecretRef": {"name": "pager"}})
    seen = policy()
    return replace(seen, spec=seen.spec.model_copy(update={"webhook": told}))


def built(settings: Settings = SETTINGS) -> dict[str, dict[str, Any] | None]:
    """Every golden manifest, by its name."""
    plain = model(PLAIN)
    away = {"uri": "s3://imports/", "endpoint": "http://there:7070", "credentialsSecretRef": {"name": "imports"}}
    further = {
        "name": "storms",
        "source": {"s3": {"uri": "s3://storms/", "credentialsSecretRef": {"name": "sets"}}},
        "gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}],
    }
    taken = {"training": {"import": {"s3": away, "digest": DIGEST}}, "evaluation": {"benchmarks": [further]}}
    imported = model({**PLAIN, **taken})
    tuned = model({**PLAIN, "training": {"recipe": TUNED}, "evaluation": taken["evaluation"]})
    at_home = model({**PLAIN, "serving": {"gateway": {"name": "public"}}})
    return {
        "training-job": training_job(model(), run(), settings, CHAMPION),
        "training-job-plain": training_job(plain, run(), settings, None),
        "training-job-import": training_job(imported, run(), settings, None),
        "tuning-job": tuning_job(tuned, run(), settings, Tuning.model_validate(TUNED["tuning"])),
        "fit-job": fit_job(model(FITTING), run(), settings),
        "training-job-opaque": training_job(model(OPAQUE), run(), settings, None),
        "serving-deployment": serving_deployment(model(), INTENT, settings),
        "serving-deployment-plain": serving_deployment(plain, INTENT, settings),
        "serving-deployment-image": serving_deployment(model(IMAGE), INTENT, settings),
        "stable-service": stable_service(model(), ServiceIntent("flight-delay", INTENT.name)),
        "stable-service-canary": stable_service(model(), ServiceIntent("flight-delay", None)),
        "deployment-service": deployment_service(model(), INTENT.name),
        "disruption-budget": disruption_budget(model(), BudgetIntent(INTENT.name, 3)),
        "httproute": httproute(model(), RouteIntent((("flight-delay-r2-cdcdcd", 67), (INTENT.name, 33)))),
        "httproute-shadow": httproute(at_home, RouteIntent((("flight-delay-r2-cdcdcd", 100),), INTENT.name)),
        "autoscaler": autoscaler(model(), AutoscalerIntent(INTENT.name, 2)),
        "monitor-cronjob": monitor_cronjob(model(), policy(), Watched(3, DIGEST), settings),
        "retention-cronjob": retention_cronjob(model(), settings),
        "notice-job": notice_job(model(), telling(), DUE, settings),
        "rehearsal-job": rehearsal_job(serving_model(), CANDIDATE, settings),
        "decisions-job": decisions_job(serving_model(), [PROMOTED], settings),
        "restore-job": restore_job(
            model(), run(), Restore(run_uid="former-uid", model_uid="m", revision=2), settings, FIRST_ATTEMPT
        ),
        "training-run": training_run(
            model(), RunIntent("flight-delay-0a1b2c3d4e", Trigger(type="Manual", message="asked for", value="1"))
        ),
    }
