from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.monitor import made
from truekeep.api.driftpolicy import Finding
from truekeep.contract.canonical import canonical_json
from truekeep.monitor.judge import Settings, decimal, judge
from truekeep.monitor.report import ReportFinding, WindowReport
from truekeep.profiling.build import profile
from truekeep.profiling.schema import PREDICTION, Profile

ROWS = 5000
SETTINGS = Settings(min_rows=500, minimum_effect=0.05)
# Power is measured with as small an effect as matters at all; what decides then is significance.
KEEN = Settings(min_rows=500, minimum_effect=0.02)


@pytest.fixture(scope="module")
def there() -> Profile:
    return made.reference()


def judged(
    there: Profile, settings: Settings = SETTINGS, seed: int = 1, rows: int = ROWS, **changed: Any
) -> WindowReport:
    """The report on a window of the world as it was, but for the columns that are changed: a function of rng and n."""
    rng = np.random.default_rng(seed)
    columns = made.draw(rng, rows)
    for name, change in changed.items():
        column = PREDICTION if name == "prediction" else name
        if change is None:
            del columns[column]
        else:
            columns[column] = change(rng, columns[column])
    return judge(there, made.counted(columns, there), settings)


def one(report: WindowReport, column: str, statistic: str | None = None) -> ReportFinding:
    found = [f for f in report.findings if f.column == column and statistic in (None, f.statistic)]
    assert len(found) == 1, report.findings
    return found[0]


@pytest.mark.parametrize(
    ("reference_rows", "rows", "windows"), [(50_000, ROWS, 200), (5000, ROWS, 100), (20_000, 500, 200)]
)
def test_no_alarm_where_nothing_moved(reference_rows: int, rows: int, windows: int) -> None:
    """Half of the alarms that are promised would already be one in 200 windows; and no threshold of effect helps."""
    there = made.reference(reference_rows)
    rng = np.random.default_rng(reference_rows)
    settings = Settings(min_rows=100, minimum_effect=0.0)
    reports = [judge(there, made.counted(made.draw(rng, rows), there), settings) for _ in range(windows)]
    assert sum(bool(report.kinds) for report in reports) <= 4  # 2 are expected at most, of 200 at 1 %
    assert all(report.verdict in ("NoDrift", "Drift") for report in reports)
    with_effect = Settings(min_rows=100, minimum_effect=0.05)
    alarms = [
        report
        for report in reports
        if any((c.effect or 0) >= 0.05 and (c.p_corrected or 1) <= 0.01 for c in report.columns)
    ]
    assert with_effect.alpha == 0.01
    assert len(alarms) <= 2


def shifted(by: float) -> Any:
    return lambda _, x: x + by


def moved(share: float, to: Any) -> Any:
    def change(rng: np.random.Generator, x: Any) -> Any:
        changed = x.copy()
        changed[rng.random(len(x)) < share] = to
        return changed

    return change


@pytest.mark.parametrize(
    ("column", "change", "settings"),
    [
        ("normal", shifted(0.2), SETTINGS),
        ("gaps", shifted(0.2), SETTINGS),
        ("log", lambda _, x: x * 1.15, SETTINGS),
        ("cauchy", shifted(0.5), SETTINGS),
        ("hour", lambda _, x: np.minimum(x + 2, 23), SETTINGS),
        ("flag", moved(0.12, 1.0), SETTINGS),
        ("zeros", moved(0.08, 0.5), SETTINGS),
        ("few", moved(0.09, "few-0004"), SETTINGS),
        ("many", moved(0.06, "many-0300"), SETTINGS),
        ("flat", moved(0.09, "flat-0001"), SETTINGS),
        ("prediction", lambda _, x: np.minimum(1, x * 1.2), SETTINGS),
        ("few", moved(0.06, "few-0004"), KEEN),
    ],
)
def test_a_real_shift_is_found(there: Profile, column: str, change: Any, settings: Settings) -> None:
    name = PREDICTION if column == "prediction" else column
    others = 0
    for seed in range(20):
        report = judged(there, settings, seed, **{column: change})
        assert report.verdict == "Drift", seed
        assert ("PredictionDrift" if name == PREDICTION else "DataDrift") in report.kinds
        assert one(report, name).severity == "Breach"
        others += report.drifted - 1
    assert others <= 1  # one window in a hundred may ring for a column that did not move


def test_a_tiny_shift_of_a_million_rows_is_none(there: Profile) -> None:
    report = judged(there, SETTINGS, rows=300_000, normal=shifted(0.03))
    column = next(c for c in report.columns if c.name == "normal")
    assert column.p_corrected is not None
    assert column.p_corrected < 1e-3  # significant, yet too small to matter
    assert report.verdict == "NoDrift"


def test_too_few_rows_are_no_answer(there: Profile) -> None:
    report = judged(there, rows=499, normal=shifted(9.0))
    assert (report.verdict, report.kinds, report.findings) == ("InsufficientData", (), ())


@pytest.mark.parametrize("wild", [1e308, -1e308, 1e6])
def test_one_wild_value_neither_makes_nor_hides_drift(wild: float) -> None:
    columns = made.draw(np.random.default_rng(0), 20_000)
    columns["normal"][7] = wild
    there = Profile.model_validate(profile(columns, made.FEATURES, columns[PREDICTION]))
    quiet = judged(there, normal=moved(0.0, 0))
    assert quiet.verdict == "NoDrift"
    assert judged(there, normal=lambda _, x: np.append(x[:-1], -wild)).verdict == "NoDrift"
    found = judged(there, normal=lambda _, x: np.append(x[:-1] + 0.5, wild))
    assert found.kinds == ("DataDrift",)
    canonical_json(found.dump())


def test_nan_hides_nothing(there: Profile) -> None:
    report = judged(there, normal=lambda rng, x: moved(0.02, np.nan)(rng, x + 3))
    assert "DataDrift" in report.kinds
    assert one(report, "normal", "KolmogorovSmirnov").effect > 0.8


@pytest.mark.parametrize(
    ("column", "change", "statistic", "verdict", "kinds"),
    [
        ("normal", moved(0.02, np.nan), "NullFraction", "NoDrift", ("DataQuality",)),
        ("few", moved(0.02, None), "NullFraction", "NoDrift", ("DataQuality",)),
        ("gaps", moved(0.05, np.nan), "NullFraction", "NoDrift", ("DataQuality",)),
        ("gaps", moved(0.4, np.nan), "NullFraction", "DataQuality", ("DataQuality",)),
        ("normal", moved(1.0, np.nan), "NullFraction", "DataQuality", ("DataQuality",)),
        ("few", moved(1.0, None), "NullFraction", "DataQuality", ("DataQuality",)),
        ("normal", None, "MissingColumn", "DataQuality", ("DataQuality",)),
        ("few", None, "MissingColumn", "DataQuality", ("DataQuality",)),
        ("prediction", None, "MissingColumn", "DataQuality", ("DataQuality",)),
        ("normal", moved(0.03, np.inf), "Infinite", "NoDrift", ("DataQuality",)),
        ("normal", moved(0.5, np.inf), "Infinite", "DataQuality", ("DataQuality",)),
        ("normal", moved(0.0003, np.inf), "Infinite", "NoDrift", ()),
        ("normal", lambda _, x: pa.array([str(v) for v in x]), "Type", "DataQuality", ("DataQuality",)),
        ("few", lambda _, x: pa.array([[1]] * len(x)), "Type", "DataQuality", ("DataQuality",)),
        ("normal", moved(1.0, 0.123), "Constant", "DataQuality", ("DataQuality",)),
        ("hour", moved(1.0, 3.0), "Constant", "DataQuality", ("DataQuality",)),
        ("few", moved(1.0, "few-0002"), "Constant", "DataQuality", ("DataQuality",)),
        ("few", moved(0.02, "strange"), "NewCategories", "Drift", ("DataDrift",)),
        ("many", moved(0.02, "strange"), "NewCategories", "Drift", ("DataDrift",)),
        ("few", lambda _, x: np.char.upper(x.astype(str)), "NewCategories", "DataQuality", ("DataQuality",)),
    ],
)
def test_defects(
    there: Profile, column: str, change: Any, statistic: str, verdict: str, kinds: tuple[str, ...]
) -> None:
    name = PREDICTION if column == "prediction" else column
    for seed in range(5):
        report = judged(there, seed=seed, **{column: change})
        assert one(report, name, statistic)
        assert (report.verdict, report.kinds) == (verdict, kinds), report.findings
        broken = verdict == "DataQuality"
        assert next(c for c in report.columns if c.name == name).judged is not broken


def test_a_break_blocks_even_a_real_shift_and_ranks_first(there: Profile) -> None:
    report = judged(there, normal=shifted(1.0), few=moved(1.0, None))
    assert (report.verdict, report.kinds) == ("DataQuality", ("DataQuality",))
    assert [f.column for f in report.findings] == ["few", "normal"]
    assert report.findings[1].kind == "DataDrift"  # still reported


def test_constant_at_its_usual_value_is_no_defect(there: Profile) -> None:
    report = judged(there, zeros=moved(1.0, 0.0))
    assert {f.statistic for f in report.findings if f.column == "zeros"} <= {"KolmogorovSmirnov"}
    assert report.verdict != "DataQuality"


def test_a_null_fraction_that_varies_as_before_is_none(there: Profile) -> None:
    assert judged(there, gaps=moved(0.002, np.nan)).findings == ()


def test_ignored_columns_are_reported_and_never_breach(there: Profile) -> None:
    settings = Settings(min_rows=500, minimum_effect=0.05, ignore=frozenset({"normal", "few"}))
    report = judged(there, settings, normal=shifted(1.0), few=moved(1.0, None))
    assert (report.verdict, report.kinds, report.drifted) == ("NoDrift", (), 0)
    assert {(f.column, f.severity) for f in report.findings} == {("normal", "Notice"), ("few", "Notice")}


def test_columns_that_capture_drops_are_not_missed(there: Profile) -> None:
    settings = Settings(min_rows=500, minimum_effect=0.05, dropped=frozenset({"few"}))
    report = judged(there, settings, few=None)
    assert report.verdict == "NoDrift"
    assert "few" not in {c.name for c in report.columns}


def test_declared_ranges() -> None:
    columns = made.draw(np.random.default_rng(0), 20_000)
    features = [
        f.model_copy(update={"minimum": 0.0, "maximum": 24.0} if f.name == "hour" else {}) for f in made.FEATURES
    ]
    there = Profile.model_validate(profile(columns, features, columns[PREDICTION]))
    mild = judged(there, hour=moved(0.03, 25.0))
    assert one(mild, "hour", "OutOfRange").severity == "Breach"
    assert "outside the range 0…24 that the Model declares" in one(mild, "hour", "OutOfRange").message
    assert mild.verdict == "NoDrift"
    assert judged(there, hour=lambda _, x: x * 60).verdict == "DataQuality"  # minutes
    assert judged(there, hour=moved(0.03, -0.5)).kinds == ("DataQuality",)
    assert judged(there, hour=moved(0.0004, -1.0)).findings == ()


def test_a_column_empty_in_training_is_told_not_judged() -> None:
    columns = made.draw(np.random.default_rng(0), 20_000)
    columns["normal"] = np.full(20_000, np.nan)
    there = Profile.model_validate(profile(columns, made.FEATURES, columns[PREDICTION]))
    filled = judged(there)
    assert one(filled, "normal").statistic == "NoReference"
    assert "had no value in training, 100 % now" in one(filled, "normal").message
    empty = judged(there, normal=moved(1.0, np.nan))
    assert one(empty, "normal").severity == "Notice"
    assert filled.kinds == empty.kinds == ()


def test_findings_in_words(there: Profile) -> None:
    report = judged(there, normal=shifted(3.0), few=moved(0.2, "few-0004"), prediction=lambda _, x: x**0.5)
    texts = {f.column: f.message for f in report.findings}
    assert texts["normal"].startswith("`normal`: median ")
    assert " above the old 99th percentile" in texts["normal"]
    assert "`few-0004` 1" in texts["few"]
    assert " → " in texts["few"]
    assert texts[PREDICTION].startswith("`(prediction)`: median 0.1")
    scores = [f.score for f in report.findings]
    assert scores == sorted(scores, reverse=True)


def test_importance_ranks() -> None:
    columns = made.draw(np.random.default_rng(0), 20_000)
    importance = {f.name: 0.01 for f in made.FEATURES} | {"hour": 0.5}
    there = Profile.model_validate(profile(columns, made.FEATURES, columns[PREDICTION], importance=importance))
    report = judged(there, normal=shifted(3.0), hour=lambda _, x: np.minimum(x + 3, 23))
    assert [f.column for f in report.findings] == ["hour", "normal"]
    assert report.findings[0].effect < report.findings[1].effect


def test_hostile_names_stay_within_bounds() -> None:
    nasty = "x`\n\x1b[31m<script>" + "é" * 5000
    feature = made.FEATURES[-1].model_copy(update={"name": nasty})
    rng = np.random.default_rng(0)
    columns = {nasty: rng.choice(["a", nasty * 20, "c"], 3000), PREDICTION: rng.random(3000)}
    there = Profile.model_validate(profile(columns, [feature], columns[PREDICTION]))
    columns[nasty] = rng.choice([f"new {nasty} {i}" for i in range(50)], 3000)
    report = judge(there, made.counted(columns, there), SETTINGS)
    assert report.verdict == "DataQuality"
    for finding in report.findings:
        Finding.model_validate(finding.dump())
        assert finding.message.isprintable()
        assert len(finding.message) <= 512
    canonical_json(report.dump())


def test_the_same_input_gives_the_same_bytes(there: Profile) -> None:
    first, second = (canonical_json(judged(there, normal=shifted(0.3)).dump()) for _ in range(2))
    assert first == second
    assert WindowReport.model_validate_json(first).dump() == judged(there, normal=shifted(0.3)).dump()


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1.0, "1"), (0.25, "0.25"), (0.123456, "0.1235"), (1e-7, "1e-07"), (1e-300, "1e-300")]
)
def test_decimals(value: float, text: str) -> None:
    assert decimal(value) == text
    assert float(text) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("statistic", "low", "high"),
    [
        ("KolmogorovSmirnov", 0.17, 0.23),  # of a shift by half a standard deviation: 2·Φ(1/4) - 1
        ("TotalVariation", 0.16, 0.23),
        ("PopulationStability", 0.20, 0.30),  # 1/4 on the whole line
        ("JensenShannon", 0.16, 0.23),
        ("Wasserstein", 0.40, 0.55),
    ],
)
def test_the_policy_can_name_the_statistic_of_a_column(there: Profile, statistic: str, low: float, high: float) -> None:
    rng = np.random.default_rng(5)
    columns = made.draw(rng, 20_000)
    window = made.counted(columns | {"normal": columns["normal"] + 0.5}, there)
    for threshold, drifts in ((low, True), (high, False)):
        settings = Settings(named={"normal": (statistic, threshold)})  # type: ignore[dict-item]
        report = judge(there, window, settings)
        column = next(column for column in report.columns if column.name == "normal")
        assert (column.statistic, column.threshold, column.drifted) == (statistic, threshold, drifts)
        assert column.effect is not None
        assert low < column.effect < high
        assert [finding.statistic for finding in report.findings if finding.column == "normal"] == [statistic] * drifts


def test_a_large_named_effect_of_few_rows_still_needs_significance(there: Profile) -> None:
    named = dict.fromkeys((*made.NUMBERS, *made.CATEGORY_COUNTS), ("PopulationStability", 0.0))
    settings = Settings(named=named)  # type: ignore[arg-type]
    rng = np.random.default_rng(6)
    verdicts = [judge(there, made.counted(made.draw(rng, 600), there), settings).verdict for _ in range(40)]
    assert verdicts.count("NoDrift") >= 39
