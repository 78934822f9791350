"""A model that was trained elsewhere, as a run: fetched by its digest, proved, judged on the data, never fitted.

What is published is what was imported, byte for byte: the same digest. It is judged on rows that it did not see, as far
as anybody knows: `truekeep import --trained-until` says from when on rows are new to it; without that, the newest rows
are taken as for a holdout, and the record says that they may be known to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from truekeep.api.common import S3Location
from truekeep.contract import layout
from truekeep.contract.artifact import Signature, SignatureFeature
from truekeep.contract.requests import TrainRequest
from truekeep.features import encode, models
from truekeep.features.encode import Encoder
from truekeep.features.models import ArtifactFaultError, Predict
from truekeep.scores.metrics import Floats, Scored
from truekeep.sources.columns import Want, nulls
from truekeep.storage import ArtifactInvalid, artifacts
from truekeep.storage.artifacts import Store
from truekeep.trainer.data.dataset import Dataset
from truekeep.trainer.faults import DataInvalid, ImportInvalid
from truekeep.trainer.fit import LoadedChampion, Say, Verdict, judged
from truekeep.trainer.judging import benchmarks as benchmark
from truekeep.trainer.judging import evaluate
from truekeep.trainer.judging.benchmarks import LoadedBenchmark
from truekeep.trainer.judging.missing import without
from truekeep.trainer.record.evidence import Judged
from truekeep.trainer.text import EPOCH, MICROSECONDS, counted, iso

NEEDED = (layout.SIGNATURE, layout.PROFILE)
_AT_ONCE = 10_000  # rows


@dataclass(frozen=True)
class Taken:
    """An artifact that answered its examples."""

    files: dict[str, bytes]
    signature: Signature
    predict: Predict
    format: str


def fetch(request: TrainRequest, opened: Callable[[S3Location], Store], say: Say) -> Taken | None:
    """The artifact that spec.training.import names, each file checked, proved on its examples; None where a recipe is
    given. ImportInvalid where it is not that artifact or must not be served, StoreError where the store is at fault."""
    given = request.training.import_
    if given is None:
        return None
    try:
        files = artifacts.read(opened(given.s3), given.digest)
        if missing := [name for name in NEEDED if name not in files]:
            raise ArtifactFaultError(f"it has no {', '.join(missing)}")
        signature = models.read_signature(files[layout.SIGNATURE])
        _check_features(signature, request)
        # Each file that may answer must: which one does is the server's choice.
        both = {name: files[name] for name in (layout.ONNX_FILE, layout.MODEL_FILE) if name in files}
        proved = [_proved({name: content}, signature) for name, content in both.items()] or [_proved({}, signature)]
    except (ArtifactInvalid, ArtifactFaultError) as error:
        raise ImportInvalid(
            f"spec.training.import: {error}; package the model with truekeep import --push, and take digest and uri "
            "from what that prints"
        ) from error
    predict, kind = proved[0]
    size = sum(len(content) for content in files.values())
    say(f"imported {given.digest}: {counted(size, 'byte')}, {signature.estimator} as {kind}; it answers its examples")
    return Taken(files, signature, predict, kind)


def _proved(files: dict[str, bytes], signature: Signature) -> tuple[Predict, str]:
    predict, kind = models.predictor(files, signature)
    models.self_test(signature, Encoder(signature.features), predict)
    return predict, kind


def _check_features(signature: Signature, request: TrainRequest) -> None:
    """The Model's features are the serving contract: the artifact must take just these."""
    declared = {feature.name: feature.type for feature in request.data.features}
    taken = {feature.name: feature.type for feature in signature.features}
    if missing := [name for name in taken if name not in declared]:
        raise ImportInvalid(
            f"spec.data.features lacks {_listed(missing)}, which the imported model takes; declare each by its name"
        )
    if idle := [name for name in declared if name not in taken]:
        raise ImportInvalid(
            f"spec.data.features: the imported model does not take {_listed(idle)}; it takes {_listed([*taken])}: "
            "remove the others"
        )
    for name, kind in taken.items():
        if declared[name] != kind:
            raise ImportInvalid(
                f"spec.data.features: {name} is declared a {declared[name]}, and the imported model takes a {kind}; "
                "declare it so, or package the model with truekeep import --features"
            )


def judge(
    request: TrainRequest,
    given: Taken,
    dataset: Dataset,
    champion: LoadedChampion | None,
    say: Say,
    benchmarks: Sequence[LoadedBenchmark] = (),
) -> Verdict:
    """The gates' verdict on an imported model. DataInvalid where no rows can judge it, ImportInvalid where it does not
    answer them."""
    signature = given.signature
    until = signature.imported.trained_until if signature.imported else None
    rows, words = _rows(request, dataset, None if until is None else _microseconds(until))
    matrix = _matrix(signature, dataset, rows)
    scores = _scores(given, matrix)
    scored = Scored(dataset.labels[rows], scores, signature.cut_off)
    absent = without(signature.features, matrix, given.predict) if request.evaluation.robustness else None
    metrics, gates, against = judged(request, dataset, rows, scored, champion, say, absent)

    def predict(further: Dataset) -> Floats:
        return _scores(given, _matrix(signature, further, slice(None)))

    further = benchmark.judge(request.evaluation, benchmarks, predict, signature.cut_off, say)
    gates = evaluate.sorted_results([*gates, *further])
    say(f"  {words}")
    source = signature.imported
    facts: dict[str, Any] = {
        "holdout": {
            "since": iso(dataset.times[rows][0]), "rows": len(scores), "positives": int(scored.labels.sum()),
        },
        "import": {
            "words": words,
            "source": source.source if source else None,
            "sourceSha256": source.source_sha256 if source else None,
            "trainedUntil": until.isoformat().replace("+00:00", "Z") if until else None,
        },
        "warnings": [],
    }  # fmt: skip
    verdict = Verdict(
        metrics=metrics,
        gates=gates,
        champion=against,
        cut_off=signature.cut_off,
        fit_seconds=0.0,
        trained_until=None if until is None else _microseconds(until),
        rows=0,
        facts=facts,
        judged=Judged(scored, signature.features, matrix, given.predict),
    )
    return replace(verdict, files=given.files) if verdict.passed else verdict


def _matrix(signature: Signature, dataset: Dataset, rows: slice) -> Floats:
    """The rows as the model takes them. DataInvalid where they hold what it refuses."""
    columns = dataset.named([Want(feature.name, feature.type) for feature in signature.features], rows)
    check_rows(signature.features, columns)
    return encode.matrix(columns, signature.features)


def _scores(given: Taken, matrix: Floats) -> Floats:
    try:
        parts = [given.predict(matrix[start : start + _AT_ONCE]) for start in range(0, len(matrix), _AT_ONCE)]
    except Exception as error:  # whatever a model says of rows that do not fit it
        raise ImportInvalid(
            f"the imported model does not answer the rows of spec.data ({type(error).__name__}: {error!s:.300}); give "
            "it rows as those that it was trained on"
        ) from error
    return np.concatenate(parts)


def _rows(request: TrainRequest, dataset: Dataset, until: int | None) -> tuple[slice, str]:
    """The rows that judge it, and how far they are new to it."""
    if until is None:
        at = evaluate.split(dataset.times, dataset.labels, request.evaluation.holdout.latest_fraction).at
        return slice(at, None), "imported; whether it was trained on these rows nobody said"
    at = int(np.searchsorted(dataset.times, until, side="right"))
    labels = dataset.labels[at:]
    if len(set(labels.tolist())) < 2:
        seen = f"{counted(len(labels), 'labelled row')} of one class" if len(labels) else "no labelled row"
        raise DataInvalid(
            f"the imported model was trained until {iso(until)}, and {seen} of spec.data.window is newer; both classes "
            "are needed: wait for newer rows, or widen the window"
        )
    return slice(at, None), f"imported; all of these rows are newer than its training, which ended {iso(until)}"


def check_rows(
    features: Sequence[SignatureFeature], columns: Mapping[str, Any], whose: str = "the imported model"
) -> None:
    """DataInvalid, with the column, where rows hold what the model refuses and a server would refuse for it."""
    for feature in features:
        column = columns[feature.name]
        if feature.nulls == "Refuse":
            count = column.null_count if isinstance(column, pa.Array) else int(nulls(column, feature.type).sum())
            if count:
                raise DataInvalid(
                    f"{feature.name}: {counted(count, 'row')} of {len(column):,} have no value, and {whose} "
                    "takes no nulls there; write a value, or give the model an imputer"
                )
        if feature.type == "Category" and feature.unknown == "Refuse":
            codes = encode.codes(feature.name, column, feature.categories or [])
            found = np.flatnonzero(codes < 0)
            if len(found):
                raise DataInvalid(
                    f"{feature.name}: {counted(len(found), 'row')} of {len(column):,} hold a value that {whose} "
                    f"does not know, the first {column[int(found[0])].as_py()!r:.60}; train it on such rows, or "
                    "let its encoder ignore unknown values"
                )


def _microseconds(moment: datetime) -> int:
    return round((moment - EPOCH).total_seconds() * MICROSECONDS)


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
