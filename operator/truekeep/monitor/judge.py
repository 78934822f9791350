"""The judgement on a window. Pure: the same profiles and settings, the same report.

A column has drifted when its effect reaches `minimumEffect` *and* its test is significant after correction over all
columns (Holm). Effect and test: of numbers the Kolmogorov-Smirnov distance and its significance (chi-square where the
reference has only a few distinct numbers, which Kolmogorov's limit would judge too mildly); of categories the total
variation, less sampling noise, and Pearson's chi-square over cells that are pooled until each expects five rows.

Where `minimumEffect` is 0.1 at most, numbers are also judged as if they were categories: ten equal shares of the
reference, and what lies below and above it. Rows that gather in the middle of a distribution part the distribution
functions by half of what they weigh. A larger `minimumEffect` is for windows whose shape is never that of training (the
weather of a week), of which only a change of place is to count.

At most `falseAlarmsPerThousandWindows` in a thousand windows alarm although nothing moved. Three tenths of that are
spent on drift and one on the tests of data quality (`quality`, where breaks and breaches are told apart); the rest is
kept back, because chi-square's tail is only an approximation, and the promise must hold in a trial of 2,000 windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from truekeep.api.driftpolicy import DataDrift, FindingKind, Statistic
from truekeep.monitor import quality, words
from truekeep.monitor.quality import Defect
from truekeep.monitor.report import ColumnReport, Facts, ReportFinding, Severity, Significance, Statistics, WindowReport
from truekeep.profiling import statistics
from truekeep.profiling.schema import PREDICTION, CategoryProfile, ColumnProfile, Errors, NumberProfile, Profile

DRIFT_PART = 0.3  # of the false alarms allowed
QUALITY_PART = 0.1
SHAPE_UP_TO = 0.1  # greatest minimumEffect with which the shape of numbers counts
DISCRETE = 50  # distinct numbers in the reference up to which the chi-square test decides
TOGETHER = "(together)"  # stands for the column where all features are meant
KINDS: tuple[FindingKind, ...] = ("DataQuality", "DataDrift", "PredictionDrift")


@dataclass(frozen=True)
class Settings:
    """What counts as a breach; see `api.driftpolicy`."""

    min_rows: int = 500
    false_alarms_per_thousand_windows: int = 10
    minimum_effect: float = 0.03
    ignore: frozenset[str] = frozenset()
    named: Mapping[str, tuple[Statistic, float]] = field(default_factory=dict)  # by column: statistic, smallest effect
    together: float | None = None  # smallest effect of all features at once; None: they are judged one by one
    dropped: frozenset[str] = frozenset()  # features that capture leaves out, or hashes, on purpose

    @property
    def alpha(self) -> float:
        """Probability of an alarm where nothing moved, over all columns of a window."""
        return self.false_alarms_per_thousand_windows / 1000


def settings_of(drift: DataDrift, min_rows: int, dropped: frozenset[str] = frozenset()) -> Settings:
    """What a policy says of drift."""
    return Settings(
        min_rows=min_rows,
        false_alarms_per_thousand_windows=drift.false_alarms_per_thousand_windows,
        minimum_effect=float(drift.minimum_effect),
        ignore=frozenset(drift.ignore),
        together=float(drift.together.minimum_effect) if drift.together else None,
        named={one.name: (one.statistic, float(one.minimum_effect)) for one in drift.columns},
        dropped=dropped,
    )


@dataclass(frozen=True)
class Measured:
    """A column that can be compared."""

    statistics: Statistics
    effect: float
    p_value: float
    statistic: str  # which one `effect` is
    threshold: float  # from which it counts


def judge(reference: Profile, window: Profile, settings: Settings, season: Profile | None = None) -> WindowReport:
    """The report on a window that was counted on the reference's cells (`profiling.build.WindowSketch`).

    `season`: other rows, on the same cells, that drift is judged against in the reference's place (`seasons`); whether
    the data is broken, or has a category that the model does not know, is for the reference to say all the same."""
    if window.rows < settings.min_rows:
        return WindowReport(rows=window.rows, verdict="InsufficientData")
    pairs = [
        (then, window.column(then.name) or _absent(then, window.rows))
        for then in reference.columns
        if then.name not in settings.dropped
    ]
    defects = {then.name: _significant(quality.defects(then, now), pairs, settings) for then, now in pairs}
    broken = {name for name, found in defects.items() if any(defect.severity == "Break" for defect in found)}
    basis = {then.name: (season and season.column(then.name)) or then for then, _ in pairs}
    measured = {
        then.name: measure(basis[then.name], now, settings)
        for then, now in pairs
        if then.name not in broken and _enough(basis[then.name], now)
    }
    rows = _together(reference, window, settings, season)
    tested = [column.p_value for column in measured.values()] + ([rows.test.p_value] if rows else [])
    corrected = statistics.holm(np.array(tested) / DRIFT_PART).clip(max=1.0).tolist()
    p_values = dict(zip(measured, corrected, strict=False))
    weights = _weights([then for then, _ in pairs])

    columns = [
        _column(
            basis[then.name],
            now,
            measured.get(then.name),
            p_values.get(then.name),
            settings,
            broken=then.name in broken,
        )
        for then, now in pairs
    ]
    findings = [
        finding
        for column, (then, now) in zip(columns, pairs, strict=True)
        for finding in _findings(column, basis[then.name], now, defects[then.name], weights[then.name])
    ]
    if rows is not None:
        column = _rows_column(rows, corrected[-1], settings.alpha)
        columns.append(column)
        findings += _rows_finding(column, rows)
    left_out = tuple(then.name for then in reference.columns if then.name in settings.dropped)
    return _report(window.rows, settings, findings, columns).model_copy(
        update={"left_out": left_out, "compared_rows": season.rows if season else None}
    )


def measure(reference: ColumnProfile, window: ColumnProfile, settings: Settings) -> Measured:
    """All statistics that apply to a column, its effect and the significance of it, not corrected."""
    if reference.type == "Number":
        found = _numbers(reference.numeric, window.numeric, settings.minimum_effect)
    else:
        found = _categories(reference.categorical, window.categorical, settings.minimum_effect)
    return _named(found, *settings.named[reference.name]) if reference.name in settings.named else found


def _named(found: Measured, statistic: Statistic, threshold: float) -> Measured:
    """By the statistic that the policy names. Whether chance explains it is tested as always."""
    values = found.statistics
    effect = {
        "KolmogorovSmirnov": values.kolmogorov_smirnov.value if values.kolmogorov_smirnov else None,
        "TotalVariation": values.corrected_total_variation,
        "PopulationStability": values.corrected_population_stability,
        "JensenShannon": values.corrected_jensen_shannon,
        "Wasserstein": values.wasserstein,
    }[statistic]
    if effect is None:  # a constant has no standard deviations
        return replace(found, threshold=threshold if found.statistic == statistic else found.threshold)
    return replace(found, effect=effect, statistic=statistic, threshold=threshold)


@dataclass(frozen=True)
class Rows:
    """All features of a row at once, then and now."""

    then: Errors
    now: Errors
    test: statistics.Test
    threshold: float


def _together(reference: Profile, window: Profile, settings: Settings, season: Profile | None) -> Rows | None:
    """The reconstruction error (`profiling.space`); None where it is not asked for, or not known on both sides."""
    then = (season.errors if season else None) or (reference.space.errors if reference.space else None)
    now = window.errors
    if settings.together is None or then is None or now is None or min(then.rows, now.rows) < quality.FEW_VALUES:
        return None
    first = statistics.Sample(then.rows, then.mean, then.standard_deviation)
    second = statistics.Sample(now.rows, now.mean, now.standard_deviation)
    return Rows(then, now, statistics.means(first, second), settings.together)


def _rows_column(rows: Rows, p_corrected: float, alpha: float) -> ColumnReport:
    def facts(errors: Errors) -> Facts:
        deviation = errors.standard_deviation
        return Facts(rows=errors.rows, values=errors.rows, missing=0.0, mean=errors.mean, standard_deviation=deviation)

    effect = rows.test.value
    return ColumnReport(
        name=TOGETHER,
        type="Number",
        kind="DataDrift",
        judged=True,
        drifted=effect >= rows.threshold and p_corrected <= alpha,
        statistic="ReconstructionError",
        effect=effect,
        threshold=rows.threshold,
        p_value=rows.test.p_value,
        p_corrected=p_corrected,
        reference=facts(rows.then),
        window=facts(rows.now),
    )


def _rows_finding(column: ColumnReport, rows: Rows) -> list[ReportFinding]:
    if not column.drifted:
        return []
    words_ = f"rows as a whole: reconstruction error {words.number(rows.then.mean)} → {words.number(rows.now.mean)}, "
    effect = column.effect or 0.0
    return [
        ReportFinding(
            kind="DataDrift",
            column=TOGETHER,
            statistic="ReconstructionError",
            value=decimal(effect),
            threshold=decimal(rows.threshold),
            p_value=decimal(column.p_corrected or 0.0),
            message=f"{words_}{words.number(effect)} standard deviations of a row's",
            severity="Breach",
            effect=min(1.0, effect),
            score=min(1.0, effect),
        )
    ]


def _numbers(reference: NumberProfile, window: NumberProfile, minimum_effect: float) -> Measured:
    then, now = np.array(reference.counts), np.array(window.counts)
    distance = statistics.kolmogorov_smirnov(then, now)
    grouped = statistics.tenths(then, now)
    chi = statistics.chi_square(*statistics.pool(*grouped))
    p_value = distance.p_value
    if reference.resolution == 0.0 and np.count_nonzero(then) <= DISCRETE:
        p_value = statistics.chi_square(*statistics.pool(then, now)).p_value
    effect, statistic = distance.value, "KolmogorovSmirnov"
    shaped = statistics.pool(*statistics.tenths(then, now, tails=True))
    shape = statistics.corrected_total_variation(*shaped)
    if minimum_effect <= SHAPE_UP_TO:
        p_value = min(1.0, 2 * min(p_value, statistics.chi_square(*shaped).p_value))  # the better one of two
        if effect < minimum_effect <= shape:
            effect, statistic = shape, "TotalVariation"
    quantiles = {quantile.q: quantile.value for quantile in reference.quantiles}
    edges = np.array(reference.edges)
    area = statistics.wasserstein(then, now, edges, quantiles[0.01], quantiles[0.99])
    spread = (quantiles[0.75] - quantiles[0.25]) / 1.349 or (reference.standard_deviation or 0.0)
    found = Statistics(
        population_stability=statistics.population_stability(*grouped),
        jensen_shannon=statistics.jensen_shannon(*grouped),
        corrected_population_stability=statistics.corrected_population_stability(*grouped),
        corrected_jensen_shannon=statistics.corrected_jensen_shannon(*grouped),
        chi_square=_significance(chi),
        g_test=_significance(statistics.g_test(*statistics.pool(*grouped))),
        kolmogorov_smirnov=_significance(distance),
        resolution=reference.resolution,
        wasserstein=_finite(area / spread) if spread and np.isfinite(spread) else None,
        corrected_total_variation=shape,
    )
    return Measured(found, effect, p_value, statistic, minimum_effect)


def _categories(reference: CategoryProfile, window: CategoryProfile, minimum_effect: float) -> Measured:
    then_by, now_by = reference.by_value, window.by_value
    names = sorted(then_by.keys() | now_by.keys())  # an order that tells nothing of the counts, see `pool`
    then = np.array([*(then_by.get(name, 0) for name in names), reference.other])
    now = np.array([*(now_by.get(name, 0) for name in names), window.other])
    pooled = statistics.pool(then, now)
    chi = statistics.chi_square(*pooled)
    effect = statistics.corrected_total_variation(*pooled)
    found = Statistics(
        population_stability=statistics.population_stability(*pooled),
        jensen_shannon=statistics.jensen_shannon(*pooled),
        corrected_population_stability=statistics.corrected_population_stability(*pooled),
        corrected_jensen_shannon=statistics.corrected_jensen_shannon(*pooled),
        chi_square=_significance(chi),
        g_test=_significance(statistics.g_test(*pooled)),
        total_variation=statistics.total_variation(then, now),
        corrected_total_variation=effect,
    )
    return Measured(found, effect, chi.p_value, "TotalVariation", minimum_effect)


def _absent(reference: ColumnProfile, rows: int) -> ColumnProfile:
    return ColumnProfile(name=reference.name, type=reference.type, rows=rows, absent=rows)


def _enough(reference: ColumnProfile, window: ColumnProfile) -> bool:
    return min(reference.values, window.values) >= quality.FEW_VALUES


def _significant(
    found: Sequence[Defect], pairs: Sequence[tuple[ColumnProfile, ColumnProfile]], settings: Settings
) -> list[Defect]:
    """Those that chance does not explain, with p-values corrected over all tests of this kind (Bonferroni)."""
    factor = sum(quality.tests(then) for then, _ in pairs) / QUALITY_PART
    corrected = [defect._replace(p_value=min(1.0, defect.p_value * factor)) for defect in found]
    return [defect for defect in corrected if defect.p_value <= settings.alpha]


def _weights(columns: Sequence[ColumnProfile]) -> dict[str, float]:
    """How much a shift of each column matters: its part of the importance where all features have one, else 1."""
    features = [column for column in columns if column.name != PREDICTION]
    largest = max((column.importance or 0.0 for column in features), default=0.0)
    known = largest > 0 and all(column.importance is not None for column in features)
    return {
        column.name: max(0.0, column.importance or 0.0) / largest if known and column.name != PREDICTION else 1.0
        for column in columns
    }


def _column(
    then: ColumnProfile,
    now: ColumnProfile,
    measured: Measured | None,
    p_corrected: float | None,
    settings: Settings,
    *,
    broken: bool,
) -> ColumnReport:
    why_not = "" if measured else "the column is broken" if broken else f"fewer than {quality.FEW_VALUES} values"
    drifted = (
        measured is not None
        and p_corrected is not None
        and measured.effect >= measured.threshold
        and p_corrected <= settings.alpha
    )
    return ColumnReport(
        name=then.name,
        type=then.type,
        kind="PredictionDrift" if then.name == PREDICTION else "DataDrift",
        judged=measured is not None,
        why_not=why_not,
        ignored=then.name in settings.ignore,
        drifted=drifted,
        statistic=measured.statistic if measured else None,
        effect=measured.effect if measured else None,
        threshold=measured.threshold if measured else None,
        p_value=measured.p_value if measured else None,
        p_corrected=p_corrected,
        importance=then.importance,
        reference=_facts(then),
        window=_facts(now),
        statistics=measured.statistics if measured else None,
    )


def _facts(column: ColumnProfile) -> Facts:
    number, category = column.number, column.category
    rows = max(1, column.rows)
    return Facts(
        rows=column.rows,
        values=column.values,
        missing=quality.missing(column) / rows,
        infinite=number.infinite if number else 0,
        minimum=number.minimum if number else None,
        maximum=number.maximum if number else None,
        mean=number.mean if number else None,
        standard_deviation=number.standard_deviation if number else None,
        quantiles=number.quantiles if number else (),
        categories=sum(count > 0 for count in category.counts) + len(category.new) if category else None,
        unknown=category.unseen / rows if category else None,
    )


def _findings(
    column: ColumnReport, then: ColumnProfile, now: ColumnProfile, defects: Sequence[Defect], weight: float
) -> Iterator[ReportFinding]:
    """All that is said of a column; of one that is ignored, as notices."""
    for defect in defects:
        # What drift says of a column, its range need not say again.
        if not (column.drifted and defect.statistic == "OutsideTraining"):
            severity: Severity = "Notice" if column.ignored else defect.severity
            yield _of_defect(defect, then.name, severity, weight)
    if column.drifted:
        yield _of_drift(column, then, now, weight)


def _of_defect(defect: Defect, column: str, severity: Severity, weight: float) -> ReportFinding:
    return ReportFinding(
        kind=defect.kind,
        column=column[:63],
        statistic=defect.statistic,
        value=decimal(defect.value),
        threshold=decimal(defect.threshold),
        p_value=decimal(defect.p_value) if defect.severity != "Notice" else None,
        message=defect.message,
        severity=severity,
        effect=defect.value,
        score=defect.value * weight,
    )


def _of_drift(column: ColumnReport, then: ColumnProfile, now: ColumnProfile, weight: float) -> ReportFinding:
    effect = column.effect or 0.0
    if then.type == "Number":
        parts = words.moved_number(then.numeric, now.numeric)
    else:
        parts = words.moved_category(then.categorical, now.categorical)
    return ReportFinding(
        kind=column.kind,
        column=column.name[:63],
        statistic=column.statistic or "",
        value=decimal(effect),
        threshold=decimal(column.threshold or 0.0),
        p_value=decimal(column.p_corrected or 0.0),
        message=words.message(column.name, *parts),
        severity="Notice" if column.ignored else "Breach",
        effect=effect,
        score=effect * weight,
    )


def _report(
    rows: int, settings: Settings, findings: Sequence[ReportFinding], columns: Sequence[ColumnReport]
) -> WindowReport:
    grave: tuple[Severity, ...] = ("Break", "Breach", "Notice")
    ordered = sorted(findings, key=lambda f: (grave.index(f.severity), -f.score, -f.effect, f.column, f.statistic))
    kinds = tuple(kind for kind in KINDS if any(f.kind == kind and f.severity != "Notice" for f in ordered))
    if any(finding.severity == "Break" for finding in ordered):
        verdict, kinds = "DataQuality", ("DataQuality",)
    elif set(kinds) & {"DataDrift", "PredictionDrift"}:
        verdict = "Drift"
    else:
        verdict = "NoDrift"
    drifting = {f.column for f in ordered if f.kind != "DataQuality" and f.severity == "Breach"}
    return WindowReport(
        rows=rows,
        verdict=verdict,
        kinds=kinds,
        drifted=len(drifting),
        alpha=settings.alpha,
        findings=tuple(ordered),
        columns=tuple(columns),
    )


def _significance(test: statistics.Test) -> Significance:
    return Significance(value=test.value, p_value=test.p_value, degrees=test.degrees or None)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def decimal(value: float) -> str:
    """As decimal text of at most six digits, for status."""
    if value == 0:
        return "0"
    return f"{value:.3g}" if abs(value) < 0.001 else f"{value:.4f}".rstrip("0").rstrip(".")
