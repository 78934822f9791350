"""All features of a row at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.decomposition import PCA

from tests.unit.monitor import made
from truekeep.api.driftpolicy import DataDrift
from truekeep.contract.artifact import SignatureFeature
from truekeep.monitor.judge import TOGETHER, Settings, judge, settings_of
from truekeep.monitor.report import WindowReport
from truekeep.profiling import build, space
from truekeep.profiling.build import Arrays, WindowSketch, profile, space_of_table, window
from truekeep.profiling.schema import PREDICTION, Profile
from truekeep.profiling.tables import ParquetTable

NAMES = ("a", "b", "c", "d")
FEATURES = [SignatureFeature(name=name, type="Number") for name in NAMES]
SETTINGS = Settings(together=0.2, min_rows=100)


def correlated(random: np.random.Generator, rows: int, sign: float = 1.0) -> dict[str, Any]:
    """a and b go together, so do c and d, or against each other; each by itself is the same normal distribution."""
    base, other = random.normal(size=(2, rows)), random.normal(size=(2, rows))
    root = np.sqrt(1 - 0.81)
    return {
        "a": base[0],
        "b": sign * 0.9 * base[0] + root * other[0],
        "c": base[1],
        "d": 0.9 * base[1] + root * other[1],
        PREDICTION: random.beta(1, 4, rows),
    }


def reference(rows: int = 20_000) -> Profile:
    columns = correlated(np.random.default_rng(0), rows)
    return Profile.model_validate(profile(columns, FEATURES, columns[PREDICTION]))


@pytest.fixture(scope="module")
def there() -> Profile:
    return reference()


def judged(there: Profile, columns: dict[str, Any], settings: Settings = SETTINGS) -> WindowReport:
    return judge(there, window(columns, there, together=settings.together is not None), settings)


def test_it_is_the_reconstruction_error_of_principal_components(there: Profile) -> None:
    columns = correlated(np.random.default_rng(0), 20_000)
    known = there.space
    assert known is not None
    # No value is beyond the reach of the scale here, so that scaling is linear and scikit-learn can do the same.
    scales = {column.name: (column.center, column.scale) for column in known.columns}
    whole = np.column_stack([(columns[name] - scales[name][0]) / scales[name][1] for name in NAMES])
    inside = (np.abs(whole) < space.REACH).all(axis=1)
    theirs = PCA(n_components=len(known.plane)).fit(whole)
    assert len(known.plane) == 2
    part = whole[inside]
    ours = part - (part @ np.array(known.plane).T) @ np.array(known.plane)
    expected = part - theirs.inverse_transform(theirs.transform(part))
    assert np.linalg.norm(ours, axis=1) == pytest.approx(np.linalg.norm(expected, axis=1), abs=0.01)
    assert known.errors.mean == pytest.approx(np.linalg.norm(expected, axis=1).mean(), rel=0.01)
    assert known.errors.rows == 20_000


def test_rows_that_never_were_are_found_though_every_column_is_as_it_was(there: Profile) -> None:
    random = np.random.default_rng(1)
    report = judged(there, correlated(random, 3000, sign=-1.0))
    assert {column.name for column in report.columns if column.drifted} == {TOGETHER}
    (finding,) = report.findings
    assert (finding.column, finding.statistic, finding.severity) == (TOGETHER, "ReconstructionError", "Breach")
    assert finding.message.startswith("rows as a whole: reconstruction error 0.")
    assert report.verdict == "Drift"
    assert judged(there, correlated(random, 3000, sign=-1.0), Settings(min_rows=100)).verdict == "NoDrift", "not asked"


def test_false_alarms_stay_within_the_promise(there: Profile) -> None:
    """With no smallest effect, so that only the test stands between chance and an alarm; references vary, too."""
    alarms = 0
    for seed in range(10):
        random = np.random.default_rng(100 + seed)
        columns = correlated(random, 5000)
        other = Profile.model_validate(profile(columns, FEATURES, columns[PREDICTION]))
        for _ in range(60):
            report = judged(other, correlated(random, 500), Settings(together=0.0, min_rows=100))
            alarms += report.verdict != "NoDrift"
    assert alarms <= 7, "600 windows at 4 in 1,000"


def test_it_means_the_same_at_any_number_of_rows(there: Profile) -> None:
    random = np.random.default_rng(2)
    effects = []
    for rows in (1000, 100_000):
        report = judged(there, correlated(random, rows, sign=0.3))
        effects.append(next(column.effect for column in report.columns if column.name == TOGETHER))
    assert effects[0] == pytest.approx(effects[1], rel=0.25)


def test_windows_add_up(there: Profile) -> None:
    random = np.random.default_rng(3)
    columns = correlated(random, 4000)
    whole, first, second = (WindowSketch(there, together=True) for _ in range(3))
    whole.update(columns, 4000)
    first.update({name: column[:1000] for name, column in columns.items()}, 1000)
    second.update({name: column[1000:] for name, column in columns.items()}, 3000)
    first.merge(second)
    merged, expected = first.profile().errors, whole.profile().errors
    assert merged is not None
    assert expected is not None
    assert merged.rows == expected.rows == 4000
    assert merged.mean == pytest.approx(expected.mean, rel=1e-8)
    assert merged.standard_deviation == pytest.approx(expected.standard_deviation, rel=1e-8)
    assert space.added([merged, expected]).mean == pytest.approx(expected.mean, rel=1e-8)


def test_categories_nulls_and_wild_values_have_their_place() -> None:
    there = made.reference(20_000)
    assert there.space is not None
    assert {column.name for column in there.space.columns} >= {"normal", "few", "cauchy", "gaps"}
    random = np.random.default_rng(4)
    columns = made.draw(random, 3000)
    assert judged(there, columns).verdict == "NoDrift"
    wild = columns["normal"].copy()
    wild[0] = 1e300
    assert judged(there, columns | {"normal": wild}).verdict == "NoDrift"
    strange = judged(there, columns | {"few": np.array(["never seen"] * 3000, dtype=object)})
    together = next(column for column in strange.columns if column.name == TOGETHER)
    assert together.judged
    assert together.window.rows == 3000
    texts = columns | {"few": pa.array(columns["few"].tolist(), pa.string()).dictionary_encode()}
    assert window(texts, there, together=True).errors == window(columns, there, together=True).errors


def test_what_can_not_be_measured_says_nothing(there: Profile) -> None:
    columns = correlated(np.random.default_rng(5), 1000)
    for broken in ({"a": np.array(["x"] * 1000, dtype=object)}, {"a": None}):
        changed = {name: column for name, column in (columns | broken).items() if column is not None}
        report = judged(there, changed)
        assert TOGETHER not in {column.name for column in report.columns}
        assert report.verdict == "DataQuality"
    one = Profile.model_validate(profile({"a": columns["a"]}, FEATURES[:1], columns[PREDICTION]))
    assert one.space is None
    assert judged(one, {"a": columns["a"], PREDICTION: columns[PREDICTION]}).verdict == "NoDrift"
    old = there.model_copy(update={"space": None})
    assert judged(old, columns).verdict == "NoDrift", "of a profile that an earlier version wrote"


def test_the_same_rows_make_the_same_space_and_the_policy_asks_for_it(there: Profile) -> None:
    assert reference() == there
    assert Profile.model_validate_json(there.model_dump_json(by_alias=True)) == there
    policy = DataDrift.model_validate({"together": {"minimumEffect": "0.5"}})
    assert settings_of(policy, 100).together == 0.5
    assert settings_of(DataDrift(), 100).together is None


def test_a_table_has_the_space_of_its_columns_whatever_its_batches(tmp_path: Any) -> None:
    random = np.random.default_rng(7)
    columns = made.draw(random, 3000)
    table = pa.table({name: pa.array(columns[name], from_pandas=True) for name in ("normal", "few", "hour", "gaps")})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=700)
    features = [one for one in made.FEATURES if one.name in table.column_names]
    whole = space_of_table(Arrays(columns, 3000), features)
    assert whole is not None
    assert space_of_table(ParquetTable(tmp_path / "t.parquet"), features) == whole


def test_of_many_rows_a_sample_makes_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SAMPLE_ROWS", 2000)
    build._places.cache_clear()
    columns = correlated(np.random.default_rng(8), 30_000)
    found = space_of_table(Arrays(columns, 30_000), FEATURES)
    build._places.cache_clear()
    assert found is not None
    assert found.errors.rows == 2000
