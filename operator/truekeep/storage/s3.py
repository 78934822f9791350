"""A prefix in an S3 bucket: list, get, put. Every call is bounded in time and tries.

Credentials and certificates are files that the kubelet mounts (see contract/requests.py); where a location names no
Secret, boto3 looks for the cloud's workload identity. boto3 is imported when the first bucket is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from truekeep import __version__
from truekeep.api.common import S3Location
from truekeep.contract.requests import (
    CERTIFICATES_DIR_ENV,
    DEFAULT_CERTIFICATES_DIR,
    DEFAULT_SECRETS_DIR,
    SECRETS_DIR_ENV,
)
from truekeep.storage.errors import ObjectMissing, ObjectTooLarge, StoreDenied, StoreError, StoreUnreachable

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from types_boto3_s3 import S3Client

T = TypeVar("T")

DEFAULT_REGION = "us-east-1"
ATTEMPTS = 3
_CHUNK = 1 << 20

_MISSING_CODES = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_DENIED_CODES = frozenset(
    {
        *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401", "403"),
        *("AuthorizationHeaderMalformed", "RequestTimeTooSkewed", "AccountProblem", "AllAccessDisabled"),
    }
)
_IDENTITY_OPERATIONS = frozenset({"AssumeRoleWithWebIdentity", "AssumeRole"})
_THERE_CODES = frozenset({"PreconditionFailed", "412"})
_AGAIN_CODES = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing. `key` is relative to the bucket's prefix, `size` is in bytes. `must`: the digest that
    its bytes must have, where that is known, as `sha256:…` or `md5:…`."""

    key: str
    size: int
    etag: str
    version_id: str | None  # None in a listing: only reading an object tells its version
    last_modified: datetime
    must: str | None = None


@dataclass(frozen=True)
class Fetched:
    """One object's bytes and what names exactly this content. `version_id` is None where the bucket keeps none."""

    data: bytes
    etag: str
    version_id: str | None


class Bucket:
    """A prefix in a bucket. Keys are relative to the prefix. Safe to share between threads."""

    def __init__(self, client: S3Client, name: str, prefix: str, endpoint: str) -> None:
        self._client = client
        self.name = name
        self.prefix = prefix
        self.endpoint = endpoint

    @classmethod
    def open(cls, location: S3Location, timeout_seconds: float = 10) -> Bucket:
        """The location's bucket; no request is sent yet. `timeout_seconds` bounds connecting, and each silence while
        reading; there are at most three tries. StoreDenied where mounted credentials are incomplete."""
        name, _, prefix = location.uri.removeprefix("s3://").partition("/")
        endpoint = location.endpoint or "AWS S3"
        access = _credentials(location)
        client = _client(
            location.endpoint,
            location.region or DEFAULT_REGION,
            access,
            _certificates(location),
            timeout_seconds,
        )
        return cls(client, name, prefix, endpoint)

    def uri(self, key: str = "") -> str:
        """The key's full address. Example: s3://models/artifacts/sha256/…/manifest.json."""
        return f"s3://{self.name}/{self.prefix}{key}"

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects below `prefix`, in the order of their keys, those after `start_after` only. Folder marks (keys that
        end in a slash) are left out."""
        request: dict[str, Any] = {"Bucket": self.name, "Prefix": self.prefix + prefix}
        if start_after is not None:
            request["StartAfter"] = self.prefix + start_after
        while True:
            with self._errors("list", prefix):
                page = self._client.list_objects_v2(**request)
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self.prefix)
                if not key.endswith("/") and key:
                    etag = item.get("ETag", "").strip('"')
                    yield ObjectInfo(key, item.get("Size", 0), etag, None, item["LastModified"])
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or token is None:
                return
            request["ContinuationToken"] = token

    def get(self, key: str, version_id: str | None = None) -> bytes:
        """The object's bytes. ObjectMissing where there is none."""
        return self.fetch(key, version_id).data

    def fetch(
        self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None, limit: int | None = None
    ) -> Fetched:
        """The object's bytes and what names them; only `span` (offset, length) of them where it is given.
        ObjectMissing where there is none, ObjectTooLarge where it has more than `limit` bytes."""
        request: dict[str, Any] = {"Bucket": self.name, "Key": self.prefix + key}
        if version_id is not None:
            request["VersionId"] = version_id
        if span is not None:
            request["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"

        def once() -> Fetched:
            answer = self._client.get_object(**request)
            size = answer["ContentLength"]
            with closing(answer["Body"]) as body:  # its own `with` gives the raw stream, which counts no bytes
                if limit is not None and size > limit:
                    raise ObjectTooLarge(
                        f"{self._where(key)} has {size} bytes, at most {limit} are allowed; is it the right object?"
                    )
                data = bytearray()
                while chunk := body.read(_CHUNK):
                    data += chunk
            version = answer.get("VersionId")
            return Fetched(bytes(data), answer.get("ETag", "").strip('"'), None if version == "null" else version)

        with self._errors("get", key):
            return _again_when_torn(once)

    def put(self, key: str, data: bytes | BinaryIO, only_if_absent: bool = False) -> bool:
        """Write the object: bytes, or what a file holds from its start, which is read as it is sent. With
        `only_if_absent`: False, and nothing is written, where there is one already."""
        request: dict[str, Any] = {"Bucket": self.name, "Key": self.prefix + key, "Body": data}
        if only_if_absent:
            request["IfNoneMatch"] = "*"
        with self._errors("put", key):
            for attempt in range(ATTEMPTS):
                try:
                    if not isinstance(data, bytes):
                        data.seek(0)
                    self._client.put_object(**request)
                    return True
                except self._client.exceptions.ClientError as error:
                    code = error.response.get("Error", {}).get("Code", "")
                    if only_if_absent and code in _THERE_CODES:
                        return False
                    if code not in _AGAIN_CODES or attempt == ATTEMPTS - 1:
                        raise
        raise AssertionError("unreachable")

    def delete(self, key: str) -> None:
        """Take the object away; no error where there is none. Where the bucket keeps versions, they stay."""
        with self._errors("delete", key):
            self._client.delete_object(Bucket=self.name, Key=self.prefix + key)

    def keeps_versions(self) -> bool | None:
        """Whether what is deleted or overwritten stays as an older version; None where the store does not tell."""
        try:
            with self._errors("ask for the versioning of", ""):
                status = self._client.get_bucket_versioning(Bucket=self.name).get("Status")
        except StoreUnreachable:
            raise
        except StoreError:  # it may be denied, or unknown to the store
            return None
        return status is not None

    def exists(self, key: str) -> bool:
        """Whether there is such an object. StoreError where the bucket itself is missing."""
        with self._errors("look for", key):
            try:
                self._client.head_object(Bucket=self.name, Key=self.prefix + key)
            except self._client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code", "") not in _MISSING_CODES:
                    raise
                self._client.head_bucket(Bucket=self.name)  # a HEAD's 404 does not say which of the two is missing
                return False
            return True

    def _where(self, key: str) -> str:
        return f"{self.uri(key)} at {self.endpoint}"

    @contextmanager
    def _errors(self, action: str, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            raise self._answered(action, key, error) from error
        except BotoCoreError as error:
            raise self._unanswered(action, key, error) from error
        except OSError as error:  # the connection broke while the body was read
            raise StoreUnreachable(
                f"could not {action} {self._where(key)}: {error}; is the store running, and may this pod reach it?"
            ) from error

    def _answered(self, action: str, key: str, error: ClientError) -> StoreError:
        """What an error that the store sent means."""
        detail = error.response.get("Error", {})
        code = detail.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"could not {action} {self._where(key)}: {code} {detail.get('Message', '')}".rstrip()
        if error.operation_name in _IDENTITY_OPERATIONS:
            return StoreDenied(
                f"{said}: the cloud's token service refuses this pod's workload identity; check the role, and that it "
                "trusts the pod's service account"
            )
        if code == "NoSuchBucket" or (code in _MISSING_CODES and error.operation_name == "HeadBucket"):
            return StoreError(f"{said}: there is no bucket {self.name}; create it, or correct the uri")
        if code in _MISSING_CODES:
            return ObjectMissing(f"{said}: there is no such object; correct the uri, or write it first")
        if code in _DENIED_CODES or status in (401, 403):
            return StoreDenied(f"{said}: check the keys in the Secret, and that they may {action} in this bucket")
        if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout"}:
            return StoreUnreachable(f"{said}: the store is in trouble; look at its logs, it is tried again")
        return StoreError(f"{said} (HTTP {status}): the store refuses this request; check endpoint and uri")

    def _unanswered(self, action: str, key: str, error: BotoCoreError) -> StoreError:
        """What an error that boto3 found itself means."""
        from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, SSLError

        from truekeep.storage.guarded import refused

        if why := refused(error):
            return StoreDenied(f"could not {action} {self._where(key)}: {why}")
        said = f"could not {action} {self._where(key)}: {error}"
        if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
            return StoreDenied(f"{said}; name a Secret in credentialsSecretRef, or give the pod a workload identity")
        if isinstance(error, SSLError):
            return StoreUnreachable(f"{said}; name the certificates that sign the endpoint's in caBundleRef")
        return StoreUnreachable(f"{said}; is the store running, and may this pod reach it?")


def _again_when_torn(once: Callable[[], T]) -> T:
    """boto3 tries requests again, but not the reading of a body: that is done here."""
    from botocore.exceptions import (
        ConnectionClosedError,
        IncompleteReadError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    for _ in range(ATTEMPTS - 1):
        try:
            return once()
        except (ConnectionClosedError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError, OSError):
            continue
    return once()


def _credentials(location: S3Location) -> tuple[str, str, str | None] | None:
    """Access key, secret key and, where there is one, session token; None where the location names no Secret."""
    reference = location.credentials_secret_ref
    if reference is None:
        return None
    folder = Path(os.environ.get(SECRETS_DIR_ENV, DEFAULT_SECRETS_DIR)) / reference.name

    def value(key: str) -> str:
        try:
            text = (folder / key).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreDenied(
                f"Secret {reference.name} has no usable {key} (looked for {folder / key}: {error}); add the key to it"
            ) from error
        if not text:
            raise StoreDenied(f"Secret {reference.name} has an empty {key}; give it a value")
        return text

    token = folder / "AWS_SESSION_TOKEN"
    return value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"), value(token.name) if token.exists() else None


def _certificates(location: S3Location) -> str | None:
    reference = location.ca_bundle_ref
    if reference is None:
        return None
    folder = Path(os.environ.get(CERTIFICATES_DIR_ENV, DEFAULT_CERTIFICATES_DIR))
    path = folder / reference.name / reference.key
    if not path.is_file():
        raise StoreDenied(
            f"ConfigMap {reference.name} has no key {reference.key} (looked for {path}); add the PEM certificates to it"
        )
    return str(path)


@lru_cache(maxsize=16)
def _client(
    endpoint: str | None,
    region: str,
    access: tuple[str, str, str | None] | None,
    certificates: str | None,
    timeout: float,
) -> S3Client:
    """One client for all prefixes of a store: making one takes 0.1 s and more, and its connections are kept."""
    import boto3
    from botocore.config import Config

    from truekeep.storage.guarded import guard

    config = Config(
        connect_timeout=min(timeout, 5),
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": "path" if endpoint else "auto"},
        # Stores other than AWS's do not all know the newer checksums; digests are checked where it matters.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra=f"truekeep/{__version__}",
    )
    key, secret, token = access or (None, None, None)
    client: S3Client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        verify=certificates,
        config=config,
    )
    return guard(client)
