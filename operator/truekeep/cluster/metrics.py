"""What serving pods counted, asked at their own addresses."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Iterable, Mapping

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from truekeep.contract.requests import SERVER_PORT
from truekeep.domain.histogram import Histogram
from truekeep.domain.observed import DeploymentView, Traffic

COUNTER = "truekeep_server_requests_total"
SECONDS = "truekeep_server_request_seconds_bucket"
PREDICTIONS = "truekeep_server_predictions_bucket"
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

    async def traffic(self, deployments: Iterable[DeploymentView], seconds: int) -> dict[str, Traffic]:
        """What was counted in the last so many seconds by Deployment, over its ready pods. One of which no pod answered
        is left out: nothing is known of it, which is not the same as no traffic."""
        targets = [
            (deployment.meta.name, pod.ip)
            for deployment in deployments
            for pod in deployment.pods
            if pod.ready and not pod.deleting and pod.ip
        ]
        answers = await asyncio.gather(*(self._ask(ip, seconds) for _, ip in targets))
        result: dict[str, Traffic] = {}
        for (name, _), counted in zip(targets, answers, strict=True):
            if counted is not None:
                result[name] = result.get(name, Traffic()).plus(counted)
        return result

    async def _ask(self, ip: str, seconds: int) -> Traffic | None:
        self._session = self._session or aiohttp.ClientSession(timeout=TIMEOUT)
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{self._port}/metrics"
        try:
            query = {"seconds": str(seconds)}
            async with self._session.get(url, params=query, allow_redirects=False) as response:
                if response.status != 200:
                    raise ValueError(f"HTTP {response.status}")
                text = (await bounded(response)).decode()
            return counted_traffic(text)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logger.warning("the metrics of pod %s could not be read: %s", ip, error or type(error).__name__)
            return None


async def bounded(response: aiohttp.ClientResponse, limit: int = MAX_BYTES) -> bytes:
    """The whole body. ValueError where it is longer than `limit` bytes."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ValueError(f"the answer has more than {limit} bytes")
    return bytes(body)


def counted_traffic(text: str) -> Traffic:
    """What one pod's metrics say. A request that was refused for overload is no error. ValueError where the text is no
    metrics."""
    requests = errors = 0
    buckets: dict[str, dict[float, float]] = {SECONDS: {}, PREDICTIONS: {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            outcome = sample.labels.get("outcome")
            if sample.name == COUNTER and outcome not in NO_TRAFFIC:
                requests += int(sample.value)
                errors += int(sample.value) if outcome in ERRORS else 0
            elif sample.name in buckets and "le" in sample.labels:
                buckets[sample.name][float(sample.labels["le"])] = sample.value
    return Traffic(requests, errors, _histogram(buckets[SECONDS]), _histogram(buckets[PREDICTIONS]))


def _histogram(buckets: Mapping[float, float]) -> Histogram:
    """From the counts up to each bound, as Prometheus has them, the last bound infinite."""
    bounds = sorted(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf:
        return Histogram()
    upto = [0.0, *(buckets[bound] for bound in bounds)]
    counts = tuple(max(0, int(late - early)) for early, late in itertools.pairwise(upto))
    return Histogram(tuple(bounds[:-1]), counts)
