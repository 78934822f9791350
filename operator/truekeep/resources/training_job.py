"""The Job of the stage Train: it fits, or takes an artifact in, judges it, and hands the result over."""

from __future__ import annotations

from typing import Any

from truekeep.api.names import MANAGED_BY
from truekeep.contract.requests import Champion, TrainRequest, complete_data, complete_evaluation, complete_training
from truekeep.contract.results import EXIT_INPUT
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import FIRST_ATTEMPT, Attempt, Settings
from truekeep.resources.amounts import TRAINER, container_resources
from truekeep.resources.pods import pod_template
from truekeep.resources.stage_manifest import COMPONENT, StageManifest

RETRIES = 2  # of a pod that crashed, or found the store gone; a run that judged never repeats
EXIT_KILLED = 137  # out of memory; where the node is at fault, the pod says DisruptionTarget instead
TMP_SIZE = "4Gi"


def training_job(
    model: ModelView, run: RunView, settings: Settings, champion: Champion | None, attempt: Attempt = FIRST_ATTEMPT
) -> dict[str, Any]:
    """The training Job of a run, for the Model as it is now. It bears the run's name."""
    spec = model.spec
    store = spec.store.s3
    data = complete_data(spec.data, store)
    training = complete_training(spec.training, store)
    evaluation = complete_evaluation(spec.evaluation, store)
    fingerprint = training_fingerprint(spec)
    request = TrainRequest(
        namespace=run.meta.namespace,
        model=model.meta.name,
        model_uid=model.meta.uid,
        model_generation=model.meta.generation,
        run=run.meta.name,
        run_uid=run.meta.uid,
        trigger=run.spec.trigger,
        training_fingerprint=fingerprint,
        image=settings.trainer_image,
        operator_version=settings.operator_version,
        store=store,
        data=data,
        training=training,
        evaluation=evaluation,
        champion=champion,
    )
    locations = [store, data.source.s3, *(join.source.s3 for join in data.joins)]
    if data.label.source:
        locations.append(data.label.source.s3)
    locations += [one.source.s3 for one in evaluation.benchmarks]
    if training.import_:
        locations.append(training.import_.s3)
    stage = StageManifest("Train", model, run, attempt, settings.trainer_image)
    template = pod_template(
        component=COMPONENT,
        image=settings.trainer_image,
        request=request,
        resources=container_resources(spec.training.resources, TRAINER),
        pods=spec.pods,
        locations=locations,
        labels={**MANAGED_BY, **stage.labels},
        tmp_size=TMP_SIZE,
        spec={"restartPolicy": "Never"},
    )
    return stage.job({"backoffLimit": RETRIES, "podFailurePolicy": {"rules": failure_rules(COMPONENT)}}, template)


def failure_rules(container: str) -> list[dict[str, Any]]:
    """How a Job takes the end of a pod. In this order: a pod that its node evicted was killed, too."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": container, "operator": "In", "values": [EXIT_INPUT, EXIT_KILLED]},
        },
    ]
