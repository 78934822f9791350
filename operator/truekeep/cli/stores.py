"""Object stores as a person reaches them: given by hand, or as a Model names them, with credentials of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from pydantic import ValidationError

from truekeep.api.common import S3Location
from truekeep.cli.laptop import InputError
from truekeep.storage.s3 import ObjectInfo

# Options that several commands take.
Endpoint = Annotated[
    str | None, typer.Option(help="URL of the S3 service, as seen from here.", envvar="TRUEKEEP_S3_ENDPOINT")
]
ModelEndpoint = Annotated[
    str | None,
    typer.Option(help="URL of the S3 service, as seen from here. Default: the Model's.", envvar="TRUEKEEP_S3_ENDPOINT"),
]
ModelFile = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="MODEL.yaml", help="The Model's YAML, without a cluster.")
]
StoreUri = Annotated[
    str | None, typer.Option(help="spec.store.s3.uri, where Model and cluster are gone. Example: s3://models/.")
]
CapturesUri = Annotated[
    str | None, typer.Option(help="spec.serving.capture.s3.uri, likewise. Default: as the store's decisions say.")
]


def located(option: str, text: str, endpoint: str | None) -> S3Location | Path:
    """An s3:// address, or a folder. InputError where it is neither."""
    if not text.startswith("s3://"):
        if not Path(text).is_dir():
            raise InputError(f"{option} {text}: is neither an s3:// address nor a folder")
        return Path(text)
    try:
        return S3Location(uri=text if text.endswith("/") else f"{text}/", endpoint=endpoint)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["loc"][0] == "uri":
            raise InputError(f"{option} {text}: is no s3:// address of a prefix; example: s3://models/") from error
        raise InputError(f"--endpoint {endpoint}: {first['msg']}; example: http://127.0.0.1:7070") from error


def own(location: S3Location, endpoint: str | None = None) -> S3Location:
    """The Secret and the certificates that a Model names are the cluster's; here they are the person's own.

    `endpoint`: of the store as seen from here, where the Model's is one of the cluster."""
    update = {"credentials_secret_ref": None, "ca_bundle_ref": None, "endpoint": endpoint or location.endpoint}
    return location.model_copy(update=update)


def opened(location: S3Location | Path) -> Any:
    """The bucket, or the folder."""
    from truekeep.storage.folder import Folder
    from truekeep.storage.s3 import Bucket

    return Folder(location) if isinstance(location, Path) else Bucket.open(location)


class Listed(Protocol):
    """What can be listed: a bucket, or a folder."""

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """What lies below a prefix, in the order of the keys."""


def folders(place: Listed, prefix: str) -> Iterator[str]:
    """Names of the folders below a prefix, each found with one listing. StoreError."""
    after: str | None = None
    while (info := next(iter(place.list(prefix, after)), None)) is not None:
        name, slash, _ = info.key.removeprefix(prefix).partition("/")
        after = f"{prefix}{name}/~" if slash else info.key  # behind all names that we write
        if slash:
            yield name
