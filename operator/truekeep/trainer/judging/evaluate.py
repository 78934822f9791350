"""The verdict on rows that training never saw: holdout, cut-off, metrics, gates, slices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING
from decimal import Decimal as Exact
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from truekeep.api.evaluation import Costs, Evaluation, Fairness, Gate, Robustness, Slice
from truekeep.api.trainingrun import GateResult, MetricValue
from truekeep.scores.decisions import cheapest_cut_off, gate_value
from truekeep.scores.metrics import METRICS, Floats, Scored, value
from truekeep.sources.columns import codes
from truekeep.trainer.faults import DataInvalid, ParametersInvalid
from truekeep.trainer.judging.missing import Without
from truekeep.trainer.text import against, decimal, iso

MAX_GROUPS = 250
MAX_GATES = 64  # as many as a TrainingRun's status holds
NULL_GROUP = "(null)"


class Split(NamedTuple):
    """Rows in the order of time: train is [0, at), the holdout [at, rows)."""

    at: int
    rows: int


def split(times: npt.NDArray[np.int64], labels: npt.NDArray[Any], fraction: str) -> Split:
    """Cut off the newest fraction. Rows of the same time stay together, in the holdout.

    DataInvalid where a part has no row or one class only."""
    rows = len(times)
    wanted = int((Exact(fraction) * rows).to_integral_value(ROUND_CEILING))
    at = int(np.searchsorted(times, times[rows - wanted], side="left"))
    parts = (("training rows before", labels[:at]), ("holdout rows from", labels[at:]))
    for words, part in parts:
        positives = int((part == 1).sum())
        if positives in (0, len(part)):
            seen = f"all {len(part):,} {words} {iso(times[at])} are {part[0]}" if len(part) else f"no {words} it"
            raise DataInvalid(
                f"evaluation.holdout.latestFraction {fraction} cuts {rows:,} labelled rows at {iso(times[at])}: "
                f"{seen}; both classes are needed on both sides, so widen spec.data.window or change latestFraction"
            )
    return Split(at, rows)


def choose_cut_off(evaluation: Evaluation, labels: npt.NDArray[Any], probabilities: Floats) -> float:
    """The cut-off by the declared rule, on the holdout: a row is positive where its probability is at least that.
    ParametersInvalid where the rule lacks what it needs, which the API server refuses."""
    decision = evaluation.decision
    if decision is None:
        return 0.5
    if decision.rule == "LeastCost":
        if evaluation.costs is None:
            raise ParametersInvalid("evaluation.decision.rule LeastCost needs evaluation.costs; add it")
        return cheapest_cut_off(labels, probabilities, evaluation.costs)
    if decision.value is None:
        raise ParametersInvalid(f"evaluation.decision.rule {decision.rule} needs a value; add it")
    if decision.rule == "Fixed":
        return float(decision.value)
    negatives = np.sort(probabilities[labels != 1])[::-1]
    allowed = math.floor(float(decision.value) * len(negatives) + 1e-9)  # 0.1 * 70 is 7, not 6.999…
    if allowed >= len(negatives):
        return 0.0
    # Above the first negative that must not be taken; the lowest score that is, so that the cut-off is one that occurs.
    higher = probabilities[probabilities > negatives[allowed]]
    return float(higher.min()) if len(higher) else float(np.nextafter(negatives[allowed], np.inf))


def metrics(scored: Scored) -> list[MetricValue]:
    """Every metric there is."""
    return [MetricValue(name=name, value=decimal(value(name, scored))) for name in METRICS]


def judge(
    evaluation: Evaluation, scored: Scored, columns: Mapping[str, Any], without: Without | None = None
) -> list[GateResult]:
    """What all gates say, by slice and group and with missing columns too, the worst first, those that were not judged
    last. `columns`: of the same rows, by name; `without`: who scores some of the rows with a column missing."""
    results = [_gate(gate, scored, evaluation.costs) for gate in evaluation.gates]
    for one in evaluation.slices:
        results += _slice(one, scored, columns[one.column])
    results += [_fairness(one, scored, columns[one.column]) for one in evaluation.fairness]
    for robust in evaluation.robustness:
        results += _robustness(robust, scored, without)
    return sorted_results(results)


def sorted_results(results: Sequence[GateResult]) -> list[GateResult]:
    """The worst first, those that were not judged last."""
    order = {"Failed": 0, "Passed": 1, "NotJudged": 2}
    return sorted(results, key=lambda result: (order[result.result], _margin(result)))


def failed(results: Sequence[GateResult]) -> list[GateResult]:
    """Those that did not pass."""
    return [result for result in results if result.result == "Failed"]


def sentence(result: GateResult) -> str:
    """Example: gate auc: roc_auc 0.6321 is below 0.65 on 10,247 rows."""
    missed = "is below" if result.bound == "Minimum" else "is above"
    verdict = {"Failed": missed, "Passed": "meets", "NotJudged": "is not judged against"}[result.result]
    return f"gate {result.name}: {result.metric} {result.value} {verdict} {result.threshold} on {result.rows:,} rows"


def _margin(result: GateResult) -> float:
    margin = float(result.value) - float(result.threshold)
    return -math.inf if math.isnan(margin) else margin if result.bound == "Minimum" else -margin


def _gate(gate: Gate, scored: Scored, costs: Costs | None) -> GateResult:
    bound = gate.minimum if gate.minimum is not None else gate.maximum
    if bound is None:
        raise ParametersInvalid(f"gate {gate.name} has neither minimum nor maximum; add one")
    try:
        found = gate_value(gate, scored, costs)
    except ValueError as error:
        raise ParametersInvalid(str(error)) from error
    limit = float(bound)
    passed = found >= limit if gate.minimum is not None else found <= limit
    return GateResult(
        name=gate.name,
        metric=gate.metric,
        value=against(found, limit, upper=gate.minimum is None),
        threshold=bound,
        bound="Minimum" if gate.minimum is not None else "Maximum",
        result="Passed" if passed else "Failed",
        rows=len(scored.labels),
    )


def _slice(one: Slice, scored: Scored, column: Any) -> Iterator[GateResult]:
    minimum = float(one.minimum)
    for group, mask in _groups(one, column):
        rows = int(mask.sum())
        part = Scored(scored.labels[mask], scored.probabilities[mask], scored.cut_off)
        found = value(one.metric, part)
        judged = rows >= one.min_rows and not math.isnan(found)
        yield GateResult(
            name=f"{one.name}={group}"[:160],
            metric=one.metric,
            value=against(found, minimum),
            threshold=one.minimum,
            result=("Passed" if found >= minimum else "Failed") if judged else "NotJudged",
            rows=rows,
        )


def _fairness(one: Fairness, scored: Scored, column: Any) -> GateResult:
    """One result a gate; its name says between which two groups the difference is."""
    taken = scored.probabilities >= scored.cut_off
    groups = [(name, mask) for name, mask in _groups(one, column) if mask.sum() >= one.min_rows]
    if one.metric == "demographic_parity_difference":
        among = [np.ones(len(taken), dtype=np.bool_)]
    else:
        among = [scored.labels == 1, scored.labels != 1]
    widest = (math.nan, "")
    for rows in among:
        rates = [(float(taken[mask & rows].mean()), name) for name, mask in groups if (mask & rows).any()]
        if len(rates) > 1 and not max(rates)[0] - min(rates)[0] <= widest[0]:
            widest = (max(rates)[0] - min(rates)[0], f"{max(rates)[1]}/{min(rates)[1]}")
    difference, between = widest
    maximum = float(one.maximum)
    return GateResult(
        name=f"{one.name}={between}"[:160] if between else one.name,
        metric=one.metric,
        value=against(difference, maximum, upper=True),
        threshold=one.maximum,
        bound="Maximum",
        result="NotJudged" if math.isnan(difference) else "Passed" if difference <= maximum else "Failed",
        rows=sum(int(mask.sum()) for _, mask in groups),
    )


def _robustness(one: Robustness, scored: Scored, without: Without | None) -> Iterator[GateResult]:
    if without is None:
        raise ParametersInvalid(f"evaluation.robustness {one.name}: this model can't be asked again; remove it")
    part = Scored(scored.labels[without.rows], scored.probabilities[without.rows], scored.cut_off)
    whole = value(one.metric, part)
    minimum = whole - float(one.max_drop)
    for name in one.columns or without.columns:
        found = value(one.metric, part._replace(probabilities=without.scores(name)))
        judged = not (math.isnan(found) or math.isnan(whole))
        yield GateResult(
            name=f"{one.name}={name}",
            metric=one.metric,
            value=against(found, minimum),
            threshold=decimal(minimum, 6),
            result=("Passed" if found >= minimum else "Failed") if judged else "NotJudged",
            rows=len(part.labels),
        )


def _groups(one: Slice | Fairness, column: Any) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Groups of equal values by their text, nulls as one of their own."""
    if isinstance(column, np.ndarray):
        distinct, position = np.unique(np.where(np.isnan(column), np.nan, column), return_inverse=True)
        names = [NULL_GROUP if np.isnan(number) else f"{number:g}" for number in distinct]
    else:
        position, values = codes(column)
        names = values.to_pylist()
        if (position < 0).any():
            position = np.where(position < 0, len(names), position)
            names.append(NULL_GROUP)
    if len(names) > MAX_GROUPS:
        raise DataInvalid(
            f"{'slice' if isinstance(one, Slice) else 'fairness gate'} {one.name}: {one.column} has {len(names):,} "
            f"distinct values, at most {MAX_GROUPS} make groups; "
            "slice by another feature"
        )
    for number, name in sorted(enumerate(names), key=lambda item: item[1]):
        yield name, position == number
