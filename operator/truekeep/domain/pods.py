"""What pods say about why work does not go on: obstacles that may pass, and crashes that will not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from truekeep.domain.observed import PodView

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
# All that `obstacle` answers.
OBSTACLES = frozenset(
    {
        "Unschedulable",
        "ImagePullFailed",
        "ContainerRefused",
        "MountFailed",
        "ContainerCreating",
        "QuotaExceeded",
        "PodRefused",
    }
)
EXIT_INPUT = 3
EXIT_OUTSIDE = 4
EXIT_OUT_OF_MEMORY = 137
MOUNT_GRACE = timedelta(seconds=10)
MOUNT_PATIENCE = timedelta(seconds=120)
LOG_TAIL = 1200


@dataclass(frozen=True)
class Trouble:
    """Why work does not go on, in a word for programs and a sentence for people."""

    reason: str
    message: str
    exit_code: int | None = None
    last_lines: str = ""  # of the log


def newest(pods: Sequence[PodView]) -> PodView | None:
    """The pod that was made last."""
    return max(pods, key=lambda pod: (pod.created, pod.name), default=None)


def tail(text: str, limit: int = LOG_TAIL) -> str:
    """The end of a log, from the start of a line where that is possible."""
    text = text.strip()
    if len(text) <= limit:
        return text
    return "…" + text[-limit:].partition("\n")[2] if "\n" in text[-limit:] else "…" + text[-limit:]


def refused(create_error: str) -> Trouble:
    """Why the API server took no pod."""
    if "exceeded quota" in create_error or "failed quota" in create_error:
        remedy = "free some of the namespace's quota, or lower the resources in the spec; it is tried again by itself"
        return Trouble("QuotaExceeded", f"no pod could be made: {create_error}; {remedy}")
    return Trouble("PodRefused", f"no pod could be made: {create_error}")


def obstacle(
    pods: Sequence[PodView], create_error: str | None, now: datetime, needs: Sequence[str] = ()
) -> Trouble | None:
    """What keeps pods from running and may pass by itself or by somebody's hand, None where nothing does.

    needs: the Secrets and ConfigMaps that the pods mount, to name where mounting takes long."""
    if create_error and not any(pod.ready for pod in pods):
        return refused(create_error)
    for pod in sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if pod.deleting or pod.ready:
            continue
        if pod.unschedulable:
            return Trouble(
                "Unschedulable",
                f"no node takes pod {pod.name}: {pod.unschedulable}; free capacity, or change resources, nodeSelector "
                "or tolerations",
            )
        if pod.waiting_reason in IMAGE_REASONS:
            return Trouble(
                "ImagePullFailed",
                f"the image of pod {pod.name} can't be pulled: {pod.waiting_message or pod.waiting_reason}; check its "
                "name, imagePullSecrets and the registry",
            )
        if pod.waiting_reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
            return Trouble("ContainerRefused", f"pod {pod.name} can't start: {pod.waiting_message}")
        if pod.waiting_reason == "ContainerCreating" and (slow := _slow_start(pod, now, needs)):
            return slow
    return None


def _slow_start(pod: PodView, now: datetime, needs: Sequence[str]) -> Trouble | None:
    """Why a container is not there yet, where that takes long or the kubelet gave a reason."""
    names, waited = ", ".join(needs) or "none", now - pod.created
    if pod.waiting_message and waited > MOUNT_GRACE:
        return Trouble("MountFailed", f"pod {pod.name} can't start: {pod.waiting_message}; it mounts: {names}")
    if waited > MOUNT_PATIENCE:
        words = f"pod {pod.name} waits for its image or its mounts; it mounts these, are they there? {names}"
        return Trouble("ContainerCreating", words)
    return None


def storeless(pods: Sequence[PodView]) -> Trouble | None:
    """What keeps serving pods from fetching their artifact; never a reason against a revision."""
    for pod in sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if not pod.ready and not pod.deleting and pod.exit_code == EXIT_OUTSIDE and not pod.theirs:
            words = f"pod {pod.name} can't fetch its artifact: {tail(pod.exit_message)}; it is tried again"
            return Trouble("StoreUnreachable", words)
    return None


def crash(pods: Sequence[PodView], restarts: int = 1) -> Trouble | None:
    """Why containers end that ought to run on, None where they do not. One that was restarted fewer times may recover,
    except where it said by its exit code that a second try can't help."""
    for pod in sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True):
        if pod.ready or pod.deleting or pod.exit_code is None or (pod.exit_code == 0 and not pod.theirs):
            continue
        if pod.exit_reason == "OOMKilled" and (pod.restarts >= restarts or pod.phase == "Failed"):
            return Trouble(
                "ServerOutOfMemory",
                f"pod {pod.name} was killed for using more memory than its limit; raise "
                "spec.serving.resources.limits.memory",
                pod.exit_code,
            )
        if pod.exit_code == EXIT_INPUT and not pod.theirs:
            return Trouble("ServerRefused", f"pod {pod.name} refuses to serve: {tail(pod.exit_message)}", pod.exit_code)
        if pod.restarts > restarts and (pod.theirs or pod.exit_code != EXIT_OUTSIDE):
            what = "spec.serving.image in pod" if pod.theirs else "pod"
            return Trouble(
                "ServerCrashed",
                f"{what} {pod.name} ended {pod.restarts + 1} times, last with code {pod.exit_code}: "
                f"{tail(pod.exit_message)}",
                pod.exit_code,
            )
    return None
