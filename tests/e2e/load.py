"""Asks one Model over connections of every kind, and writes down each reply; runs in a pod, or beside the cluster.

Clients: `keep-alive` keeps an HTTP connection as long as the server lets it, `fresh` opens one for each request, `grpc`
has a channel of its own. None of them tries anything again. Each has a pause between two requests, because those that
ask often and those that ask rarely learn in different ways that they are to leave.

LOAD, a JSON object, says what to do (`Load` below). One line a reply on standard output: a JSON array of the time
(seconds since 1970), client, number of the revision (0: none answered), milliseconds, error ("" for none)."""

from __future__ import annotations

import http.client
import json
import os
import select
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from truekeep.server import grpc_messages as messages

TIMEOUT_SECONDS = 10
MAX_SECONDS = 1800
MAX_REPLIES = 120_000  # of all clients together: about 8 MB of lines


@dataclass(frozen=True)
class Load:
    """What to ask, of whom, how often, for how long."""

    host: str
    model: str
    inputs: list[dict[str, Any]]  # as in the protocol's JSON
    seconds: float
    keep_alive: list[float]  # a client each: seconds between an answer and the next request
    fresh: list[float]
    grpc: list[float]
    http_port: int = 80
    grpc_port: int = 8081


class Client(Protocol):
    """One that asks."""

    def ask(self) -> int:
        """The revision that answered. Whatever is raised is a failed request."""


class Refused(Exception):
    """An answer that is none."""


class Http:
    """Over one HTTP connection as long as it lasts, or over a new one each time."""

    def __init__(self, load: Load, *, keep: bool) -> None:
        self._load = load
        self._keep = keep
        self._body = json.dumps({"inputs": load.inputs}).encode()
        self._connection = self._new()

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._load.host, self._load.http_port, timeout=TIMEOUT_SECONDS)

    def ask(self) -> int:
        # As every client's pool does before it takes a connection again: has the server closed it?
        if not self._keep or (self._connection.sock and select.select([self._connection.sock], [], [], 0)[0]):
            self._connection.close()
        try:
            self._connection.request("POST", f"/v2/models/{self._load.model}/infer", self._body)
            answer = self._connection.getresponse()
            content = answer.read()
        except Exception:
            self._connection.close()
            raise
        if answer.status != 200:
            raise Refused(f"HTTP {answer.status} {content[:200].decode(errors='replace')}")
        return int(json.loads(content)["model_version"])


class Grpc:
    """Over a channel of its own."""

    def __init__(self, load: Load) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"{load.host}:{load.grpc_port}", options)
        self._call = self._channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")
        request = messages.ModelInferRequest(model_name=load.model)
        for given in load.inputs:
            tensor = request.inputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
            values = [value.encode() if isinstance(value, str) else value for value in given["data"]]
            getattr(tensor.contents, messages.CONTENTS[given["datatype"]]).extend(values)
        self._request = request.SerializeToString()

    def ask(self) -> int:
        try:
            reply = self._call(self._request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise Refused(f"gRPC {error.code().name} {error.details()}"[:200]) from error
        return int(messages.ModelInferResponse.FromString(reply).model_version)


class Ledger:
    """Writes replies down, until there are too many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = MAX_REPLIES

    def write(self, client: str, revision: int, milliseconds: float, error: str) -> bool:
        """Whether there may be more."""
        line = json.dumps([round(time.time(), 3), client, revision, round(milliseconds, 1), error])
        with self._lock:
            self._left -= 1
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            return self._left > 0


def ask_again_and_again(name: str, client: Client, pause: float, end: float, ledger: Ledger) -> None:
    """Until the end."""
    while time.monotonic() < end:
        started, revision, error = time.perf_counter(), 0, ""
        try:
            revision = client.ask()
        except Exception as problem:
            error = str(problem) if isinstance(problem, Refused) else repr(problem)
        if not ledger.write(name, revision, (time.perf_counter() - started) * 1e3, error):
            return
        time.sleep(pause)


def run(load: Load) -> None:
    """All clients, each in a thread; returns at the end."""
    end = time.monotonic() + min(load.seconds, MAX_SECONDS)
    ledger = Ledger()
    clients: list[tuple[str, Client, float]] = [
        *((f"keep-alive {pause:g} s", Http(load, keep=True), pause) for pause in load.keep_alive),
        *((f"fresh {pause:g} s", Http(load, keep=False), pause) for pause in load.fresh),
        *((f"grpc {pause:g} s", Grpc(load), pause) for pause in load.grpc),
    ]
    threads = [
        threading.Thread(target=ask_again_and_again, args=(name, client, pause, end, ledger), daemon=True)
        for name, client, pause in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    run(Load(**json.loads(os.environ["LOAD"])))
