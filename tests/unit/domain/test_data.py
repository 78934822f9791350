"""What a run says of its data, and which run the next one is compared with."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.domain.world import START, World
from truekeep.api.common import Condition
from truekeep.api.trainingrun import DataRead, DataViolation, TrainingRunSpec, TrainingRunStatus
from truekeep.contract.results import TERMINATION_LIMIT, VIOLATIONS_KEPT, TrainResult
from truekeep.domain.conditions import find
from truekeep.domain.data import data_finding, last_valid
from truekeep.domain.observed import Meta, RunView

DIGEST = "sha256:" + "0" * 64
READ = DataRead(objects=2, rows=900, positives=90, unlabelled=5, unripe=7, rows_digest=DIGEST)


def run(number: int, reason: str = "Succeeded", data: DataRead | None = READ, *, ended: bool = True) -> RunView:
    moment = START + timedelta(hours=number)
    ready = Condition(type="Ready", status="True", last_transition_time=moment, reason=reason)
    status = TrainingRunStatus(conditions=[ready], data=data, completion_time=moment if ended else None)
    meta = Meta(name=f"m-{number}", namespace="shop", uid=f"u{number}", generation=1, created=START)
    return RunView(meta=meta, spec=TrainingRunSpec.model_validate({"modelRef": {"name": "m"}}), status=status)


@pytest.mark.parametrize(
    ("reason", "data", "status", "said", "words"),
    [
        ("DataInvalid", None, "False", "DataInvalid", "what is wrong"),
        ("DataInvalid", READ, "False", "DataInvalid", "what is wrong"),
        ("Succeeded", READ, "True", "Validated", "900 rows, 5 without a label, 7 too young for one"),
        ("GatesFailed", READ, "True", "Validated", "900 rows"),
        (
            "Succeeded",
            READ.model_copy(update={"warnings": ["x: odd"], "warned_checks": 3}),
            "True",
            "Warned",
            "too young for one; warned: x: odd; 2 more, all in the record",
        ),
        ("Succeeded", READ.model_copy(update={"warned_checks": 2}), "True", "Warned", "warned: 2 more"),
        ("Training", None, "Unknown", "Training", ""),
        ("StoreUnreachable", None, "Unknown", "StoreUnreachable", ""),
    ],
)
def test_the_condition(reason: str, data: DataRead | None, status: str, said: str, words: str) -> None:
    found = data_finding(reason, "what is wrong", data)
    assert (found.type, found.status, found.reason) == ("DataValid", status, said)
    assert words in found.message


def test_a_run_and_its_model_say_it() -> None:
    world = World()
    world.calm(train="DataInvalid")
    (made,) = world.runs.values()
    condition = find(made.status.conditions, "DataValid")
    assert condition is not None
    assert (condition.status, condition.reason) == world.condition("DataValid") == ("False", "DataInvalid")


@pytest.mark.parametrize(
    ("runs", "last"),
    [
        ([], None),
        ([run(1)], "m-1"),
        ([run(2), run(1)], "m-2"),
        ([run(1), run(2, "GatesFailed")], "m-2"),
        ([run(1), run(2, "ChampionKept")], "m-2"),
        ([run(1), run(2, "DataInvalid")], "m-1"),
        ([run(1), run(2, "DataInvalid", None)], "m-1"),
        ([run(1), run(2, "Training", None, ended=False)], "m-1"),
        ([run(1), run(2, "StoreUnreachable", None)], "m-1"),
        ([run(2, "DataInvalid")], None),
        ([run(1, data=READ.model_copy(update={"rows": 0}))], None),
    ],
)
def test_the_next_run_is_compared_with_the_newest_in_order(runs: list[RunView], last: str | None) -> None:
    found = last_valid(runs)
    assert (found.run if found else None) == last
    if found:
        assert (found.rows, found.positives, found.rows_digest) == (900, 90, DIGEST)


def test_a_run_of_an_older_trainer_tells_less() -> None:
    old = DataRead(objects=1, rows=5)
    found = last_valid([replace(run(1), status=run(1).status.model_copy(update={"data": old}))])
    assert found is not None
    assert (found.rows, found.positives, found.rows_digest) == (5, None, None)


def violation(number: int, length: int = 500) -> DataViolation:
    uri = f"s3://lake/{'x' * length}/{number}.parquet"
    return DataViolation(check="r", column="c", severity="Fail", count=number, file=uri, row=3, problem="p" * 300)


@pytest.mark.parametrize("length", [10, 500, 1000])
def test_a_termination_message_has_room_for_the_worst(length: int) -> None:
    read = READ.model_copy(
        update={
            "violations": [violation(number, length) for number in range(16)],
            "warnings": ["w" * 400] * 10,
            "not_judged": ["n" * 400] * 16,
            "failed_checks": 40,
        }
    )
    result = TrainResult(run_uid="u", reason="DataInvalid", message="m" * 2000, training_fingerprint=DIGEST, data=read)
    text = result.to_message()
    assert len(text.encode()) <= TERMINATION_LIMIT
    told = TrainResult.model_validate_json(text)
    assert told.data is not None
    assert told.data.failed_checks == 40, "how many there are is never lost"
    assert told.data.warnings == []
    if length < 1000:
        assert len(told.data.violations) >= VIOLATIONS_KEPT
        assert told.data.violations[0].count == 0
    assert told.message
