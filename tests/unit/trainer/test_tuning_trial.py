"""A tuning on a real store, as pods do it: each trial once, whatever happens to pods, and the best of them trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.monitor.test_page import Tags
from tests.unit.trainer.lake import ROWS, START, data_of, events, parquet, replaced, request_of
from truekeep.api.training import Training
from truekeep.contract import layout
from truekeep.contract.canonical import sha256
from truekeep.contract.requests import LastRun, TrainRequest
from truekeep.contract.results import TrainResult
from truekeep.contract.tuning import TrialResult
from truekeep.storage.s3 import Bucket
from truekeep.trainer.data import rules
from truekeep.trainer.run import World, exit_code, run
from truekeep.trainer.tuning import search as tuning
from truekeep.trainer.tuning.trial import Trials, read_trial, tune

VALUES = ["0.001", "0.1", "10", "-1"]  # the last one is refused
VALUE_OF = {0: "1", 1: "0.1"}
NOW = START + timedelta(days=30)


class Place:
    """A bucket with a lake and a store in it, and a run that tunes."""

    def __init__(self, versitygw: Versitygw) -> None:
        lake = versitygw.location()
        self.all = Bucket.open(lake)
        self.store = versitygw.location("models/", bucket=lake.uri.split("/")[2])
        self.bucket = Bucket.open(self.store)
        self.said: list[str] = []
        self.now = NOW
        self.write(events())

    def write(self, table: Any, key: str = "a.parquet") -> None:
        self.all.put(f"lake/rows/{key}", parquet(table))

    def request(self, tuned: dict[str, Any] | None = None, **changes: Any) -> TrainRequest:
        request = request_of(self.store, **changes)
        declared = {"search": "Grid", "parameters": [{"name": "C", "values": VALUES}], "folds": 2, **(tuned or {})}
        recipe = {**request.training.dump()["recipe"], "tuning": declared}
        return request.model_copy(update={"training": Training.model_validate({"recipe": recipe})})

    @property
    def world(self) -> World:
        return World(Bucket.open, lambda: self.now, self.said.append, 1)

    def pod(self, request: TrainRequest) -> Trials:
        return Trials(request, self.bucket, self.world)

    def trials(self, request: TrainRequest, *indexes: int) -> list[TrialResult | None]:
        """Each in a pod of its own."""
        return [self.pod(request).run(index) for index in indexes]

    def train(self, request: TrainRequest) -> TrainResult:
        return run(request, self.world)

    def record(self, result: TrainResult) -> Any:
        assert result.record is not None
        return json.loads(self.bucket.get(layout.record(result.record.id)))

    def report(self, result: TrainResult) -> str:
        assert result.record is not None
        return self.bucket.get(layout.beside_record(result.record.id, layout.REPORT)).decode()

    def objects(self) -> set[str]:
        return {f"{info.key} {info.etag} {info.last_modified}" for info in self.bucket.list()}


@pytest.fixture
def place(versitygw: Versitygw) -> Place:
    return Place(versitygw)


def test_the_best_trial_is_trained_and_all_are_in_the_record(place: Place) -> None:
    request = place.request(parameters={"max_iter": "200"})
    done = place.trials(request, 0, 1, 2, 3)
    result = place.train(request)
    assert result.reason == "Succeeded", result.message

    told = place.record(result)["training"]["tuning"]
    assert [one["index"] for one in told["trials"]] == [0, 1, 2, 3]
    assert [one["status"] for one in told["trials"]] == ["Scored", "Scored", "Scored", "Refused"]
    means = [float(one["mean"]) for one in told["trials"][:3]]
    for one, trial in zip(told["trials"], done, strict=True):
        assert trial is not None
        assert one["scores"] == list(trial.scores)
        assert one["parameters"] == [{"name": "C", "value": VALUES[one["index"]]}]
    best = int(np.argmax(means))
    assert told["best"] == {
        "index": best, "mean": told["trials"][best]["mean"], "parameters": [{"name": "C", "value": VALUES[best]}]
    }  # fmt: skip
    assert [fold["trainRows"] for fold in told["folds"]] == [640, 1280]
    assert "must be a float in the range" in told["trials"][3]["message"]

    assert result.tuning is not None
    assert (result.tuning.trials, result.tuning.scored, result.tuning.best) == (4, 3, best)
    assert result.tuning.score == told["best"]["mean"]
    assert TrainResult.model_validate_json(result.to_message()) == result


def test_the_report_draws_and_lists_the_trials(place: Place) -> None:
    request = place.request({"parameters": [{"name": "C", "values": ["1", "0.1", "</td><script>alert(1)"]}]})
    place.trials(request, 0, 1, 2)
    result = place.train(request)
    page = place.report(result)
    assert Tags(page).open == []
    assert "<script" not in page
    found = page.partition("<h2>Tuning")[2].partition("<h2>")[0]
    assert found.startswith(": 2 of 3 trials scored</h2>")
    assert result.tuning is not None
    assert f"Trial {result.tuning.best} was the best: <b>C {VALUE_OF[result.tuning.best]}</b>, roc_auc" in found
    assert found.count('<circle class="dot"') == 2
    assert f"{float(result.tuning.score or 'nan'):.4f}" in found
    assert "Refused" in found
    assert "must be a float in the range" in found
    assert f"<dt>tuned to</dt><dd>C = {VALUE_OF[result.tuning.best]}</dd>" in page
    assert result.record is not None
    statement = json.loads(place.bucket.get(layout.beside_record(result.record.id, layout.PROVENANCE)))
    internal = statement["predicate"]["buildDefinition"]["internalParameters"]
    assert internal["tunedParameters"] == [{"name": "C", "value": VALUE_OF[result.tuning.best]}]
    plain = place.report(place.train(request_of(place.store, run_uid="another")))
    assert "<h2>Tuning" not in plain


def test_the_report_of_a_tuning_that_came_to_nothing_has_the_trials_too(place: Place) -> None:
    request = place.request({"parameters": [{"name": "C", "values": ["-1", "-2"]}]})
    place.trials(request, 0, 1)
    page = place.report(place.train(request))
    assert Tags(page).open == []
    assert "Tuning: 0 of 2 trials scored" in page
    assert "nothing could be chosen" in page


def test_it_is_the_model_that_these_parameters_alone_make(place: Place) -> None:
    request = place.request()
    place.trials(request, 3, 2, 1, 0)  # in any order
    tuned = place.train(request)
    assert tuned.tuning is not None
    (chosen,) = tuned.tuning.parameters
    alone = request_of(place.store, parameters={"C": chosen.value}, run_uid="another")
    plain = place.train(alone)
    assert tuned.artifact is not None
    assert tuned.artifact == plain.artifact
    assert "tuning" not in place.record(plain)["training"]


def test_the_same_again_chooses_the_same(place: Place) -> None:
    random = {
        "search": "Random", "trials": 4,
        "parameters": [{"name": "C", "range": {"low": "0.001", "high": "10", "scale": "Log"}}],
    }  # fmt: skip
    results = []
    for uid in ("one", "two"):
        request = place.request(random, run_uid=uid)
        tune(request, place.bucket, place.world)
        results.append(place.train(request))
    assert results[0].artifact == results[1].artifact
    assert results[0].tuning == results[1].tuning


def test_a_pod_that_is_started_again_finds_its_result(place: Place) -> None:
    request = place.request()
    first = place.trials(request, 1)
    before = place.objects()
    assert place.trials(request, 1) == first
    assert place.objects() == before
    assert place.said[-1] == "trial 1 is done already: Scored"


def test_of_two_pods_of_one_trial_the_first_result_stands(place: Place) -> None:
    request = place.request()
    slow = place.pod(request)
    slow.prepared()
    (first,) = place.trials(request, 0)
    assert first is not None
    assert slow.keep(first.model_copy(update={"mean": "0.999", "seconds": "7"})) == first
    assert slow.out_of_time(0) == first
    assert read_trial(place.bucket, request, 0) == first


def test_all_trials_and_the_training_read_what_the_first_pod_read(place: Place) -> None:
    request = place.request()
    place.trials(request, 0)
    place.write(events(rows=400, seed=5, start=START.replace(month=2)), "b.parquet")
    place.trials(request, 1, 2, 3)
    result = place.train(request)
    assert result.reason == "Succeeded", result.message
    assert result.data is not None
    assert (result.data.rows, result.data.objects) == (ROWS, 1)
    assert len({one["trainRows"] for one in place.record(result)["training"]["tuning"]["folds"]}) == 2


def test_a_pod_that_read_later_than_the_first_takes_its_word(place: Place) -> None:
    request = place.request()
    late = place.pod(request)
    late.started = NOW + timedelta(seconds=5)
    other = place.pod(request)
    original = late.world.opened

    class First:
        """The other pod pins while this one reads."""

        def __call__(self, location: Any) -> Any:
            other.prepared()
            place.write(events(rows=400, seed=5, start=START.replace(month=2)), "b.parquet")
            return original(location)

    late.world = World(First(), lambda: place.now, place.said.append, 1)
    prepared = late.prepared()
    assert not isinstance(prepared, str)
    assert prepared.inputs.started == NOW
    assert len(prepared.dataset) == ROWS


def test_data_that_was_replaced_ends_the_run_with_words(place: Place) -> None:
    request = place.request()
    place.trials(request, 0)
    table = events()
    place.write(replaced(table, "amount", table["amount"].to_numpy() + 1))
    assert place.trials(request, 1) == [None]
    result = place.train(request)
    assert (result.reason, exit_code(result)) == ("DataChanged", 3)
    assert "a.parquet was read with sha256:" in result.message


def test_bad_data_is_told_by_the_training_and_nothing_is_fitted(place: Place) -> None:
    request = place.request(data=data_of(rules=[{"name": "enough", "minRows": 5000}]))
    assert place.trials(request, 0, 1) == [None, None]
    result = place.train(request)
    assert result.reason == "DataInvalid"
    assert "5,000" in result.message
    record = place.record(result)
    assert record["data"]["violations"]
    assert "tuning" not in record["training"]


def test_rules_that_compare_are_judged_before_any_trial(place: Place) -> None:
    data = data_of(rules=[{"name": "volume", "lastRun": {"rows": {"minimum": "0.5"}}}])
    last = LastRun(run="late-0", rows=3 * ROWS, rows_digest=rules.rows_digest(place.request(data=data).data))
    request = place.request(data=data, last_run=last)
    assert place.trials(request, 0, 1) == [None, None]
    result = place.train(request)
    assert result.reason == "DataInvalid"
    assert "0.3333 times the 7,200 of run late-0" in result.message


def test_folds_that_can_not_be_are_bad_data(place: Place) -> None:
    table = events()
    late = table["late"].to_numpy().copy()
    late[:700] = 0
    place.write(replaced(table, "late", late))
    request = place.request()
    assert place.trials(request, 0) == [None]
    result = place.train(request)
    assert result.reason == "DataInvalid"
    assert "recipe.tuning.folds 2" in result.message


def test_data_that_was_mended_meanwhile_needs_another_run(place: Place) -> None:
    good = events()
    place.write(replaced(good, "late", np.full(ROWS, 3)))
    request = place.request()
    assert place.trials(request, 0) == [None]
    place.write(good)
    result = place.train(request)
    assert result.reason == "DataInvalid"
    assert "when the trials began" in result.message


def test_all_trials_refused_are_bad_parameters(place: Place) -> None:
    request = place.request({"parameters": [{"name": "C", "values": ["-1", "-2"]}]})
    place.trials(request, 0, 1)
    result = place.train(request)
    assert (result.reason, exit_code(result)) == ("ParametersInvalid", 3)
    assert result.message.startswith("all 2 trials were refused; trial 0: LogisticRegression refuses its parameters")
    assert len(place.record(result)["training"]["tuning"]["trials"]) == 2


def test_a_budget_that_ends_leaves_the_trials_that_are_done(place: Place) -> None:
    request = place.request({"timeoutSeconds": 60})
    place.trials(request, 0)
    place.now = NOW + timedelta(seconds=61)
    assert [one.status for one in place.trials(request, 1, 2, 3) if one] == ["OutOfTime"] * 3
    result = place.train(request)
    assert result.reason == "Succeeded"
    assert result.tuning is not None
    assert (result.tuning.scored, result.tuning.best) == (1, 0)


def test_fewer_trials_than_are_needed_fail_the_run(place: Place) -> None:
    request = place.request({"timeoutSeconds": 60, "minTrials": 2})
    place.trials(request, 0)
    place.now = NOW + timedelta(seconds=61)
    place.trials(request, 1, 2)  # and of trial 3 the pod was lost
    result = place.train(request)
    assert (result.reason, exit_code(result)) == ("TuningFailed", 3)
    assert result.message == (
        "1 of 4 trials have a score, 2 must (recipe.tuning.minTrials): 2 that the time was too short for, 1 without a "
        "result (look at the pods' ends: memory, node); trial 1: the time was up before fold 1 of 2. Raise "
        "recipe.tuning.timeoutSeconds or training.resources, or correct the parameters"
    )
    statuses = [one["status"] for one in place.record(result)["training"]["tuning"]["trials"]]
    assert statuses == ["Scored", "OutOfTime", "OutOfTime", "Lost"]
    assert result.tuning is not None
    assert result.artifact is None


def test_without_any_trial_the_run_says_where_to_look(place: Place) -> None:
    result = place.train(place.request())
    assert result.reason == "TuningFailed"
    assert "look at the pods of the Job late-1-tune" in result.message


def test_trials_of_another_spec_are_never_taken(place: Place) -> None:
    old = place.request()
    place.trials(old, 0, 1)
    new = place.request(training_fingerprint=sha256(b"another"))
    assert place.trials(new, 2) == [None]
    result = place.train(new)
    assert result.reason == "TuningFailed"
    assert "never mixes two specs" in result.message


def test_a_result_of_other_data_is_never_taken(place: Place) -> None:
    request = place.request()
    (first,) = place.trials(request, 0)
    assert first is not None
    place.pod(request).keep(first.model_copy(update={"index": 1, "mean": "0.999", "data_digest": sha256(b"x")}))
    assert place.train(request).reason == "DataChanged"


def test_the_holdout_is_never_seen_by_a_trial(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row that a trial touches is older than every row of the holdout."""
    seen: list[int] = []
    original: Callable[..., Any] = tuning.fit.fit_on

    def watched(request: Any, recipe: Any, dataset: Any, rows: slice, threads: int) -> Any:
        seen.append(int(dataset.times[rows].max()))
        return original(request, recipe, dataset, rows, threads)

    monkeypatch.setattr(tuning.fit, "fit_on", watched)
    request = place.request({"parameters": [{"name": "C", "values": ["1"]}]})
    (done,) = place.trials(request, 0)
    fitted = len(seen)
    result = place.train(request)
    record = place.record(result)
    since = datetime.fromisoformat(record["evaluation"]["holdout"]["since"])
    newest = datetime.fromisoformat(record["training"]["tuning"]["folds"][-1]["until"])
    assert newest < since
    assert all(one < since.timestamp() * 1e6 for one in seen[:fitted])
    assert done is not None
