"""Where the story fails: the conditions, the Events, and the last words of the pods concerned."""

from __future__ import annotations

from collections.abc import Iterator

from tests.story.kube import Json, Kube, name_of
from tests.story.narrator import Narrator

OPERATOR_NAMESPACE = "truekeep-system"
GOOD = {"Ready": "True", "Serving": "True", "DataValid": "True", "Trained": "True", "GatesPassed": "True"}
GOOD |= {"Approved": "True", "RolledOut": "True", "Complete": "True"}
EVENTS = 12
LOG_LINES = 8


def tell_trouble(kube: Kube, namespace: str, tell: Narrator) -> None:
    """Say what the cluster knows. Never raises: what can't be read is said to be so."""
    for title, part in (("Conditions", _conditions), ("Events", _events), ("Pods", _pods), ("Operator", _operator)):
        tell.bad(f"{title}:")
        try:
            for line in part(kube, namespace):
                tell.output(line, lines=LOG_LINES + 2)
        except Exception as error:  # the failure that is being told must not be hidden by another
            tell.output(f"could not be read: {error!r}")


def _conditions(kube: Kube, namespace: str) -> Iterator[str]:
    for plural in ("models", "trainingruns", "driftpolicies"):
        for item in kube.list(namespace, plural):
            for each in item.get("status", {}).get("conditions", []):
                if each["status"] != GOOD.get(each["type"], "False"):
                    where = f"{item['kind']} {name_of(item)}: {each['type']}={each['status']}"
                    yield f"{where} {each['reason']}: {each.get('message', '')}"


def _events(kube: Kube, namespace: str) -> Iterator[str]:
    events = kube.list(namespace, "events")

    def moment(event: Json) -> str:
        times = (
            event.get("lastTimestamp"),
            (event.get("series") or {}).get("lastObservedTime"),
            event.get("eventTime"),
        )
        return max(str(time) for time in (*times, event["metadata"]["creationTimestamp"]) if time)

    telling = [
        event
        for event in events
        if event.get("type") == "Warning" or "truekeep" in event["involvedObject"].get("apiVersion", "")
    ]
    for event in sorted(telling, key=moment)[-EVENTS:]:
        about = f"{event['involvedObject']['kind']}/{event['involvedObject']['name']}"
        yield f"{moment(event)[11:19]} {event['type']} {event['reason']} {about}: {event.get('message', '')}"


def _pods(kube: Kube, namespace: str) -> Iterator[str]:
    for pod in kube.list(namespace, "pods"):
        ready = any(
            each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", [])
        )
        if ready or pod["status"].get("phase") == "Succeeded":
            continue
        yield f"{name_of(pod)} ({pod['status'].get('phase')}): {_state(pod)}"
        yield kube.logs(namespace, name_of(pod), LOG_LINES)


def _state(pod: Json) -> str:
    containers = pod["status"].get("containerStatuses", [])
    states = [state for each in containers for name in ("state", "lastState") for state in each.get(name, {}).values()]
    words = [f"{s.get('reason', '')} {s.get('exitCode', '')} {s.get('message', '')}".strip() for s in states]
    return "; ".join(word for word in words if word) or "no container yet"


def _operator(kube: Kube, namespace: str) -> Iterator[str]:
    for pod in kube.list(OPERATOR_NAMESPACE, "pods"):
        yield f"{name_of(pod)} ({pod['status'].get('phase')}): {_state(pod)}"
        wanted = [line for line in kube.logs(OPERATOR_NAMESPACE, name_of(pod), 400).splitlines() if namespace in line]
        yield "\n".join(wanted[-LOG_LINES:])
