"""Further sets of rows that a model must get right: read like the Model's own data, judged by gates of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from truekeep.api.data import Label
from truekeep.api.evaluation import Benchmark, Evaluation
from truekeep.api.trainingrun import GateResult
from truekeep.contract.requests import TrainRequest
from truekeep.scores.metrics import Floats, Scored
from truekeep.sources.places import Opened
from truekeep.sources.read import Pin
from truekeep.trainer.data.dataset import DataFault, Dataset, load
from truekeep.trainer.judging import evaluate
from truekeep.trainer.text import counted

Say = Callable[[str], None]


@dataclass(frozen=True)
class LoadedBenchmark:
    """A set and its rows."""

    declared: Benchmark
    dataset: Dataset

    @property
    def pins(self) -> tuple[Pin, ...]:
        """What was read, for the record."""
        return tuple(replace(pin, source=f"benchmark {self.declared.name}") for pin in self.dataset.pins)


def read(request: TrainRequest, opened: Opened, now: int, say: Say) -> list[LoadedBenchmark]:
    """All that are declared. DataFault, with the set's name, where its rows are not as the Model declares its data."""
    found = []
    for one in request.evaluation.benchmarks:
        # All of its rows, however old, each with its label beside it; the rules are about what trains.
        alone = {"source": one.source, "label": Label(column=request.data.label.column), "joins": [], "rules": [],
                 "window": None, "sample": None}  # fmt: skip
        try:
            dataset = load(request.data.model_copy(update=alone), [], opened, now, say)
        except DataFault as fault:
            fault.args = (f"evaluation.benchmarks {one.name}: {fault}",)
            raise
        found.append(LoadedBenchmark(one, dataset))
    return found


def judge(
    evaluation: Evaluation,
    benchmarks: Sequence[LoadedBenchmark],
    predict: Callable[[Dataset], Floats],
    cut_off: float,
    say: Say,
) -> list[GateResult]:
    """What their gates say, each under the set's name."""
    results = []
    for one in benchmarks:
        scored = Scored(one.dataset.labels, predict(one.dataset), cut_off)
        own = Evaluation(gates=one.declared.gates, costs=evaluation.costs)
        say(f"benchmark {one.declared.name}: {counted(len(scored.labels), 'row')}")
        for result in evaluate.judge(own, scored, {}):
            named = result.model_copy(update={"name": f"{one.declared.name}/{result.name}"})
            say(f"  {named.result}: {evaluate.sentence(named)}")
            results.append(named)
    return results
