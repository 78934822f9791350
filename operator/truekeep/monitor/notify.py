"""Tells a webhook what a policy found: `python -m truekeep.monitor.notify`; request in TRUEKEEP_REQUEST.

One CloudEvent (structured, HTTP POST), once. Whether to try again is the Job's: exit code 4 where another try may help
(nobody answers, 429, 5xx), 3 where it can't (the address is refused, another 4xx)."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

from truekeep.contract.requests import DEFAULT_SECRETS_DIR, SECRETS_DIR_ENV, NotifyRequest
from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUTSIDE
from truekeep.monitor.errand import Done, run
from truekeep.storage.addresses import AddressRefusedError, Lookup, NoAddressError, callable_addresses, looked_up

TIMEOUT_SECONDS = 10.0
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
MAX_TOKEN_BYTES = 8192
AGAIN = frozenset({408, 425, 429})  # answers after which another try may help, besides 5xx


class RefusedError(Exception):
    """Another try can't help."""


class LaterError(Exception):
    """Another try may help."""


def main() -> int:
    """Send it. The exit code is one of `contract.results`."""
    return run(NotifyRequest, "the notice", _work)


def _work(request: NotifyRequest) -> Done:
    try:
        status = send(request, Path(os.environ.get(SECRETS_DIR_ENV, DEFAULT_SECRETS_DIR)))
        words, code = f"told {urlsplit(request.url).netloc}: {status}", EXIT_JUDGED
    except RefusedError as error:
        words, code = str(error), EXIT_INPUT
    except LaterError as error:
        words, code = str(error), EXIT_OUTSIDE
    return Done(words, words, code)


def send(request: NotifyRequest, secrets: Path, lookup: Lookup = looked_up) -> int:
    """Post the event; the HTTP status of the answer, 2xx. RefusedError or LaterError else."""
    parts = urlsplit(request.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "truekeep"}
    token = _token(request, secrets)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        addresses = callable_addresses(host, port, lookup)
    except AddressRefusedError as error:
        raise RefusedError(f"spec.webhook.url: {error}") from error
    except NoAddressError as error:
        raise LaterError(f"spec.webhook.url: {error}") from error
    context = ssl.create_default_context() if parts.scheme == "https" else None
    body = json.dumps(request.event).encode()
    try:
        with contextlib.closing(_Connection(host, port, addresses, context)) as connection:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read(1024)
    except ssl.SSLCertVerificationError as error:
        raise RefusedError(f"spec.webhook.url: the certificate of {host} is not one to trust: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise LaterError(f"{host}:{port} does not answer: {error or type(error).__name__}") from error
    return _judged(answer.status, host)


def _judged(status: int, host: str) -> int:
    if 200 <= status < 300:
        return status
    if 300 <= status < 400:
        raise RefusedError(f"{host} answers {status}: a redirect is not followed; name the final address")
    if status in AGAIN or status >= 500:
        raise LaterError(f"{host} answers {status}")
    raise RefusedError(f"{host} answers {status}: it does not take the event; mend the address or the token")


def _token(request: NotifyRequest, secrets: Path) -> str:
    if request.token_secret is None or request.token_key is None:
        return ""
    content = (secrets / request.token_secret / request.token_key).read_bytes()[:MAX_TOKEN_BYTES]
    token = content.decode("latin-1").strip()
    if not token or not token.isprintable():
        where = f"key {request.token_key} of Secret {request.token_secret}"
        raise RefusedError(f"spec.webhook.tokenSecretRef: {where} holds no token: one line of text")
    return token


class _Connection(http.client.HTTPConnection):
    """A connection to addresses that were looked up already, in the name of the host."""

    def __init__(self, host: str, port: int, addresses: list[str], context: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS)
        self._addresses = addresses
        self._context = context
        self.default_port = 443 if context else 80

    def connect(self) -> None:
        """To the first address that answers."""
        failure: OSError | None = None
        for address in self._addresses:
            try:
                found = socket.create_connection((address, self.port), TIMEOUT_SECONDS)
            except OSError as error:
                failure = error
                continue
            self.sock = self._context.wrap_socket(found, server_hostname=self.host) if self._context else found
            return
        raise failure or OSError("no address")


if __name__ == "__main__":
    sys.exit(main())
