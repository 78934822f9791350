"""Names, labels and annotations: every child's name follows from its parent's, so that a crash repeats nothing."""

from __future__ import annotations

import hashlib

from truekeep.api.common import GROUP

FIELD_MANAGER = "truekeep"
MANAGED_BY = {"app.kubernetes.io/managed-by": "truekeep"}

LABEL_MODEL = f"{GROUP}/model"
LABEL_RUN = f"{GROUP}/run"
LABEL_STAGE = f"{GROUP}/stage"  # of a run, on its Jobs: Tune, Fit, Train
LABEL_ATTEMPT = f"{GROUP}/attempt"  # number of the try, on a run's Jobs
LABEL_POLICY = f"{GROUP}/policy"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"  # on a run's Jobs: Kueue's, which lets them begin
LABEL_COMPONENT = "app.kubernetes.io/component"  # trainer, server, monitor

ANNOTATION_RETRAIN = f"{GROUP}/retrain"  # set by a person: a new value asks for one run
ANNOTATION_PAUSED = f"{GROUP}/paused"  # set by a person: nothing is trained and nothing promoted
ANNOTATION_ROLLBACK = f"{GROUP}/rollback"  # set by a person: `previous` or a number
ANNOTATION_AUTHOR = f"{GROUP}/author"  # on a Model, by whoever changed it; kept on its training Jobs
ANNOTATION_COMMIT = f"{GROUP}/commit"  # on a Model: the commit of Git that it was applied from, for the record
ANNOTATION_IMAGE = f"{GROUP}/image"  # on a training Job: what trains
ANNOTATION_FINGERPRINT = f"{GROUP}/training-fingerprint"  # on a training Job
ANNOTATION_GENERATION = f"{GROUP}/model-generation"  # on a training Job
ANNOTATION_ARTIFACT = f"{GROUP}/artifact-digest"  # on a serving Deployment
ANNOTATION_SERVING_KEY = f"{GROUP}/serving-key"  # on a serving Deployment


def run_name(model: str, model_uid: str, *trigger: str) -> str:
    """Name of the run that one cause makes: the same cause, the same name, so that it is made once."""
    cause = "\n".join((model_uid, *trigger))
    return f"{model}-{hashlib.sha256(cause.encode()).hexdigest()[:10]}"


def deployment_name(model: str, revision: int, serving_key: str) -> str:
    """Name of the Deployment (and of its own Service) that serves a revision in one way."""
    return f"{model}-r{revision}-{serving_key.removeprefix('sha256:')[:6]}"


def monitor_name(policy: str) -> str:
    """Name of a policy's CronJob."""
    return f"{policy}-monitor"


def notice_name(policy: str, digest: str) -> str:
    """Name of the Job that tells a policy's webhook of one turn of a condition."""
    return f"{policy}-notice-{digest.removeprefix('sha256:')[:10]}"


def retention_name(model: str) -> str:
    """Name of the CronJob that deletes a model's old captures."""
    return f"{model}-retention"


def decisions_name(model: str, digest: str) -> str:
    """Name of the Job that takes decisions on a model's revisions to the store."""
    return f"{model}-decisions-{digest.removeprefix('sha256:')[:10]}"


def serving_selector(model: str, deployment: str | None = None) -> dict[str, str]:
    """Labels of the serving pods of a model, or of one of its Deployments."""
    selector = {LABEL_MODEL: model, LABEL_COMPONENT: "server"}
    return selector | ({LABEL_DEPLOYMENT: deployment} if deployment else {})


def autoscaler_name(model: str) -> str:
    """Name of the HorizontalPodAutoscaler of the live revision."""
    return model


def newdata_name(model: str) -> str:
    """Name of the CronJob that counts new rows."""
    return f"{model}-newdata"


def rehearsal_name(deployment: str) -> str:
    """Name of the Job in which a candidate answers captured requests."""
    return f"{deployment}-rehearsal"
