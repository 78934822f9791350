"""Old TrainingRuns go from the cluster, the store keeps what they made: what serves, what is still needed and what
others applied stays, and a revision whose run went still answers for itself, and can come back to serve."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.e2e.people import Someone, hire
from tests.e2e.shop import READY_SECONDS, Shop, merged, open_shop, small_model
from tests.story.kube import Json, Kube, NotInTime
from tests.story.narrator import Narrator
from tests.story.stage import Stage

NAMESPACE = "truekeep-e2e-pruning"
MODEL = "pruned"
STORE = "s3://models/"
KEEP = 10  # the least that the schema allows
LAST = KEEP + 6
OLD = range(1, 7)  # beyond the newest ten
APPROVED = (1, 2, 3)  # each of them answered; 2 is asked about
IN_GIT, BY_HAND = 4, 5
GOES = [2, 6]  # of the old: 1 is the newest that a change of the spec made, 3 answered before the last one
VERSIONS = 4  # of the data: 4 and all that follow are made of the same
PAYMENTS = "fraud/payments/all.parquet"
SPEC = {
    "approval": {"mode": "Manual"},
    "retraining": {"keepRuns": KEEP},
    "evaluation": {"champion": None},
    "serving": {
        "rollout": {"strategy": "BlueGreen"},
        "rollbackWindowSeconds": 1,
        "keptRevisions": 2,  # what has a Deployment stays: with three of them, revision 2 has
        "capture": {"s3": {"uri": "s3://lake/captures/"}, "flushSeconds": 1},
    },
}


@dataclass
class Past:
    """The namespace, its store, who approves, and who restores."""

    shop: Shop
    stage: Stage
    ann: Someone
    dora: Someone

    def by_revision(self) -> dict[int, Json]:
        """The runs that became revisions."""
        runs = self.shop.runs(MODEL)
        return {run["status"]["revision"]: run for run in runs if run.get("status", {}).get("revision")}

    def status(self) -> Json:
        return dict(self.shop.model(MODEL).get("status") or {})

    def approved(self, revision: int) -> None:
        """Ann's word on the revision, and it serves."""
        self.shop.until(
            f"revision {revision} to wait for a decision",
            READY_SECONDS,
            lambda: (self.status().get("awaiting") or {}).get("revision") == revision,
        )
        done = self.ann.truekeep("approve", MODEL, "-m", f"reviewed {revision}")
        assert done.returncode == 0, done.stderr
        self.shop.ready(MODEL, revision)

    def left(self, wanted: list[int]) -> None:
        """Waits until only these have a run. AssertionError that says what there is that a run may be kept for."""
        try:
            self.shop.until("the old runs to go", 120, lambda: sorted(self.by_revision()) == wanted)
        except NotInTime as error:
            runs, status = self.by_revision(), self.status()
            stay = {
                number: {
                    "name": run["metadata"]["name"],
                    "trigger": run["spec"].get("trigger"),
                    "ended": run["status"].get("completionTime"),
                    "fields of": [each["manager"] for each in run["metadata"].get("managedFields", [])],
                }
                for number, run in runs.items()
                if number not in wanted
            }
            said = {name: status.get(name) for name in ("active", "previous", "former", "candidate", "awaiting", "run")}
            said |= {"history": [each["revision"] for each in status.get("history", [])]}
            said |= {"decisions": status.get("decisions")}
            there = [each["metadata"]["name"] for each in self.shop.kube.list(NAMESPACE, "deployments")]
            gone = sorted(set(wanted) - set(runs))
            raise AssertionError(f"{error}: {stay} stay, {gone} went; Deployments {there}; status {said}") from error

    def says(self, who: Someone, *words: str, code: int = 0) -> str:
        """What a command says, in one line."""
        done = who.truekeep(*words, seconds=240)
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == code, f"truekeep {' '.join(words)} ended with {done.returncode}: {said}"
        return said

    def aged(self, run: Json, days: int = 40) -> None:
        """As if it had ended so long ago. Only the cluster's administrator can do that."""
        ended = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
        self.shop.kube.kubectl(
            "patch", "tkr", run["metadata"]["name"], "-n", NAMESPACE, "--subresource=status", "--type=merge",
            "-p", json.dumps({"status": {"completionTime": ended}}),
        )  # fmt: skip


@pytest.fixture(scope="module")
def past(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    with open_shop(kube, NAMESPACE, {}) as shop, Stage(kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        folder: Path = tmp_path_factory.mktemp("people")
        ann = hire(kube, folder, NAMESPACE, "ann", ["truekeep-approver", "truekeep-viewer"])
        dora = hire(kube, folder, NAMESPACE, "dora", ["truekeep-restorer", "truekeep-editor"])
        yield Past(shop, stage, ann, dora)


def payments(past: Past, version: int) -> None:
    """The data as far as it came by then: what is trained on the same is the same, and approved with it."""
    lake = past.stage.bucket("lake")
    if not (whole := _WHOLE.get(PAYMENTS)):
        whole = _WHOLE[PAYMENTS] = lake.get(PAYMENTS)
    table = pq.read_table(io.BytesIO(whole))
    sink = io.BytesIO()
    pq.write_table(table.slice(0, table.num_rows - 100 * (VERSIONS - version)), sink)
    lake.put(PAYMENTS, sink.getvalue())


_WHOLE: dict[str, bytes] = {}


def trained_often(past: Past) -> float:
    """Sixteen revisions; what revision 2 answered."""
    shop, answer = past.shop, 0.0
    payments(past, 1)
    shop.apply(merged(small_model(MODEL), {"spec": SPEC}))
    for number in range(1, LAST + 1):
        if 1 < number <= VERSIONS:
            payments(past, number)
        if number == BY_HAND:
            made = {"metadata": {"name": "by-hand"}, "spec": {"modelRef": {"name": MODEL}}}
            made |= {"apiVersion": "truekeep.dev/v1alpha1", "kind": "TrainingRun"}
            shop.kube.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(made))
        elif number > 1:
            word = f"truekeep.dev/retrain=no-{number}"
            shop.kube.kubectl("annotate", "tkm", MODEL, "-n", NAMESPACE, "--overwrite", word)
        shop.until(f"revision {number}", READY_SECONDS, lambda number=number: number in past.by_revision())
        if number in APPROVED or number == LAST:
            past.approved(number)
        if number == 2:
            version, answer = past.shop.decide(MODEL, "asked-of-2")
            assert version == "2"
    kept = past.stage.bucket("lake")
    shop.until("the capture", 60, lambda: any("/revision=2/" in each.key for each in kept.list("captures/")))
    return answer


def grown_old(past: Past) -> None:
    """The old runs ended long ago, what answered long ago is out of the status, and Git has one of the runs."""
    shop = past.shop
    runs = past.by_revision()
    git = {key: runs[IN_GIT][key] for key in ("apiVersion", "kind", "spec")}
    about = {key: runs[IN_GIT]["metadata"][key] for key in ("name", "labels", "ownerReferences")}
    document = {**git, "metadata": about}
    shop.kube.apply(NAMESPACE, [document], "--server-side", "--force-conflicts", "--field-manager=argocd-controller")
    status = past.status()
    # Revision 3 stays in it, as what answered before the last one.
    shop.kube.kubectl(
        "patch", "tkm", MODEL, "-n", NAMESPACE, "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": {"history": status["history"][:2]}}),
    )  # fmt: skip
    shop.until("what only the store remembers to be told", 420, lambda: any(
        one["kind"] == "Promoted" and one.get("revision") == LAST for one in decisions(past)))  # fmt: skip
    for revision in OLD:
        past.aged(runs[revision])


def decisions(past: Past) -> list[Json]:
    pages = past.stage.bucket("models")
    found = [json.loads(pages.get(info.key)) for info in pages.list(f"{NAMESPACE}/{MODEL}/decisions/")]
    return [one for page in found for one in page["decisions"]]


@pytest.mark.full
def test_old_runs_go_and_their_revisions_still_answer_for_themselves(past: Past, tmp_path: Path) -> None:
    shop = past.shop
    answer = trained_often(past)
    before, trained = past.by_revision(), len(shop.runs(MODEL))
    assert sorted(before) == list(range(1, LAST + 1))
    active = past.status()["active"]
    grown_old(past)
    wanted = sorted(set(before) - set(GOES))
    past.left(wanted)
    assert past.by_revision()[BY_HAND]["metadata"]["name"] == "by-hand"
    pruned = [event for event in shop.events("Model", MODEL) if event["reason"] == "RunPruned"]
    named = {before[revision]["metadata"]["name"] for revision in GOES}
    assert all(any(name in event["message"] for event in pruned) for name in named), pruned
    assert past.status()["active"] == active
    assert past.status()["latestRevision"] == LAST
    shop.ready(MODEL, LAST)

    the_store_answers(past, before, answer, tmp_path)
    it_comes_back(past, before, answer)
    assert sorted(past.by_revision()) == sorted([*wanted, 2]), "what is restored stays, and what is needed did"
    assert len(shop.runs(MODEL)) == trained - len(GOES) + 1, "nothing was trained anew"


def the_store_answers(past: Past, before: dict[int, Json], answer: float, folder: Path) -> None:
    """Everything that can be asked about revision 2, whose run is gone."""
    in_cluster, place = ["-n", NAMESPACE], ["--endpoint", past.stage.endpoint]
    history = past.says(past.ann, "history", MODEL, *in_cluster)
    assert "revision 2, 6: no run any more" in history
    assert f"truekeep lineage {MODEL} --namespace {NAMESPACE} --store {STORE}" in history

    why: Any = past.ann.truekeep("why", "asked-of-2", "--model", MODEL, *in_cluster, *place, "-o", "json")
    assert why.returncode == 0, why.stdout + why.stderr
    (told,) = json.loads(why.stdout)["decisions"]
    assert (told["revision"], told["score"], told["recomputed"]["state"]) == (2, answer, "Equal")
    assert (told["run"], told["faults"]) == (before[2]["metadata"]["name"], [])

    differs = past.says(past.ann, "diff", MODEL, "2", str(LAST), *in_cluster, *place)
    assert "data: rows" in differs
    assert "image" not in differs, "both are told in the same way"
    past.says(past.ann, "open", MODEL, "2", "--to", str(folder / "report.html"), *in_cluster, *place)
    assert (folder / "report.html").read_text().startswith("<!doctype html>")

    words = past.says(past.ann, "lineage", MODEL, "--revision", "2", *in_cluster, code=2)
    assert "--store asks the store" in words
    asked = past.ann.truekeep("lineage", MODEL, "--revision", "2", "--store", STORE, *in_cluster, *place, "-o", "json")
    assert asked.returncode == 0, asked.stderr
    (entry,) = json.loads(asked.stdout)
    assert entry["record"]["id"] == before[2]["status"]["record"]["id"]
    assert entry["decisions"][0]["approver"] == past.ann.name
    assert entry["answered"][0]["until"] is not None
    payments(past, 2)  # there are no versions in the lake: the object is what it was then
    words = past.says(past.ann, "reproduce", before[2]["metadata"]["name"], *in_cluster, *place)
    assert f"bit-equal: {before[2]['status']['artifact']['digest']}" in words


def it_comes_back(past: Past, before: dict[int, Json], answer: float) -> None:
    """A rollback to it says what to do; done, it serves again, and answers the same."""
    in_cluster, shop = ["-n", NAMESPACE], past.shop
    words = past.says(past.dora, "rollback", MODEL, "--to", "2", *in_cluster, code=2)
    command = f"restore {MODEL} --revision 2 --store {STORE} --namespace {NAMESPACE}"
    assert f"truekeep {command}" in words
    shop.patch(MODEL, {"serving": {"pinnedRevision": 2}})
    shop.until("the pin to say what to do", 60, lambda: any(
        command.removesuffix(f" --namespace {NAMESPACE}") in each["message"]
        for each in past.status()["conditions"] if each["reason"] == "PinnedRevisionMissing"))  # fmt: skip
    shop.patch(MODEL, {"serving": {"pinnedRevision": None}})

    past.says(past.dora, *command.split(), "--endpoint", past.stage.endpoint)
    shop.until("the run to be there again", 120, lambda: 2 in past.by_revision())
    again = past.by_revision()[2]
    for name in ("artifact", "record", "metrics", "trainingFingerprint"):
        assert again["status"][name] == before[2]["status"][name], name
    assert again["metadata"]["name"] == before[2]["metadata"]["name"]
    past.says(past.dora, "rollback", MODEL, "--to", "2", *in_cluster)
    shop.until("revision 2 to answer", 120, lambda: (past.status()["active"] or {}).get("revision") == 2)
    assert past.shop.decide(MODEL, "asked-again") == ("2", answer)
    past.says(past.dora, "resume", MODEL, *in_cluster)
    shop.until("what the spec asks for", 120, lambda: (past.status()["active"] or {}).get("revision") == LAST)
