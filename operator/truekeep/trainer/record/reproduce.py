"""A recorded run again: the same objects by their pins, the same code, and what came out held against the record.

The run is that of `run.py`, with the moment of the record as its clock. What is read is what was pinned, in the version
and with the bytes that the record names; what is written goes to a store of its own, and what served then is read from
where it lies.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from truekeep.api.common import Place, S3Location
from truekeep.api.data import Data
from truekeep.api.evaluation import Evaluation
from truekeep.api.training import Recipe, Training
from truekeep.api.trainingrun import Trigger
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.requests import Champion, LastRun, TrainRequest
from truekeep.contract.tuning import TrialParameter
from truekeep.features import encode, models
from truekeep.sources.objects import Objects
from truekeep.sources.places import Opener
from truekeep.sources.read import Pin
from truekeep.storage import ArtifactInvalid, ObjectMissing, artifacts
from truekeep.storage.artifacts import Store
from truekeep.storage.s3 import Fetched, ObjectInfo
from truekeep.trainer.data.dataset import load
from truekeep.trainer.data.pinned import pinned
from truekeep.trainer.fit import wants_of
from truekeep.trainer.run import World, run
from truekeep.trainer.text import EPOCH, MICROSECONDS
from truekeep.trainer.tuning import search as tuning

STORE = S3Location(uri="s3://reproduced/")
NEAR = 1e-9  # promised of predictions, where the CPU is of another type

Json = Mapping[str, Any]


class NotReproducibleError(ValueError):
    """The run can't be done again here; the text says why, and what to do."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was recorded."""

    what: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.then} then, {self.now} now"


@dataclass(frozen=True)
class Comparison:
    """How the run that was done again stands beside the recorded one."""

    record: str  # of the run that was done again, by its digest
    then: str | None  # the artifact's digest; None: there was none
    now: str | None
    reason: str
    verdict: tuple[Difference, ...] = ()  # reason, gates, champion
    values: tuple[Difference, ...] = ()  # metrics and gates' values
    files: tuple[str, ...] = ()  # of the artifact, that differ
    largest: float | None = None  # difference of a prediction; None: not measured
    rows: int = 0  # that it was measured on
    unmeasured: str = ""  # why not
    around: tuple[Difference, ...] = field(default=())  # versions, CPU, threads

    @property
    def equal(self) -> bool:
        """Whether all that can be compared is the same, bit for bit."""
        return self.then == self.now and not self.verdict and not self.values

    @property
    def near(self) -> bool:
        """Whether it is what is promised on another type of CPU: the same verdict, predictions within 1e-9."""
        return not self.verdict and self.largest is not None and self.largest <= NEAR

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        differences = {name: [vars(one) for one in getattr(self, name)] for name in ("verdict", "values", "around")}
        return {
            "result": "BitEqual" if self.equal else "Near" if self.near else "Different",
            "artifact": {"then": self.then, "now": self.now, "files": list(self.files)},
            "predictions": {"largestDifference": self.largest, "rows": self.rows, "unmeasured": self.unmeasured},
            "reason": self.reason,
            "record": self.record,
            **differences,
        }


def request_of(record: Json) -> TrainRequest:
    """What that run was asked, to be asked again. NotReproducibleError where the record does not tell, or nobody but a
    team's image can do it."""
    try:
        about, data = record["run"], record["data"]
        training = Training.model_validate(record["training"]["declared"])
        if training.image is not None:
            raise NotReproducibleError(
                f"run {about['name']} was fitted by the team's image {training.image.reference}, which is not run "
                "here; run that image again on the objects of the record, and import what it makes"
            )
        previous, last = record["previous"], data.get("lastRun")
        return TrainRequest(
            namespace=about["namespace"],
            model=about["model"],
            model_uid=about["modelUid"],
            model_generation=about["modelGeneration"],
            run=about["name"],
            run_uid=f"again-{secrets.token_hex(8)}",
            trigger=Trigger.model_validate(about["trigger"]),
            training_fingerprint=about["trainingFingerprint"],
            image=record["environment"]["image"],
            operator_version=record["environment"]["operator"],
            store=STORE,
            data=Data.model_validate(data["declared"]),
            training=_settled(training, record["training"].get("tuning")),
            evaluation=Evaluation.model_validate(record["evaluation"]["declared"]),
            champion=Champion.model_validate(previous) if previous else None,
            last_run=LastRun.model_validate(last) if last else None,
        )
    except (KeyError, TypeError) as error:
        raise NotReproducibleError(f"this is no record of a training run: it has no {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][:6]))
        raise NotReproducibleError(
            f"the record is of another version of Truekeep ({record['environment'].get('truekeep')}): {where}: "
            f"{first['msg']}; use that version"
        ) from error


def _settled(training: Training, tuned: Json | None) -> Training:
    """The training section with what tuning chose, where it chose."""
    recipe: Recipe | None = training.recipe
    if recipe is None or recipe.tuning is None:
        return training
    if not tuned or not tuned.get("best"):
        raise NotReproducibleError("the run ended before its tuning chose parameters; there is nothing to fit again")
    chosen = tuple(TrialParameter.model_validate(one) for one in tuned["best"]["parameters"])
    return training.model_copy(update={"recipe": tuning.recipe_with(recipe, chosen)})


def pins_of(record: Json) -> tuple[Pin, ...]:
    """The objects that were read."""
    return tuple(
        Pin(one["source"], one["uri"], one["versionId"], one["etag"], one["size"], one["sha256"], one["rows"])
        for one in record["data"]["objects"]
    )


@dataclass(frozen=True)
class Outside:
    """What is outside. `objects`: where a place's files lie, by the keys that the record names; `store`: of the
    recorded run, None where it is not there; `scratch`: where the new run writes."""

    objects: Opener
    store: Store | None
    scratch: Store
    say: Callable[[str], None]
    threads: int


def reads(request: TrainRequest) -> dict[str, str]:
    """By what a place is read for, as pins name it: its URI."""
    data = request.data
    return {
        "source": data.source.place.uri,
        **({"label": data.label.source.place.uri} if data.label.source else {}),
        **{f"join {one.name}": one.source.place.uri for one in data.joins},
        **{f"benchmark {one.name}": one.source.place.uri for one in request.evaluation.benchmarks},
    }


def reproduce(
    record: Json, pins: Sequence[Pin], outside: Outside, original: Mapping[str, bytes] | None = None
) -> Comparison:
    """Do it again and compare.

    `pins`: the record's, by the addresses at which `outside` knows the objects. `original`: the recorded artifact's
    files where they are at hand; else they are read from the store. NotReproducibleError where an input is gone or
    another one, StoreError where a store is in trouble."""
    request = request_of(record)
    moment = datetime.fromisoformat(record["times"]["started"])
    store = _Beside(outside.scratch, outside.store, request.champion.artifact_digest if request.champion else None)
    opened = _opener(request, outside.objects, pins, store)
    result = run(request, World(opened, lambda: moment, outside.say, outside.threads))
    if result.record is None or result.reason in ("DataChanged", "StoreUnreachable"):
        raise NotReproducibleError(result.message)
    made = json.loads(outside.scratch.get(layout.record(result.record.id)))
    found = Comparison(
        record=result.record.id,
        then=(record["artifact"] or {}).get("digest"),
        now=result.artifact.digest if result.artifact else None,
        reason=result.reason,
        verdict=tuple(_verdict(record, made)),
        values=tuple(_values(record, made)),
        around=tuple(_around(record, made)),
    )
    if found.then is None or found.now is None or found.then == found.now:
        return found
    return _measured(found, record, request, opened, moment, store, outside, original)


def _opener(request: TrainRequest, objects: Opener, pins: Sequence[Pin], store: Store) -> Opener:
    """Places of rows by their pins; the run's own store; anything else, such as an imported model, as it is."""
    declared = [*request.data.sources, *(one.source for one in request.evaluation.benchmarks)]
    rows = {source.place.uri for source in declared}
    again = pinned(cast(Callable[[Place], Objects], objects), pins)

    def opened(place: Place) -> Any:
        if place.uri == STORE.uri:
            return store
        return again(place) if place.uri in rows else objects(place)

    return cast(Opener, opened)


class _Beside:
    """A store to write into; what the recorded run found in its own store, the live revision's artifact, is read from
    there."""

    def __init__(self, scratch: Store, original: Store | None, digest: str | None) -> None:
        self._scratch = scratch
        self._original = original
        self._prefix = layout.artifact_file(digest, "") if digest else None
        self.endpoint = scratch.endpoint

    def uri(self, key: str = "") -> str:
        return self._scratch.uri(key)

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        return self._scratch.list(prefix, start_after)

    def get(self, key: str) -> bytes:
        return self.fetch(key).data

    def fetch(self, key: str, version_id: str | None = None, *, limit: int | None = None, **more: Any) -> Fetched:
        try:
            return self._scratch.fetch(key, version_id, limit=limit, **more)
        except ObjectMissing:
            if self._original is None or self._prefix is None or not key.startswith(self._prefix):
                raise
            return self._original.fetch(key, version_id, limit=limit, **more)

    def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        return self._scratch.put(key, data, only_if_absent)


def _verdict(then: Json, now: Json) -> Iterator[Difference]:
    if then["outcome"]["reason"] != now["outcome"]["reason"]:
        yield Difference("outcome", then["outcome"]["reason"], now["outcome"]["reason"])
    before, after = ({one["name"]: one["result"] for one in each["evaluation"]["gates"]} for each in (then, now))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Difference(f"gate {name}", before.get(name, "not judged"), after.get(name, "not judged"))
    compared = [(each["evaluation"]["champion"] or {}).get("result", "not compared") for each in (then, now)]
    if compared[0] != compared[1]:
        yield Difference("comparison with the champion", *compared)


def _values(then: Json, now: Json) -> Iterator[Difference]:
    """Numbers as they are recorded."""
    for kind in ("metrics", "gates"):
        before, after = ({one["name"]: one["value"] for one in each["evaluation"][kind]} for each in (then, now))
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                yield Difference(
                    f"{kind.removesuffix('s')} {name}", str(before.get(name, "none")), str(after.get(name, "none"))
                )
    if then["evaluation"]["cutOff"] != now["evaluation"]["cutOff"]:
        yield Difference("cut-off", str(then["evaluation"]["cutOff"]), str(now["evaluation"]["cutOff"]))


def _around(then: Json, now: Json) -> Iterator[Difference]:
    """What the run was made with: reasons why something may differ."""
    before, after = (dict(_flat(each["environment"])) for each in (then, now))
    before |= {f"threads {name}": str(value) for name, value in then["training"]["threads"].items()}
    after |= {f"threads {name}": str(value) for name, value in now["training"]["threads"].items()}
    for name in sorted({*before, *after} - {"image", "operator", "packagesDigest"}):  # what asked, not what computed
        if before.get(name) != after.get(name):
            yield Difference(name, before.get(name, "not recorded"), after.get(name, "none"))


def _flat(environment: Json) -> Iterator[tuple[str, str]]:
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield from ((f"{name} {inner}", str(one)) for inner, one in value.items())
        elif value is not None:
            yield name, str(value)


def _measured(
    found: Comparison,
    record: Json,
    request: TrainRequest,
    opened: Opener,
    moment: datetime,
    store: Store,
    outside: Outside,
    original: Mapping[str, bytes] | None,
) -> Comparison:
    """With the files that differ, and how far predictions are apart on every row that was read."""
    assert found.now is not None
    mine = artifacts.read(outside.scratch, found.now)
    try:
        if original is None:
            if outside.store is None:
                raise ArtifactInvalid("its store is not known here; give --store")
            original = artifacts.read(outside.store, str(found.then))
    except ArtifactInvalid as error:
        return replace(found, unmeasured=f"the recorded artifact can't be read: {error}")
    names = sorted({*mine, *original})
    found = replace(found, files=tuple(name for name in names if mine.get(name) != original.get(name)))
    now = round((moment - EPOCH).total_seconds() * MICROSECONDS)
    dataset = load(request.data, [], opened, now, lambda _: None)
    columns = dataset.named(wants_of(request))
    scores = []
    try:
        for files in (original, mine):
            signature = Signature.model_validate_json(files[layout.SIGNATURE])
            predict, _ = models.predictor(files, signature)
            scores.append(predict(encode.matrix(columns, signature.features)))
    except (models.ArtifactFaultError, encode.FeatureError) as error:
        return replace(found, unmeasured=f"predictions can't be compared: {error}")
    largest = float(np.max(np.abs(scores[0] - scores[1]), initial=0.0))
    return replace(found, largest=largest if not math.isnan(largest) else math.inf, rows=len(dataset))
