from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from truekeep.cli.examples import fraud

BEGINS = datetime(2024, 1, 1, tzinfo=UTC)
TURNS = datetime(2024, 2, 1, tzinfo=UTC)


def test_the_same_seed_gives_the_same_payments() -> None:
    first, again = (fraud.tables(BEGINS, 5, 100, TURNS, seed=7) for _ in range(2))
    assert first == again
    assert fraud.tables(BEGINS, 5, 100, TURNS, seed=8) != first


def test_payments_are_in_time_order_and_settled_later() -> None:
    tables = fraud.tables(BEGINS, 10, 200, TURNS, seed=7)
    paid, settled = tables["payments"]["paid_at"], tables["chargebacks"]["settled_at"]
    assert tables["payments"].num_rows == 2000
    assert paid.to_pylist() == sorted(paid.to_pylist())
    assert pc.all(pc.greater(settled, paid)).as_py()
    assert tables["payments"]["payment_id"] == tables["chargebacks"]["payment_id"]


def test_business_and_fraud_change_when_they_turn() -> None:
    tables = fraud.tables(BEGINS, 60, 500, TURNS, seed=7)
    rows = tables["payments"].append_column("fraud", tables["chargebacks"]["fraud"])
    turned = pc.greater_equal(rows["paid_at"], TURNS)
    before, after = rows.filter(pc.invert(turned)), rows.filter(turned)

    def share(table: pa.Table, column: str, value: str) -> float:
        return float(pc.mean(pc.equal(table[column], value)).as_py())

    def fraudulent(table: pa.Table) -> pa.Table:
        return table.filter(pc.equal(table["fraud"], 1))

    assert share(after, "channel", "app") > share(before, "channel", "app") + 0.2
    assert share(fraudulent(before), "merchant", "games") < 0.125
    assert share(fraudulent(after), "merchant", "games") > 0.25


@pytest.mark.parametrize(("days", "rows"), [(0, 10), (10, 0)])
def test_nothing_is_refused_with_its_limit(days: int, rows: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        fraud.tables(BEGINS, days, rows, TURNS, seed=1)
