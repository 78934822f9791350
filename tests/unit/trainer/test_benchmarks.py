"""Further sets of rows that a model must get right, whatever the newest rows hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import START, events, parquet, replaced
from tests.unit.trainer.test_run import GATE, Place


class Places(Place):
    """A lake with another set of rows beside the Model's own."""

    def beside(self, table: pa.Table) -> Places:
        self.all.put("lake/storms/a.parquet", parquet(table))
        return self

    def storms(self, *gates: dict[str, Any], **evaluation: Any) -> dict[str, Any]:
        location = self.store.model_copy(update={"uri": f"s3://{self.name}/lake/storms/"})
        own = list(gates) or [{"name": "auc", "metric": "roc_auc", "minimum": "0.7"}]
        return {**GATE, "benchmarks": [{"name": "storms", "source": {"s3": location}, "gates": own}], **evaluation}


@pytest.fixture
def places(versitygw: Versitygw) -> Places:
    places = Places(versitygw)
    places.write(events())
    return places


OLD = START - timedelta(days=400)


def test_a_model_that_gets_them_right_passes(places: Places) -> None:
    """They are years older than the window, and all of them are judged."""
    places.beside(events(rows=300, seed=9, start=OLD))
    result = places.run(evaluation=places.storms())
    assert result.reason == "Succeeded", result.message
    assert {gate.name: (gate.result, gate.rows) for gate in result.gates} == {
        "auc": ("Passed", 480),
        "storms/auc": ("Passed", 300),
    }
    assert result.data is not None
    assert (result.data.rows, result.data.objects) == (2400, 1)  # nothing of them trained
    sources = [one["source"] for one in places.record(result)["data"]["objects"]]
    assert sources == ["source", "benchmark storms"]


def test_a_model_that_gets_them_wrong_is_refused(places: Places) -> None:
    places.beside(events(rows=300, seed=9, start=OLD, shift=1.0))
    result = places.run(evaluation=places.storms())
    assert result.reason == "GatesFailed"
    assert "gate storms/auc: roc_auc 0." in result.message
    assert [(gate.name, gate.result) for gate in result.gates] == [("storms/auc", "Failed"), ("auc", "Passed")]
    assert places.artifacts() == []


def test_its_gates_go_by_the_model_s_cut_off_and_costs(places: Places) -> None:
    places.beside(events(rows=300, seed=9, start=OLD))
    cost = {"name": "cost", "metric": "expected_cost", "maximum": "0.001"}
    costs = {"falsePositive": "1", "falseNegative": "2"}
    result = places.run(evaluation=places.storms(cost, costs=costs, decision={"rule": "LeastCost"}))
    assert result.reason == "GatesFailed"
    assert "gate storms/cost: expected_cost 0." in result.message


def test_rows_that_are_not_as_declared_are_told_by_the_set_s_name(places: Places) -> None:
    rows = events(rows=50, seed=9, start=OLD)
    places.beside(replaced(rows, "amount", ["much"] * 50))
    result = places.run(evaluation=places.storms())
    assert result.reason == "DataInvalid"
    assert result.message.startswith("evaluation.benchmarks storms: ")
    assert "amount" in result.message
