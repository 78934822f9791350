"""`record.json`: what a run was asked, read, did and decided, named by the digest of its own canonical JSON.

It is written for every verdict, also for a run that was refused, because that too is something an auditor asks about.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import truekeep
from truekeep import __version__
from truekeep.api.trainingrun import GateResult
from truekeep.contract.canonical import digest_of
from truekeep.contract.requests import TrainRequest
from truekeep.contract.results import TrainResult
from truekeep.sources.read import Pin
from truekeep.storage.artifacts import manifest_of

SCHEMA = "truekeep.dev/record/v1"
LOCK_DIGEST_ENV = "TRUEKEEP_LOCK_DIGEST"  # sha256 of the lock file that all was installed from, where LOCK is not there
LOCK = Path(truekeep.__file__).parents[2] / "lock.sha256"  # the image's: as sha256sum writes it
CPU_INFO = Path("/proc/cpuinfo")
# Nothing of ours deletes a record or an artifact; this is how long nobody else may, at the least.
RETAINED = timedelta(days=184)
RETENTION_RULE = (
    "at least six months after it stopped to serve, or after the run where it never did (Regulation (EU) 2024/1689, "
    "Articles 19 and 26(6)); longer where your own rules say so"
)
_NAMED = (
    "numpy", "pyarrow", "scikit-learn", "scipy", "skops", "onnx", "onnxruntime", "boto3", "threadpoolctl",
    "lightgbm", "xgboost-cpu",
)  # fmt: skip


def build(
    request: TrainRequest,
    result: TrainResult,
    *,
    pins: Sequence[Pin],
    schema: Mapping[str, Mapping[str, str]],
    superseded: int | None,
    violations: Sequence[Mapping[str, Any]],
    gates: Sequence[GateResult],
    evaluation: Mapping[str, Any],
    tuning: Mapping[str, Any] | None = None,
    threads: int,
    started: datetime,
    finished: datetime,
    files: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """The record as JSON. `gates`: all of them, also those that there was no room for in `result`; `files`: the
    artifact's;
    `tuning`: the trials, where there were some."""
    read = result.data.dump() if result.data else {}
    return {
        "schema": SCHEMA,
        "run": {
            "namespace": request.namespace,
            "model": request.model,
            "modelUid": request.model_uid,
            "modelGeneration": request.model_generation,
            "name": request.run,
            "uid": request.run_uid,
            "trainingFingerprint": request.training_fingerprint,
            "trigger": request.trigger.dump(),
            "author": request.author,
            "commit": request.commit,
        },
        "outcome": {"reason": result.reason, "message": result.message},
        "data": {
            **read,
            "declared": request.data.dump(),
            "objects": [_pin(pin) for pin in pins],
            "schema": {source: dict(columns) for source, columns in schema.items()},
            "schemaDigest": digest_of({source: dict(columns) for source, columns in schema.items()}),
            "superseded": superseded,
            "lastRun": request.last_run.dump() if request.last_run else None,
            "violations": [dict(violation) for violation in violations],
        },
        "training": {
            "declared": request.training.dump(),
            "pipeline": evaluation.get("pipeline"),
            "seed": getattr(request.training.recipe or request.training.image, "seed", None),
            "threads": {"trees": threads, "linearAlgebra": 1},
            "fitSeconds": result.fit_seconds,
            "trainedUntil": _time(result.trained_until),
            **({"tuning": dict(tuning)} if tuning else {}),
        },
        "evaluation": {
            **{name: found for name, found in evaluation.items() if name != "pipeline"},
            "declared": request.evaluation.dump(),
            "metrics": [metric.dump() for metric in result.metrics],
            "gates": [gate.dump() for gate in gates],
            "champion": result.champion.dump() if result.champion else None,
            "cutOff": result.cut_off,
        },
        "artifact": {**result.artifact.dump(), "files": _files(files)} if result.artifact else None,
        "previous": request.champion.dump() if request.champion else None,
        "environment": environment(request),
        "times": {"started": _time(started), "finished": _time(finished)},
        "documentation": request.documentation.dump() if request.documentation else None,
        "retention": {"retainUntil": _time(finished + RETAINED), "rule": RETENTION_RULE},
    }


def _files(files: Mapping[str, bytes] | None) -> list[dict[str, Any]]:
    """The artifact's files, as its manifest lists them: the model, its signature, its profile."""
    if not files:
        return []
    return [file.dump() for file in sorted(manifest_of(files).files, key=lambda file: file.path)]


def environment(request: TrainRequest) -> dict[str, Any]:
    """What the run was made with."""
    packages = installed()
    return {
        "image": request.image,
        "lockDigest": lock_digest(),
        "operator": request.operator_version,
        "truekeep": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": cpu(),
        "libraries": {name: packages[name] for name in _NAMED if name in packages},
        "packagesDigest": digest_of(packages),
    }


def lock_digest(file: Path = LOCK) -> str | None:
    """sha256 of requirements.lock, as the image says it; None where nobody does, as in a development environment."""
    try:
        return f"sha256:{file.read_text(encoding='ascii').split()[0]}"
    except (OSError, IndexError, UnicodeDecodeError):
        return os.environ.get(LOCK_DIGEST_ENV)


def cpu(info: Path = CPU_INFO) -> dict[str, str | None]:
    """The type of the CPU, on which the same inputs give the same bits: its name, and for which one linear algebra has
    chosen its kernels."""
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    kernels = {one["architecture"] for one in threadpool_info() if one.get("architecture")}
    return {"model": _cpu_name(info), "kernels": ", ".join(sorted(kernels)) or None}


def _cpu_name(info: Path) -> str | None:
    """As Linux tells it: by name on x86, by numbers on ARM."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if name := told.get("model name"):
        return name
    numbers = [f"{part} {told[part]}" for part in ("CPU implementer", "CPU part", "CPU variant") if part in told]
    return ", ".join(numbers) or None


@cache
def installed() -> dict[str, str]:
    """Versions by package: a tenth of a second, for which the data need not wait."""
    return {one.name: one.version for one in metadata.distributions() if one.name}


def _pin(pin: Pin) -> dict[str, Any]:
    return {
        "source": pin.source,
        "uri": pin.uri,
        "versionId": pin.version_id,
        "etag": pin.etag,
        "size": pin.size,
        "sha256": pin.sha256,
        "rows": pin.rows,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
