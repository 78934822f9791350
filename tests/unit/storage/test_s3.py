"""The object store as the product uses it, on a real one, and what it says when the store is at fault."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from tests.unit.conftest import Versitygw, free_port

from truekeep.api.common import KeyReference, LocalObjectReference, S3Location
from truekeep.storage import ObjectMissing, ObjectTooLarge, StoreDenied, StoreError, StoreUnreachable
from truekeep.storage.addresses import LOOPBACK_ENV
from truekeep.storage.s3 import Bucket


def test_what_was_put_is_there(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket("some/prefix/")
    assert bucket.put("a/b.txt", b"hello")
    assert bucket.get("a/b.txt") == b"hello"
    assert bucket.exists("a/b.txt")
    assert not bucket.exists("a/c.txt")
    assert bucket.uri("a/b.txt") == f"s3://{bucket.name}/some/prefix/a/b.txt"
    assert versitygw.client().get_object(Bucket=bucket.name, Key="some/prefix/a/b.txt")["Body"].read() == b"hello"


def test_an_empty_object_is_an_object(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    bucket.put("empty", b"")
    assert bucket.fetch("empty", limit=0).data == b""
    assert bucket.exists("empty")


def test_only_if_absent_writes_once(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    assert bucket.put("result.json", b"first", only_if_absent=True)
    assert not bucket.put("result.json", b"second", only_if_absent=True)
    assert bucket.get("result.json") == b"first"
    assert bucket.put("result.json", b"third")
    assert bucket.get("result.json") == b"third"


def test_of_many_writers_one_wins(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    start = threading.Barrier(8)
    wins: list[bytes] = []

    def write(content: bytes) -> None:
        start.wait()
        if bucket.put("result.json", content, only_if_absent=True):
            wins.append(content)

    writers = [threading.Thread(target=write, args=(b"%d" % number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert wins == [bucket.get("result.json")]


def test_lists_in_order_over_pages_below_the_prefix_only(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket("flights/")
    client = versitygw.client()
    names = [f"day={number:04d}.parquet" for number in range(1005)]  # a page holds 1000
    for name in names:
        (versitygw.root / bucket.name / "flights").mkdir(exist_ok=True)
        (versitygw.root / bucket.name / "flights" / name).write_bytes(b"xx")
    client.put_object(Bucket=bucket.name, Key="other/file.parquet", Body=b"x")
    client.put_object(Bucket=bucket.name, Key="flights/folder/", Body=b"")
    listed = list(bucket.list())
    assert [info.key for info in listed] == names
    assert {info.size for info in listed} == {2}
    assert [info.key for info in bucket.list("day=000")] == names[:10]
    assert [info.key for info in bucket.list(start_after=names[1002])] == names[1003:]


def test_parts_and_versions(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket(versions=True)
    bucket.put("k", b"old content")
    old = bucket.fetch("k")
    bucket.put("k", b"new content")
    new = bucket.fetch("k")
    assert old.version_id is not None
    assert old.version_id != new.version_id
    assert bucket.get("k", old.version_id) == b"old content"
    assert bucket.fetch("k", span=(4, 3)).data == b"con"
    with pytest.raises(ObjectTooLarge, match="has 11 bytes, at most 10"):
        bucket.fetch("k", limit=10)


def test_without_versions_there_is_none(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket()
    bucket.put("k", b"content")
    fetched = bucket.fetch("k")
    assert fetched.version_id is None
    assert fetched.etag == next(bucket.list()).etag != ""


def test_a_missing_object_is_named(versitygw: Versitygw) -> None:
    bucket = versitygw.bucket("p/")
    with pytest.raises(ObjectMissing, match=rf"s3://{bucket.name}/p/no\.txt at {versitygw.endpoint}.*no such object"):
        bucket.get("no.txt")


@pytest.mark.parametrize("call", ["get", "put", "list", "exists"])
def test_a_missing_bucket_is_named(versitygw: Versitygw, call: str) -> None:
    bucket = Bucket.open(versitygw.location(bucket="no-such-bucket"))
    with pytest.raises(StoreError, match="there is no bucket no-such-bucket; create it") as caught:
        _call(bucket, call)
    assert not isinstance(caught.value, ObjectMissing)


@pytest.mark.parametrize("call", ["get", "put", "list", "exists"])
def test_wrong_credentials_are_denied(versitygw: Versitygw, call: str) -> None:
    location = versitygw.location().model_copy(update={"credentials_secret_ref": LocalObjectReference(name="wrong")})
    with pytest.raises(StoreDenied, match="check the keys in the Secret"):
        _call(Bucket.open(location), call)


def test_a_secret_that_is_not_mounted_is_named(versitygw: Versitygw) -> None:
    location = versitygw.location().model_copy(update={"credentials_secret_ref": LocalObjectReference(name="absent")})
    with pytest.raises(StoreDenied, match="Secret absent has no usable AWS_ACCESS_KEY_ID"):
        Bucket.open(location)


def test_an_empty_key_is_named(versitygw: Versitygw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "AWS_ACCESS_KEY_ID").write_text("someone")
    (tmp_path / "lake" / "AWS_SECRET_ACCESS_KEY").write_text("\n")
    monkeypatch.setenv("TRUEKEEP_SECRETS_DIR", str(tmp_path))
    with pytest.raises(StoreDenied, match="Secret lake has an empty AWS_SECRET_ACCESS_KEY"):
        Bucket.open(versitygw.location(bucket="some-bucket"))


def test_without_a_secret_and_an_identity_the_remedy_is_told(
    versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    location = versitygw.location().model_copy(update={"credentials_secret_ref": None})
    with pytest.raises(StoreDenied, match="credentialsSecretRef"):
        Bucket.open(location, timeout_seconds=7).get("k")


def test_certificates_that_are_not_mounted_are_named(versitygw: Versitygw) -> None:
    location = versitygw.location().model_copy(update={"ca_bundle_ref": KeyReference(name="store-ca")})
    with pytest.raises(StoreDenied, match=r"ConfigMap store-ca has no key ca\.crt"):
        Bucket.open(location)


@pytest.mark.parametrize("call", ["get", "put", "list", "exists"])
def test_a_store_that_does_not_listen_is_unreachable(versitygw: Versitygw, call: str) -> None:
    location = versitygw.location(bucket="lake").model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1.*is the store running"):
        _call(Bucket.open(location), call)


def test_a_store_that_never_answers_is_given_up(versitygw: Versitygw) -> None:
    with _deaf() as endpoint:
        location = versitygw.location(bucket="lake").model_copy(update={"endpoint": endpoint})
        with pytest.raises(StoreUnreachable, match="is the store running"):
            Bucket.open(location, timeout_seconds=0.2).get("k")


def test_a_body_that_breaks_off_is_read_again(versitygw: Versitygw) -> None:
    """The first answer ends in the middle of its body; the next one is whole."""
    with _torn([b"half of", b"half of it, and the rest"], 24) as endpoint:
        location = S3Location(
            uri="s3://lake/", endpoint=endpoint, credentials_secret_ref=LocalObjectReference(name="lake")
        )
        assert Bucket.open(location).get("k") == b"half of it, and the rest"


def test_a_body_that_always_breaks_off_is_unreachable(versitygw: Versitygw) -> None:
    with _torn([b"half of"], 24) as endpoint:
        location = S3Location(
            uri="s3://lake/", endpoint=endpoint, credentials_secret_ref=LocalObjectReference(name="lake")
        )
        with pytest.raises(StoreUnreachable):
            Bucket.open(location).get("k")


def _call(bucket: Bucket, call: str) -> None:
    if call == "get":
        bucket.get("k")
    elif call == "put":
        bucket.put("k", b"v")
    elif call == "exists":
        bucket.exists("k")
    else:
        list(bucket.list())


@contextmanager
def _deaf() -> Iterator[str]:
    """An endpoint that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _torn(bodies: list[bytes], length: int) -> Iterator[str]:
    """An endpoint that promises `length` bytes each time, sends the next of `bodies` (then the last) and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for number in range(100):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    body = bodies[min(number, len(bodies) - 1)]
                    head = f'HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: "e"\r\nConnection: close\r\n\r\n'
                    connection.sendall(head.encode() + body)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loopback is not a person's own."""
    monkeypatch.delenv(LOOPBACK_ENV)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names that lead where a test says; each lookup takes the next answer, the last one stays."""
    names: dict[str, list[str]] = {}

    def answer(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        told = names.get(host, [host])
        address = told.pop(0) if len(told) > 1 else told[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return names


def at(endpoint: str) -> Bucket:
    return Bucket.open(S3Location(uri="s3://lake/", endpoint=endpoint, credentials_secret_ref=None), timeout_seconds=1)


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "::1", "fd00:ec2::254", "::ffff:169.254.170.2"])
@pytest.mark.usefixtures("in_a_pod", "keys")
def test_an_endpoint_of_the_machine_itself_is_refused(resolver: dict[str, list[str]], address: str) -> None:
    resolver["store.example"] = [address]
    with pytest.raises(StoreDenied, match=r"store\.example leads to .*; name another address"):
        at("http://store.example:9000").get("x")


@pytest.mark.usefixtures("in_a_pod", "keys")
def test_a_name_that_answers_otherwise_the_next_time_gains_nothing(
    resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was judged is what is connected to."""
    called: list[str] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        called.append(address[0])
        raise OSError("no route")

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    resolver["store.example"] = ["10.1.2.3", "169.254.169.254"]
    with pytest.raises(StoreError):
        at("http://store.example:9000").get("x")
    assert set(called) == {"10.1.2.3"}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a person, in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")


class Redirector(BaseHTTPRequestHandler):
    """Sends every request to `elsewhere`, by the status of its path's bucket, as S3 and as any server would."""

    elsewhere = ""

    def do_GET(self) -> None:
        status = int(self.path.split("/")[1].removeprefix("status-"))
        body = b"<Error><Code>%s</Code><Endpoint>%s</Endpoint><Bucket>x</Bucket></Error>" % (
            b"PermanentRedirect" if status == 301 else b"TemporaryRedirect",
            self.elsewhere.removeprefix("http://").encode(),
        )
        self.send_response(status)
        self.send_header("Location", self.elsewhere + self.path)
        self.send_header("x-amz-bucket-region", "eu-west-3")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


class Treasure(Redirector):
    """What must not be asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"treasure")

    do_HEAD = do_GET


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.usefixtures("keys")
def test_no_redirect_is_followed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Treasure) as treasure:
        monkeypatch.setattr(Redirector, "elsewhere", f"http://127.0.0.1:{treasure.server_port}")
        with ThreadingHTTPServer(("127.0.0.1", 0), Redirector) as redirector:
            for server in (treasure, redirector):
                threading.Thread(target=server.serve_forever, daemon=True).start()
            location = S3Location(uri=f"s3://status-{status}/", endpoint=f"http://127.0.0.1:{redirector.server_port}")
            with pytest.raises(StoreError):
                Bucket.open(location, timeout_seconds=2).get("x")
            for server in (treasure, redirector):
                server.shutdown()
    assert not Treasure.asked
