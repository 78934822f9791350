"""A recipe's transformers as steps of a scikit-learn Pipeline, each a ColumnTransformer of what the one before made.

What the steps leave undone the recipe does as it does without them: categories that are left become indicators (or stay
native), nulls of numbers are filled, and numbers are scaled where the estimator is linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from truekeep.api.features import (
    Clip,
    DateParts,
    Impute,
    Log,
    Ordinal,
    Ratio,
    Scale,
    TargetEncode,
    Transformer,
)
from truekeep.api.training import Recipe
from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.canonical import digest_of, sha256
from truekeep.features.plan import PATH, Column, Plan, PlanError, Stage, plan
from truekeep.trainer.faults import DataInvalid, ParametersInvalid
from truekeep.trainer.recipe import canonical_skops

Part = tuple[str, Any, list[int]]  # of a ColumnTransformer: name, transformer, positions
PREFIX = "step-"  # of the names of declared steps in the Pipeline


@dataclass(frozen=True)
class Prepared:
    """Unfitted steps, and the columns of the matrix that the estimator gets; of indicators that are made of categories
    only fitting tells how many there are, so `columns` are those before."""

    steps: list[tuple[str, Any]]
    columns: tuple[Column, ...]


def planned(recipe: Recipe, features: Sequence[SignatureFeature]) -> Plan:
    """The plan. ParametersInvalid where the steps do not fit together."""
    try:
        return plan(features, recipe.transformers)
    except PlanError as error:
        raise ParametersInvalid(str(error)) from error


def prepare(
    recipe: Recipe, features: Sequence[SignatureFeature], *, native: bool, fills: bool, scales: bool
) -> Prepared:
    """All steps before the estimator. `native`: it takes categories as codes; `fills`: it can't take nulls, so they are
    filled for it; `scales`: its numbers are brought onto a common scale.

    ParametersInvalid where the steps do not fit together, DataInvalid where they do not fit the data's categories."""
    planning = planned(recipe, features)
    categories = {feature.name: feature.categories or [] for feature in features}
    layout = planning.inputs
    steps: list[tuple[str, Any]] = []
    for stage in planning.stages:
        transformer, layout = _stage(stage, layout, categories, recipe.seed)
        steps.append((f"{PREFIX}{stage.step.name}", transformer))
    final = _native(planning, layout) if native else _encoded(planning, layout, fills=fills, scales=scales)
    if final is None:
        return Prepared(steps, layout)
    parts, layout = final
    return Prepared([*steps, ("features", _columns(parts))], layout)


def forget(steps: Sequence[tuple[str, Any]]) -> None:
    """Leave of the folds of cross-fitting nothing but their number: they are no part of what was learned."""
    from sklearn.preprocessing import TargetEncoder

    for _, step in steps:
        for _, part, *_ in (*step.transformers, *getattr(step, "transformers_", ())):
            if isinstance(part, TargetEncoder) and not isinstance(part.cv, int):
                part.cv = part.cv.get_n_splits()


def described(recipe: Recipe, features: Sequence[SignatureFeature], pipeline: Any) -> dict[str, Any]:
    """For the record: what the features become before the estimator, and the digest of it, what was learned included.

    The digest is of the features as they are served (types, categories) and of the fitted steps as a canonical skops
    file of their own, so that whoever has the artifact can compute it again."""
    planning = planned(recipe, features)
    before = pipeline[:-1]
    content = canonical_skops.dumps(before) if before.steps else None
    declared = [feature.dump() for feature in features]
    return {
        "digest": digest_of({"features": declared, "steps": None if content is None else sha256(content)}),
        "steps": [
            {
                "name": stage.step.name,
                "kind": stage.step.kind,
                "takes": [column.name for column in stage.takes],
                "makes": [column.name for column in (*stage.makes, *stage.flags)],
            }
            for stage in planning.stages
        ],
        "indicators": [column.name for _, column in planning.indicators],
        "columns": [column.name for column in planning.columns],
    }


def _columns(parts: list[Part]) -> Any:
    from sklearn.compose import ColumnTransformer

    return ColumnTransformer([part for part in parts if part[2]])


def _places(layout: Sequence[Column], columns: Sequence[Column]) -> list[int]:
    where = {id(column): place for place, column in enumerate(layout)}
    return [where[id(column)] for column in columns]


def _stage(
    stage: Stage, layout: Sequence[Column], categories: dict[str, list[str]], seed: int
) -> tuple[Any, tuple[Column, ...]]:
    """The transformer of a stage, and the columns of the matrix that it makes."""
    if stage.step.impute:
        made = list(_imputers(stage, stage.step.impute, categories))
    else:
        made = [(_transformer(stage.step, stage.takes, categories, seed), stage.takes, stage.makes)]
    parts: list[Part] = [
        (f"{stage.step.kind}-{number}", transformer, _places(layout, takes))
        for number, (transformer, takes, _) in enumerate(made)
    ]
    parts.append(("others", "passthrough", _places(layout, stage.passes)))
    return _columns(parts), (*(column for _, _, makes in made for column in makes), *stage.passes)


def _imputers(
    stage: Stage, impute: Impute, categories: dict[str, list[str]]
) -> Iterator[tuple[Any, tuple[Column, ...], tuple[Column, ...]]]:
    """What fills which columns, and what comes of it: numbers together, and so categories, but for a constant, which
    is another code in each."""
    from sklearn.impute import MissingIndicator, SimpleImputer

    pairs = list(zip(stage.takes, stage.makes, strict=True))
    groups: list[list[tuple[Column, Column]]] = [[pair for pair in pairs if pair[0].type == "Number"]]
    others = [pair for pair in pairs if pair[0].type == "Category"]
    groups += [[pair] for pair in others] if impute.value is not None else [others]
    strategy = {"Median": "median", "Mean": "mean", "MostFrequent": "most_frequent", "Constant": "constant"}
    for group in groups:
        if not group:
            continue
        takes, makes = tuple(one for one, _ in group), tuple(one for _, one in group)
        value = None
        if impute.value is not None:
            number = takes[0].type == "Number"
            value = float(impute.value) if number else _code(stage.step, takes[0], impute.value, categories)
        filler = SimpleImputer(strategy=strategy[impute.strategy], fill_value=value, keep_empty_features=True)
        yield filler, takes, makes
    if stage.flags:
        yield MissingIndicator(features="all", error_on_new=False), stage.takes, stage.flags


def _code(step: Transformer, column: Column, text: str, categories: dict[str, list[str]]) -> float:
    known = categories[column.origin[0]]
    if text not in known:
        raise DataInvalid(
            f"{PATH} ({step.name}): impute.value {text!r:.80} is no category that {column.name} has in the training "
            f"rows; write one of {', '.join(known[:20])}"
        )
    return float(known.index(text))


def _transformer(step: Transformer, takes: Sequence[Column], categories: dict[str, list[str]], seed: int) -> Any:
    """Of a kind that treats all its columns alike."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler, TargetEncoder

    from truekeep.features import transform

    made: Any
    match step:
        case Transformer(scale=Scale() as scale):
            made = {"Standard": StandardScaler, "Robust": RobustScaler, "MinMax": MinMaxScaler}[scale.method]()
        case Transformer(log=Log() as log):
            made = transform.Log(offset=float(log.offset))
        case Transformer(clip=Clip() as clip):
            limits = (clip.low, clip.high, clip.low_quantile, clip.high_quantile)
            made = transform.Clip(*(None if limit is None else float(limit) for limit in limits))
        case Transformer(ratio=Ratio()):
            made = transform.Ratio()
        case Transformer(date_parts=DateParts() as dates):
            made = transform.DateParts(parts=list(dates.parts), encoding=dates.encoding, time_zone=dates.time_zone)
        case Transformer(ordinal=Ordinal() as ordinal):
            made = transform.Lookup(_ranks(step, takes, ordinal.order, categories))
        case Transformer(target_encode=TargetEncode() as target):
            folds: Any = StratifiedKFold(target.folds, shuffle=True, random_state=seed)
            smooth = "auto" if target.smoothing is None else float(target.smoothing)
            made = TargetEncoder(target_type="binary", smooth=smooth, cv=folds)
        case _:
            raise AssertionError(f"no transformer for {step.kind}")
    return made


def _ranks(step: Transformer, takes: Sequence[Column], order: Sequence[str], categories: dict[str, list[str]]) -> Any:
    """By column and code: the position in the order; NaN for a category that is not in it."""
    known = [categories[column.origin[0]] for column in takes]
    ranks = np.full((len(known), max(1, *map(len, known))), np.nan)
    place = {text: float(number) for number, text in enumerate(order)}
    for row, texts in enumerate(known):
        ranks[row, : len(texts)] = [place.get(text, np.nan) for text in texts]
        if texts and np.isnan(ranks[row]).all():
            raise DataInvalid(
                f"{PATH} ({step.name}): ordinal.order has no category that {takes[row].name} has in the training rows; "
                f"write these in their order: {', '.join(texts[:20])}"
            )
    return ranks


def _one_hot(step: Transformer | None, dense: bool) -> Any:
    """The indicators of a declared step, or, without one, of a category that was left."""
    from sklearn.preprocessing import OneHotEncoder

    declared = step.one_hot if step else None
    if declared is None or (declared.min_frequency is None and declared.max_categories is None):
        return OneHotEncoder(handle_unknown="ignore", sparse_output=not dense)
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=declared.min_frequency,
        max_categories=declared.max_categories,
        sparse_output=not dense,
    )


def _indicators(planning: Plan, layout: Sequence[Column], dense: bool) -> list[tuple[Part, tuple[Column, ...]]]:
    return [
        ((f"oneHot-{number}", _one_hot(step, dense), _places(layout, [column])), (column,))
        for number, (step, column) in enumerate(planning.indicators)
    ]


def _native(planning: Plan, layout: tuple[Column, ...]) -> tuple[list[Part], tuple[Column, ...]] | None:
    """For an estimator that takes all columns as they are, once indicators are made and times are gone. None where
    there is nothing to do. The columns that are left come first, so that their positions do not depend on how many
    indicators there are."""
    if not planning.indicators and len(planning.columns) == len(layout):
        return None
    made = _indicators(planning, layout, dense=True)
    left: Part = ("others", "passthrough", _places(layout, planning.columns))
    return [left, *(part for part, _ in made)], planning.columns


def _encoded(
    planning: Plan, layout: tuple[Column, ...], *, fills: bool, scales: bool
) -> tuple[list[Part], tuple[Column, ...]]:
    """For the others: what is left of numbers filled and scaled as far as no step did it, categories as indicators."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    numbers = [column for column in planning.columns if column.type == "Number"]
    groups: dict[tuple[bool, bool], list[Column]] = {}
    for column in numbers:
        groups.setdefault((fills and not column.filled, scales and not column.scaled), []).append(column)
    kinds: dict[tuple[bool, bool], tuple[str, Any]] = {
        (True, True): ("number", Pipeline([("impute", imputer), ("scale", StandardScaler())])),
        (True, False): ("filled", imputer),
        (False, True): ("scaled", StandardScaler()),
        (False, False): ("others", "passthrough"),
    }
    parts: list[Part] = []
    taken: list[Column] = []
    for group, (name, transformer) in kinds.items():
        columns = groups.get(group, [])
        parts.append((name, transformer, _places(layout, columns)))
        taken += columns
    categories = [column for column in planning.columns if column.type == "Category"]
    # Not sparse where nulls stay: in a sparse matrix XGBoost takes a zero for a null.
    parts.append(("category", _one_hot(None, dense=not fills), _places(layout, categories)))
    parts += [part for part, _ in _indicators(planning, layout, dense=not fills)]
    return parts, (*taken, *categories)
