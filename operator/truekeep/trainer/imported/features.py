"""What a model from elsewhere takes: its columns found in a sample, their types and categories, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from truekeep.api.data import Feature
from truekeep.contract.artifact import UNKNOWN_CATEGORY, UNKNOWN_TEXT, ImportedInput, SignatureFeature
from truekeep.features import encode
from truekeep.features.imported import Predict
from truekeep.profiling.tables import feature_type
from truekeep.trainer.faults import ImportInvalid
from truekeep.trainer.imported import source as import_source
from truekeep.trainer.imported.source import Source

MOST_CATEGORIES = 2000  # as in a Model
MOST_FEATURES = 250  # likewise


@dataclass(frozen=True)
class Wishes:
    """What the user says of the sample's columns, beyond what they say themselves."""

    columns: tuple[str, ...] = ()  # the model's inputs in order; empty: what the model names, else all that are left
    label: str | None = None
    leave_out: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()  # columns of codes that are no quantities
    features: tuple[Feature, ...] = ()  # as a Model declares them
    codes: bool = False  # text in a column whose input takes numbers: it takes the categories' positions


@dataclass(frozen=True)
class Inputs:
    """How the model is fed. `columns`: the sample's values by feature, as `features.encode` takes them."""

    features: list[SignatureFeature]
    inputs: list[ImportedInput]
    numbers: tuple[str, ...]
    columns: dict[str, Any] = field(repr=False)
    codes: tuple[str, ...] = ()  # features of type Category whose positions the model takes


def inputs_of(source: Source, sample: pa.Table, wishes: Wishes) -> Inputs:
    """The model's inputs in the sample. ImportInvalid, with column and remedy, where they don't fit."""
    if source.graph is None:
        return _of_scikit_learn(source, sample, wishes)
    return _of_onnx(source, sample, wishes)


def _of_scikit_learn(source: Source, sample: pa.Table, wishes: Wishes) -> Inputs:
    count = import_source.width(source.model)
    own = import_source.names(source.original)
    names = list(wishes.columns) or own or _left(sample, wishes)
    if len(names) != count:
        whose = "--columns names" if wishes.columns else "the sample has, besides the label,"
        raise ImportInvalid(
            f"the model takes {count} columns, and {whose} {len(names)}: {_listed(names)}; name its columns in their "
            "order with --columns"
        )
    looked_at = import_source.used(source.model, count)
    known = import_source.known_categories(source.model, count)
    declared = [(name, values) for name, values, wanted in zip(names, known, looked_at, strict=True) if wanted]
    features, numbers, columns = _features(sample, declared, wishes)
    kinds = {feature.name: feature.type for feature in features}
    texts = any(kinds[name] == "Category" and name not in numbers for name in kinds)
    floats = all(sample.schema.field(name).type == pa.float32() for name in kinds)
    given = ImportedInput(
        type="Mixed" if texts else "Float32" if floats else "Float64",
        features=[name if wanted else "" for name, wanted in zip(names, looked_at, strict=True)],
    )
    return Inputs(features, [given], numbers, columns)


def _of_onnx(source: Source, sample: pa.Table, wishes: Wishes) -> Inputs:
    assert source.graph is not None
    graph = source.graph
    left = list(wishes.columns) or _left(sample, wishes)
    by_name = {one.name: [one.name] for one in graph.inputs if one.width == 1 and one.name in left}
    rest = [name for name in left if name not in by_name]
    for one in graph.inputs:
        if one.name in by_name:
            continue
        count = one.width if one.width is not None else len(rest)
        taken, rest = rest[:count], rest[count:]
        if len(taken) != count or not count:
            raise ImportInvalid(
                f"input {one.name!r:.80} of the model takes {count} columns, and the sample has only {len(taken)} for "
                "it; give the sample columns of the inputs' names, or name them in their order with --columns"
            )
        by_name[one.name] = taken
    if rest and (wishes.columns or len(graph.inputs) == 1):
        raise ImportInvalid(
            f"the model has no input for {_listed(rest)}; leave them out with --leave-out, or name the model's columns "
            "in their order with --columns"
        )
    texts = [name for one in graph.inputs if one.type == "Text" for name in by_name[one.name]]
    words = sorted(graph.texts) if len(graph.texts) <= MOST_CATEGORIES else []
    # Which of the file's texts belong to which input it does not say; one too many does no harm, one missing would.
    known = [(name, words if name in texts else []) for one in graph.inputs for name in by_name[one.name]]
    features, numbers, columns = _features(sample, known, wishes)
    codes = [
        one.name for one in features if one.type == "Category" and one.name not in numbers and one.name not in texts
    ]
    for feature in features:
        if feature.name in codes and not wishes.codes:
            raise ImportInvalid(
                f"column {feature.name!r} of the sample holds text, and its input of the model takes numbers; check "
                "the order with --columns"
            )
        if feature.type == "Number" and feature.name in texts:
            raise ImportInvalid(
                f"column {feature.name!r} of the sample holds numbers, and its input of the model takes text; write it "
                "as text into the sample"
            )
    inputs = [ImportedInput(name=one.name, type=one.type, features=by_name[one.name]) for one in graph.inputs]
    return Inputs(features, inputs, numbers, columns, tuple(codes))


def _left(sample: pa.Table, wishes: Wishes) -> list[str]:
    """The sample's columns without the label and those that are left out."""
    out = {*wishes.leave_out, *([wishes.label] if wishes.label else [])}
    return [name for name in sample.column_names if name not in out]


def _features(
    sample: pa.Table, declared: Sequence[tuple[str, list[Any]]], wishes: Wishes
) -> tuple[list[SignatureFeature], tuple[str, ...], dict[str, Any]]:
    """Features by the sample's types; those of type Category whose values are numbers; the values by name."""
    asked = {one.name: one for one in wishes.features}
    names = [name for name, _ in declared]
    for told in (*wishes.categories, *asked):
        if told not in names:
            raise ImportInvalid(f"column {told!r} is none of the model's inputs: {_listed(names)}; correct the name")
    if wishes.label in names:
        raise ImportInvalid(
            f"--label {wishes.label!r} is an input of the model, which would know the answer; train it without, "
            "or name another label"
        )
    if len(names) > MOST_FEATURES:
        raise ImportInvalid(f"the model has {len(names)} inputs, at most {MOST_FEATURES} are served")
    if len(set(names)) != len(names):
        raise ImportInvalid(f"a column feeds two inputs of the model: {_listed(names)}; name each once with --columns")
    features, numbers, columns = [], [], {}
    for name, values in declared:
        if name not in sample.column_names:
            raise ImportInvalid(
                f"column {name!r} of the model is not in the sample; it has {_listed(sample.column_names)}"
            )
        kind = feature_type(sample.schema.field(name).type)
        if kind is None:
            raise ImportInvalid(
                f"column {name!r} of the sample is of type {sample.schema.field(name).type}; a model is served numbers "
                "and text: make it one of these before the pipeline"
            )
        wish = asked.get(name)
        if kind == "Number" and (name in wishes.categories or (wish is not None and wish.type == "Category")):
            kind = "Category"
            numbers.append(name)
        elif wish is not None and wish.type != kind:
            raise ImportInvalid(f"column {name!r} is declared a {wish.type}, and holds text in the sample")
        try:
            convert = encode.numbers if kind == "Number" else encode.texts
            columns[name] = convert(name, sample[name])
        except encode.FeatureError as error:
            raise ImportInvalid(f"column {error} (of the sample)") from error
        if kind == "Number" and np.isinf(columns[name]).any():
            raise ImportInvalid(f"column {name!r} of the sample holds an infinity; no request may carry one")
        features.append(
            SignatureFeature(
                name=name,
                type=kind,
                categories=_categories(name, columns[name], values) if kind == "Category" else None,
                minimum=float(wish.minimum) if wish and wish.minimum else None,
                maximum=float(wish.maximum) if wish and wish.maximum else None,
                nulls=wish.nulls if wish else "Allow",
                unknown="Refuse" if name in numbers else "Allow",
            )
        )
    return features, tuple(numbers), columns


def _categories(name: str, column: Any, known: Sequence[Any]) -> list[str]:
    """Those of the sample and those that the model was fitted on."""
    texts = {text for value in known if (text := _text(value)) is not None}
    found = sorted(texts | {text for text in column.unique().to_pylist() if text is not None})
    if UNKNOWN_TEXT in found:
        raise ImportInvalid(f"column {name!r} holds {UNKNOWN_TEXT!r}, which stands for unknown values; rename it")
    if len(found) > MOST_CATEGORIES:
        raise ImportInvalid(f"column {name!r} has {len(found):,} distinct values, at most {MOST_CATEGORIES:,} are kept")
    return found


def _text(value: Any) -> str | None:
    try:
        return encode.category_text(value)
    except (TypeError, UnicodeDecodeError):
        return None


def probed(
    features: Sequence[SignatureFeature], matrix: npt.NDArray[np.float64], predict: Predict
) -> tuple[list[SignatureFeature], dict[str, str]]:
    """The features with what the model refuses, found out by asking it; and the reasons, for people. `matrix`: rows
    that it answers, shape (rows, features)."""
    reasons: dict[str, str] = {}
    found = []
    for position, feature in enumerate(features):
        update: dict[str, str] = {}
        if feature.nulls == "Allow" and (why := _refusal(matrix[:1], position, np.nan, predict)):
            update["nulls"] = "Refuse"
            reasons[feature.name] = f"null: {why}"
        if feature.type == "Category" and feature.unknown == "Allow":
            why = _refusal(matrix[:1], position, UNKNOWN_CATEGORY, predict)
            if why:
                update["unknown"] = "Refuse"
                reasons[feature.name] = "; ".join([*filter(None, [reasons.get(feature.name)]), f"unknown value: {why}"])
        found.append(feature.model_copy(update=update))
    return found, reasons


def _refusal(row: npt.NDArray[np.float64], position: int, value: float, predict: Predict) -> str:
    """Why the model does not answer the row with this value at this place; empty where it does."""
    asked = row.copy()
    asked[0, position] = value
    try:
        answer = predict(asked)
    except Exception as error:  # scikit-learn's ValueError, mostly; whatever it is, the model does not answer
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]:.200}"
    return "" if np.isfinite(answer).all() else "the answer is not a finite number"


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
