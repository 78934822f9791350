"""`truekeep reproduce`: does a recorded run give the same again? On this machine, with the caller's own credentials."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truekeep.api.common import DvcOutput, Place, S3Location, VolumeLocation
from truekeep.cli import archive
from truekeep.cli.kube import Namespace, Person, person
from truekeep.cli.laptop import InputError, check_folder, refuse
from truekeep.cli.stores import Endpoint, located, opened, own
from truekeep.cli.train import RECORD, source_folder
from truekeep.contract import layout
from truekeep.contract.canonical import sha256

if TYPE_CHECKING:
    from truekeep.sources.read import Pin
    from truekeep.storage.folder import Folder
    from truekeep.storage.s3 import Fetched, ObjectInfo
    from truekeep.trainer.record.reproduce import Comparison

EXIT_EQUAL, EXIT_DIFFERENT = 0, 1
RECORD_BYTES = 64 << 20


def reproduce(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A TrainingRun of the cluster.")] = None,
    *,
    record: Annotated[
        str | None, typer.Option(metavar="FILE|URI", help="Or its record: a file, or s3://…/records/sha256/HEX.json.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder with the objects, as for truekeep train. Default: where they were."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URI|DIR", help="Where artifacts and records lie. Default: as the Model or URI says."),
    ] = None,
    endpoint: Endpoint = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to keep the new artifact and record in.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
    namespace: Namespace = None,
) -> None:
    """Do a recorded run again on this machine, and say whether it is bit-equal, or what differs.

    Reads the objects by their pins, fits and judges with the same code; credentials are the caller's
    (AWS_ACCESS_KEY_ID and so on). Codes: 0, bit-equal; 1, it differs; 2, it could not be done again."""
    try:
        if output not in {"text", "json"}:
            raise InputError(f"--output is {output!r}; it must be text or json")
        if (run is None) == (record is None):
            raise InputError("name one of RUN and --record")
        if out is not None:
            check_folder(out, RECORD, "of an earlier reproduction")
        found = _of_cluster(run, namespace, store, endpoint) if run else _of_record(str(record), store, endpoint)
        from truekeep.trainer import threads

        allowed = threads.fix()  # before numpy is imported
        compared = _again(found, data, endpoint, out, allowed)
    except ModuleNotFoundError as error:
        refuse(InputError(f"the package {error.name} is missing; install truekeep[cli,trainer]"))
    except (InputError, OSError, MemoryError) as error:
        refuse(error)
    if output == "json":
        typer.echo(json.dumps({"recorded": found.digest, **compared.dump()}, indent=2))
    else:
        typer.echo("\n".join(told(found, compared)))
    raise typer.Exit(EXIT_EQUAL if compared.equal else EXIT_DIFFERENT)


@dataclass(frozen=True)
class Recorded:
    """A record, and where its store lies, if that is known."""

    document: Mapping[str, Any]
    digest: str
    store: S3Location | Path | None
    folder: Path | None = None  # that `truekeep train` wrote it into, with the artifact beside it


def _of_cluster(run: str, namespace: str | None, store: str | None, endpoint: str | None) -> Recorded:
    """By a TrainingRun's status."""
    who = person(namespace)
    found = who.find("trainingruns", run)
    if found is None:
        return _of_store(who, run, store, endpoint)
    known = (found.get("status") or {}).get("record")
    if not known:
        raise InputError(f"run {who.namespace}/{run} has no record: it has not ended, or its store was out of reach")
    location: S3Location | Path | None = located("--store", store, endpoint) if store else None
    if location is None:
        model = found["spec"]["modelRef"]["name"]
        there = next((one for one in who.list("models") if one["metadata"]["name"] == model), None)
        raw = there["spec"]["store"]["s3"] if there else {"uri": _root(known["uri"])}
        location = own(S3Location.model_validate(raw), endpoint)
    return _read(location, known["id"])


def _of_store(who: Person, run: str, store: str | None, endpoint: str | None) -> Recorded:
    """By the decisions of its Model's store: the run itself is gone."""
    from truekeep.storage import StoreError

    try:
        found = archive.record_of_run(who.namespace, who.list("models"), run, endpoint)
    except StoreError as error:
        raise InputError(f"run {who.namespace}/{run} is not in the cluster, and its Model's store: {error}") from error
    if found is None:
        raise InputError(
            f"there is no run {who.namespace}/{run}, and no Model here has a revision of it in its store. Where its "
            "record lies, truekeep lineage MODEL --store URI says; give that as --record"
        )
    place, record = found
    return _read(located("--store", store, endpoint) if store else place, record)


def _of_record(given: str, store: str | None, endpoint: str | None) -> Recorded:
    location = located("--store", store, endpoint) if store else None
    if given.startswith("s3://"):
        digest = given.rpartition("/")[2].removesuffix(".json")
        return _read(location or located("--record", _root(given), endpoint), f"sha256:{digest}")
    path = Path(given)
    try:
        if path.stat().st_size > RECORD_BYTES:
            raise InputError(f"--record {path}: is larger than {RECORD_BYTES:,} bytes; give the record of a run")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"--record {path}: {error.strerror or error}; give the record of a run") from error
    beside = path.parent if (path.parent / layout.MANIFEST).is_file() else None
    return Recorded(_document(content, str(path)), sha256(content), location, beside)


def _root(uri: str) -> str:
    root, found, _ = uri.rpartition("records/sha256/")
    if not found:
        raise InputError(f"{uri}: is no record's address; it ends in records/sha256/HEX.json. Or give --store")
    return root


def _read(location: S3Location | Path, digest: str) -> Recorded:
    """From the store, checked. InputError where it is missing or altered."""
    from truekeep.storage import StoreError

    store, key = opened(location), layout.record(digest)
    try:
        content = store.get(key)
    except StoreError as error:
        raise InputError(f"the record {store.uri(key)} can't be read: {error}") from error
    if (seen := sha256(content)) != digest:
        raise InputError(f"{store.uri(key)} has {seen}: THE RECORD WAS ALTERED, do not trust it")
    return Recorded(_document(content, store.uri(key)), digest, location)


def _document(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise InputError(f"{where}: is no record: {error}") from error
    if not isinstance(found, dict) or not str(found.get("schema", "")).startswith("truekeep.dev/record/"):
        raise InputError(f"{where}: is no record of a training run; its schema is not truekeep.dev/record/v1")
    return found


def _again(found: Recorded, data: Path | None, endpoint: str | None, out: Path | None, threads: int) -> Comparison:
    from truekeep.storage import StoreError, artifacts
    from truekeep.storage.folder import Folder
    from truekeep.trainer.record.reproduce import NotReproducibleError, Outside, pins_of, reads, reproduce, request_of

    try:
        request = request_of(found.document)
        declared = [*request.data.sources, *(one.source for one in request.evaluation.benchmarks)]
        places = list({one.place.uri: one.place for one in declared}.values())
        if request.training.import_ is not None and data is not None:
            places.append(request.training.import_.s3)
        lie = Places(places, data, endpoint)
        pins = moved(pins_of(found.document), reads(request), lie.folders)
        original = None
        if found.folder is not None and found.document["artifact"]:
            original = _beside(found.folder, found.document["artifact"]["digest"])
        with tempfile.TemporaryDirectory(prefix="truekeep-") as folder:
            scratch = Folder(Path(folder))
            outside = Outside(
                lie.opened,
                None if found.store is None else opened(found.store),
                scratch,
                lambda words: typer.echo(f"  {words}", err=True),
                threads,
            )
            compared = reproduce(found.document, pins, outside, original)
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                (out / RECORD).write_bytes(scratch.get(layout.record(compared.record)))
                for name, content in (artifacts.read(scratch, compared.now) if compared.now else {}).items():
                    (out / name).write_bytes(content)
            return compared
    except (NotReproducibleError, StoreError) as error:
        raise InputError(f"the run could not be done again: {error}") from error


def _beside(folder: Path, digest: str) -> dict[str, bytes] | None:
    """The artifact that lies beside a record, if it is whole."""
    from truekeep.contract.artifact import Manifest

    content = (folder / layout.MANIFEST).read_bytes()
    if sha256(content) != digest:
        return None
    files = Manifest.model_validate_json(content).files
    return {one.path: (folder / one.path).read_bytes() for one in files if (folder / one.path).is_file()}


class Places:
    """Where the objects lie now: where they were, or in folders of this machine."""

    def __init__(self, places: list[Place], data: Path | None, endpoint: str | None) -> None:
        self._endpoint = endpoint
        alone = len(places) == 1
        self.folders = {} if data is None else {one.uri: source_folder(data, one, alone=alone) for one in places}

    def opened(self, place: Place) -> Any:
        """As a `sources.places.Opener`. InputError for a volume, which only a pod can mount."""
        from truekeep.sources.dvc import Dvc
        from truekeep.storage.folder import Folder
        from truekeep.storage.s3 import Bucket

        if place.uri in self.folders:
            folder = Folder(self.folders[place.uri])
            return Dvc(folder, place) if isinstance(place, DvcOutput) else Moved(folder, place.uri)
        if isinstance(place, VolumeLocation):
            raise InputError(f"{place.uri} is a volume of the cluster; copy its files, and give their folder by --data")
        if isinstance(place, DvcOutput):
            return Dvc(Bucket.open(own(place.remote, self._endpoint)), place)
        return Bucket.open(own(place, self._endpoint))


class Moved:
    """A folder that holds the objects of another place, and is called by its name."""

    def __init__(self, folder: Folder, uri: str) -> None:
        self._folder = folder
        self._uri = uri

    def uri(self, key: str = "") -> str:
        """The address that a key has in the place."""
        return self._uri + key

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """What lies in the folder."""
        return self._folder.list(prefix, start_after)

    def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
        """The file's bytes. ObjectMissing where there is none."""
        return self._folder.fetch(key, span=span)


def moved(pins: tuple[Pin, ...], sources: Mapping[str, str], folders: Mapping[str, Path]) -> tuple[Pin, ...]:
    """The pins of a record that `truekeep train` made, which names files of its machine, by the addresses that the
    Model declares. `sources`: a place's URI by what it is read for; `folders`: by URI, where it lies now. InputError
    where they are not given, or a file is not there."""
    found = []
    for pin in pins:
        if "://" in pin.uri:
            found.append(pin)
            continue
        place = sources.get(pin.source)
        if place is None or place not in folders:
            raise InputError(f"the record names a file of a machine, {pin.uri}; --data says where it is now")
        parts = Path(pin.uri).parts[1:]
        ends = ("/".join(parts[at:]) for at in range(len(parts)))
        key = next((end for end in ends if (folders[place] / end).is_file()), None)
        if key is None:
            raise InputError(f"{pin.uri} is not below {folders[place]}; put it back, or correct --data")
        found.append(replace(pin, uri=place + key))
    return tuple(found)


def told(found: Recorded, compared: Comparison) -> Iterator[str]:
    """The comparison for a person at a terminal."""
    about = found.document["run"]
    yield f"run {about['name']} of {about['namespace']}/{about['model']}, record {found.digest}"
    yield f"inputs: {len(found.document['data']['objects'])} objects, all as recorded"
    if compared.equal:
        yield f"bit-equal: {compared.now}" if compared.now else f"the same: {compared.reason}, and no artifact"
    else:
        yield f"DIFFERS: {compared.then or 'no artifact'} then, {compared.now or 'no artifact'} now"
        yield from (f"  {name} differs" for name in compared.files)
        if compared.largest is not None:
            yield from _apart(compared)
        elif compared.unmeasured:
            yield f"  {compared.unmeasured}"
        yield from (f"  {one}" for one in compared.values)
    if compared.verdict:
        yield "verdict: ANOTHER ONE"
        yield from (f"  {one}" for one in compared.verdict)
    else:
        yield f"verdict: the same, {compared.reason}"
    if compared.around:
        yield "made with something else:"
        yield from (f"  {one}" for one in compared.around)


def _apart(compared: Comparison) -> Iterator[str]:
    near = ", as promised where the CPU is of another type" if compared.near else ""
    within = "within" if compared.largest is not None and compared.largest <= 1e-9 else "more than"
    yield f"  predictions differ by at most {compared.largest:.2g} on {compared.rows:,} rows: {within} 1e-9{near}"
