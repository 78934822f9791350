"""The trials of a run on a store: what one pod of the stage Tune does, and all of them in turn on a laptop.

The first pod pins the data; all others, and the training, read the same objects. A trial's result is written once: a
pod that is started again finds it and is done. What is wrong with the data is not told here: the training reads the
same data and tells it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from truekeep.api.tuning import Tuning
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import TrainRequest
from truekeep.contract.tuning import TrialResult, TuningInputs
from truekeep.sources.places import Opened
from truekeep.storage import ObjectMissing
from truekeep.storage.artifacts import Store
from truekeep.trainer.data import comparison
from truekeep.trainer.data.dataset import Dataset, load
from truekeep.trainer.data.pinned import pinned, read_back, written
from truekeep.trainer.faults import DataChanged, InputFault, TuningFailed
from truekeep.trainer.text import EPOCH, MICROSECONDS, counted
from truekeep.trainer.tuning import search as tuning

if TYPE_CHECKING:
    from truekeep.trainer.run import World


@dataclass(frozen=True)
class Prepared:
    """What a trial needs."""

    inputs: TuningInputs
    dataset: Dataset
    folds: list[tuning.Fold]


class Trials:
    """The trials of one run; the data is read once for all that this process does."""

    def __init__(self, request: TrainRequest, store: Store, world: World) -> None:
        recipe = request.training.recipe
        if recipe is None or recipe.tuning is None:
            raise TuningFailed("spec.training.recipe has no tuning; add it, or do without the stage Tune")
        self.request, self.store, self.world = request, store, world
        self.tuning: Tuning = recipe.tuning
        self.parameters = tuning.combinations(recipe.tuning, recipe.seed)
        self.started = world.now()
        self._prepared: Prepared | None = None

    def done(self, index: int) -> bool:
        """Whether a trial has its result. StoreError."""
        return read_trial(self.store, self.request, index) is not None

    def run(self, index: int) -> TrialResult | None:
        """One trial, done now or earlier; None where none can begin, which the training tells of. StoreError."""
        if (done := read_trial(self.store, self.request, index)) is not None:
            self.world.say(f"trial {index} is done already: {done.status}")
            return done
        found = self.prepared()
        if isinstance(found, str):
            self.world.say(f"trial {index} does not begin: {found}")
            return None
        until = self.until(found.inputs)
        result = tuning.judge(
            self.request,
            index,
            self.parameters[index],
            found.dataset,
            found.folds,
            self.world.threads,
            lambda: self.world.now().timestamp(),
            until.timestamp(),
        )
        return self.keep(result)

    def until(self, inputs: TuningInputs) -> datetime:
        """When the budget is over."""
        return inputs.started + timedelta(seconds=budget(self.request))

    def out_of_time(self, index: int) -> TrialResult:
        """What a trial is whose time was up while it fitted, unless it was done just now."""
        words = "the time was up while it fitted"
        return self.keep(
            TrialResult(
                index=index,
                parameters=self.parameters[index],
                status="OutOfTime",
                training_fingerprint=self.request.training_fingerprint,
                message=words,
            )
        )

    def keep(self, result: TrialResult) -> TrialResult:
        """Write the result; where another pod of this index was first, its result."""
        key = _trial_key(self.request, result.index)
        if not self.store.put(key, canonical_json(result.dump()), only_if_absent=True):
            self.world.say("another pod of this trial was first; its result stands")
            return TrialResult.model_validate_json(self.store.get(key))
        values = ", ".join(f"{one.name} {one.value}" for one in result.parameters)
        told = f"{self.tuning.metric} {result.mean}" if result.mean else result.message
        self.world.say(f"trial {result.index} ({values}): {result.status}, {told}")
        return result

    def prepared(self) -> Prepared | str:
        """The data as the first pod pinned it, or why there is none to try on."""
        if self._prepared is not None:
            return self._prepared
        inputs = read_inputs(self.store, self.request)
        dataset = None
        if inputs is None:
            inputs, dataset = self._pin()
        if inputs.training_fingerprint != self.request.training_fingerprint:
            return "the Model changed since the first trial began"
        if inputs.fault:
            return inputs.fault
        try:
            if dataset is None:
                dataset = load(self.request.data, [], *again(self.world.opened, inputs), self.world.say)
            parts = tuning.folds(self.request, self.tuning, dataset)
        except InputFault as fault:
            return str(fault)
        self._prepared = Prepared(inputs, dataset, parts)
        return self._prepared

    def _pin(self) -> tuple[TuningInputs, Dataset | None]:
        """Read the data as it is now, and say so to the others. Where another pod was first, its word, and no data."""
        dataset = None
        fault = ""
        try:
            known = comparison.known(self.request, self.store, self.world.opened)
            now = microseconds(self.started)
            dataset = load(self.request.data, [], self.world.opened, now, self.world.say, known)
            tuning.folds(self.request, self.tuning, dataset)
        except InputFault as error:
            fault = str(error)
        mine = TuningInputs(
            training_fingerprint=self.request.training_fingerprint,
            started=self.started,
            image=self.request.image,
            objects=tuple(written(dataset.pins)) if dataset else (),
            digest=dataset.read.digest if dataset else None,
            fault=fault[:2048],
        )
        key = _inputs_key(self.request)
        if self.store.put(key, canonical_json(mine.dump()), only_if_absent=True):
            self.world.say(f"pinned {counted(len(mine.objects), 'object')} for all trials")
            return mine, dataset
        first = TuningInputs.model_validate_json(self.store.get(key))
        return first, dataset if first.objects == mine.objects else None


def tune(request: TrainRequest, store: Store, world: World) -> None:
    """All trials, one after the other. StoreError."""
    trials = Trials(request, store, world)
    for index in range(trials.tuning.count):
        if trials.run(index) is None:
            return


def budget(request: TrainRequest) -> int:
    """Seconds for all trials together."""
    recipe = request.training.recipe
    declared = recipe.tuning.timeout_seconds if recipe and recipe.tuning else None
    return declared or request.training.timeout_seconds // 2


def again(opened: Opened, inputs: TuningInputs) -> tuple[Opened, int]:
    """How to read what the first trial read, and the moment at which it did."""
    return pinned(opened, read_back(inputs.objects)), microseconds(inputs.started)


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return round((moment - EPOCH).total_seconds() * MICROSECONDS)


def read_inputs(store: Store, request: TrainRequest) -> TuningInputs | None:
    """What all trials go by; None where no pod came so far."""
    try:
        return TuningInputs.model_validate_json(store.get(_inputs_key(request)))
    except ObjectMissing:
        return None


def read_trial(store: Store, request: TrainRequest, index: int) -> TrialResult | None:
    """How a trial ended; None where it did not."""
    try:
        return TrialResult.model_validate_json(store.get(_trial_key(request, index)))
    except ObjectMissing:
        return None


def read_trials(store: Store, request: TrainRequest, inputs: TuningInputs, count: int) -> Sequence[TrialResult]:
    """All that ended, by index. DataChanged where one is of other data or another spec, which no pod of ours writes."""
    found = [one for index in range(count) if (one := read_trial(store, request, index)) is not None]
    for one in found:
        if one.training_fingerprint != inputs.training_fingerprint or one.data_digest not in (None, inputs.digest):
            raise DataChanged(
                f"trial {one.index} of run {request.run} is of another spec or of other data than the first trial; "
                "trials of two are never compared: let the model be trained again"
            )
    return found


def _inputs_key(request: TrainRequest) -> str:
    return layout.tuning_inputs(request.namespace, request.model, request.run_uid)


def _trial_key(request: TrainRequest, index: int) -> str:
    return layout.tuning_trial(request.namespace, request.model, request.run_uid, index)
