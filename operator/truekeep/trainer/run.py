"""One training run from request to result. What is outside (stores, clock, where words go) is handed in.

Order of writing: the artifact's files, its manifest, the record, what lies beside it, the result; the first result that
is written wins, so that a pod that is started again, or twice, does nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from truekeep.api.trainingrun import GateResult, Record
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.contract.handed import Prepared
from truekeep.contract.requests import TrainRequest
from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUTSIDE, TrainResult
from truekeep.contract.tuning import TuningInputs
from truekeep.features import models
from truekeep.sources.places import Opened, Opener
from truekeep.storage import ArtifactInvalid, ObjectMissing, StoreError, artifacts
from truekeep.storage.artifacts import Store
from truekeep.trainer.data import comparison
from truekeep.trainer.data.dataset import DataFault, Dataset, load
from truekeep.trainer.data.pinned import pinned, read_back
from truekeep.trainer.faults import FaultReason, InputFault, TuningFailed
from truekeep.trainer.fit import LoadedChampion, Verdict, compared, train
from truekeep.trainer.handed import delivery as handed
from truekeep.trainer.handed import judge as handed_judge
from truekeep.trainer.handed import prepare as handed_prepare
from truekeep.trainer.imported import taken
from truekeep.trainer.judging import benchmarks, evaluate
from truekeep.trainer.record import beside
from truekeep.trainer.record import document as records
from truekeep.trainer.text import counted, decimal, iso, moment
from truekeep.trainer.tuning import choice as tuning_choice
from truekeep.trainer.tuning.trial import again, microseconds

MESSAGE_LENGTH = 2048
GATES_SHOWN = evaluate.MAX_GATES


@dataclass(frozen=True)
class World:
    """What is outside of a run."""

    opened: Opener
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


def prepare(request: TrainRequest, world: World, folder: Path) -> TrainResult | None:
    """Read, check and split as for a run, and put what a team's image is to fit on into a folder. None where that is
    done; else how the run ended, as `run` says it. OSError where the folder can't be written."""
    try:
        store = world.opened(request.store)
        earlier = _earlier(request, store, world)
        return earlier or _Run(request, store, world).prepare(folder)
    except StoreError as error:
        return _result(request, "StoreUnreachable", str(error))


def without_data(request: TrainRequest, why: InputFault | StoreError) -> TrainResult:
    """How a run ended that came to no data: without a record."""
    return _result(request, why.reason if isinstance(why, InputFault) else "StoreUnreachable", str(why))


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
        self.chosen: tuning_choice.Chosen | None = None

    def run(self) -> TrainResult:
        warm = threading.Thread(target=_import_early, daemon=True)
        warm.start()  # scikit-learn takes seconds to import; the store is waited for meanwhile
        champion = self._champion()
        dataset: Dataset | None = None
        try:
            given = taken.fetch(self.request, self.world.opened, self.world.say)
            made = handed_judge.fetch(self.request, self.store)
            tried = tuning_choice.inputs_of(self.request, self.store)
            opened, now = self._sources(made.prepared if made else None, tried)
            wants = champion.wants() if champion else []
            known = comparison.known(self.request, self.store, self.world.opened)
            dataset = load(self.request.data, wants, opened, now, self.world.say, known)
            self._say_rows(dataset)
            further = benchmarks.read(self.request, self.world.opened, now, self.world.say)
            dataset = replace(dataset, pins=(*dataset.pins, *(pin for one in further for pin in one.pins)))
            warm.join()
            if tried is not None:
                self.chosen = tuning_choice.choose(self.request, self.store, tried, dataset)
                self.world.say(self.chosen.words)
            if given is not None:
                verdict = taken.judge(self.request, given, dataset, champion, self.world.say, further)
            elif made is not None:
                verdict = handed_judge.judge(self.request, self.store, made, dataset, champion, self.world.say, further)
            else:
                verdict = train(self._settled(), dataset, champion, self.world.threads, self.world.say, further)
        except DataFault as fault:
            return self._refused(fault, fault)
        except InputFault as fault:
            return self._refused(fault, dataset)
        return self._judged(dataset, verdict)

    def _settled(self) -> TrainRequest:
        """The request with what tuning chose in place of what was to be tried."""
        if self.chosen is None:
            return self.request
        training = self.request.training.model_copy(update={"recipe": self.chosen.recipe})
        return self.request.model_copy(update={"training": training})

    def prepare(self, folder: Path) -> TrainResult | None:
        """What a team's image is to fit on. The same rows for each pod of this run."""
        dataset: Dataset | None = None
        try:
            before = handed.prepared(self.request, self.store)
            opened, now = self._sources(before)
            known = comparison.known(self.request, self.store, self.world.opened)
            dataset = load(self.request.data, [], opened, now, self.world.say, known)
            self._say_rows(dataset)
            handed_prepare.hand_over(self.request, self.store, dataset, before, self.started, folder, self.world.say)
        except DataFault as fault:
            return self._refused(fault, fault)
        except InputFault as fault:
            return self._refused(fault, dataset)
        return None

    def _sources(self, before: Prepared | None, tried: TuningInputs | None = None) -> tuple[Opened, int]:
        """What is read, and at which moment it counts, in microseconds since 1970: what an earlier pod of the run read,
        where there was one."""
        if tried is not None and not tried.fault:
            return again(self.world.opened, tried)
        if before is not None:
            return pinned(self.world.opened, read_back(before.objects)), microseconds(before.now)
        return self.world.opened, microseconds(self.started)

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
            if not models.model_files(signature):
                return LoadedChampion(fault="only its own spec.serving.image answers for it, which is not asked here")
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
        for text in read.not_judged:
            self.world.say(f"  {text}")

    def _refused(self, fault: InputFault, seen: Dataset | DataFault | None) -> TrainResult:
        result = _result(self.request, fault.reason, str(fault), data=seen.read if seen else None)
        warned = [one.dump() for one in seen.violations] if isinstance(seen, Dataset) else []
        tried = fault.told if isinstance(fault, TuningFailed) else None
        return self._write(result, seen, violations=[*fault.details, *warned], tried=tried)

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
        warned = [one.dump() for one in dataset.violations]
        return self._write(
            result,
            dataset,
            violations=warned,
            gates=verdict.gates,
            evaluation=verdict.facts,
            verdict=verdict,
        )

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
        elsewhere = verdict.facts.get("import", verdict.facts.get("image", {}))
        message += elsewhere.get("words") or f"trained on {counted(verdict.rows, 'row')}"
        if self.chosen is not None:
            message += f"; {self.chosen.words}"
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
        tried: tuning_choice.Told | None = None,
    ) -> TrainResult:
        """The record, what lies beside it, then the result; where another pod was first, its result."""
        tried = self.chosen.told if self.chosen else tried
        result = result.model_copy(update={"tuning": tried.summary if tried else None})
        document = records.build(
            self.request,
            result,
            pins=seen.pins if seen else (),
            schema=seen.schema if seen else {},
            superseded=seen.superseded if seen else None,
            violations=violations,
            gates=gates,
            evaluation=evaluation or {},
            tuning=tried.facts if tried else None,
            threads=self.world.threads,
            started=self.started,
            finished=self.world.now(),
            files=verdict.files if verdict else None,
        )
        content = canonical_json(document)
        digest = sha256(content)
        key = layout.record(digest)
        self.store.put(key, content)
        self.world.say(f"wrote the record {self.store.uri(key)}")
        written = beside.write(self.store, document, digest, verdict, self.request.evaluation, self.world.say)
        report = self.store.uri(layout.beside_record(digest, layout.REPORT)) if layout.REPORT in written else None
        result = result.model_copy(update={"record": Record(id=digest, uri=self.store.uri(key), report=report)})
        if not self.store.put(_key(self.request), result.model_dump_json(by_alias=True).encode(), only_if_absent=True):
            self.world.say("another pod of this run was first; handing over its result")
            return TrainResult.model_validate_json(self.store.get(_key(self.request)))
        return result


def _import_early() -> None:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import skops.io  # noqa: F401

    records.installed()
