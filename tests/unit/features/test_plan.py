"""Which columns steps take and make, and what is said of steps that do not fit together."""

from __future__ import annotations

from typing import Any

import pytest

from truekeep.api.data import Feature
from truekeep.api.features import KINDS, Transformer
from truekeep.features.plan import Plan, PlanError, plan

FEATURES = [
    Feature(name="amount", type="Number"),
    Feature(name="balance", type="Number"),
    Feature(name="size", type="Category"),
    Feature(name="at", type="Time"),
]
DATES: dict[str, Any] = {"name": "parts", "columns": ["at"], "dateParts": {"parts": ["Hour"]}}


def planned(*steps: dict[str, Any], dates: bool = True) -> Plan:
    return plan(FEATURES, [Transformer.model_validate(one) for one in ([*steps, DATES] if dates else steps)])


def names(found: Plan) -> set[str]:
    return {column.name for column in found.columns}


def test_without_steps_the_columns_are_the_features() -> None:
    found = plan(FEATURES[:3], [])
    assert [column.name for column in found.columns] == ["amount", "balance", "size"]
    assert (found.stages, found.indicators) == ((), ())


def test_what_is_made_takes_the_place_of_what_was_taken() -> None:
    found = planned(
        {"name": "log", "columns": ["amount"], "log": {}},
        {"name": "rank", "columns": ["size"], "ordinal": {"order": ["a", "b"]}},
    )
    assert names(found) == {"amount", "balance", "size", "at.hour"}
    assert {column.name: column.type for column in found.columns}["size"] == "Number"


def test_originals_may_stay() -> None:
    found = planned(
        {"name": "log", "columns": ["amount"], "originals": "Keep", "log": {}},
        {"name": "mean", "columns": ["size"], "originals": "Keep", "targetEncode": {}},
        {"name": "share", "ratio": {"numerator": "amount.log", "denominator": "balance"}},
    )
    assert names(found) == {"amount", "amount.log", "balance", "size", "size.mean", "share", "at.hour"}
    origin = {column.name: column.origin for column in found.columns}
    assert origin["share"] == ("amount", "balance")
    gone = planned({"name": "share", "originals": "Drop", "ratio": {"numerator": "amount", "denominator": "balance"}})
    assert names(gone) == {"share", "size", "at.hour"}


def test_indicators_are_made_last_of_what_the_category_was_then() -> None:
    found = planned(
        {"name": "hot", "columns": ["size"], "originals": "Keep", "oneHot": {}},
        {"name": "rank", "columns": ["size"], "ordinal": {"order": ["a", "b"]}},
    )
    ((step, column),) = found.indicators
    assert (step.name, column.name, column.type) == ("hot", "size", "Category")
    assert column in found.stages[-1].passes  # it goes along to the end
    assert {one.name: one.type for one in found.columns}["size"] == "Number"


def test_what_is_filled_and_scaled_is_known() -> None:
    found = planned(
        {"name": "fill", "columns": ["amount", "balance"], "impute": {"strategy": "Median", "indicator": "Add"}},
        {"name": "same", "columns": ["amount"], "scale": {"method": "Robust"}},
        {"name": "log", "columns": ["balance"], "log": {}},
        {
            "name": "more",
            "columns": ["at"],
            "originals": "Keep",
            "dateParts": {"parts": ["Month"], "encoding": "Cyclic"},
        },
    )
    told = {column.name: (column.filled, column.scaled) for column in found.columns}
    assert told == {
        "amount": (True, True), "amount.null": (True, True), "balance": (False, False), "balance.null": (True, True),
        "size": (False, False), "at.hour": (False, False), "at.month-sin": (False, True), "at.month-cos": (False, True),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"name": "log", "columns": ["amounts"], "log": {}}], "there is no column amounts; there are amount, balance"),
        (
            [
                {"name": "log", "columns": ["share"], "log": {}},
                {"name": "share", "ratio": {"numerator": "amount", "denominator": "balance"}},
            ],
            "there is no column share; share makes it, which is later: move that up",
        ),
        (
            [
                {"name": "hot", "columns": ["size"], "oneHot": {}},
                {"name": "m", "columns": ["size"], "targetEncode": {}},
            ],
            "there is no column size",
        ),
        (
            [{"name": "log", "columns": ["size"], "log": {}}],
            "log takes columns of type Number, but size is of type Category; make it a number first",
        ),
        (
            [{"name": "fill", "columns": ["at"], "impute": {"strategy": "Median"}}],
            "impute takes columns of type Number or Category, but at is of type Time; make numbers of it first",
        ),
        ([{"name": "hot", "columns": ["amount"], "oneHot": {}}], "oneHot takes columns of type Category, but amount"),
        ([{"name": "fill", "columns": ["size"], "impute": {"strategy": "Mean"}}], "Mean is for numbers, but size is a"),
        (
            [{"name": "fill", "columns": ["amount"], "impute": {"strategy": "Constant", "value": "none"}}],
            "impute.value 'none' is no number, but amount is one; write decimal text",
        ),
        (
            [{"name": "balance", "ratio": {"numerator": "amount", "denominator": "amount"}}],
            "makes a column balance, but there is one of this name; choose another name for the step",
        ),
        (
            [{"name": "p", "columns": ["at"], "dateParts": {"parts": ["Hour"], "timeZone": "Mars/Olympus"}}],
            "dateParts.timeZone Mars/Olympus is no zone of the IANA database; write one such as Europe/Berlin",
        ),
    ],
)
def test_steps_that_do_not_fit_together(steps: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(PlanError) as error:
        planned(*steps)
    assert words in str(error.value)
    assert str(error.value).startswith("spec.training.recipe.transformers[")


def test_a_time_that_nobody_makes_numbers_of_is_refused() -> None:
    with pytest.raises(PlanError, match="the feature at is of type Time, and no step makes numbers of it; add one"):
        planned(dates=False)


def test_something_must_be_left() -> None:
    step = {"name": "share", "originals": "Drop", "ratio": {"numerator": "amount", "denominator": "balance"}}
    assert planned(step).columns
    alone = [Feature(name="at", type="Time")]
    dates = Transformer.model_validate(DATES)
    assert [column.name for column in plan(alone, [dates]).columns] == ["at.hour"]


def test_every_kind_has_a_word() -> None:
    fields = {field.alias or name for name, field in Transformer.model_fields.items()}
    assert set(KINDS) == fields - {"name", "columns", "originals"}
