"""What unit tests of several rooms share: a real S3 store (versitygw) on the loopback."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import ClusterError, fetch_binary
from truekeep.api.common import LocalObjectReference, S3Location
from truekeep.contract.requests import CERTIFICATES_DIR_ENV, SECRETS_DIR_ENV
from truekeep.storage.addresses import LOOPBACK_ALLOWED, LOOPBACK_ENV
from truekeep.storage.s3 import Bucket

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Versitygw:
    """A running store. `secrets` is a folder as a pod has it mounted, with the Secrets `lake`, `wrong`
    and `salt`, which has the key of the hashes."""

    endpoint: str
    secrets: Path
    root: Path
    access: str = "test-access"
    secret: str = field(default="test-secret", repr=False)

    def client(self) -> Any:
        """A plain boto3 client, for what the product itself never does."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access,
            aws_secret_access_key=self.secret,
        )

    def location(self, prefix: str = "", bucket: str | None = None, versions: bool = False) -> S3Location:
        """A location in a bucket: a new one of its own, unless an existing one is named."""
        if bucket is None:
            bucket = f"test-{os.getpid()}-{next(_numbers)}"
            client = self.client()
            client.create_bucket(Bucket=bucket)
            if versions:
                client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return S3Location(
            uri=f"s3://{bucket}/{prefix}",
            endpoint=self.endpoint,
            credentials_secret_ref=LocalObjectReference(name="lake"),
        )

    def bucket(self, prefix: str = "", versions: bool = False) -> Bucket:
        """A new bucket of its own, opened."""
        return Bucket.open(self.location(prefix, versions=versions))

    def environment(self) -> dict[str, str]:
        """What a process needs to find the credentials, and to call a store on the loopback."""
        return {SECRETS_DIR_ENV: str(self.secrets), LOOPBACK_ENV: LOOPBACK_ALLOWED}


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versitygw]:
    with running_store(tmp_path_factory.mktemp("versitygw")) as store:
        yield store


@contextlib.contextmanager
def running_store(folder: Path) -> Iterator[Versitygw]:
    """A store whose files lie in `folder`."""
    try:
        fetch_binary("versitygw")
    except (ClusterError, OSError) as error:
        pytest.fail(f"tests of the object store need versitygw: {error}")
    store = prepared_store(folder)
    with serving(store):
        yield store


def prepared_store(folder: Path) -> Versitygw:
    """A store in `folder` that does not run yet, with the Secrets, as a pod has them mounted."""
    for name in ("root", "versions", "secrets/lake", "secrets/wrong", "secrets/salt"):
        (folder / name).mkdir(parents=True)
    store = Versitygw(f"http://127.0.0.1:{free_port()}", folder / "secrets", folder / "root")
    for secret, value in (("lake", store.secret), ("wrong", "not-the-secret")):
        (folder / "secrets" / secret / "AWS_ACCESS_KEY_ID").write_text(store.access + "\n")
        (folder / "secrets" / secret / "AWS_SECRET_ACCESS_KEY").write_text(value + "\n")
    (folder / "secrets/salt/HASH_KEY").write_text("0123456789abcdef\n")
    return store


@contextlib.contextmanager
def serving(store: Versitygw) -> Iterator[subprocess.Popen[bytes]]:
    """The store's process; it may be stopped, and begun anew with the same files at the same address."""
    program, folder = fetch_binary("versitygw"), store.root.parent
    with (folder / "log").open("ab") as log:
        arguments = [str(program), "--port", store.endpoint.removeprefix("http://"), "--quiet", "posix"]
        process = subprocess.Popen(
            [*arguments, "--versioning-dir", str(folder / "versions"), str(folder / "root")],
            env={"ROOT_ACCESS_KEY": store.access, "ROOT_SECRET_KEY": store.secret, "PATH": os.environ["PATH"]},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_answers(process, store.endpoint, folder / "log")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture
def versitygw(_store: Versitygw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Versitygw:
    """A real S3 store, one process for the whole test session; the environment leads to its Secrets."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no test asks a cloud for an identity
    monkeypatch.setenv(SECRETS_DIR_ENV, str(_store.secrets))
    monkeypatch.setenv(CERTIFICATES_DIR_ENV, str(tmp_path / "certificates"))
    return _store


def _wait_until_it_answers(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    host, _, port = endpoint.removeprefix("http://").partition(":")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.05)
    pytest.fail(f"versitygw did not answer on {endpoint}: {log.read_text(errors='replace')[-2000:]}")
