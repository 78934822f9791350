"""`truekeep import`: a model that was trained elsewhere, packaged as an artifact that Truekeep serves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truekeep.cli.laptop import InputError, check_folder, emptied, refuse
from truekeep.contract.layout import MANIFEST

if TYPE_CHECKING:
    from truekeep.api.data import Feature
    from truekeep.trainer.imported.package import Package

EXIT_PACKAGED = 0
EXIT_DISAGREES = 1


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The model: skops, ONNX, or with --trust-pickle joblib or pickle.")
    ],
    *,
    sample: Annotated[
        Path, typer.Option(metavar="ROWS.parquet", help="Rows as the model will be asked, better not its training's.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the artifact into.")],
    label: Annotated[
        str | None, typer.Option(help="Column of the sample with the truth: metrics are reported.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="The model's inputs in their order: names with commas. Default: as it says.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A column of the sample that is no input; may be given several times.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="A column of codes that are no quantities; may be given several times.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="MODEL.yaml", help="A Model whose data.features say types, limits and nulls.")
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="The class whose probability is answered. Default: the second.")
    ] = None,
    cut_off: Annotated[float, typer.Option(min=0, max=1, help="From here on a row is of that class.")] = 0.5,
    trained_until: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"],
            help="Newest event that it was trained on (UTC): gates are judged on newer rows only.",
        ),
    ] = None,
    pipeline: Annotated[
        Path | None, typer.Option(help="The pipeline that an ONNX file was made of, to compare the two.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Largest difference of a probability from that pipeline's.")
    ] = 1e-6,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Read a joblib or pickle file. It can run any program with your rights: only for files that you or "
            "your team made. It is saved as skops; no pickle gets into the artifact.",
        ),
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="s3://BUCKET/PREFIX/", help="Send it there; credentials from AWS_….")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of the S3 service.", envvar="TRUEKEEP_S3_ENDPOINT")] = None,
) -> None:
    """Package a model that was trained elsewhere, and report how it agrees with the original.

    Codes: 0, packaged; 1, it does not answer the sample as the original does: nothing is written; 2, wrong input."""
    try:
        from truekeep.storage.errors import StoreError
        from truekeep.trainer.faults import InputFault
        from truekeep.trainer.imported.features import Wishes
        from truekeep.trainer.imported.package import Options, package
    except ModuleNotFoundError as error:
        refuse(InputError(f"the package {error.name} is missing; install truekeep[cli,trainer]"))
    try:
        check_folder(out, MANIFEST, "an artifact's")
        wishes = Wishes(
            columns=tuple(name.strip() for name in columns.split(",")) if columns else (),
            label=label,
            leave_out=tuple(leave_out or ()),
            categories=tuple(category or ()),
            features=_features(features) if features else (),
        )
        until = trained_until.replace(tzinfo=UTC) if trained_until else None
        options = Options(
            wishes=wishes,
            positive=positive,
            cut_off=cut_off,
            trained_until=until,
            trust_pickle=trust_pickle,
            pipeline=pipeline,
            tolerance=tolerance,
        )
        made = package(file, sample, options)
        typer.echo(told(made))
        if not made.agrees:
            typer.echo("truekeep: nothing was written: what would be served is not the model that was given", err=True)
            raise typer.Exit(EXIT_DISAGREES)
        _write(out, made)
        typer.echo(f"wrote {out}: {made.digest}")
        if push:
            typer.echo(_pushed(made, push, endpoint))
    except ModuleNotFoundError as error:
        refuse(
            InputError(f"the package {error.name} is missing; install truekeep[cli,trainer], and what the model needs")
        )
    except (InputError, InputFault, StoreError, OSError) as error:
        refuse(error)


def told(made: Package) -> str:
    """The report for a person at a terminal."""
    report, signature = made.report, made.signature
    source, agreement, onnx = report["source"], report["agreement"], report["onnx"]
    lines = [
        f"{source['file']}: {report['estimator']}, {len(signature.features)} inputs, answers the probability of "
        f"{report['positiveClass']!r}, cut-off {signature.cut_off:g}"
    ]
    lines += [f"  warning: {one}" for one in source["warnings"]]
    for one in signature.features:
        kind = f"{one.type}" + (f", {len(one.categories or ())} categories" if one.type == "Category" else "")
        refused = report["refused"].get(one.name)
        lines.append(f"  {one.name:<32} {kind}" + (f"; refused: {refused}" if refused else ""))
    if agreement["rows"]:
        verdict = "DISAGREES" if agreement["reason"] else "agrees"
        lines.append(
            f"{verdict} with {agreement['with']}: {agreement['rows']:,} rows, largest difference "
            f"{agreement['largestDifference']:.1e} (at most {agreement['tolerance']:.0e}), {agreement['crossed']:,} on "
            "the other side of the cut-off" + (f"; {agreement['reason']}" if agreement["reason"] else "")
        )
    else:
        lines.append(f"compared with {agreement['with']}")
    if onnx is not None:
        lines.append(
            f"served by scikit-learn, not as ONNX: {onnx['reason']}"
            if onnx["reason"]
            else f"served as ONNX: differs by at most {onnx['largestDifference']:.0e} on {onnx['rows']:,} rows"
        )
    if report["metrics"]:
        lines.append("on the sample: " + ", ".join(f"{name} {value:.4f}" for name, value in report["metrics"].items()))
    return "\n".join(lines)


def _write(out: Path, made: Package) -> None:
    """The files, the manifest last; those of an artifact that was there before are gone."""
    from truekeep.storage.artifacts import manifest_of

    emptied(out)
    for name, content in made.files.items():
        (out / name).write_bytes(content)
    (out / MANIFEST).write_bytes(manifest_of(made.files).to_bytes())


def _pushed(made: Package, push: str, endpoint: str | None) -> str:
    """Send it, and what to write into a Model."""
    from pydantic import ValidationError

    from truekeep.api.common import S3Location
    from truekeep.storage import artifacts
    from truekeep.storage.s3 import Bucket

    uri = push if push.endswith("/") else f"{push}/"
    try:
        location = S3Location(uri=uri, endpoint=endpoint)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"--push {push}: {first['msg']}; write s3://BUCKET/PREFIX/") from error
    written = artifacts.write(Bucket.open(location), made.files)
    assert written.digest == made.digest
    where = f"uri: {uri}" + (f", endpoint: {endpoint}" if endpoint else "")
    snippet = f"training:\n  import:\n    s3: {{{where}}}\n    digest: {written.digest}"
    return f"sent {written.size_bytes:,} bytes to {written.uri}; in a Model's spec:\n\n{snippet}"


def _features(path: Path) -> tuple[Feature, ...]:
    """The features of the one Model in a YAML file."""
    import yaml
    from pydantic import ValidationError

    from truekeep.api.data import Feature

    try:
        documents: list[Any] = [one for one in yaml.safe_load_all(path.read_text()) if isinstance(one, dict)]
        (model,) = [one for one in documents if one.get("kind") == "Model"]
        return tuple(Feature.model_validate(one) for one in model["spec"]["data"]["features"])
    except (yaml.YAMLError, ValidationError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"--features {path}: is no YAML with one Model and its data.features ({said})") from error
