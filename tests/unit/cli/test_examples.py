"""The examples' manifests are what the API's models accept, and name what the examples' data holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.conftest import EXTRACT
from truekeep.api.common import Schema
from truekeep.api.driftpolicy import DriftPolicy
from truekeep.api.model import Model
from truekeep.cli.examples import flights, fraud
from truekeep.cli.examples.world import EXAMPLES, FLIGHT_DELAY, FRAUD, Example

EXAMPLES_FOLDER = Path(__file__).parents[3] / "manifests" / "examples"
KINDS: dict[str, type[Schema]] = {"Model": Model, "DriftPolicy": DriftPolicy}


def documents(folder: str) -> dict[str, Any]:
    paths = (EXAMPLES_FOLDER / folder).glob("*.yaml")
    return {d["kind"]: d for path in paths for d in yaml.safe_load_all(path.read_text()) if d["kind"] in KINDS}


def unknown(given: Any, read: Any, path: str = "") -> list[str]:
    """Fields of a manifest that the model did not read: the API server would prune them, unseen."""
    if isinstance(given, dict) and isinstance(read, dict):
        missing = [f"{path}.{key}" for key in given if key not in read]
        return missing + [
            each for key in given if key in read for each in unknown(given[key], read[key], f"{path}.{key}")
        ]
    if isinstance(given, list) and isinstance(read, list):
        return [each for one, other in zip(given, read, strict=True) for each in unknown(one, other, f"{path}[]")]
    return []


@pytest.mark.parametrize("folder", sorted(EXAMPLES))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_manifest_is_valid_and_every_field_of_it_is_known(folder: str, kind: str) -> None:
    document = documents(folder)[kind]
    read = KINDS[kind].model_validate(document).dump()
    assert unknown({"spec": document["spec"]}, read) == []


def columns(example: Example) -> set[str]:
    if example is FLIGHT_DELAY:
        tables = flights.tables(EXTRACT)
        return {*tables["flights"].column_names, *tables["weather"].column_names}
    begins = datetime(2024, 1, 1, tzinfo=UTC)
    tables = fraud.tables(begins, 1, 10, begins, seed=1)
    return set(tables["payments"].column_names)


@pytest.mark.parametrize("example", [FLIGHT_DELAY, FRAUD], ids=lambda example: example.name)
def test_a_model_asks_for_what_the_data_holds(example: Example) -> None:
    data = Model.model_validate(documents(example.name)["Model"]).spec.data
    assert {feature.name for feature in data.features} <= columns(example)
    assert (data.time_column, data.key) == (example.time_column, example.key)
    assert data.source.s3.uri == f"s3://lake/{example.prefix}{example.events}/"
    assert data.label.source is not None
    assert data.label.source.s3.uri == f"s3://lake/{example.prefix}{example.labels}/"


def test_weather_is_joined_by_the_replay_as_by_training() -> None:
    (join,) = Model.model_validate(documents("flight-delay")["Model"]).spec.data.joins
    ours = FLIGHT_DELAY.join
    assert ours is not None
    assert (join.name, join.time_column, join.by) == (ours.table, ours.time_column, [ours.by])
    assert join.max_age_seconds == ours.max_age.total_seconds()


def test_the_made_up_example_says_so_wherever_it_is_shown() -> None:
    for path in (EXAMPLES_FOLDER / "fraud").iterdir():
        if path.name != "kustomization.yaml":
            assert "made-up" in path.read_text().lower(), path


@pytest.mark.parametrize("name", ["too-small", "mended"])
def test_a_change_gives_a_valid_model(name: str) -> None:
    document = documents("flight-delay")["Model"]
    change = yaml.safe_load((EXAMPLES_FOLDER / "flight-delay" / "changes" / f"{name}.yaml").read_text())
    changed = merged(document, change)
    assert unknown({"spec": changed["spec"]}, Model.model_validate(changed).dump()) == []


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396), as kubectl applies it."""
    if not isinstance(patch, dict):
        return patch
    base = target if isinstance(target, dict) else {}
    kept = {key: value for key, value in base.items() if key not in patch}
    return kept | {key: merged(base.get(key), value) for key, value in patch.items() if value is not None}


def test_the_request_to_try_asks_for_every_feature() -> None:
    spec = Model.model_validate(documents("flight-delay")["Model"]).spec
    request = json.loads((EXAMPLES_FOLDER / "flight-delay" / "request.json").read_text())
    names = [tensor["name"] for tensor in request["inputs"]]
    assert names == [spec.data.time_column, spec.data.key, *(feature.name for feature in spec.data.features)]
