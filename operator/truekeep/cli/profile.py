"""`truekeep profile`: what a table looks like, as the reference that later ones are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from truekeep.contract.artifact import SignatureFeature
    from truekeep.profiling.tables import ParquetTable


def profile(
    reference: Annotated[Path, typer.Argument(metavar="REF.parquet", help="What the model was trained on.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it; - is standard output.")] = Path(
        "-"
    ),
    prediction: Annotated[
        str | None, typer.Option(help="Column of the model's probability. Default: truekeep.probability, if there.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="A column of codes that are no quantities; may be given several times.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; may be given several times.")
    ] = None,
) -> None:
    """Write the profile of a Parquet file: distributions of its columns, with which truekeep drift compares others.

    Numbers and booleans are compared as numbers, text as categories; columns of other types are left out and named.
    Memory does not grow with the rows. Codes: 0, written; 2, wrong input."""
    from truekeep.cli import laptop
    from truekeep.cli.laptop import InputError
    from truekeep.contract.canonical import canonical_json
    from truekeep.profiling.build import profile_table, space_of_table
    from truekeep.profiling.schema import PREDICTION
    from truekeep.profiling.tables import TableError
    from truekeep.profiling.values import WrongTypeError

    try:
        table = laptop.table(reference)
        if not table.rows:
            raise InputError(f"{reference}: has no rows; a reference needs some, better thousands")
        probability = prediction or laptop.CAPTURED_PROBABILITY
        named = [*(category or []), *(leave_out or []), *([prediction] if prediction else [])]
        features = _features(table, named, category or [], leave_out or [], probability)
        inputs = [feature for feature in features if feature.name != probability]
        found = profile_table(table, features).model_copy(update={"space": space_of_table(table, inputs)})
        if features[-1].name == probability:
            *columns, last = found.columns
            found = found.model_copy(update={"columns": (*columns, last.model_copy(update={"name": PREDICTION}))})
        laptop.write(canonical_json(found.dump()).decode() + "\n", output)
    except (InputError, TableError, WrongTypeError) as error:
        laptop.refuse(error)
    if str(output) != "-":
        typer.echo(f"{output}: {len(found.columns)} columns of {found.rows:,} rows")


def _features(
    table: ParquetTable, named: list[str], category: list[str], leave_out: list[str], probability: str
) -> list[SignatureFeature]:
    """What is profiled, the probability last. InputError where a named column is not there, or none is left."""
    from truekeep.cli.laptop import InputError
    from truekeep.contract.artifact import SignatureFeature
    from truekeep.profiling.tables import feature_type

    for name in named:
        if name not in table.names:
            raise InputError(f"{table.path}: has no column {name!r}; it has {_listed(table.names)}")
    features, odd = [], []
    for name in table.names:
        if name in leave_out or name == probability or name.startswith("truekeep."):
            continue
        kind = "Category" if name in category else feature_type(table.schema.field(name).type)
        if kind is None:
            odd.append(f"{name} ({table.schema.field(name).type})")
        else:
            features.append(SignatureFeature(name=name, type=kind))
    if odd:
        typer.echo(f"left out, neither numbers nor text: {_listed(odd)}", err=True)
    if probability in table.names:
        features.append(SignatureFeature(name=probability, type="Number", minimum=0.0, maximum=1.0))
    if not features:
        raise InputError(f"{table.path}: has no column of numbers or text; give a table with some")
    return features


def _listed(names: list[str], most: int = 10) -> str:
    shown = ", ".join(name[:80] for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
