"""What the training makes of the trials: the best one's parameters, and all of them for the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truekeep.api.training import Recipe
from truekeep.api.trainingrun import TunedValue, TuningSummary
from truekeep.api.tuning import Tuning
from truekeep.contract.requests import TrainRequest
from truekeep.contract.tuning import TrialResult, TuningInputs
from truekeep.storage.artifacts import Store
from truekeep.trainer.data.dataset import Dataset
from truekeep.trainer.faults import DataInvalid, TuningFailed
from truekeep.trainer.text import counted, iso
from truekeep.trainer.tuning import search as tuning
from truekeep.trainer.tuning.trial import budget, read_inputs, read_trials

LOST = "its pod left no result: it was killed, for memory or with its node, more often than it was tried again"


@dataclass(frozen=True)
class Told:
    """What is known of the trials."""

    facts: Mapping[str, Any]  # for the record
    summary: TuningSummary  # for the status


@dataclass(frozen=True)
class Chosen:
    """What a tuning came to. `recipe`: with the best trial's parameters, and nothing left to tune."""

    recipe: Recipe
    told: Told
    words: str


def inputs_of(request: TrainRequest, store: Store) -> TuningInputs | None:
    """What the trials went by; None where nothing is tuned. TuningFailed where there were no trials, or of another
    spec."""
    recipe = request.training.recipe
    if recipe is None or recipe.tuning is None:
        return None
    found = read_inputs(store, request)
    if found is None:
        raise TuningFailed(
            f"none of the {recipe.tuning.count} trials came so far as to read the data; look at the pods of the Job "
            f"{request.run}-tune, mend what they say, and let the model be trained again"
        )
    if found.training_fingerprint != request.training_fingerprint:
        raise TuningFailed(
            "the Model changed after the first trial began, and one run never mixes two specs; let the model be "
            "trained again"
        )
    return found


def choose(request: TrainRequest, store: Store, inputs: TuningInputs, dataset: Dataset) -> Chosen:
    """The best trial. TuningFailed where too few trials have a score, DataInvalid where the data made trials
    impossible. StoreError."""
    recipe = request.training.recipe
    if recipe is None or recipe.tuning is None:
        raise TuningFailed("spec.training.recipe has no tuning; add it, or do without the stage Tune")
    declared = recipe.tuning
    parts = tuning.folds(request, declared, dataset)
    if inputs.fault:
        raise DataInvalid(f"when the trials began: {inputs.fault}. Now the data is in order: train again")
    found = read_trials(store, request, inputs, declared.count)
    best = tuning.best(found)
    facts = _facts(request, recipe, declared, inputs, parts, found, dataset, best)
    scored = sum(one.status == "Scored" for one in found)
    summary = TuningSummary(
        trials=declared.count,
        scored=scored,
        metric=declared.metric,
        best=best.index if best else None,
        score=best.mean if best else None,
        parameters=[TunedValue(name=one.name, value=one.value) for one in best.parameters] if best else [],
    )
    told = Told(facts, summary)
    if best is None or scored < declared.needed:
        raise _too_few(declared, found, scored, told)
    values = ", ".join(f"{one.name} {one.value}" for one in best.parameters)
    words = f"trial {best.index} of {declared.count} was the best: {values} ({declared.metric} {best.mean} on folds)"
    return Chosen(tuning.recipe_with(recipe, best.parameters), told, words)


def _too_few(declared: Tuning, found: Sequence[TrialResult], scored: int, told: Told) -> TuningFailed:
    counts = Counter[str](one.status for one in found)
    counts.pop("Scored", None)
    if len(found) == declared.count == counts["Refused"]:
        first = found[0]
        words = f"all {counted(declared.count, 'trial')} were refused; trial 0: {first.message}"
        return TuningFailed(words, told, "ParametersInvalid")
    lost = declared.count - len(found)
    rest = [f"{counts[name]} {words}" for name, words in _WORDS.items() if counts[name]]
    rest += [f"{lost} without a result (look at the pods' ends: memory, node)"] if lost else []
    first_words = next((f"; trial {one.index}: {one.message}" for one in found if one.message and one.mean is None), "")
    return TuningFailed(
        f"{scored} of {counted(declared.count, 'trial')} have a score, {declared.needed} must "
        f"(recipe.tuning.minTrials): {', '.join(rest)}{first_words}. Raise recipe.tuning.timeoutSeconds or "
        "training.resources, or correct the parameters",
        told,
    )


_WORDS = {
    "Refused": "with parameters that the estimator refuses",
    "NotDefined": "whose metric is not defined on a fold",
    "OutOfTime": "that the time was too short for",
}


def _facts(
    request: TrainRequest,
    recipe: Recipe,
    declared: Tuning,
    inputs: TuningInputs,
    parts: Sequence[tuning.Fold],
    found: Sequence[TrialResult],
    dataset: Dataset,
    best: TrialResult | None,
) -> dict[str, Any]:
    by_index = {one.index: one for one in found}
    return {
        "search": declared.search,
        "metric": declared.metric,
        "seed": recipe.seed,
        "started": inputs.started.isoformat().replace("+00:00", "Z"),
        "timeoutSeconds": budget(request),
        "image": inputs.image,
        "dataDigest": inputs.digest,
        "folds": [
            {
                "since": iso(dataset.times[part.begin]),
                "until": iso(dataset.times[part.end - 1]),
                "trainRows": part.begin,
                "rows": part.end - part.begin,
                "positives": int((dataset.labels[part.begin : part.end] == 1).sum()),
            }
            for part in parts
        ],
        "trials": [
            _trial(by_index[index]) if index in by_index else _lost(index, parameters)
            for index, parameters in enumerate(tuning.combinations(declared, recipe.seed))
        ],
        "best": None if best is None else {"index": best.index, "mean": best.mean, "parameters": _values(best)},
    }


def _trial(one: TrialResult) -> dict[str, Any]:
    return {
        "index": one.index,
        "parameters": _values(one),
        "status": one.status,
        "scores": list(one.scores),
        "mean": one.mean,
        "seconds": one.seconds,
        "message": one.message,
    }


def _lost(index: int, parameters: tuning.Parameters) -> dict[str, Any]:
    values = [one.dump() for one in parameters]
    return {"index": index, "parameters": values, "status": "Lost", "scores": [], "mean": None, "seconds": None,
            "message": LOST}  # fmt: skip


def _values(one: TrialResult) -> list[dict[str, Any]]:
    return [parameter.dump() for parameter in one.parameters]
