"""What a tuning tries and how it decides. Pure: the same spec, seed, data and trials, the same answer.

Search is scikit-learn's: ParameterGrid, and ParameterSampler (Bergstra and Bengio 2012). Folds are TimeSeriesSplit's,
within the rows before the holdout: fitted on what was before, scored on what came then.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from truekeep.api.training import Parameter, Recipe
from truekeep.api.tuning import Range, Tuning
from truekeep.contract.requests import TrainRequest
from truekeep.contract.tuning import TrialParameter, TrialResult
from truekeep.scores.metrics import Scored, value
from truekeep.trainer import fit
from truekeep.trainer.data.dataset import Dataset
from truekeep.trainer.faults import DataInvalid, InputFault
from truekeep.trainer.judging import evaluate
from truekeep.trainer.text import counted, decimal, iso

DIGITS = 9  # of a score: what is more may differ between processors
SIGNIFICANT = 6  # digits of a number that was drawn
MOST_WORDS = 500

Parameters = tuple[TrialParameter, ...]


@dataclass(frozen=True)
class Fold:
    """Positions of rows in the order of time: fitted on [0, begin), scored on [begin, end)."""

    begin: int
    end: int


def combinations(tuning: Tuning, seed: int) -> list[Parameters]:
    """The parameters of every trial, by its index; each in the order of their names."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    space: dict[str, Any] = {
        one.name: _Drawn(one.range) if one.range else list(one.values or ())
        for one in sorted(tuning.parameters, key=lambda one: one.name)
    }
    if tuning.search == "Grid":
        found: Any = ParameterGrid(space)
    else:
        found = ParameterSampler(space, tuning.count, random_state=seed)
    return [tuple(TrialParameter(name=name, value=str(chosen[name])) for name in sorted(chosen)) for chosen in found]


class _Drawn:
    """A range as ParameterSampler takes it: what `rvs` answers is a parameter's text."""

    def __init__(self, among: Range) -> None:
        self._low, self._high = float(among.low), float(among.high)
        self._log, self._whole = among.scale == "Log", among.type == "Integer"

    def rvs(self, *_: Any, random_state: np.random.RandomState, **__: Any) -> str:
        low, high = self._low, self._high + self._whole  # of whole numbers the last one is as wide as the others
        if self._log:
            drawn = math.exp(random_state.uniform(math.log(low), math.log(high)))
        else:
            drawn = random_state.uniform(low, high)
        if self._whole:
            return str(min(int(self._high), max(int(low), math.floor(drawn))))
        return repr(min(self._high, max(low, float(f"{drawn:.{SIGNIFICANT}g}"))))


def recipe_with(recipe: Recipe, parameters: Parameters) -> Recipe:
    """The recipe with a trial's parameters, as if somebody had written them there, and nothing left to tune."""
    chosen = [Parameter(name=one.name, value=one.value) for one in parameters]
    return recipe.model_copy(update={"parameters": [*recipe.parameters, *chosen], "tuning": None})


def folds(request: TrainRequest, tuning: Tuning, dataset: Dataset) -> list[Fold]:
    """The folds, the oldest first. Rows of the same time stay together, in the later part.

    DataInvalid where a part has one class only."""
    from sklearn.model_selection import TimeSeriesSplit

    at = evaluate.split(dataset.times, dataset.labels, request.evaluation.holdout.latest_fraction).at
    if at <= tuning.folds:
        raise DataInvalid(
            f"recipe.tuning.folds {tuning.folds}: there are {counted(at, 'row')} before the holdout, and each fold "
            "needs some of its own; widen spec.data.window, or use fewer folds"
        )
    parts = TimeSeriesSplit(n_splits=tuning.folds).split(np.empty(at))
    begins = [int(np.searchsorted(dataset.times, dataset.times[tested[0]], side="left")) for _, tested in parts]
    found = [Fold(begin, end) for begin, end in zip(begins, [*begins[1:], at], strict=True)]
    for number, fold in enumerate(found, start=1):
        sides = (("before", dataset.labels[: fold.begin]), ("in", dataset.labels[fold.begin : fold.end]))
        for where, labels in sides:
            if len(labels) and 0 < int((labels == 1).sum()) < len(labels):
                continue
            raise DataInvalid(
                f"recipe.tuning.folds {tuning.folds}: the {counted(len(labels), 'row')} {where} fold {number}, which "
                f"begins at {iso(dataset.times[fold.begin])}, are of one class; both are needed, so widen "
                "spec.data.window, or use fewer folds"
            )
    return found


class OutOfTime(Exception):  # noqa: N818  no error: the budget is over
    """The budget ended between two folds."""


def judge(
    request: TrainRequest,
    index: int,
    parameters: Parameters,
    dataset: Dataset,
    parts: Sequence[Fold],
    threads: int,
    clock: Callable[[], float],
    until: float,
) -> TrialResult:
    """One trial: fitted and scored on each fold. `clock` and `until` in seconds; a fold that began is finished.

    The cut-off of metrics that need one is chosen on the fold by evaluation.decision, as on the holdout later."""
    recipe, tuning = _declared(request)
    tried = recipe_with(recipe, parameters)
    scores: list[float] = []
    said: list[str] = []
    started = clock()

    def ended(status: Any, message: str = "") -> TrialResult:
        whole = bool(scores) and len(scores) == len(parts) and not any(map(math.isnan, scores))
        return TrialResult(
            index=index,
            parameters=parameters,
            status=status,
            training_fingerprint=request.training_fingerprint,
            data_digest=dataset.read.digest,
            scores=tuple(decimal(score, DIGITS) for score in scores),
            mean=decimal(math.fsum(scores) / len(scores), DIGITS) if whole else None,
            seconds=decimal(clock() - started, 3),
            message=message[:MOST_WORDS],
        )

    for number, part in enumerate(parts, start=1):
        if clock() >= until:
            return ended("OutOfTime", f"the time was up before fold {number} of {len(parts)}")
        try:
            scores.append(_score(request, tried, tuning, dataset, part, threads, said))
        except InputFault as fault:
            return ended("Refused", str(fault))
    if any(map(math.isnan, scores)):
        return ended("NotDefined", f"{tuning.metric} is not defined on every fold")
    return ended("Scored", "; ".join(dict.fromkeys(said)))


def _score(
    request: TrainRequest, recipe: Recipe, tuning: Tuning, dataset: Dataset, part: Fold, threads: int, said: list[str]
) -> float:
    tested = slice(part.begin, part.end)
    features, fitted = fit.fit_on(request, recipe, dataset, slice(None, part.begin), threads)
    said += fitted.warnings
    labels = dataset.labels[tested]
    probabilities = fit.probabilities(request, features, fitted, dataset, tested)
    cut_off = evaluate.choose_cut_off(request.evaluation, labels, probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return value(tuning.metric, Scored(labels, probabilities, cut_off))


def _declared(request: TrainRequest) -> tuple[Recipe, Tuning]:
    recipe = request.training.recipe
    if recipe is None or recipe.tuning is None:
        raise ValueError(f"run {request.run} has no tuning in its recipe")
    return recipe, recipe.tuning


def best(results: Sequence[TrialResult]) -> TrialResult | None:
    """The trial with the greatest mean, of equal ones the one with the lowest index; None where none was scored."""
    scored = [one for one in results if one.status == "Scored" and one.mean is not None]
    return min(scored, key=lambda one: (-float(one.mean or "nan"), one.index), default=None)
