"""What the Jobs of all stages of a run have in common: name, labels, owner, marks, deadline.

A Job is made once for a try, and never changed, because it can't be (and Kueue owns `suspend`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truekeep.api.names import (
    ANNOTATION_AUTHOR,
    ANNOTATION_FINGERPRINT,
    ANNOTATION_GENERATION,
    ANNOTATION_IMAGE,
    LABEL_ATTEMPT,
    LABEL_COMPONENT,
    LABEL_MODEL,
    LABEL_QUEUE,
    LABEL_RUN,
    LABEL_STAGE,
    MANAGED_BY,
)
from truekeep.api.trainingrun import Stage
from truekeep.contract.requests import TrainRequest
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import Attempt, Settings
from truekeep.domain.stages import job_name
from truekeep.resources.amounts import TRAINER, container_resources, with_memory
from truekeep.resources.failure_rules import one_try
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import Scratch, pod_template
from truekeep.resources.train_request import locations

COMPONENT = "trainer"  # of every stage, whatever runs in it: by it the Jobs and pods of a run are found
TMP_SIZE = "4Gi"


@dataclass(frozen=True)
class StageManifest:
    """One try of a stage of a run, for the Model as it is now."""

    stage: Stage
    model: ModelView
    run: RunView
    attempt: Attempt
    image: str  # what runs

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the Job and of its pods."""
        return {
            LABEL_MODEL: self.model.meta.name,
            LABEL_RUN: self.run.meta.name,
            LABEL_COMPONENT: COMPONENT,
            LABEL_STAGE: self.stage,
            LABEL_ATTEMPT: str(self.attempt.number),
        }

    @property
    def annotations(self) -> dict[str, str]:
        """Of which spec it is, by whom, and what runs."""
        meta = self.model.meta
        author = meta.annotations.get(ANNOTATION_AUTHOR)
        return {
            ANNOTATION_FINGERPRINT: training_fingerprint(self.model.spec),
            ANNOTATION_GENERATION: str(meta.generation),
            ANNOTATION_IMAGE: self.image,
            **({ANNOTATION_AUTHOR: author} if author else {}),
        }

    @property
    def resources(self) -> dict[str, Any]:
        """What a container that fits gets: more memory where the try before ran out of it."""
        return with_memory(container_resources(self.model.spec.training.resources, TRAINER), self.attempt.memory)

    def template(
        self,
        request: TrainRequest,
        settings: Settings,
        component: str = COMPONENT,
        scratch: Sequence[Scratch] = (),
        container: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The pod, with the trainer's image: it is asked `request`, and mounts what that names."""
        return pod_template(
            component=component,
            image=settings.trainer_image,
            pull_secrets=settings.image_pull_secrets,
            request=request,
            resources=self.resources,
            pods=self.model.spec.pods,
            locations=locations(request),
            labels={**MANAGED_BY, **self.labels},
            tmp_size=TMP_SIZE,
            scratch=scratch,
            spec={"restartPolicy": "Never"},
            container=container,
        )

    def job(self, settings: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
        """The Job with this pod template; `settings` are further fields of its spec.

        Without any it is one try: `domain/retries.py` says whether there is another, which is a Job of its own. With a
        queue it is made suspended; whether it is later is the queue's to say."""
        name = job_name(self.run.meta.name, self.stage, self.attempt.number)
        timeout, queue = self.model.spec.training.timeout_seconds, self.model.spec.training.queue_name
        deadline = timeout if self.attempt.seconds is None else min(timeout, self.attempt.seconds)
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": child_metadata(
                name,
                "TrainingRun",
                self.run.meta,
                {**self.labels, **({LABEL_QUEUE: queue} if queue else {})},
                self.annotations,
            ),
            "spec": {
                **(settings or one_try()),
                **({"suspend": True} if queue else {}),
                "activeDeadlineSeconds": deadline,
                "template": dict(template),
            },
        }
