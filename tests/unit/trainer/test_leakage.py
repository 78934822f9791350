"""What is taken for a feature that knows the label, and what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from tests.unit.trainer.lake import START, Lake, data_of, events, parquet
from truekeep.trainer.data import leakage
from truekeep.trainer.data.dataset import DataFault, Dataset, load
from truekeep.trainer.data.rules import Known
from truekeep.trainer.text import EPOCH

ROWS = 2000
LABELS = np.random.default_rng(3).random(ROWS) < 0.2


def loaded(rules: Any = (), types: dict[str, str] | None = None, **columns: Any) -> Dataset:
    """The events with their own labels, and these columns besides, as Numbers or Categories."""
    table = events(ROWS).set_column(4, "late", pa.array(LABELS.astype(np.int64)))
    for name, values in columns.items():
        table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    kinds = types or {}
    features = [{"name": "amount", "type": "Number"}, {"name": "kind", "type": "Category"}]
    features += [{"name": name, "type": kinds.get(name, "Number")} for name in columns]
    data = data_of(features=features, rules=list(rules))
    now = round((START - EPOCH).total_seconds() * 1_000_000)
    return load(data, (), Lake({"rows/a.parquet": parquet(table)}).open, now, lambda _: None, Known())


def noise(share: float) -> Any:
    """The label, wrong in this share of the rows."""
    wrong = np.random.default_rng(5).random(ROWS) < share
    return np.where(wrong, ~LABELS, LABELS).astype(np.float64)


def test_nobody_declares_it_and_what_knows_the_label_is_warned_of() -> None:
    dataset = loaded(refund=LABELS.astype(np.float64))
    assert len(dataset) == ROWS
    (told,) = dataset.read.violations
    assert (told.check, told.severity, told.column, told.count) == ("leakage", "Warn", "refund", ROWS)
    assert "this feature alone tells late with a ROC AUC of 1.0000, more than maxAuc 0.99" in told.problem
    assert "it has one value where the label is 0, and another where it is 1" in told.problem
    assert loaded().read.violations == []


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("nearly the label", noise(0.004), "Number"),
        ("the label the other way round", 1 - noise(0.004), "Number"),
        ("filled in only afterwards", np.where(LABELS, np.arange(ROWS), np.nan), "Number"),
        ("in no order", np.where(LABELS, 5.0, np.arange(ROWS) % 2 * 10.0), "Number"),
        ("times that follow", pa.array(np.where(LABELS, np.arange(ROWS) + 9e6, np.arange(ROWS))), "Number"),
        ("a status", pa.array(np.where(LABELS, "refunded", "fine")), "Category"),
        ("a status that is only there afterwards", pa.array([f"s{n % 3}" if LABELS[n] else None for n in range(ROWS)]),
         "Category"),
    ],
)  # fmt: skip
def test_leaks(name: str, values: Any, kind: str) -> None:
    told = loaded(types={"leak": kind}, leak=values).read.violations
    assert [one.column for one in told] == ["leak"], name


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("a strong feature", LABELS + np.random.default_rng(1).normal(scale=0.45, size=ROWS), "Number"),
        ("an identifier", pa.array([f"c{n % 240}" for n in range(ROWS)]), "Category"),
        ("often wrong", noise(0.05), "Number"),
        ("constant", np.zeros(ROWS), "Number"),
        ("empty", pa.nulls(ROWS, pa.float64()), "Number"),
    ],
)
def test_no_leaks(name: str, values: Any, kind: str) -> None:
    told = loaded(types={"other": kind}, other=values).read.violations
    assert [one.column for one in told if one.check == "leakage"] == [], name


def test_a_rule_may_stop_the_run_and_another_may_take_a_feature_at_its_word() -> None:
    hard = {"name": "leaks", "leakage": {"maxAuc": "0.95"}}
    strong = LABELS + np.random.default_rng(1).normal(scale=0.3, size=ROWS)
    with pytest.raises(DataFault, match=r"strong: rule leaks: this feature alone tells late with a ROC AUC of 0\.9"):
        loaded([hard], strong=strong)
    trusted = {"name": "trusted", "column": "strong", "leakage": {"maxAuc": "1"}}
    assert loaded([hard, trusted], strong=strong).read.violations == []
    leak = LABELS.astype(np.float64)
    told = loaded([trusted], strong=leak, other=leak).read.violations
    assert [(one.column, one.severity) for one in told] == [("other", "Warn")], "what no rule speaks of is checked"


def test_the_limit_itself_holds() -> None:
    found = leakage.auc(noise(0.02), LABELS.astype(np.int8))
    for limit, columns in ((found, []), (found - 1e-6, ["leak"])):
        rule = {"name": "leaks", "severity": "Warn", "leakage": {"maxAuc": f"{limit:.9f}"}}
        if not columns:
            rule["leakage"] = {"maxAuc": f"{np.ceil(limit * 1e9) / 1e9:.9f}"}
        assert [one.column for one in loaded([rule], leak=noise(0.02)).read.violations] == columns


def test_by_its_value_it_is_scikit_learns_auc() -> None:
    random = np.random.default_rng(2)
    labels = (random.random(500) < 0.3).astype(np.int8)
    values = labels + random.normal(size=500)
    assert leakage.auc(values, labels) == pytest.approx(roc_auc_score(labels, values), abs=1e-12)
    assert leakage.auc(-values, labels) == pytest.approx(roc_auc_score(labels, values), abs=1e-12)


def test_an_identifier_of_random_rows_is_worth_nothing() -> None:
    random = np.random.default_rng(4)
    labels = (random.random(4000) < 0.5).astype(np.int8)
    found = leakage.auc(pa.array([f"k{n}" for n in range(4000)]), labels)
    assert found == pytest.approx(0.5, abs=0.01), "what was learned by heart is not rewarded"
