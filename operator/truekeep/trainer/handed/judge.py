"""A team's image never grades itself: what it made is asked here about rows that it never saw, by Truekeep.

The same objects are read again that `handed_prepare` read, so that the split is the same; gates, cut-off, champion,
report and record are those of any other model. What the image says of itself (metrics.json) is written down, and
decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from truekeep.contract import layout
from truekeep.contract.artifact import Imported, Signature
from truekeep.contract.canonical import canonical_json
from truekeep.contract.handed import Delivered, Prepared
from truekeep.contract.requests import TrainRequest
from truekeep.features import encode
from truekeep.scores.metrics import Floats, Scored
from truekeep.scores.results import results
from truekeep.sources.columns import Want
from truekeep.storage.artifacts import Store
from truekeep.trainer.data.dataset import Dataset
from truekeep.trainer.faults import DeliveryInvalid, ParametersInvalid
from truekeep.trainer.fit import LoadedChampion, Say, Verdict, judged
from truekeep.trainer.handed import delivery as handed
from truekeep.trainer.handed import prepare as handed_prepare
from truekeep.trainer.handed.model import Made, checked, finished, opened
from truekeep.trainer.handed.remote import Remote
from truekeep.trainer.imported.taken import check_rows
from truekeep.trainer.judging import benchmarks as benchmark
from truekeep.trainer.judging import evaluate
from truekeep.trainer.judging.benchmarks import LoadedBenchmark
from truekeep.trainer.judging.missing import without
from truekeep.trainer.record.evidence import Judged
from truekeep.trainer.text import counted, iso, moment

WHOSE = "what spec.training.image made"


@dataclass(frozen=True)
class Handed:
    """What the image was given, and what it delivered."""

    prepared: Prepared
    delivered: Delivered


def fetch(request: TrainRequest, store: Store) -> Handed | None:
    """What lies in the store of the stage before; None where the Model has no training.image. DeliveryInvalid where
    it is not all there."""
    if request.training.image is None:
        return None
    before, made = handed.prepared(request, store), handed.delivered(request, store)
    if before is None or made is None:
        key = layout.fit_delivered(request.namespace, request.model, request.run_uid)
        raise DeliveryInvalid(
            f"spec.training.image delivered nothing for this run: {store.uri(key)} is missing; {handed.AGAIN}"
        )
    return Handed(before, made)


def judge(
    request: TrainRequest,
    store: Store,
    what: Handed,
    dataset: Dataset,
    champion: LoadedChampion | None,
    say: Say,
    benchmarks: Sequence[LoadedBenchmark] = (),
) -> Verdict:
    """The verdict on what was delivered. InputFault where it can't be judged, or where these rows are not those that
    were handed over; StoreError where the store is at fault."""
    image = handed.image_of(request)
    handed_prepare.check_same(handed_prepare.described(request, dataset, what.prepared.now), what.prepared)
    if what.delivered.problem:
        raise DeliveryInvalid(what.delivered.problem)
    files = handed.files(request, store, what.delivered)
    say(f"delivered by {image.reference}: " + ", ".join(f"{name} ({len(files[name]):,} bytes)" for name in files))
    at = what.prepared.at
    old, new = slice(None, at), slice(at, None)
    wants = [Want(feature.name, feature.type) for feature in what.prepared.features]
    trained, unseen = dataset.named(wants, old), dataset.named(wants, new)
    until = int(dataset.times[at - 1])
    made, ask = _model(request, what, files, trained, until)

    check_rows(made.draft.features, unseen, WHOSE)
    matrix = encode.matrix(unseen, made.draft.features)
    scores = ask(unseen)
    cut_off = evaluate.choose_cut_off(request.evaluation, dataset.labels[new], scores)
    scored = Scored(dataset.labels[new], scores, cut_off)

    def again(rows: Floats) -> Floats:
        return checked(made.predict, rows)

    absent = without(made.draft.features, matrix, again) if request.evaluation.robustness else None
    metrics, gates, against = judged(request, dataset, new, scored, champion, say, absent)

    def predict(further: Dataset) -> Floats:
        rows = further.named(wants)
        check_rows(made.draft.features, rows, WHOSE)
        return ask(rows)

    gates = evaluate.sorted_results([*gates, *benchmark.judge(request.evaluation, benchmarks, predict, cut_off, say)])
    verdict = Verdict(
        metrics=metrics,
        gates=gates,
        champion=against,
        cut_off=cut_off,
        fit_seconds=what.delivered.fit_seconds,
        trained_until=until,
        rows=at,
        facts=_facts(request, what, dataset, scored),
        judged=Judged(scored, made.draft.features, matrix, again),
    )
    if not verdict.passed:
        return verdict
    shown = results(scored)
    published = finished(made, cut_off, trained, scores, matrix)
    published[layout.PERFORMANCE] = canonical_json(shown.dump())
    return replace(verdict, files=published, performance=shown)


def _model(
    request: TrainRequest, what: Handed, files: dict[str, bytes], trained: Mapping[str, Any], until: int
) -> tuple[Made, Callable[[Mapping[str, Any]], Floats]]:
    """The model, and what answers rows by their columns."""
    image = handed.image_of(request)
    if image.format != "Opaque":
        made = opened(image, files, what.prepared.features, trained, until)
        return made, lambda rows: checked(made.predict, encode.matrix(rows, made.draft.features))
    backend = request.backend
    if backend is None:
        raise ParametersInvalid("spec.training.image.format Opaque needs spec.serving.image; add it")
    remote = Remote(backend.port, request.model, float(backend.timeout_seconds), what.prepared.features)
    remote.wait()
    draft = opaque_draft(what, until)
    return Made(draft, remote.matrix, files), remote.rows


def opaque_draft(what: Handed, until: int | None) -> Signature:
    """The signature of files that serving.image alone knows, without cut-off and examples."""
    names = sorted(what.delivered.files, key=lambda file: file.path)
    source = names[0] if len(names) == 1 else None
    return Signature(
        estimator="opaque",
        features=what.prepared.features,
        cut_off=0.5,
        examples=[],
        imported=Imported(
            format="opaque",
            source=source.path if source else counted(len(names), "file"),
            source_sha256=source.sha256 if source else "",
            inputs=[],
            trained_until=None if until is None else moment(until),
        ),
    )


def _facts(request: TrainRequest, what: Handed, dataset: Dataset, scored: Scored) -> dict[str, Any]:
    image, at = handed.image_of(request), what.prepared.at
    return {
        "holdout": {
            "since": iso(dataset.times[at]), "rows": len(scored.labels), "positives": int(scored.labels.sum()),
        },
        "train": {"rows": at, "positives": int(dataset.labels[:at].sum()), "until": iso(dataset.times[at - 1])},
        "image": {
            "words": f"trained on {counted(at, 'row')} by spec.training.image",
            "reference": image.reference,
            "imageId": request.fit_image_id,
            "format": image.format,
            "delivered": [file.dump() for file in what.delivered.files],
            # What it says of itself. Nothing is decided by it.
            "reported": {one.name: one.value for one in what.delivered.reported},
            "reportedProblem": what.delivered.reported_problem,
        },
        "warnings": [],
    }  # fmt: skip


def opaque_folder(what: Handed, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What serving.image finds in its folder when it is judged: the files, and the features' meaning."""
    signature = opaque_draft(what, None)
    return {**files, layout.SIGNATURE: canonical_json(signature.model_dump(mode="json", by_alias=True))}
