"""`truekeep train`: what a training run does in the cluster, on files of this machine."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from truekeep import __version__
from truekeep.api.common import DvcOutput, Place, S3Location
from truekeep.api.model import ModelSpec
from truekeep.cli.admission import faults
from truekeep.cli.laptop import InputError, check_folder, documents, emptied, refuse
from truekeep.cli.train_command import check_command, fit

if TYPE_CHECKING:
    from truekeep.contract.requests import LastRun, TrainRequest
    from truekeep.contract.results import TrainResult

EXIT_PASSED, EXIT_GATE, EXIT_INPUT = 0, 1, 2
GATES = frozenset({"GatesFailed", "ChampionKept"})
RECORD, RESULT, REPORT = "record.json", "result.json", "report.html"
CAPTURES = "s3://captures/"  # stands for the folder of --captures


def train(
    file: Annotated[Path, typer.Option("--file", "-f", metavar="MODEL.yaml", help="A file with one Model.")],
    *,
    data: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Folder with the data: BUCKET/PREFIX below it as in the Model's URIs (of a volume CLAIM/PATH; of DVC "
            "those of its remote), or PREFIX; for a Model with one source, also the folder of its files itself, or "
            ".dvc/cache.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the artifact, record and result into.")],
    last_run: Annotated[
        Path | None,
        typer.Option(metavar="RESULT.json", help="result.json of an earlier training, for rules with lastRun."),
    ] = None,
    captures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with capture files of the live revision (NAMESPACE/MODEL/revision=N/), for rules with skew.",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="PROGRAM", help="The program of training.image, run here without a container."),
    ] = None,
) -> None:
    """Train a Model on files: the same checks, recipe, gates and artifact as in the cluster.

    Codes: 0, all gates passed; 1, a gate failed: no artifact is written; 2, wrong input, or data that breaks a rule."""
    try:
        name, spec = read_model(file)
        check_command(name, spec, command)
        check_folder(out, RECORD, "of an earlier training")
        from truekeep.trainer import threads

        allowed = threads.fix()  # before numpy is imported
        from truekeep.storage.errors import StoreError
    except ModuleNotFoundError as error:
        refuse(InputError(f"the package {error.name} is missing; install truekeep[cli,trainer]"))
    except InputError as error:
        refuse(error)
    try:
        result = _train(name, spec, data, out, allowed, Beside(last_run, captures, command))
    except (InputError, StoreError, OSError, MemoryError) as error:
        refuse(error)
    typer.echo(told(result, out))
    if result.reason == "Succeeded":
        return
    raise typer.Exit(EXIT_GATE if result.reason in GATES else EXIT_INPUT)


def read_model(path: Path) -> tuple[str, ModelSpec]:
    """Name and spec of the one Model in a file, checked as the API server does. InputError where there is none."""
    models = [one for one in documents(path) if isinstance(one, dict) and one.get("kind") == "Model"]
    if len(models) != 1:
        raise InputError(f"{path}: holds {len(models)} Models; give a file with one")
    found = faults(models[0])
    if found:
        raise InputError("\n".join(f"{path}: {fault}" for fault in found))
    return str(models[0]["metadata"]["name"]), ModelSpec.model_validate(models[0]["spec"])


@dataclass(frozen=True)
class Beside:
    """What a cluster would know besides the data: the last run, what the live revision was asked, and what is in
    training.image."""

    last_run: Path | None = None
    captures: Path | None = None
    command: str | None = None

    def told(self, request: TrainRequest, spec: ModelSpec) -> TrainRequest:
        """The request with it. InputError where a path has nothing of the kind."""
        from truekeep.contract.requests import Captured

        update: dict[str, Any] = {}
        if self.last_run is not None:
            update["last_run"] = self._last(self.last_run)
        if self.captures is not None:
            if not any(self.captures.rglob("*.parquet")):
                raise InputError(
                    f"--captures {self.captures}: has no Parquet file; copy some of the live revision there"
                )
            capture = spec.serving.capture
            left_out = tuple(sorted({*capture.drop, *capture.hash})) if capture else ()
            location = S3Location(uri=CAPTURES)
            update["captured"] = Captured(revision=1, location=location, prefix="", left_out=left_out)
        return request.model_copy(update=update)

    def _last(self, path: Path) -> LastRun:
        from truekeep.contract.requests import LastRun
        from truekeep.contract.results import TrainResult

        try:
            result = TrainResult.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(f"--last-run {path}: is no result.json of a training: {error!s:.200}") from error
        read = result.data
        if read is None or not read.rows or result.reason == "DataInvalid":
            raise InputError(f"--last-run {path}: its data was refused; name a training whose data was in order")
        return LastRun(run=str(path), rows=read.rows, positives=read.positives, rows_digest=read.rows_digest)


def _train(name: str, spec: ModelSpec, data: Path, out: Path, threads: int, beside: Beside) -> TrainResult:
    from truekeep.contract import layout
    from truekeep.sources.dvc import Dvc
    from truekeep.storage import ObjectMissing, artifacts
    from truekeep.storage.folder import Folder
    from truekeep.trainer.run import World, run
    from truekeep.trainer.tuning.trial import tune

    request = beside.told(_request(name, spec), spec)
    folders = {one.uri: source_folder(data, one, alone=len(_sources(spec)) == 1) for one in _sources(spec)}
    if beside.captures is not None:
        folders[CAPTURES] = beside.captures
    with tempfile.TemporaryDirectory(prefix="truekeep-") as scratch:
        store = Folder(Path(scratch))

        def opened(place: Place) -> Any:
            if place.uri not in folders:
                return store
            folder = Folder(folders[place.uri])
            return Dvc(folder, place) if isinstance(place, DvcOutput) else folder

        world = World(opened, lambda: datetime.now(UTC), typer.echo, threads)
        if spec.training.recipe is not None and spec.training.recipe.tuning is not None:
            tune(request, store, world)
        ended = fit(request, world, beside.command) if beside.command is not None else None
        result = ended or run(request, world)
        if result.reason == "StoreUnreachable":
            raise InputError(result.message)
        emptied(out)
        (out / RESULT).write_text(json.dumps(result.dump(), indent=1) + "\n")
        if result.record:
            (out / RECORD).write_bytes(store.get(layout.record(result.record.id)))
            for suffix, file in {
                layout.REPORT: REPORT,
                layout.PROVENANCE: layout.PROVENANCE,
                layout.EVENTS: layout.EVENTS,
            }.items():
                with contextlib.suppress(ObjectMissing):
                    (out / file).write_bytes(store.get(layout.beside_record(result.record.id, suffix)))
        if result.artifact:
            for file, content in artifacts.read(store, result.artifact.digest).items():
                (out / file).write_bytes(content)
            manifest = store.get(layout.artifact_file(result.artifact.digest, layout.MANIFEST))
            (out / layout.MANIFEST).write_bytes(manifest)
    return result


def _sources(spec: ModelSpec) -> list[Place]:
    """Where the Model reads, each place once."""
    sources = [*spec.data.sources, *(one.source for one in spec.evaluation.benchmarks)]
    return list({one.place.uri: one.place for one in sources}.values())


def source_folder(data: Path, place: Place, alone: bool) -> Path:
    """Where the files of a source lie on this machine, those of DVC as in the remote or in .dvc/cache. InputError where
    there is no such folder."""
    where = place.remote.uri if isinstance(place, DvcOutput) else place.uri
    bucket, _, prefix = where.partition("://")[2].partition("/")
    tried = [data / bucket / prefix, *([data / prefix] if prefix else []), *([data] if alone else [])]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise InputError(f"--data {data}: has nothing for {place.uri}; looked for {', '.join(map(str, tried))}")


def _request(name: str, spec: ModelSpec) -> TrainRequest:
    from truekeep.api.trainingrun import Trigger
    from truekeep.contract.requests import TrainRequest, complete_data, complete_training
    from truekeep.domain.fingerprints import training_fingerprint

    store = spec.store.s3
    if spec.training.import_ is not None:
        raise InputError(f"Model {name} is trained elsewhere (training.import): there is nothing to train")
    identity = secrets.token_hex(8)
    return TrainRequest(
        namespace="local",
        model=name,
        model_uid="local",
        model_generation=1,
        run=f"local-{identity}",
        run_uid=identity,
        trigger=Trigger(type="External", message="truekeep train"),
        training_fingerprint=training_fingerprint(spec),
        image="none: truekeep train",
        operator_version=__version__,
        store=store,
        data=complete_data(spec.data, store),
        training=complete_training(spec.training, store),
        evaluation=spec.evaluation,
        documentation=spec.documentation,
    )


def told(result: TrainResult, out: Path) -> str:
    """The verdict for a person at a terminal."""
    lines = [f"{result.reason}: {result.message}", *_rows(result)]
    if result.artifact:
        lines.append(f"wrote {out}: {result.artifact.digest}; try: truekeep serve {out}")
    elif result.record:
        lines.append(f"wrote {out / RECORD} and {out / RESULT}; there is no artifact")
    if (out / REPORT).is_file():
        lines.append(f"the report is {out / REPORT}")
    return "\n".join(lines)


_BOUNDS = {"Minimum": "at least", "Maximum": "at most"}


def _rows(result: TrainResult) -> list[str]:
    rows: list[tuple[Any, ...]] = [
        (gate.name, gate.metric, gate.value, f"{_BOUNDS[gate.bound]} {gate.threshold}", gate.result)
        for gate in result.gates
    ]
    if not rows:
        return []
    rows.insert(0, ("gate", "metric", "value", "bound", "result"))
    widths = [max(len(str(row[column])) for row in rows) for column in range(5)]
    return ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
