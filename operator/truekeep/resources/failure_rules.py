"""How a Job takes the end of a pod."""

from __future__ import annotations

from typing import Any

from truekeep.contract.results import EXIT_INPUT
from truekeep.domain.pods import EXIT_OUT_OF_MEMORY

_DISRUPTED: dict[str, Any] = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def failure_rules(container: str) -> list[dict[str, Any]]:
    """Where the Job itself tries again: a pod that its node evicted counts nothing, bad input and lack of memory end
    it. In this order: a pod that its node evicted was killed, too."""
    return [
        {"action": "Ignore", **_DISRUPTED},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": container, "operator": "In", "values": [EXIT_INPUT, EXIT_OUT_OF_MEMORY]},
        },
    ]


def one_try() -> dict[str, Any]:
    """Where somebody else tries again: the Job fails with its pod, and its message says how the pod ended, which a pod
    that was evicted is not there to tell."""
    code = {"operator": "NotIn", "values": [0]}
    rules = [{"action": "FailJob", **_DISRUPTED}, {"action": "FailJob", "onExitCodes": code}]
    return {"backoffLimit": 0, "podFailurePolicy": {"rules": rules}}
