"""`truekeep check`: what the API server would say of files, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from truekeep.api.common import GROUP
from truekeep.api.model import ModelSpec
from truekeep.cli import settings
from truekeep.cli.admission import Fault, faults
from truekeep.cli.laptop import InputError, documents
from truekeep.features.plan import PlanError, plan

EXIT_FAULTS = 2
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Found:
    """One object in a file."""

    file: Path
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """Kind and name, for messages."""
        metadata = self.document.get("metadata")
        return f"{self.document.get('kind')} {metadata.get('name') if isinstance(metadata, dict) else None}"


def check(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A file, or a folder of YAML files; repeatable.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="A reference to an object that is in no file is an error, too.")
    ] = False,
) -> None:
    """Check Models, DriftPolicies, TrainingRuns and ModelApprovals as the API server would: schema, rules, references.

    Ends with 0 where all is in order, with 2 where something is not. Other kinds in the files are passed over."""
    ours, passed, wrong = [], 0, 0
    for path in _files(file):
        try:
            there = documents(path)
        except InputError as error:
            typer.echo(str(error), err=True)
            wrong += 1
            continue
        for document in there:
            if isinstance(document, dict) and str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
                ours.append(Found(path, document))
            else:
                passed += 1
    for found in ours:
        problems = faults(found.document) or list(unfit(found.document))
        wrong += bool(problems)
        for problem in problems:
            typer.echo(f"{found.file}: {found.name}: {problem}", err=True)
        if not problems:
            typer.echo(f"{found.file}: {found.name}: in order{settings.unchecked(found.document)}")
    for found, fault in references(ours):
        typer.echo(f"{found.file}: {found.name}: {fault}", err=strict)
        wrong += strict
    if passed:
        typer.echo(f"{passed} objects of other kinds were passed over")
    if not ours:
        typer.echo(f"truekeep: no object of {GROUP} is in these files", err=True)
        wrong += 1
    if wrong:
        raise typer.Exit(EXIT_FAULTS)


def unfit(document: dict[str, Any]) -> Iterator[Fault]:
    """What only a run would find: transformers of a recipe that do not fit together, and hyperparameters that its
    estimator does not take."""
    if document.get("kind") != "Model":
        return
    spec = ModelSpec.model_validate(document["spec"])
    if spec.training.recipe is None:
        return
    try:
        plan(spec.data.features, spec.training.recipe.transformers)
    except PlanError as error:
        yield Fault(error.path, error.message)
    yield from settings.refused(spec.training.recipe)


def references(ours: list[Found]) -> Iterator[tuple[Found, Fault]]:
    """References to Models that are in none of the files."""
    models = {
        (_namespace(found.document), found.document["metadata"].get("name"))
        for found in ours
        if found.document.get("kind") == "Model" and isinstance(found.document.get("metadata"), dict)
    }
    for found in ours:
        spec = found.document.get("spec")
        reference = spec.get("modelRef") if isinstance(spec, dict) else None
        name = reference.get("name") if isinstance(reference, dict) else None
        if name and (_namespace(found.document), name) not in models:
            yield found, Fault("spec.modelRef.name", f"Model {name} is in none of these files")


def _namespace(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    return str(metadata.get("namespace") or "") if isinstance(metadata, dict) else ""


def _files(given: list[Path]) -> Iterator[Path]:
    for path in given:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
        else:
            yield path
