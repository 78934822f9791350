"""Attacks by what is sent to a server, and by names that are shown to people."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np

from tests.unit.monitor import made
from tests.unit.redteam.attack import Attack, Scene
from truekeep.cli.why.page import page as why_page
from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.requests import ServeRequest
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.page import Subject, page
from truekeep.pages import skeleton
from truekeep.profiling.build import profile
from truekeep.profiling.schema import PREDICTION, Profile
from truekeep.server import app, protocol
from truekeep.server.limits import Limits
from truekeep.server.metrics import Metrics
from truekeep.server.protocol import RequestError

NUMBERS = "NaN and Infinity in JSON"
XSS = "markup in names that reports show"
MANAGEMENT = "unauthenticated management"
ADDRESS = "http://store.example:9000"


def _parsed(value: str) -> bool:
    """Whether a server takes a body with this number for its tensor as something that is no number."""
    body = b'{"inputs":[{"name":"hour","shape":[2],"datatype":"FP64","data":[1,%s]}]}' % value.encode()
    try:
        request = protocol.parse(body, Limits())
    except RequestError:
        return False
    return any(each is not None and not math.isfinite(each) for each in request.columns["hour"])


def _numbers() -> Iterator[Attack]:
    def unguard(scene: Scene) -> None:
        lenient = SimpleNamespace(loads=json.loads, JSONDecodeError=json.JSONDecodeError)
        scene.patch.setattr(protocol, "orjson", lenient)

    for value in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999"):
        yield Attack(NUMBERS, value, lambda scene, value=value: _parsed(value), unguard)  # type: ignore[misc]


class _Runs(HTMLParser):
    """Whether a page holds what runs or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        runs = tag in ("script", "img", "iframe", "object", "embed", "link", "base", "form", "a")
        self.found |= runs or any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)


def runs(text: str) -> bool:
    """Whether a page holds what runs or loads."""
    return _Runs(text).found


def unescaped(scene: Scene) -> None:
    """Takes the guard of every page away."""
    scene.patch.setattr(skeleton, "escape", lambda text, quote=True: text)


PAYLOADS = {
    "a script": "<script>alert(1)</script>",
    "an image that fails": "<img src=x onerror=alert(1)>",
    "a drawing that is loaded": "<svg onload=alert(1)>",
    "the end of a style": "</style><script>alert(1)</script>",
    "the end of a title": "</title><iframe src=//x>",
    "a link that runs": "<a href=javascript:alert(1)>x</a>",
}


def _drift(name: str, value: str, title: str) -> str:
    """The page of a drift report about a column of this name, with this value, under this title."""
    chance = np.random.default_rng(0)
    features = [SignatureFeature(name=name, type="Category")]
    there = Profile.model_validate(profile({name: chance.choice(["a", value], 600)}, features, chance.random(600)))
    now = {name: chance.choice(["b", value], 600), PREDICTION: chance.random(600)}
    window, settings = made.counted(now, there), Settings(min_rows=100)
    return page(Subject(title, there, window, judge(there, window, settings), settings))


def _pages() -> Iterator[Attack]:
    for name, payload in PAYLOADS.items():
        pages: dict[str, Callable[[str], str]] = {
            "a column of a drift report": lambda text: _drift(text, "v", "t"),
            "a category of a drift report": lambda text: _drift("c", text, "t"),
            "a Model of a drift report": lambda text: _drift("c", "v", text),
            "a request of why": lambda text: why_page(text, [], []),
            "a note of why": lambda text: why_page("r", [], [text]),
        }
        for where, make in pages.items():
            attempt = lambda scene, make=make, payload=payload: runs(make(payload))  # noqa: E731
            yield Attack(XSS, f"{name} in {where}", attempt, unescaped)

    def no_policy(scene: Scene) -> None:
        scene.patch.setattr(skeleton, "document", lambda title, style, body: "".join(body))

    def unruled(scene: Scene) -> bool:
        return "default-src 'none'" not in why_page("r", [], [])

    yield Attack(XSS, "a page without a policy of content", unruled, no_policy)


def _management() -> Iterator[Attack]:
    """Nothing can be asked of a server but to answer; a method that changes things is refused wherever one may read."""

    def unguard(scene: Scene) -> None:
        scene.patch.setattr(app, "_only", lambda method, *allowed: None)

    def taken(method: str, path: str) -> bool:
        store = {"uri": "s3://models/", "endpoint": ADDRESS}
        wanted = {
            "namespace": "n", "model": "m", "revision": 1, "run": "m-1", "artifact_digest": "sha256:" + "0" * 64,
            "store": store, "time_column": "t", "key": "k",
        }  # fmt: skip
        made = app.Application(ServeRequest(**wanted), Limits(), Metrics())  # type: ignore[arg-type, call-arg]
        try:
            made._read_only(path, method, b"")
        except RequestError:
            return False
        return True

    for method, path in (
        ("POST", "/v2"),
        ("PUT", "/v2/health/live"),
        ("DELETE", "/metrics"),
        ("PATCH", "/v2"),
        ("POST", "/metrics"),
        ("TRACE", "/v2/health/live"),
    ):
        attempt = lambda scene, method=method, path=path: taken(method, path)  # noqa: E731
        yield Attack(MANAGEMENT, f"{method} {path}", attempt, unguard)


def attacks() -> Iterator[Attack]:
    """All of these."""
    yield from _numbers()
    yield from _pages()
    yield from _management()
