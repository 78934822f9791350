"""Without credentialsSecretRef: the cloud's workload identity, as its webhook puts it into a pod.

What EKS's webhook injects (a token file, a role, and where to exchange one for the other) is given here to the real
SDK, with a stand-in for the token service; the keys that it hands out open the real store (which takes no session
tokens but its own, so that there is none)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.unit.conftest import Versitygw

from truekeep.sources.places import in_pod
from truekeep.storage import StoreDenied
from truekeep.storage.s3 import Bucket, _client

ROLE = "arn:aws:iam::000000000000:role/lake-reader"
TOKEN = "the-projected-token"
ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{access}</AccessKeyId>
<SecretAccessKey>{secret}</SecretAccessKey><SessionToken></SessionToken><Expiration>{until}</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>InvalidIdentityToken</Code><Message>not one of ours</Message></Error></ErrorResponse>"""


class TokenService:
    """Gives the store's keys for the right token."""

    def __init__(self, store: Versitygw) -> None:
        self.asked: list[dict[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked = {name: values[0] for name, values in parse_qs(body).items()}
                service.asked.append(asked)
                right = asked.get("WebIdentityToken") == TOKEN and asked.get("RoleArn") == ROLE
                until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
                answer = ANSWER.format(access=store.access, secret=store.secret, until=until) if right else REFUSAL
                self.send_response(200 if right else 400)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def service(versitygw: Versitygw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    found = TokenService(versitygw)
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", found.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    _client.cache_clear()
    yield found
    _client.cache_clear()
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def anonymous(versitygw: Versitygw) -> Any:
    return versitygw.location().model_copy(update={"credentials_secret_ref": None})


def test_the_pods_identity_opens_the_store(versitygw: Versitygw, service: TokenService) -> None:
    bucket = Bucket.open(anonymous(versitygw))
    bucket.put("a.csv", b"x")
    location = versitygw.location(bucket=bucket.name).model_copy(update={"credentials_secret_ref": None})
    assert in_pod(location).fetch("a.csv").data == b"x"
    assert [asked["Action"] for asked in service.asked] == ["AssumeRoleWithWebIdentity"]  # once, not for each request


def test_a_secret_comes_before_the_identity(versitygw: Versitygw, service: TokenService) -> None:
    versitygw.bucket().put("a.csv", b"x")
    assert service.asked == []


def test_an_identity_that_is_refused_is_named(versitygw: Versitygw, service: TokenService, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("another")
    with pytest.raises(StoreDenied, match=r"InvalidIdentityToken.*not one of ours"):
        Bucket.open(anonymous(versitygw)).put("a.csv", b"x")


def test_neither_secret_nor_identity_is_named(versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch) -> None:
    _client.cache_clear()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(StoreDenied, match="name a Secret in credentialsSecretRef, or give the pod a workload identity"):
        Bucket.open(anonymous(versitygw)).put("a.csv", b"x")
    _client.cache_clear()
