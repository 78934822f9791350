"""What the API server says, as the domain's values. Nothing here raises: objects may have been written by anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from truekeep.api.common import Schema
from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus
from truekeep.api.model import ModelSpec, ModelStatus
from truekeep.api.modelapproval import ModelApprovalSpec
from truekeep.api.names import (
    ANNOTATION_ARTIFACT,
    ANNOTATION_SERVING_KEY,
    FIELD_MANAGER,
    LABEL_ATTEMPT,
    LABEL_DEPLOYMENT,
    LABEL_QUEUE,
    LABEL_REVISION,
    LABEL_RUN,
    LABEL_STAGE,
    MANAGED_BY,
)
from truekeep.api.trainingrun import TrainingRunSpec, TrainingRunStatus
from truekeep.domain.observed import (
    ApprovalView,
    AutoscalerView,
    DeploymentView,
    JobView,
    Meta,
    ModelView,
    PodView,
    PolicyView,
    RouteView,
    RunView,
    ServiceView,
)
from truekeep.domain.stages import ALL, LAST
from truekeep.resources.compare import holds
from truekeep.resources.fit_job import FIT
from truekeep.resources.serving_deployment import ANNOTATION_TEMPLATE
from truekeep.resources.serving_image import BACKEND

Json = dict[str, Any]
Verdict = Literal["Accepted", "Refused", "Stale", "Unanswered"]
Status = TypeVar("Status", bound=Schema)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STAGES = {str(stage): stage for stage in ALL}
THEIRS = frozenset({BACKEND, FIT})  # containers of a team's own image
# Events about a pod that went, and what its condition DisruptionTarget said, or would have said.
GONE_BY = {
    "Preempted": "PreemptionByScheduler",
    "TaintManagerEviction": "DeletionByTaintManager",
    "NodeNotReady": "DeletionByPodGC",
    "Evicted": "TerminationByKubelet",
}
WAITING_QUIETLY = frozenset({"ContainerCreating", "PodInitializing", ""})


class SpecInvalidError(Exception):
    """A stored spec is not one that this version understands; the text says where. `item`: the object."""

    def __init__(self, item: Json, why: str) -> None:
        super().__init__(f"spec can't be read by this version of the operator: {why}")
        self.item = item


def parsed_time(value: Any) -> datetime | None:
    """A time as Kubernetes writes it, or None."""
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def meta(item: Json) -> Meta:
    """The metadata of an object."""
    metadata = item.get("metadata") or {}
    return Meta(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        created=parsed_time(metadata.get("creationTimestamp")) or EPOCH,
        generation=_integer(metadata.get("generation"), 1),
        resource_version=str(metadata.get("resourceVersion", "")),
        deleting="deletionTimestamp" in metadata,
        annotations={str(key): str(value) for key, value in (metadata.get("annotations") or {}).items()},
    )


def controller_uid(item: Json) -> str | None:
    """UID of the object that owns this one."""
    for reference in (item.get("metadata") or {}).get("ownerReferences") or []:
        if reference.get("controller"):
            return str(reference.get("uid"))
    return None


def owned_by(items: Iterable[Json], uid: str) -> list[Json]:
    """Those that the object with this UID owns, or nobody does: what an owner of the same name left behind is not
    ours, and goes by itself."""
    return [item for item in items if controller_uid(item) in (uid, None)]


def model_view(item: Json) -> tuple[ModelView, str | None]:
    """A Model, and what could not be read of its status. SpecInvalidError where its spec can't be read."""
    status, problem = lenient_status(ModelStatus, item)
    return ModelView(meta(item), _spec(ModelSpec, item), status), problem


def run_view(item: Json) -> RunView:
    """A TrainingRun. SpecInvalidError where its spec can't be read. One that was restored is as old as it was."""
    about, status = meta(item), lenient_status(TrainingRunStatus, item)[0]
    if status.restored is not None and status.start_time is not None:
        about = replace(about, created=status.start_time)
    labels = (item.get("metadata") or {}).get("labels") or {}
    ours = MANAGED_BY.items() <= labels.items() and not _others_keep(item)
    return RunView(about, _spec(TrainingRunSpec, item), status, controller_uid(item) if ours else None)


def policy_view(item: Json) -> PolicyView:
    """A DriftPolicy. SpecInvalidError where its spec can't be read."""
    return PolicyView(meta(item), _spec(DriftPolicySpec, item), lenient_status(DriftPolicyStatus, item)[0])


def approval_view(item: Json) -> ApprovalView:
    """A ModelApproval. SpecInvalidError where its spec can't be read."""
    return ApprovalView(meta(item), _spec(ModelApprovalSpec, item))


def _spec(kind: type[Status], item: Json) -> Status:
    try:
        return kind.model_validate(item.get("spec") or {})
    except ValidationError as error:
        raise SpecInvalidError(item, _first_error(error)) from error


def lenient_status(kind: type[Status], item: Json) -> tuple[Status, str | None]:
    """A stored status, without those of its fields that are garbage, and what was wrong with them, in words."""
    stored = item.get("status")
    stored = dict(stored) if isinstance(stored, Mapping) else {}
    problem: str | None = None
    while True:
        try:
            return kind.model_validate(stored), problem
        except ValidationError as error:
            problem = problem or f"the stored status was not readable and is made anew: {_first_error(error)}"
            broken = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
            kept = {key: value for key, value in stored.items() if key not in broken}
            stored = kept if len(kept) < len(stored) else {}


def _first_error(error: ValidationError) -> str:
    detail = error.errors()[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"


def pod_view(item: Json, events: Iterable[Json] = ()) -> PodView:
    """A pod of ours. `events`: warnings about it; they explain a container that waits without saying why."""
    status = item.get("status") or {}
    conditions = {str(each.get("type")): each for each in status.get("conditions") or []}
    container = _telling(item.get("spec") or {}, status)
    state = container.get("state") or {}
    terminated = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    evicted = str(status.get("reason") or "") if status.get("phase") == "Failed" else ""
    for event in events:
        if reason in WAITING_QUIETLY:
            message = str(event.get("note") or message)
    scheduled = conditions.get("PodScheduled") or {}
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    about = meta(item)
    return PodView(
        name=about.name,
        created=about.created,
        phase=str(status.get("phase") or "Pending"),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        deleting=about.deleting,
        ip=status.get("podIP") or None,
        waiting_reason=reason or None,
        waiting_message=message,
        exit_code=_integer_or_none(terminated.get("exitCode")),
        exit_reason=evicted or terminated.get("reason") or None,
        exit_message=str(terminated.get("message") or (status.get("message") if evicted else "") or ""),
        ended_because=str(status.get("message") or "") if status.get("phase") == "Failed" else "",
        disruption=_disruption(conditions),
        finished=parsed_time(terminated.get("finishedAt")),
        restarts=_integer(container.get("restartCount"), 0),
        image_id=str(_first(list(status.get("containerStatuses") or [])[:1]).get("imageID") or "") or None,
        fit_image_id=_fit_image_id(status),
        theirs=container.get("name") in THEIRS,
        unschedulable=str(scheduled.get("message") or "Unschedulable") if unschedulable else None,
        node=(item.get("spec") or {}).get("nodeName") or None,
    )


def _fit_image_id(status: Json) -> str | None:
    found = [each for each in status.get("initContainerStatuses") or [] if each.get("name") == FIT]
    return str(_first(found).get("imageID") or "") or None


def _disruption(conditions: Mapping[str, Json]) -> str | None:
    """Who takes a pod away, by its condition."""
    target = conditions.get("DisruptionTarget") or {}
    return str(target.get("reason") or "DisruptionTarget") if target.get("status") == "True" else None


def _telling(spec: Json, status: Json) -> Json:
    """The container to speak of: the pod's own, unless another is in more trouble."""
    own = list(status.get("containerStatuses") or [])[:1]
    first = _first(own)
    if spec.get("restartPolicy") == "Never" and (first.get("state") or {}).get("terminated"):
        return first  # the pod is at its end, and whoever ran beside is ended with it
    return max([*own, *(status.get("initContainerStatuses") or [])], key=_trouble, default={})


def _trouble(container: Json) -> int:
    """How much a container is in trouble: 0 not at all, 1 it was before, 2 it is, 3 it is and was before."""
    state, before = container.get("state") or {}, container.get("lastState") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    loud = str(waiting.get("reason") or "") not in WAITING_QUIETLY or _integer(ended.get("exitCode"), 0) != 0
    return 2 * loud + ("terminated" in before and not ended)


# What tools that empty a node mark it with before they evict its pods, where they do not cordon it.
EMPTYING_TAINTS = frozenset({"karpenter.sh/disrupted", "ToBeDeletedByClusterAutoscaler"})


def node_is_emptied(item: Json) -> bool:
    """Whether a node takes no more pods because it is to go: it is cordoned, or marked by an autoscaler of nodes."""
    spec = item.get("spec") or {}
    return bool(spec.get("unschedulable")) or any(
        each.get("key") in EMPTYING_TAINTS for each in spec.get("taints") or []
    )


def route_view(item: Json, parent: Json, wanted: Json | None) -> RouteView:
    """A route of ours. `parent`: the Gateway that is to answer, as the route names it; `wanted`: what the manifest
    should be with the weights and the mirror that it has."""
    about, rule = meta(item), _first((item.get("spec") or {}).get("rules"))
    weights = {
        str(each.get("name", "")): _integer(each.get("weight"), 1)
        for each in rule.get("backendRefs") or []
        if _integer(each.get("weight"), 1) > 0
    }
    mirrors = [each for each in rule.get("filters") or [] if each.get("type") == "RequestMirror"]
    mirror = ((_first(mirrors).get("requestMirror") or {}).get("backendRef") or {}).get("name")
    verdict, message = _route_verdict(item, parent, about.generation)
    return RouteView(
        weights=weights,
        mirror=str(mirror) if mirror else None,
        verdict=verdict,
        message=message,
        created=about.created,
        changed=_changed_by_us(item) or about.created,
        intact=wanted is not None and holds(wanted, item),
    )


def _route_verdict(item: Json, parent: Json, generation: int) -> tuple[Verdict, str]:
    """What the Gateway says of its route: refused where any condition is False, accepted at this generation, or not
    yet."""
    answers = [
        {str(each.get("type")): each for each in answer.get("conditions") or []}
        for answer in (item.get("status") or {}).get("parents") or []
        if all((answer.get("parentRef") or {}).get(key) == value for key, value in parent.items())
    ]
    found: tuple[Verdict, str] = ("Unanswered", "")
    for conditions in answers:
        said = [conditions[kind] for kind in ("Accepted", "ResolvedRefs") if kind in conditions]
        bad = [each for each in said if each.get("status") == "False"]
        if bad:
            found = "Refused", "; ".join(f"{e.get('type')}=False {e.get('reason')}: {e.get('message')}" for e in bad)
        elif (conditions.get("Accepted") or {}).get("status") == "True":
            if all(_integer(each.get("observedGeneration"), 0) >= generation for each in said):
                return "Accepted", ""
            found = "Stale", ""
    return found


def _others_keep(item: Json) -> bool:
    """Whether somebody else wrote parts of it besides its status: Argo CD or Flux, whose Git has it, or a person."""
    return any(
        each.get("manager") != FIELD_MANAGER and not each.get("subresource")
        for each in (item.get("metadata") or {}).get("managedFields") or []
    )


def _changed_by_us(item: Json) -> datetime | None:
    """When the operator changed an object last."""
    times = [
        parsed_time(each.get("time"))
        for each in (item.get("metadata") or {}).get("managedFields") or []
        if each.get("manager") == FIELD_MANAGER and not each.get("subresource")
    ]
    return max((time for time in times if time), default=None)


def _first(items: Any) -> Json:
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}


def autoscaler_view(item: Json, wanted: Json) -> AutoscalerView:
    """An autoscaler of ours. `wanted`: what its manifest should be, for the deployment and the least that it has."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    conditions = status.get("conditions") or []
    broken = [
        str(each.get("message") or each.get("reason") or "")
        for each in conditions
        if each.get("type") in ("AbleToScale", "ScalingActive") and each.get("status") == "False"
    ]
    return AutoscalerView(
        deployment=str((spec.get("scaleTargetRef") or {}).get("name", "")),
        intact=holds(wanted, item),
        least=_integer(spec.get("minReplicas"), 1),
        problem=broken[0] if broken else None,
        working=any(each.get("type") == "ScalingActive" and each.get("status") == "True" for each in conditions),
    )


def job_view(item: Json, pods: Iterable[PodView] = (), create_error: str | None = None) -> JobView:
    """A Job of ours. `create_error`: why its controller could make no pod, from the events about it."""
    status = item.get("status") or {}
    conditions = {
        str(each.get("type")): each for each in status.get("conditions") or [] if each.get("status") == "True"
    }
    failed = conditions.get("Failed")
    done = failed or conditions.get("Complete")
    return JobView(
        meta=meta(item),
        complete="Complete" in conditions,
        failing=str((conditions.get("FailureTarget") or {}).get("reason") or "") or None,
        failed_reason=str(failed.get("reason") or "Failed") if failed else None,
        failed_message=str(failed.get("message") or "") if failed else "",
        finished=parsed_time(done.get("lastTransitionTime")) if done else None,
        suspended=bool((item.get("spec") or {}).get("suspend")),
        pods=tuple(sorted(pods, key=lambda pod: (pod.created, pod.name))),
        create_error=create_error,
        stage=STAGES.get(label(item, LABEL_STAGE), LAST),
        attempt=max(1, _integer(label(item, LABEL_ATTEMPT), 1)),
        memory=_memory(item),
        completions=_completions(item),
        succeeded=_integer(status.get("succeeded"), 0),
        started=parsed_time(status.get("startTime")) if status.get("startTime") else None,
        queue=label(item, LABEL_QUEUE),
    )


def _completions(job: Json) -> int | None:
    """Of an Indexed Job; any other one has a number there, too, which means nothing to us."""
    spec = job.get("spec") or {}
    return _integer(spec.get("completions"), 1) if spec.get("completionMode") == "Indexed" else None


def disrupted_pod(message: str) -> str | None:
    """Name of the pod whose disruption failed a Job, as the Job's condition tells it."""
    found = re.search(r"Pod [^/\s]+/(\S+) has condition DisruptionTarget", message)
    return found[1] if found else None


def disruption_by_events(reasons: Iterable[str]) -> str:
    """Who took a pod away, by the reasons of the Events about it. The Eviction API leaves none."""
    found = [GONE_BY[reason] for reason in reasons if reason in GONE_BY]
    return found[0] if found else "EvictionByEvictionAPI"


def _memory(job: Json) -> str | None:
    """The limit of the container that fits."""
    pod = ((job.get("spec") or {}).get("template") or {}).get("spec") or {}
    theirs = [each for each in pod.get("initContainers") or [] if each.get("name") == FIT]
    container = _first(theirs or pod.get("containers"))
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return str(limit) if limit else None


def deployment_view(item: Json, pods: Iterable[PodView], wanted: Json | None) -> DeploymentView:
    """A serving Deployment. `wanted`: what its manifest should be, without the replicas."""
    about = meta(item)
    labels = (item.get("metadata") or {}).get("labels") or {}
    spec, status = item.get("spec") or {}, item.get("status") or {}
    containers = (((spec.get("template") or {}).get("spec")) or {}).get("containers") or [{}]
    trouble = [
        str(each.get("message") or each.get("reason") or "")
        for each in status.get("conditions") or []
        if each.get("type") == "ReplicaFailure" and each.get("status") == "True"
    ]
    return DeploymentView(
        meta=about,
        revision=_integer(labels.get(LABEL_REVISION), 0),
        run=str(labels.get(LABEL_RUN, "")),
        artifact_digest=about.annotations.get(ANNOTATION_ARTIFACT, ""),
        serving_key=about.annotations.get(ANNOTATION_SERVING_KEY, ""),
        image=str(containers[0].get("image", "")),
        replicas=_integer(spec.get("replicas"), 1),
        ready=_integer(status.get("readyReplicas"), 0),
        pods=tuple(sorted(pods, key=lambda pod: (pod.created, pod.name))),
        create_error=trouble[0] if trouble else None,
        intact=wanted is not None and holds(wanted, item),
    )


def service_view(item: Json, wanted: Json) -> ServiceView:
    """A Service. `wanted`: what its manifest should be; its selector is for the domain to judge."""
    selector = {str(key): str(value) for key, value in ((item.get("spec") or {}).get("selector") or {}).items()}
    rest = {key: value for key, value in wanted["spec"].items() if key != "selector"}
    return ServiceView(meta(item).name, selector, holds({**wanted, "spec": rest}, item))


def frozen_template(item: Json) -> Json | None:
    """The pod template of a Deployment as it was first applied, or None where that was lost."""
    text = meta(item).annotations.get(ANNOTATION_TEMPLATE)
    try:
        template = json.loads(text or "")
    except ValueError:
        return None
    return template if isinstance(template, dict) and isinstance(template.get("spec"), dict) else None


def label(item: Json, name: str) -> str:
    """A label of an object, or nothing."""
    return str(((item.get("metadata") or {}).get("labels") or {}).get(name, ""))


def deployment_of(pod: Json) -> str:
    """Name of the serving Deployment that a pod belongs to."""
    return label(pod, LABEL_DEPLOYMENT)


def _integer(value: Any, default: int) -> int:
    number = _integer_or_none(value)
    return default if number is None else number


def _integer_or_none(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
