"""Fit, judge, compare, refit: from a data set to a verdict and, where it is good, an artifact's files. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.api.training import Recipe
from truekeep.api.trainingrun import ChampionResult, GateResult, MetricValue
from truekeep.contract import layout
from truekeep.contract.artifact import Performance, Signature, SignatureFeature
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import TrainRequest
from truekeep.features import encode, models
from truekeep.scores.metrics import Floats, Scored
from truekeep.scores.results import results
from truekeep.sources.columns import Want
from truekeep.trainer.data.dataset import Dataset
from truekeep.trainer.faults import ParametersInvalid
from truekeep.trainer.judging import benchmarks as benchmark
from truekeep.trainer.judging import compare, evaluate
from truekeep.trainer.judging.benchmarks import LoadedBenchmark
from truekeep.trainer.judging.missing import Without, without
from truekeep.trainer.onnx import model as onnx_model
from truekeep.trainer.recipe import bundle, pipeline
from truekeep.trainer.record.evidence import Judged
from truekeep.trainer.text import EPOCH, MICROSECONDS, counted, decimal, iso

Say = Callable[[str], None]


@dataclass(frozen=True)
class LoadedChampion:
    """The live revision's artifact as far as it could be read; `fault` says why not."""

    signature: Signature | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)  # those that can answer
    fault: str = ""

    def wants(self) -> list[Want]:
        """The columns that it must be fed."""
        return [Want(feature.name, feature.type) for feature in self.signature.features] if self.signature else []


@dataclass(frozen=True)
class Verdict:
    """What came out. `files` is empty where the model must not serve."""

    metrics: list[MetricValue]
    gates: list[GateResult]
    champion: ChampionResult | None
    cut_off: float
    fit_seconds: float
    trained_until: int | None  # microseconds since 1970; None: nobody knows
    rows: int  # that the published model was fitted on
    facts: dict[str, Any]  # for the record: where the holdout begins, rows, what scikit-learn warned of
    files: dict[str, bytes] = field(default_factory=dict)
    judged: Judged | None = None  # for the report
    performance: Performance | None = None  # likewise, where it is known: on the rows that judged it

    @property
    def passed(self) -> bool:
        """Whether it may serve."""
        return not evaluate.failed(self.gates) and (self.champion is None or self.champion.result != "Failed")


def train(
    request: TrainRequest,
    dataset: Dataset,
    champion: LoadedChampion | None,
    threads: int,
    say: Say,
    benchmarks: Sequence[LoadedBenchmark] = (),
) -> Verdict:
    """The whole recipe on labelled rows in time's order. InputFault where data or parameters make it impossible."""
    recipe, evaluation = request.training.recipe, request.evaluation
    if recipe is None:
        raise ParametersInvalid("spec.training has no recipe; give it one, or an import")
    wants = wants_of(request)
    at = evaluate.split(dataset.times, dataset.labels, evaluation.holdout.latest_fraction).at
    old, new = slice(None, at), slice(at, None)
    features, fitted = fit_on(request, recipe, dataset, old, threads)
    say(f"fitted {recipe.estimator} on {counted(at, 'row')} in {fitted.seconds:.1f} s")

    holdout = _matrix(dataset, wants, features, new)
    scores = fitted.probabilities(holdout)
    cut_off = evaluate.choose_cut_off(evaluation, dataset.labels[new], scores)
    scored = Scored(dataset.labels[new], scores, cut_off)
    absent = without(features, holdout, fitted.probabilities) if evaluation.robustness else None
    metrics, gates, against = judged(request, dataset, new, scored, champion, say, absent)

    def predict(rows: Dataset) -> Floats:
        return probabilities(request, features, fitted, rows, slice(None))

    gates = evaluate.sorted_results([*gates, *benchmark.judge(evaluation, benchmarks, predict, cut_off, say)])
    facts: dict[str, Any] = {
        "holdout": {"since": iso(dataset.times[at]), "rows": len(scores), "positives": int(scored.labels.sum())},
        "train": {"rows": at, "positives": int(dataset.labels[old].sum()), "until": iso(dataset.times[at - 1])},
        "warnings": list(fitted.warnings),
        "pipeline": pipeline.described(recipe, features, fitted.pipeline),
    }
    seconds = fitted.seconds
    until = int(dataset.times[at - 1])
    asked = Judged(scored, features, holdout, fitted.probabilities)
    verdict = Verdict(metrics, gates, against, cut_off, seconds, until, at, facts, judged=asked)
    if not verdict.passed:
        return verdict

    rows = old
    if evaluation.refit == "OnAllRows":
        rows = slice(None)
        features, fitted = fit_on(request, recipe, dataset, rows, threads)
        seconds += fitted.seconds
        until = int(dataset.times[-1])
        say(f"fitted again on all {counted(len(dataset), 'row')} in {fitted.seconds:.1f} s")
        facts["refit"] = {"rows": len(dataset), "warnings": list(fitted.warnings)}
        facts["pipeline"] = pipeline.described(recipe, features, fitted.pipeline)
    draft = Signature(estimator=recipe.estimator, features=features, cut_off=cut_off, examples=[])
    holdout = _matrix(dataset, wants, features, new)
    files = bundle.files(fitted.pipeline, draft, dataset.named(wants, rows), scores, holdout, threads)
    shown = results(scored)
    files[layout.PERFORMANCE] = canonical_json(shown.dump())
    compiled = Signature.model_validate_json(files[layout.SIGNATURE]).compiled
    if compiled is not None:
        say(onnx_model.sentence(compiled))
        facts["onnx"] = compiled.dump()
    return replace(
        verdict,
        fit_seconds=seconds,
        trained_until=until,
        rows=len(dataset.times[rows]),
        files=files,
        performance=shown,
    )


def fit_on(
    request: TrainRequest, recipe: Recipe, dataset: Dataset, rows: slice, threads: int
) -> tuple[list[SignatureFeature], pipeline.Fitted]:
    """The recipe fitted on these rows alone, and its inputs, whose categories are those of these rows. InputFault."""
    wants = wants_of(request)
    features = bundle.signature_features(request.data.features, dataset.named(wants, rows))
    matrix = _matrix(dataset, wants, features, rows)
    return features, pipeline.fit(recipe, features, matrix, dataset.labels[rows], threads)


def probabilities(
    request: TrainRequest, features: Sequence[SignatureFeature], fitted: pipeline.Fitted, dataset: Dataset, rows: slice
) -> Floats:
    """What the fitted recipe says of these rows, shape (rows,)."""
    return fitted.probabilities(_matrix(dataset, wants_of(request), features, rows))


def wants_of(request: TrainRequest) -> list[Want]:
    """The columns of the Model's features."""
    return [Want(feature.name, feature.type) for feature in request.data.features]


def judged(
    request: TrainRequest,
    dataset: Dataset,
    rows: slice,
    scored: Scored,
    champion: LoadedChampion | None,
    say: Say,
    absent: Without | None = None,
) -> tuple[list[MetricValue], list[GateResult], ChampionResult | None]:
    """Metrics, gates and the comparison with the live revision, on these rows, which the model never saw."""
    wants = wants_of(request)
    metrics = evaluate.metrics(scored)
    gates = evaluate.judge(request.evaluation, scored, dataset.named(wants, rows), absent)
    since = iso(dataset.times[rows][0])
    say(f"judged on {counted(len(scored.labels), 'row')} since {since}: " + _listed(metrics))
    for gate in gates:
        say(f"  {gate.result}: {evaluate.sentence(gate)}")
    against = _against(request, dataset, rows, scored, champion)
    if against is not None:
        say(f"  {against.result}: {compared(against)}")
    return metrics, gates, against


def compared(result: ChampionResult) -> str:
    """The comparison in a sentence."""
    if result.result == "NotJudged":
        return f"revision {result.revision}: {result.rule}"
    return (
        f"{result.metric} {result.challenger}, revision {result.revision} has {result.champion} on the same "
        f"{counted(result.rows, 'row')}, difference {result.low} to {result.high}; {result.rule}"
    )


def _matrix(
    dataset: Dataset, wants: Sequence[Want], features: Sequence[SignatureFeature], rows: slice
) -> npt.NDArray[np.float64]:
    return encode.matrix(dataset.named(wants, rows), features)


def _against(
    request: TrainRequest, dataset: Dataset, holdout: slice, scored: Scored, champion: LoadedChampion | None
) -> ChampionResult | None:
    """The comparison with the live revision, where one is declared and there is one."""
    rule = request.evaluation.champion
    if rule is None or request.champion is None or champion is None:
        return None
    revision = request.champion.revision
    if champion.signature is None:
        return compare.not_judged(rule, revision, f"its artifact can't be used: {champion.fault}")
    until = request.champion.trained_until
    if until is None:  # it may have been fitted on these very rows, and would win
        return compare.not_judged(rule, revision, "nobody knows until when its training data goes")
    mask = dataset.times[holdout] > round((until - EPOCH).total_seconds() * MICROSECONDS)
    if not mask.any():
        return compare.not_judged(rule, revision, f"no row of the holdout is newer than its training ({until})")
    try:
        predict, _ = models.predictor(champion.files, champion.signature)
        columns = dataset.named(champion.wants(), holdout)
        scores = predict(encode.matrix(columns, champion.signature.features))
    except (models.ArtifactFaultError, encode.FeatureError) as error:
        return compare.not_judged(rule, revision, f"it can't be scored on this data: {error}")
    mine = Scored(scored.labels[mask], scored.probabilities[mask], scored.cut_off)
    other = Scored(scored.labels[mask], scores[mask], champion.signature.cut_off)
    seed = request.training.recipe.seed if request.training.recipe else 0
    return compare.judge(rule, revision, mine, other, seed, request.evaluation.costs)


def _listed(metrics: Sequence[MetricValue]) -> str:
    return ", ".join(f"{metric.name} {decimal(float(metric.value))}" for metric in metrics)
