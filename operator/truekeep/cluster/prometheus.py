"""What a Prometheus says to the queries of a rollout.

Its address is the operator's own configuration and no field of any object: whoever may write a Model must not make the
operator call addresses of their choice."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from truekeep.cluster.metrics import bounded
from truekeep.domain.observed import Answer

URL_ENV = "TRUEKEEP_PROMETHEUS_URL"
TOKEN_FILE_ENV = "TRUEKEEP_PROMETHEUS_TOKEN_FILE"  # noqa: S105 - the name of a variable
TIMEOUT = aiohttp.ClientTimeout(total=5.0)
QUERY_TIMEOUT = "4s"
MAX_BYTES = 1 << 16
KEPT_WORDS = 200
logger = logging.getLogger(__name__)


def checked_url(url: str) -> str:
    """The address without a slash at its end. ValueError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{URL_ENV} is {url!r}; it must be an address such as http://prometheus.monitoring:9090")
    return url.rstrip("/")


class Prometheus:
    """Asks instant queries. Without an address every answer says that there is none."""

    def __init__(self, url: str | None = None, token_file: Path | None = None) -> None:
        self._url = checked_url(url) if url else None
        self._token_file = token_file
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def ask(self, queries: Mapping[str, str]) -> dict[str, Answer]:
        """An answer to each query, by name. Never raises: no answer is an answer, too."""
        answers = await asyncio.gather(*(self._ask(query) for query in queries.values()))
        return dict(zip(queries, answers, strict=True))

    async def _ask(self, query: str) -> Answer:
        if self._url is None:
            return Answer(None, f"the operator knows no Prometheus; set {URL_ENV} in its Deployment")
        try:
            headers = self._headers()
            self._session = self._session or aiohttp.ClientSession(timeout=TIMEOUT)
            form = {"query": query, "timeout": QUERY_TIMEOUT}
            url = f"{self._url}/api/v1/query"
            async with self._session.post(url, data=form, headers=headers, allow_redirects=False) as response:
                return answer_of(response.status, await bounded(response, MAX_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logger.warning("Prometheus could not be asked: %s", error or type(error).__name__)
            return Answer(None, f"Prometheus did not answer: {str(error)[:KEPT_WORDS] or type(error).__name__}")

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        return {"authorization": f"Bearer {self._token_file.read_text().strip()}"}


def answer_of(status: int, body: bytes) -> Answer:
    """One number, or why there is none."""
    try:
        document = json.loads(body)
        if document["status"] != "success":
            return Answer(None, f"Prometheus refuses the query: {str(document.get('error'))[:KEPT_WORDS]}")
        kind, result = document["data"]["resultType"], document["data"]["result"]
        return _value(kind, result)
    except (ValueError, KeyError, TypeError, IndexError):
        return Answer(None, f"Prometheus answered {status} with something that is no result")


def _value(kind: str, result: Any) -> Answer:
    if kind == "scalar":
        sample = result
    elif kind != "vector":
        return Answer(None, f"the query gives a {str(kind)[:20]}; it must give one number")
    elif len(result) != 1:
        words = "nothing" if not result else f"{len(result)} series; aggregate them to one"
        return Answer(None, f"the query gives {words}")
    else:
        sample = result[0]["value"]
    number = float(sample[1])
    return Answer(number) if math.isfinite(number) else Answer(None, f"the query gives {sample[1][:10]}")
