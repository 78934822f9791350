"""Attacks by addresses: what a Model or a policy names leads a pod to what only its machine has, at once, by a second
answer of the resolver, or by a redirect. Resolver and machine are played here; no packet leaves it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3.connectionpool
import urllib3.util.connection

from tests.unit.redteam.attack import Attack, Scene
from truekeep.api.common import S3Location
from truekeep.contract.requests import NotifyRequest
from truekeep.monitor import notify
from truekeep.storage import StoreError, addresses, guarded
from truekeep.storage.s3 import Bucket

SSRF = "addresses of the machine and of clouds' metadata"
REBINDING = "names that change their mind"
REDIRECTS = "redirects"
INNOCENT = "10.20.30.40"  # of a service in the cluster


def _as_in_a_pod(scene: Scene) -> None:
    scene.patch.delenv(addresses.LOOPBACK_ENV, raising=False)
    scene.patch.setenv("AWS_ACCESS_KEY_ID", "a")
    scene.patch.setenv("AWS_SECRET_ACCESS_KEY", "b")


def _calls(scene: Scene, answers: list[str]) -> list[str]:
    """The addresses that are connected to, where the resolver gives these answers, the last one again and again."""
    left, called = list(answers), []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        with contextlib.suppress(ValueError):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (str(addresses.ipaddress.ip_address(host)), port))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (left.pop(0) if len(left) > 1 else left[0], port))]

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        called.append(str(resolve(*address)[0][4][0]))
        raise ConnectionRefusedError("nobody is there")

    scene.patch.setattr(socket, "getaddrinfo", resolve)
    scene.patch.setattr(socket, "create_connection", connect)
    scene.patch.setattr(urllib3.util.connection, "create_connection", connect)
    return called


def _store(scene: Scene, answers: list[str]) -> list[str]:
    """What is called where a Model names a store at a name with these answers."""
    _as_in_a_pod(scene)
    called = _calls(scene, answers)
    place = S3Location(uri="s3://lake/", endpoint="http://store.example:9000", credentials_secret_ref=None)
    with contextlib.suppress(StoreError):
        Bucket.open(place, timeout_seconds=0.5).get("x")
    return called


def _webhook(scene: Scene, answers: list[str]) -> list[str]:
    """What is called where a DriftPolicy names a webhook at a name with these answers."""
    called = _calls(scene, answers)
    request = NotifyRequest(url="http://alerts.example/", event={"id": "x"})
    with contextlib.suppress(notify.RefusedError, notify.LaterError):
        notify.send(request, scene.folder, addresses.looked_up)
    return called


def _leads_to(scene: Scene, who: Any, answers: list[str]) -> bool:
    return any(call in answers and call != INNOCENT for call in who(scene, answers))


def _without_judgement(scene: Scene) -> None:
    scene.patch.setattr(addresses, "refusal", lambda address: "")


def _looking_up_again(scene: Scene) -> None:
    """As one does who judges a name, and then connects to the name."""

    def to(self: Any, address: str) -> socket.socket:
        made: socket.socket = super(guarded._Judged, self)._new_conn()  # type: ignore[misc]
        return made

    def judged(host: str, port: int, lookup: Any = None) -> list[str]:
        addresses.callable_addresses(host, port, lookup)
        return [host]

    scene.patch.setattr(guarded._Judged, "_to", to)
    scene.patch.setattr(notify, "callable_addresses", judged)


class _Redirects(BaseHTTPRequestHandler):
    """Sends /STATUS-… to /treasure, which lies where nobody should be led to."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        treasure = self.path.startswith("/treasure")
        self.send_response(200 if treasure else int(self.path.split("/")[1].removeprefix("status-")))
        self.send_header("Location", "/treasure")
        self.send_header("x-amz-bucket-region", "eu-west-3")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def _redirected(scene: Scene, status: int) -> bool:
    scene.patch.setenv(addresses.LOOPBACK_ENV, addresses.LOOPBACK_ALLOWED)
    scene.patch.setenv("AWS_ACCESS_KEY_ID", "a")
    scene.patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Redirects) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = S3Location(uri=f"s3://status-{status}/", endpoint=f"http://127.0.0.1:{server.server_port}")
        with contextlib.suppress(StoreError):
            Bucket.open(place, timeout_seconds=2).get("x")
        server.shutdown()
        return "/treasure" in server.asked  # type: ignore[attr-defined]


def _following(scene: Scene) -> None:
    once = urllib3.connectionpool.HTTPConnectionPool.urlopen

    def urlopen(self: Any, method: str, url: str, *rest: Any, **options: Any) -> Any:
        return once(self, method, url, *rest, **{**options, "redirect": True, "retries": urllib3.Retry(redirect=3)})

    scene.patch.setattr(urllib3.connectionpool.HTTPConnectionPool, "urlopen", urlopen)


def attacks() -> Iterator[Attack]:
    """All of these."""
    places = {
        "a cloud's metadata": "169.254.169.254",
        "credentials of a container": "169.254.170.2",
        "metadata of another cloud": "100.100.100.200",
        "the host of a virtual machine": "168.63.129.16",
        "metadata by IPv6": "fd00:ec2::254",
        "metadata inside of IPv6": "::ffff:a9fe:a9fe",
        "metadata by a translator": "64:ff9b::a9fe:a9fe",
        "the pod itself": "127.0.0.1",
        "any address of the pod": "0.0.0.0",
    }
    for name, address in places.items():
        for what, who in (("a store at", _store), ("a webhook at", _webhook)):
            yield Attack(SSRF, f"{what} {name}", _attempt(who, [address]), _without_judgement)
            yield Attack(
                REBINDING,
                f"{what} a name that is {name} from now on",
                _attempt(who, [INNOCENT, address]),
                _looking_up_again,
            )
    for status in (301, 302, 303, 307, 308):
        yield Attack(REDIRECTS, f"by {status}", lambda scene, status=status: _redirected(scene, status), _following)  # type: ignore[misc]


def _attempt(who: Any, answers: list[str]) -> Any:
    return lambda scene: _leads_to(scene, who, answers)
