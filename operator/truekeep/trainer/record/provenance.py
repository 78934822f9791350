"""A run told in other people's formats, from its record: SLSA provenance (in-toto) and OpenLineage events.

Both are unsigned statements of the trainer. https://slsa.dev/spec/v1.0/provenance,
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md,
https://openlineage.io/spec/2-0-2/OpenLineage.json
"""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from truekeep.contract.artifact import Manifest

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://truekeep.dev/provenance/training/v1"
BUILDER = "https://truekeep.dev/trainer"
EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets"
_RUNS = uuid.UUID("6f0d7a1e-6f0b-5d0e-9f0e-0b6f1c1d7a52")  # names runs that have no UUID of their own
_FAILED = frozenset(
    {"DataInvalid", "DataTooLarge", "DataChanged", "ParametersInvalid", "ImportInvalid", "DeliveryInvalid"}
)

Document = Mapping[str, Any]


def statement(record: Document, record_digest: str, record_uri: str, manifest: Manifest) -> dict[str, Any]:
    """What the artifact was made from. `manifest`: the artifact's, whose files are the subject beside it."""
    artifact, run, environment = record["artifact"], record["run"], record["environment"]
    subject = [{"name": "manifest.json", "uri": artifact["uri"], "digest": _hex(artifact["digest"])}]
    subject += [{"name": file.path, "digest": _hex(file.sha256)} for file in manifest.files]
    return {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "data": record["data"]["declared"],
                    "training": record["training"]["declared"],
                    "evaluation": record["evaluation"]["declared"],
                    "trigger": run["trigger"],
                },
                "internalParameters": {
                    "modelGeneration": run["modelGeneration"],
                    "trainingFingerprint": run["trainingFingerprint"],
                    "threads": record["training"]["threads"],
                    **_tuned(record),
                },
                "resolvedDependencies": list(_dependencies(record)),
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {"truekeep": environment["truekeep"], "python": environment["python"],
                                **environment["libraries"]},
                },
                "metadata": {
                    "invocationId": f"{run['namespace']}/{run['name']}/{run['uid']}",
                    "startedOn": record["times"]["started"],
                    "finishedOn": record["times"]["finished"],
                },
                "byproducts": [{"name": "record.json", "uri": record_uri, "digest": _hex(record_digest)}],
            },
        },
    }  # fmt: skip


def _tuned(record: Document) -> dict[str, Any]:
    """The hyperparameters that the run chose by itself."""
    best = (record["training"].get("tuning") or {}).get("best")
    return {"tunedParameters": best["parameters"]} if best else {}


def _dependencies(record: Document) -> Any:
    """Each object that was read, the image, its lock file, and the model that it was compared with."""
    for one in record["data"]["objects"]:
        notes = {"source": one["source"], "rows": one["rows"], "size": one["size"], "versionId": one["versionId"]}
        yield {
            "name": one["source"],
            "uri": one["uri"],
            "digest": _hex(one["sha256"]),
            "annotations": {key: value for key, value in notes.items() if value is not None},
        }
    environment = record["environment"]
    image = environment["image"]
    if "@sha256:" in image:
        yield {"name": "trainer image", "uri": f"oci://{image}", "digest": _hex(image.partition("@")[2])}
    if team := record["evaluation"].get("image"):
        yield _team_image(team["reference"], team.get("imageId") or "")
    if environment["lockDigest"]:
        yield {"name": "requirements.lock", "digest": _hex(environment["lockDigest"])}
    if record["previous"]:
        yield {
            "name": "champion",
            "digest": _hex(record["previous"]["artifactDigest"]),
            "annotations": {"revision": record["previous"]["revision"]},
        }


def _team_image(reference: str, identity: str) -> dict[str, Any]:
    """spec.training.image, with a digest where it names one or its node did."""
    _, found, digest = (reference if "@sha256:" in reference else identity).rpartition("sha256:")
    named = {"name": "training image", "uri": f"oci://{reference}"}
    return {**named, "digest": _hex(digest)} if found else named


def events(record: Document, record_digest: str, record_uri: str) -> list[dict[str, Any]]:
    """START and what ended the run: COMPLETE where it was judged, also where a gate failed; FAIL where the input was at
    fault. Inputs are the declared sources, one dataset each; the output is the artifact, where there is one."""
    environment, run, outcome = record["environment"], record["run"], record["outcome"]
    producer = f"https://truekeep.dev/trainer/{environment['truekeep']}"
    job = {
        "namespace": run["namespace"],
        "name": f"{run['model']}.train",
        "facets": {
            "jobType": {
                **_facet(producer, "2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet"),
                "processingType": "BATCH",
                "integration": "TRUEKEEP",
                "jobType": "TRAINING",
            }
        },
    }
    version = {
        **_facet(producer, "1-1-0/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet"),
        "version": environment["truekeep"],
        "name": "truekeep",
    }
    common = {"producer": producer, "schemaURL": EVENT, "job": job}
    identity = _run_id(run["uid"])
    inputs = list(_inputs(record, producer))
    facets: dict[str, Any] = {
        "processing_engine": version,
        "truekeep_record": {
            "_producer": producer,
            "_schemaURL": "https://truekeep.dev/openlineage/RecordRunFacet/v1",
            "id": record_digest,
            "uri": record_uri,
            "reason": outcome["reason"],
            "metrics": {one["name"]: one["value"] for one in record["evaluation"]["metrics"]},
        },
    }
    failed = outcome["reason"] in _FAILED
    if failed:
        facets["errorMessage"] = {
            **_facet(producer, "1-0-0/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet"),
            "message": outcome["message"],
            "programmingLanguage": "PYTHON",
        }
    start = {
        **common,
        "eventType": "START",
        "eventTime": record["times"]["started"],
        "run": {"runId": identity, "facets": {"processing_engine": version}},
        "inputs": inputs,
        "outputs": [],
    }
    end = {
        **common,
        "eventType": "FAIL" if failed else "COMPLETE",
        "eventTime": record["times"]["finished"],
        "run": {"runId": identity, "facets": facets},
        "inputs": inputs,
        "outputs": list(_outputs(record, producer)),
    }
    return [start, end]


def _inputs(record: Document, producer: str) -> Any:
    """A dataset a source, by the folder that is common to its objects, with what was read of it."""
    by_source: dict[str, list[Document]] = {}
    for one in record["data"]["objects"]:
        by_source.setdefault(one["source"], []).append(one)
    for source, objects in by_source.items():
        namespace, name = _folder([one["uri"] for one in objects])
        columns = record["data"]["schema"].get(source, {})
        yield {
            "namespace": namespace,
            "name": name,
            "facets": {
                "schema": {
                    **_facet(producer, "1-1-1/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet"),
                    "fields": [{"name": column, "type": kind} for column, kind in columns.items()],
                }
            },
            "inputFacets": {
                "inputStatistics": {
                    **_facet(
                        producer,
                        "1-0-0/InputStatisticsInputDatasetFacet.json#/$defs/InputStatisticsInputDatasetFacet",
                    ),
                    "rowCount": sum(one["rows"] for one in objects),
                    "size": sum(one["size"] for one in objects),
                    "fileCount": len(objects),
                }
            },
        }


def _outputs(record: Document, producer: str) -> Any:
    artifact = record["artifact"]
    if artifact:
        namespace, name = _folder([artifact["uri"]])
        yield {
            "namespace": namespace,
            "name": name,
            "facets": {
                "version": {
                    **_facet(producer, "1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"),
                    "datasetVersion": artifact["digest"],
                }
            },
            "outputFacets": {
                "outputStatistics": {
                    **_facet(
                        producer,
                        "1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet",
                    ),
                    "size": artifact["sizeBytes"],
                }
            },
        }


def _folder(uris: Sequence[str]) -> tuple[str, str]:
    """OpenLineage's names of a folder: `s3://BUCKET` and the prefix; `file` and the path."""
    folders = [uri.rpartition("/")[0] for uri in uris]
    common = "/".join(posixpath.commonprefix([folder.split("/") for folder in folders]))
    scheme, _, rest = common.partition("://")
    if not rest:
        return "file", common or "/"
    bucket, _, prefix = rest.partition("/")
    return f"{scheme}://{bucket}", prefix or "/"


def _run_id(uid: str) -> str:
    """The run's UID, which is a UUID in a cluster; else a UUID made from it."""
    try:
        return str(uuid.UUID(uid))
    except ValueError:
        return str(uuid.uuid5(_RUNS, uid))


def _facet(producer: str, schema: str) -> dict[str, str]:
    return {"_producer": producer, "_schemaURL": f"{FACETS}/{schema}"}


def _hex(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}
