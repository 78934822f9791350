"""What serving pods counted, asked at their own addresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from truekeep.contract.requests import SERVER_PORT
from truekeep.domain.observed import DeploymentView, Traffic

COUNTER = "truekeep_server_requests_total"
ERRORS = frozenset({"client_error", "server_error"})
NO_TRAFFIC = frozenset({"rejected", "rehearsal"})
TIMEOUT = aiohttp.ClientTimeout(total=2.0)
MAX_BYTES = 1 << 20
logger = logging.getLogger(__name__)


class PodMetrics:
    """Reads the metrics of serving pods."""

    def __init__(self, port: int = SERVER_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def traffic(self, deployments: Iterable[DeploymentView]) -> dict[str, Traffic]:
        """Requests and errors by Deployment, over its ready pods. One of which no pod answered is left out: nothing
        is known of it, which is not the same as no traffic."""
        targets = [
            (deployment.meta.name, pod.ip)
            for deployment in deployments
            for pod in deployment.pods
            if pod.ready and not pod.deleting and pod.ip
        ]
        answers = await asyncio.gather(*(self._ask(ip) for _, ip in targets))
        result: dict[str, Traffic] = {}
        for (name, _), counted in zip(targets, answers, strict=True):
            if counted is not None:
                sofar = result.get(name, Traffic())
                result[name] = Traffic(sofar.requests + counted.requests, sofar.errors + counted.errors)
        return result

    async def _ask(self, ip: str) -> Traffic | None:
        self._session = self._session or aiohttp.ClientSession(timeout=TIMEOUT)
        host = f"[{ip}]" if ":" in ip else ip
        try:
            async with self._session.get(f"http://{host}:{self._port}/metrics", allow_redirects=False) as response:
                if response.status != 200:
                    raise ValueError(f"HTTP {response.status}")
                text = (await response.content.read(MAX_BYTES)).decode()
            return counted_requests(text)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logger.warning("the metrics of pod %s could not be read: %s", ip, error or type(error).__name__)
            return None


def counted_requests(text: str) -> Traffic:
    """Requests and errors from one pod's metrics. A request that was refused for overload is no error. ValueError
    where the text is no metrics."""
    requests = errors = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            outcome = sample.labels.get("outcome")
            if sample.name != COUNTER or outcome in NO_TRAFFIC:
                continue
            requests += int(sample.value)
            errors += int(sample.value) if outcome in ERRORS else 0
    return Traffic(requests, errors)
