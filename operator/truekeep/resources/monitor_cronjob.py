"""The CronJob that looks at what a revision predicted, for one DriftPolicy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from truekeep.api.driftpolicy import PerformancePolicy
from truekeep.api.model import ModelSpec
from truekeep.api.names import (
    ANNOTATION_ARTIFACT,
    LABEL_COMPONENT,
    LABEL_MODEL,
    LABEL_POLICY,
    LABEL_REVISION,
    MANAGED_BY,
    monitor_name,
)
from truekeep.contract.requests import Labels, MonitorRequest, complete, complete_data
from truekeep.domain.observed import ModelView, PolicyView
from truekeep.domain.plan import Settings
from truekeep.resources.amounts import MONITOR, container_resources
from truekeep.resources.cron_job import Timing, cron_job
from truekeep.resources.metadata import child_metadata
from truekeep.resources.pods import pod_template

COMPONENT = "monitor"
RETRIES = 1
LATE_SECONDS = 120  # a look that is later than this is left out: the next one judges the same windows
DEADLINE_SECONDS = 1800
TMP_SIZE = "4Gi"  # a large file of labels is read from there


@dataclass(frozen=True)
class Watched:
    """What the CronJob looks at, and whether it rests."""

    revision: int
    artifact_digest: str
    suspended: bool = False


def monitor_cronjob(
    model: ModelView, policy: PolicyView, watched: Watched, settings: Settings
) -> dict[str, Any] | None:
    """The CronJob that watches a revision; None where the Model keeps no captures, so that there is nothing to see."""
    capture = model.spec.serving.capture
    if capture is None:
        return None
    store = model.spec.store.s3
    location = complete(capture.s3, store)
    wanted = _labels(model.spec, policy.spec.performance) if policy.spec.performance else None
    request = MonitorRequest(
        namespace=policy.meta.namespace,
        model=model.meta.name,
        policy=policy.meta.name,
        policy_uid=policy.meta.uid,
        revision=watched.revision,
        artifact_digest=watched.artifact_digest,
        store=store,
        capture=location,
        window=policy.spec.window,
        drift=policy.spec.data,
        dropped=tuple(capture.drop),
        hashed=tuple(capture.hash),
        shards=policy.spec.shards,
        blackouts=tuple(policy.spec.blackouts),
        max_duplicate_fraction=_duplicates(model.spec),
        performance=policy.spec.performance,
        labels=wanted,
        slices=tuple(model.spec.evaluation.slices) if wanted else (),
    )
    labels = {
        LABEL_MODEL: model.meta.name,
        LABEL_POLICY: policy.meta.name,
        LABEL_REVISION: str(watched.revision),
        LABEL_COMPONENT: COMPONENT,
    }
    template = pod_template(
        component=COMPONENT,
        image=settings.monitor_image,
        pull_secrets=settings.image_pull_secrets,
        request=request,
        resources=container_resources(policy.spec.resources, MONITOR),
        pods=model.spec.pods,
        locations=[store, location, *([wanted.source.place] if wanted else [])],
        hash_key=wanted.hash_key_secret if wanted else None,
        labels={**MANAGED_BY, **labels},
        tmp_size=TMP_SIZE,
        spec={"restartPolicy": "Never"},
    )
    timing = Timing(
        cron=policy.spec.schedule,
        late=LATE_SECONDS,
        deadline=DEADLINE_SECONDS,
        retries=RETRIES * policy.spec.shards,
        suspended=watched.suspended,
        kept=3,
        job=_indexed(policy.spec.shards),
    )
    annotations = {ANNOTATION_ARTIFACT: watched.artifact_digest}
    name = monitor_name(policy.meta.name)
    metadata = child_metadata(name, "DriftPolicy", policy.meta, labels, annotations)
    return cron_job(metadata, labels, COMPONENT, timing, template)


def _labels(spec: ModelSpec, performance: PerformancePolicy) -> Labels:
    """Where the monitor finds what became of the predictions: where training finds it."""
    data, capture = complete_data(spec.data, spec.store.s3), spec.serving.capture
    joins = performance.entity.column if performance.entity else data.key
    reference = capture.hash_key_secret_ref if capture and joins in capture.hash else None
    return Labels(
        source=data.label.source or data.source,
        key=data.key,
        column=data.label.column,
        matures_after_seconds=data.label.matures_after_seconds,
        hash_key_secret=reference.name if reference else None,
    )


def _duplicates(spec: ModelSpec) -> float | None:
    """The strictest of the Model's rules on rows that share their key."""
    rules = [rule for rule in spec.data.rules if rule.column in (None, spec.data.key)]
    allowed = [rule.max_duplicate_fraction for rule in rules if rule.max_duplicate_fraction is not None]
    return min((float(fraction) for fraction in allowed), default=None)


def _indexed(shards: int) -> dict[str, Any]:
    """What makes a Job of several pods that know which one they are."""
    return {"completionMode": "Indexed", "completions": shards, "parallelism": shards} if shards > 1 else {}
