"""Hyperparameters as the estimator judges them, without any data: names, types and bounds of single values."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from truekeep.api.training import Parameter, Recipe
from truekeep.cli.admission import Fault

RECIPE = "spec.training.recipe"


def refused(recipe: Recipe) -> Iterator[Fault]:
    """Those that no run could take. Nothing where the estimator's package is not installed here."""
    if not _asked(recipe) or _missing(recipe.estimator):
        return
    from truekeep.trainer.faults import ParametersInvalid
    from truekeep.trainer.recipe import pipeline

    def told(*tried: Parameter) -> str | None:
        try:
            pipeline.check(recipe.model_copy(update={"parameters": [*recipe.parameters, *tried], "tuning": None}))
        except ParametersInvalid as error:
            return str(error)
        return None

    if found := told():
        yield Fault(f"{RECIPE}.parameters", found)
        return
    for number, one in enumerate(recipe.tuning.parameters if recipe.tuning else ()):
        path = f"{RECIPE}.tuning.parameters[{number}]"
        if one.range:
            given = [(f"{path}.range.low", one.range.low), (f"{path}.range.high", one.range.high)]
            if one.range.type == "Decimal":
                given = [(place, text if "." in text else f"{text}.0") for place, text in given]
        else:
            given = [(f"{path}.values[{place}]", text) for place, text in enumerate(one.values or ())]
        for place, value in given:
            if found := told(Parameter(name=one.name, value=value)):
                yield Fault(place, found)


def unchecked(document: dict[str, Any]) -> str:
    """Words about what could not be checked here, of a sound document; none where there is nothing."""
    given = document.get("spec", {}).get("training", {}).get("recipe") if document.get("kind") == "Model" else None
    if not given:
        return ""
    recipe = Recipe.model_validate(given)
    missing = _missing(recipe.estimator) if _asked(recipe) else None
    return f"; its parameters are not checked, because the package {missing} is missing" if missing else ""


def _asked(recipe: Recipe) -> bool:
    return bool(recipe.parameters or recipe.tuning)


def _missing(estimator: str) -> str | None:
    """The first package that is not there."""
    return next(
        (name for name in (estimator.partition(".")[0], "sklearn", "skops", "pyarrow") if not find_spec(name)), None
    )
