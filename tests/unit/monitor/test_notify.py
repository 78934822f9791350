"""Telling a webhook: what is sent, which answers end it and which ask for another try."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from truekeep.contract.requests import NotifyRequest
from truekeep.monitor import notify
from truekeep.storage import addresses

EVENT = {"specversion": "1.0", "id": "abc", "source": "/x", "type": "dev.truekeep.policy.alert", "data": {"a": "ü"}}


class Receiver:
    """A webhook on loopback, which plays an address of the cluster."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.seen.append((self.path, dict(self.headers), json.loads(body)))
                self.send_response(receiver.status)
                for key, value in receiver.headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(addresses, "refusal", lambda address: "")  # loopback stands for the cluster here
    found = Receiver()
    yield found
    found.close()


def request(receiver: Receiver, **more: Any) -> NotifyRequest:
    return NotifyRequest(**({"url": f"http://hooks.test:{receiver.port}/drift?team=a", "event": EVENT} | more))


def lookup(host: str, port: int) -> list[str]:
    assert host == "hooks.test"
    return ["127.0.0.1"]


def test_the_event_is_posted_as_it_is(receiver: Receiver, tmp_path: Path) -> None:
    assert notify.send(request(receiver), tmp_path, lookup) == 204
    ((path, headers, body),) = receiver.seen
    assert path == "/drift?team=a"
    assert headers["Host"] == f"hooks.test:{receiver.port}"
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert "Authorization" not in headers
    assert body == EVENT


def test_a_token_is_sent_from_its_file(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "pager").mkdir()
    (tmp_path / "pager" / "token").write_text("s3cret\n")
    notify.send(request(receiver, token_secret="pager", token_key="token"), tmp_path, lookup)
    assert receiver.seen[0][1]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("content", ["", "  \n", "two\nlines", "a\rX-Evil: 1"])
def test_a_token_that_is_none_is_refused_and_not_shown(receiver: Receiver, tmp_path: Path, content: str) -> None:
    (tmp_path / "pager").mkdir()
    (tmp_path / "pager" / "token").write_text(content)
    with pytest.raises(notify.RefusedError, match="key token of Secret pager") as refused:
        notify.send(request(receiver, token_secret="pager", token_key="token"), tmp_path, lookup)
    assert not receiver.seen
    assert "Evil" not in str(refused.value)


@pytest.mark.parametrize("status", [429, 408, 500, 503])
def test_answers_that_ask_for_patience(receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.status = status
    with pytest.raises(notify.LaterError, match=str(status)):
        notify.send(request(receiver), tmp_path, lookup)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_answers_that_end_it(receiver: Receiver, tmp_path: Path, status: int) -> None:
    receiver.status = status
    with pytest.raises(notify.RefusedError, match="mend the address or the token"):
        notify.send(request(receiver), tmp_path, lookup)


def test_a_redirect_is_not_followed(receiver: Receiver, tmp_path: Path) -> None:
    receiver.status, receiver.headers = 307, {"Location": "http://169.254.169.254/latest/"}
    with pytest.raises(notify.RefusedError, match="redirect"):
        notify.send(request(receiver), tmp_path, lookup)
    assert len(receiver.seen) == 1


def test_a_name_that_changes_its_mind_gains_nothing(receiver: Receiver, tmp_path: Path) -> None:
    answers = iter([["127.0.0.1"], ["10.255.255.1"]])
    notify.send(request(receiver), tmp_path, lambda host, port: next(answers))
    assert len(receiver.seen) == 1  # what was looked up first is what was called
    assert next(answers) == ["10.255.255.1"]


def test_loopback_is_refused_where_nothing_stands_for_the_cluster(tmp_path: Path) -> None:
    found = Receiver()
    try:
        with pytest.raises(notify.RefusedError, match="loopback"):
            notify.send(request(found), tmp_path, lookup)
        assert not found.seen
    finally:
        found.close()


def test_nobody_there_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "refusal", lambda address: "")
    asked = NotifyRequest(url="http://hooks.test:1/", event=EVENT)
    with pytest.raises(notify.LaterError, match=r"hooks\.test:1 does not answer"):
        notify.send(asked, tmp_path, lookup)
