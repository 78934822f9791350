"""Provenance and events, held against what the published schemas require."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from tests.unit.trainer.lake import START
from tests.unit.trainer.test_report import Laptop
from truekeep.contract import layout
from truekeep.contract.results import TrainResult
from truekeep.storage import artifacts
from truekeep.trainer.record.provenance import _folder

SHA256 = {"type": "object", "required": ["sha256"], "properties": {"sha256": {"pattern": "^[0-9a-f]{64}$"}}}
TIME = {"type": "string", "format": "date-time"}
DESCRIPTOR = {
    "type": "object",
    "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}, {"required": ["content"]}],
    "properties": {"digest": SHA256, "annotations": {"type": "object"}, "uri": {"format": "uri"}},
    "additionalProperties": False,
    "patternProperties": {"^(name|content|downloadLocation|mediaType)$": {"type": "string"}},
}
# in-toto Statement v1 with the SLSA provenance v1 predicate: what they require, and no field that they do not know.
STATEMENT: dict[str, Any] = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "additionalProperties": False,
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "predicateType": {"const": "https://slsa.dev/provenance/v1"},
        "subject": {"type": "array", "minItems": 1, "items": {**DESCRIPTOR, "required": ["digest"]}},
        "predicate": {
            "type": "object",
            "required": ["buildDefinition", "runDetails"],
            "additionalProperties": False,
            "properties": {
                "buildDefinition": {
                    "type": "object",
                    "required": ["buildType", "externalParameters"],
                    "additionalProperties": False,
                    "properties": {
                        "buildType": {"type": "string", "format": "uri"},
                        "externalParameters": {"type": "object"},
                        "internalParameters": {"type": "object"},
                        "resolvedDependencies": {"type": "array", "items": DESCRIPTOR},
                    },
                },
                "runDetails": {
                    "type": "object",
                    "required": ["builder"],
                    "additionalProperties": False,
                    "properties": {
                        "builder": {
                            "type": "object",
                            "required": ["id"],
                            "properties": {
                                "id": {"type": "string", "format": "uri"},
                                "version": {"additionalProperties": {"type": "string"}},
                            },
                        },
                        "metadata": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "invocationId": {"type": "string"}, "startedOn": TIME, "finishedOn": TIME,
                            },
                        },
                        "byproducts": {"type": "array", "items": DESCRIPTOR},
                    },
                },
            },
        },
    },
}  # fmt: skip
FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {"_producer": {"format": "uri"}, "_schemaURL": {"format": "uri"}},
    },
}
DATASET = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {"type": "string", "minLength": 1}, "name": {"type": "string", "minLength": 1}, "facets": FACETS,
        "inputFacets": FACETS, "outputFacets": FACETS,
    },
    "additionalProperties": False,
}  # fmt: skip
# OpenLineage 2-0-2, RunEvent.
EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "additionalProperties": False,
    "properties": {
        "eventTime": TIME,
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
        },
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": FACETS},
        },
        "inputs": {"type": "array", "items": DATASET},
        "outputs": {"type": "array", "items": DATASET},
    },
}


def check(value: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)


def events(place: Laptop, result: TrainResult) -> list[Any]:
    found = [json.loads(line) for line in place.beside(result, layout.EVENTS).splitlines()]
    for one in found:
        check(one, EVENT)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


def test_provenance_is_what_slsa_asks_and_names_what_went_in_and_came_out(place: Laptop) -> None:
    first = place.run(evaluation={})
    assert first.artifact is not None
    live = {"revision": 1, "artifactDigest": first.artifact.digest, "trainedUntil": START}
    image = "registry.example/trainer@sha256:" + "b" * 64
    result = place.run(run_uid="second", champion=live, image=image)
    assert result.artifact is not None
    assert result.record is not None
    found = json.loads(place.beside(result, layout.PROVENANCE))
    check(found, STATEMENT)
    manifest = artifacts.read_manifest(place.store, result.artifact.digest)
    named = {one["name"]: "sha256:" + one["digest"]["sha256"] for one in found["subject"]}
    assert named == {"manifest.json": result.artifact.digest} | {one.path: one.sha256 for one in manifest.files}
    definition = found["predicate"]["buildDefinition"]
    inputs = {one["name"]: one for one in definition["resolvedDependencies"]}
    assert set(inputs) == {"source", "trainer image", "champion"}
    record = json.loads(place.store.get(layout.record(result.record.id)))
    assert "sha256:" + inputs["source"]["digest"]["sha256"] == record["data"]["objects"][0]["sha256"]
    assert inputs["source"]["annotations"]["rows"] == 2400
    assert inputs["trainer image"]["digest"] == {"sha256": "b" * 64}
    assert "sha256:" + inputs["champion"]["digest"]["sha256"] == first.artifact.digest
    assert definition["externalParameters"]["training"]["recipe"]["seed"] == 7
    (byproduct,) = found["predicate"]["runDetails"]["byproducts"]
    assert "sha256:" + byproduct["digest"]["sha256"] == result.record.id


@pytest.mark.parametrize("without", ["subject", "predicate"])
def test_the_check_itself_can_fail(place: Laptop, without: str) -> None:
    found = json.loads(place.beside(place.run(), layout.PROVENANCE))
    del found[without]
    with pytest.raises(ValidationError):
        check(found, STATEMENT)


def test_a_run_that_was_judged_started_and_completed(place: Laptop) -> None:
    result = place.run(run_uid="1b4e28ba-2fa1-11d2-883f-0016d3cca427")
    start, end = events(place, result)
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"] == "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    assert (end["job"]["namespace"], end["job"]["name"]) == ("shop", "late.train")
    (source,) = end["inputs"]
    assert source["name"].endswith("lake/rows")
    assert {one["name"] for one in source["facets"]["schema"]["fields"]} >= {"amount", "kind", "late"}
    statistics = source["inputFacets"]["inputStatistics"]
    assert (statistics["rowCount"], statistics["fileCount"]) == (2400, 1)
    (output,) = end["outputs"]
    assert result.artifact is not None
    assert output["facets"]["version"]["datasetVersion"] == result.artifact.digest
    assert result.record is not None
    assert end["run"]["facets"]["truekeep_record"]["id"] == result.record.id


def test_a_gate_that_failed_is_no_failure_of_the_run_but_has_no_output(place: Laptop) -> None:
    hard = {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.999"}]}
    _, end = events(place, place.run(evaluation=hard))
    assert (end["eventType"], end["outputs"]) == ("COMPLETE", [])
    assert end["run"]["facets"]["truekeep_record"]["reason"] == "GatesFailed"


def test_input_at_fault_fails_the_run_with_the_words(place: Laptop) -> None:
    result = place.run(parameters={"depth": "1"})
    _, end = events(place, result)
    assert end["eventType"] == "FAIL"
    assert end["run"]["facets"]["errorMessage"]["message"] == result.message
    assert uuid.UUID(end["run"]["runId"]).version == 5


def test_a_dataset_is_named_by_the_folder_that_its_objects_share() -> None:
    assert _folder(["s3://lake/flights/a/1.parquet", "s3://lake/flights/ab/2.parquet"]) == ("s3://lake", "flights")
    assert _folder(["s3://lake/1.parquet"]) == ("s3://lake", "/")
    assert _folder(["/data/lake/rows/a.csv"]) == ("file", "/data/lake/rows")
