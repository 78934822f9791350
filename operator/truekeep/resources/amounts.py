"""CPU and memory of our pods: what a team gave, with defaults for the rest, so that every namespace admits the pod."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from truekeep.api.common import ResourceAmounts, Resources, quantity


@dataclass(frozen=True)
class Defaults:
    """What a kind of pod asks for, and may use at most, where nobody says otherwise."""

    request_cpu: str
    request_memory: str
    limit_cpu: str
    limit_memory: str


MEBI = 2**20
TRAINER = Defaults("500m", "1Gi", "2", "4Gi")
SERVER = Defaults("100m", "256Mi", "1", "1Gi")
PROXY = Defaults("50m", "192Mi", "1", "512Mi")  # our server where another one computes
MONITOR = Defaults("100m", "256Mi", "1", "1Gi")


def container_resources(given: Resources, defaults: Defaults) -> dict[str, Any]:
    """`resources` of a container: requests and limits for CPU and memory, each of them set.

    Quantities that a team wrote are kept as they are. A default never contradicts what was given: a limit that is
    left out is at least the request, a request that is left out at most the limit."""
    requests, limits = given.requests or ResourceAmounts(), given.limits or ResourceAmounts()
    cpu = _pair(requests.cpu, limits.cpu, defaults.request_cpu, defaults.limit_cpu)
    memory = _pair(requests.memory, limits.memory, defaults.request_memory, defaults.limit_memory)
    return {
        "requests": {"cpu": cpu[0], "memory": memory[0]},
        "limits": {"cpu": cpu[1], "memory": memory[1]},
    }


def with_memory(resources: dict[str, Any], memory: str | None) -> dict[str, Any]:
    """With this memory as the limit, where that is more, and a request that grew by as much."""
    limit, request = resources["limits"]["memory"], resources["requests"]["memory"]
    if memory is None or quantity(memory) <= quantity(limit):
        return resources
    grown = math.ceil(quantity(request) * quantity(memory) / quantity(limit) / MEBI)
    return {
        "requests": {**resources["requests"], "memory": f"{grown}Mi"},
        "limits": {**resources["limits"], "memory": memory},
    }


def _pair(request: str | None, limit: str | None, default_request: str, default_limit: str) -> tuple[str, str]:
    if limit is None:
        limit = max(request or default_limit, default_limit, key=quantity)
    if request is None:
        request = min(limit, default_request, key=quantity)
    return request, limit


def threads(resources: dict[str, Any]) -> int:
    """How many threads a numeric library may start: the CPU limit, rounded up; it can't see the limit itself."""
    return max(1, math.ceil(quantity(resources["limits"]["cpu"])))
