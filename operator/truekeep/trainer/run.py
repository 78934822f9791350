"""One training run from request to result. What is outside (stores, clock, where words go) is handed in.

Order of writing: the artifact's files, its manifest, the record, what lies beside it, the result; the first result that
is written wins, so that a pod that is started again, or twice, does nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, get_args

from pydantic import ValidationError

from truekeep.api.common import S3Location
from truekeep.api.trainingrun import GateResult, Record
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.requests import TrainRequest
from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUTSIDE, TrainResult
from truekeep.features import models
from truekeep.storage import ArtifactInvalid, ObjectMissing, StoreError, artifacts
from truekeep.storage.artifacts import Store
from truekeep.trainer import benchmarks, beside, evaluate, taken
from truekeep.trainer import record as records
from truekeep.trainer.dataset import DataFault, Dataset, load
from truekeep.trainer.faults import FaultReason, InputFault
from truekeep.trainer.fit import LoadedChampion, Verdict, compared, train
from truekeep.trainer.text import EPOCH, MICROSECONDS, counted, decimal, iso, moment

MESSAGE_LENGTH = 2048
GATES_SHOWN = evaluate.MAX_GATES


@dataclass(frozen=True)
class World:
    """What is outside of a run."""

    opened: Callable[[S3Location], Store]
    now: Callable[[], datetime]
    say: Callable[[str], None]
    threads: int


def run(request: TrainRequest, world: World) -> TrainResult:
    """Do what is asked, or hand over what was done already. Never raises for bad input or a store in trouble."""
    try:
        store = world.opened(request.store)
        return _earlier(request, store, world) or _Run(request, store, world).run()
    except StoreError as error:
        return _result(request, "StoreUnreachable", str(error))


def exit_code(result: TrainResult) -> int:
    """0: judged; 3: the input is at fault; 4: something outside was missing."""
    codes = {**dict.fromkeys(get_args(FaultReason), EXIT_INPUT), "StoreUnreachable": EXIT_OUTSIDE}
    return codes.get(result.reason, EXIT_JUDGED)


def _result(request: TrainRequest, reason: Any, message: str, **more: Any) -> TrainResult:
    shown = message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 2] + " …"
    return TrainResult(
        run_uid=request.run_uid,
        reason=reason,
        message=shown,
        training_fingerprint=request.training_fingerprint,
        **more,
    )


def _key(request: TrainRequest) -> str:
    return layout.run_result(request.namespace, request.model, request.run_uid)


def _earlier(request: TrainRequest, store: Store, world: World) -> TrainResult | None:
    """The result that an earlier pod of this run wrote."""
    try:
        content = store.get(_key(request))
    except ObjectMissing:
        return None
    world.say(f"this run is done already: {store.uri(_key(request))}")
    return TrainResult.model_validate_json(content)


class _Run:
    def __init__(self, request: TrainRequest, store: Store, world: World) -> None:
        self.request = request
        self.store = store
        self.world = world
        self.started = world.now()

    def run(self) -> TrainResult:
        warm = threading.Thread(target=_import_early, daemon=True)
        warm.start()  # scikit-learn takes seconds to import; the store is waited for meanwhile
        champion = self._champion()
        dataset: Dataset | None = None
        try:
            given = taken.fetch(self.request, self.world.opened, self.world.say)
            now = round((self.started - EPOCH).total_seconds() * MICROSECONDS)
            wants = champion.wants() if champion else []
            dataset = load(self.request.data, wants, self.world.opened, now, self.world.say)
            self._say_rows(dataset)
            further = benchmarks.read(self.request, self.world.opened, now, self.world.say)
            dataset = replace(dataset, pins=(*dataset.pins, *(pin for one in further for pin in one.pins)))
            warm.join()
            if given is not None:
                verdict = taken.judge(self.request, given, dataset, champion, self.world.say, further)
            else:
                verdict = train(self.request, dataset, champion, self.world.threads, self.world.say, further)
        except DataFault as fault:
            return self._refused(fault, fault)
        except InputFault as fault:
            return self._refused(fault, dataset)
        return self._judged(dataset, verdict)

    def _champion(self) -> LoadedChampion | None:
        """The live revision's files, where a comparison is declared. A fault of the store is one of the run, but an
        artifact that is lost or altered must not keep a better model from serving."""
        champion = self.request.champion
        if champion is None or self.request.evaluation.champion is None:
            return None
        try:
            digest = champion.artifact_digest
            files = artifacts.read(self.store, digest, {layout.SIGNATURE})
            signature = Signature.model_validate_json(files[layout.SIGNATURE])
            # scikit-learn's own answer where it is published, else ONNX's.
            (answers,) = sorted(models.model_files(signature) - {layout.ONNX_FILE}) or [layout.ONNX_FILE]
            return LoadedChampion(signature, artifacts.read(self.store, digest, {answers}))
        except (ArtifactInvalid, ValidationError) as error:
            return LoadedChampion(fault=str(error))

    def _say_rows(self, dataset: Dataset) -> None:
        read = dataset.read
        self.world.say(
            f"data is valid: {counted(read.rows, 'labelled row')} from {iso(dataset.times[0])} to "
            f"{iso(dataset.times[-1])}, {read.unlabelled:,} without a label, {read.unripe:,} too young for one, "
            f"{dataset.superseded:,} superseded by a later row of their key"
        )
        for warning in read.warnings:
            self.world.say(f"  Warn: {warning}")

    def _refused(self, fault: InputFault, seen: Dataset | DataFault | None) -> TrainResult:
        result = _result(self.request, fault.reason, str(fault), data=seen.read if seen else None)
        return self._write(result, seen, violations=fault.details)

    def _judged(self, dataset: Dataset, verdict: Verdict) -> TrainResult:
        reason, message = self._conclusion(dataset, verdict)
        artifact = None
        if verdict.files:
            artifact = artifacts.write(self.store, verdict.files)
            self.world.say(f"wrote {counted(artifact.size_bytes, 'byte')} to {artifact.uri}")
        result = _result(
            self.request,
            reason,
            message,
            data=dataset.read,
            metrics=tuple(verdict.metrics),
            gates=tuple(verdict.gates[:GATES_SHOWN]),
            champion=verdict.champion,
            cut_off=decimal(verdict.cut_off, 6),
            fit_seconds=decimal(verdict.fit_seconds, 3),
            artifact=artifact,
            trained_until=moment(verdict.trained_until) if artifact and verdict.trained_until is not None else None,
        )
        return self._write(result, dataset, gates=verdict.gates, evaluation=verdict.facts, verdict=verdict)

    def _conclusion(self, dataset: Dataset, verdict: Verdict) -> tuple[str, str]:
        """Reason and message."""
        broken = evaluate.failed(verdict.gates)
        if broken:
            said = "; ".join(evaluate.sentence(gate) for gate in broken)
            return "GatesFailed", f"{said}. The live model stays; mend the data or the recipe, or loosen the gate"
        if verdict.champion is not None and verdict.champion.result == "Failed":
            return "ChampionKept", f"The live model stays: {compared(verdict.champion)}"
        values = {metric.name: metric.value for metric in verdict.metrics}
        values |= {gate.metric: gate.value for gate in verdict.gates if gate.metric not in values}
        gates = self.request.evaluation.gates
        main = gates[0].metric if gates else "roc_auc"
        message = f"{main} {values[main]} on {verdict.facts['holdout']['rows']:,} rows of the holdout; "
        message += f"{counted(len(verdict.gates), 'gate')} passed; " if verdict.gates else "no gate is declared; "
        message += verdict.facts.get("import", {}).get("words") or f"trained on {counted(verdict.rows, 'row')}"
        if verdict.champion is not None:
            message += f"; {compared(verdict.champion)}"
        if unserved := verdict.facts.get("onnx", {}).get("reason"):
            message += f"; scikit-learn serves it, not ONNX: {unserved}"
        return "Succeeded", message

    def _write(
        self,
        result: TrainResult,
        seen: Dataset | DataFault | None,
        *,
        violations: Sequence[Mapping[str, Any]] = (),
        gates: Sequence[GateResult] = (),
        evaluation: Mapping[str, Any] | None = None,
        verdict: Verdict | None = None,
    ) -> TrainResult:
        """The record, what lies beside it, then the result; where another pod was first, its result."""
        document = records.build(
            self.request,
            result,
            pins=seen.pins if seen else (),
            schema=seen.schema if seen else {},
            superseded=seen.superseded if seen else None,
            violations=violations,
            gates=gates,
            evaluation=evaluation or {},
            threads=self.world.threads,
            started=self.started,
            finished=self.world.now(),
        )
        content = canonical_json(document)
        digest = sha256(content)
        key = layout.record(digest)
        self.store.put(key, content)
        self.world.say(f"wrote the record {self.store.uri(key)}")
        beside.write(self.store, document, digest, verdict, self.request.evaluation, self.world.say)
        result = result.model_copy(update={"record": Record(id=digest, uri=self.store.uri(key))})
        if not self.store.put(_key(self.request), result.model_dump_json(by_alias=True).encode(), only_if_absent=True):
            self.world.say("another pod of this run was first; handing over its result")
            return TrainResult.model_validate_json(self.store.get(_key(self.request)))
        return result


def _import_early() -> None:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import skops.io  # noqa: F401

    records.installed()
