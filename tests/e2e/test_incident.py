"""The runbook of docs/incident.md, command by command: a model is wrong, while every reply is 200."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from tests.e2e.captured import first_day, parquet
from tests.e2e.repository import Repository
from tests.e2e.scraped import scrapes
from tests.e2e.shop import BEGINS, DAYS, REQUEST, ROWS_PER_DAY, Shop, open_shop, parameters, small_model
from tests.prometheus import running, until
from tests.story.kube import Json, Kube, condition
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from tests.unit.manifests.test_monitoring import groups
from truekeep.cli.examples import fraud

pytestmark = pytest.mark.full
NAMESPACE = "truekeep-e2e-incident"
MODEL = "payments"
BOOK = Path(__file__).parents[2] / "docs/incident.md"
ROWS, PER_REQUEST = 800, 100
POLICY: Json = {
    "apiVersion": "truekeep.dev/v1alpha1",
    "kind": "DriftPolicy",
    "metadata": {"name": "watch"},
    "spec": {
        "modelRef": {"name": MODEL},
        "schedule": "* * * * *",
        "window": {"hours": 24, "minRows": 300, "idleSeconds": 10},
        "data": {"minimumEffect": "0.3"},
        "consecutiveWindows": 1,
        "responses": [{"finding": "DataDrift", "action": "Alert"}],
    },
}


class Incident:
    """The Model under Git, those who ask it, and those who have the runbook."""

    def __init__(self, shop: Shop, stage: Stage, repository: Repository) -> None:
        self.shop = shop
        self.stage = stage
        self.repository = repository
        self.payments = fraud.tables(BEGINS, DAYS, ROWS_PER_DAY, BEGINS + timedelta(days=3660), seed=7)["payments"]
        self.commands = re.findall(r"^\s*\$ (truekeep .*)$", BOOK.read_text(), re.M)
        self.given = 0

    def say(self, name: str, **puts: str) -> str:
        """The next command of the runbook, as it is written there but for the names. What it says."""
        command = self.commands[self.given]
        self.given += 1
        assert command.split()[1] == name, f"the runbook has {command!r} here"
        for old, new in {"flight-delay": MODEL, "-n shop": f"-n {NAMESPACE}", **puts}.items():
            command = command.replace(old, new)
        words = shlex.split(command)
        target = None
        if ">" in words:
            words, target = words[: words.index(">")], words[-1]
        done = self.repository.run(*words, TRUEKEEP_S3_ENDPOINT=self.stage.endpoint)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        if target:
            (self.repository.folder.parent / target).write_text(done.stdout)
        return done.stdout + done.stderr

    def ask(self, name: str, day: datetime) -> tuple[set[str], list[str]]:
        """Customers' payments of that day, as they always were. Which versions answered, and the requests' ids."""
        rows = self.payments.slice(0, ROWS).to_pydict()
        times = [(day + timedelta(seconds=60 * row)).strftime("%Y-%m-%dT%H:%M:%SZ") for row in range(ROWS)]
        columns: dict[str, tuple[str, list[Any]]] = {
            feature: (kind, [float(value) if kind == "FP64" else value for value in rows[feature]])
            for feature, (kind, _) in REQUEST.items()
        }
        columns |= {"paid_at": ("BYTES", times), "payment_id": ("BYTES", [f"{name}-{row}" for row in range(ROWS)])}
        versions, ids = set(), []
        with self.shop.kube.forward(NAMESPACE, MODEL, 80) as port, httpx.Client(timeout=30) as client:
            for start in range(0, ROWS, PER_REQUEST):
                inputs = [
                    {"name": n, "shape": [PER_REQUEST], "datatype": kind, "data": data[start : start + PER_REQUEST]}
                    for n, (kind, data) in columns.items()
                ]
                body = {"id": f"{name}-{start}", "inputs": inputs}
                reply = client.post(f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer", json=body)
                assert reply.status_code == 200, reply.text  # also while it is wrong
                versions.add(reply.json()["model_version"])
                ids.append(body["id"])
        return versions, ids

    def active(self) -> int | None:
        """The revision that answers."""
        return (self.shop.model(MODEL).get("status", {}).get("active") or {}).get("revision")

    def captured(self, revision: int) -> int:
        """Files of its captures."""
        prefix = f"captures/{NAMESPACE}/{MODEL}/revision={revision}/"
        return len(list(self.stage.bucket("lake").list(prefix)))


@pytest.fixture(scope="module")
def incident(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    model = small_model(
        MODEL,
        serving={
            "rollout": {"strategy": "BlueGreen"},
            "capture": {"s3": {"uri": "s3://lake/captures/"}, "flushSeconds": 1, "drop": None},
        },
    )
    with open_shop(kube, NAMESPACE, {}) as shop, Stage(kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        folder = tmp_path_factory.mktemp("git") / "models"
        folder.mkdir()
        made = Incident(shop, stage, Repository(shop, folder, model, POLICY))
        amount = made.payments.column("amount").to_numpy() * 100
        cents = made.payments.set_column(made.payments.column_names.index("amount"), "amount", pa.array(amount))
        stage.bucket("lake").put("cents/payments/all.parquet", parquet(cents))
        yield made


def test_the_runbook_from_the_alert_to_the_mend(incident: Incident, tmp_path: Path) -> None:
    shop, git = incident.shop, incident.repository
    assert git.deploy().returncode == 0
    assert incident.active() == 1
    versions, _ = incident.ask("before", first_day())
    assert versions == {"1"}

    # A commit reads amounts in cents. Its gates pass: its holdout is in cents, too. Customers still pay in euros.
    git.commit(data={"source": {"s3": {"uri": "s3://lake/cents/payments/"}}})
    done = git.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert incident.active() == 2
    begun = datetime.now(UTC)
    versions, wrong = incident.ask("wrong", first_day() + timedelta(days=1))
    assert versions == {"2"}
    assert condition(shop.model(MODEL), "Ready")["status"] == "True"

    # 1. The alert, by the rules as they are shipped.
    with running(tmp_path, scrapes(shop.kube, NAMESPACE, tmp_path), groups()) as prometheus:

        def alerts() -> list[dict[str, str]]:
            found = [each["labels"] for each in prometheus.ask("alerts")["alerts"]]
            return [each for each in found if each.get("namespace") == NAMESPACE]

        until(lambda: any(each["alertname"] == "TruekeepDrift" for each in alerts()), 240, alerts)
        (alert,) = (each for each in alerts() if each["alertname"] == "TruekeepDrift")
        assert (alert["model"], alert["policy"]) == (MODEL, "watch")

    # Self-heal is on from here to the end.
    with git.self_heal():
        status = incident.say("status")
        assert "revision 2, since" in status
        assert "amount" in status  # the policy names the column
        assert " to now" in " ".join(incident.say("history").split())
        incident.say("pause")
        assert "from revision 2 to revision 1" in incident.say("rollback")
        shop.until("revision 1 to answer", 60, lambda: incident.active() == 1)
        assert "revision 1, since" in incident.say("status")
        ended = datetime.now(UTC)
        assert incident.ask("after", first_day() + timedelta(days=2))[0] == {"1"}

        shop.until("the captures of revision 2", 60, lambda: incident.captured(2))
        assert f"{ROWS} decisions of revision 2" in incident.say("decisions", **{"--revision 7": "--revision 2"})
        with (git.folder.parent / "decisions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert {row["request_id"] for row in rows} == set(wrong)
        assert {row["key"] for row in rows} == {f"wrong-{row}" for row in range(ROWS)}
        times = {"01:40:00Z": begun, "02:10:00Z": ended}
        spans = {f"2026-11-23T{old}": f"{at:%Y-%m-%dT%H:%M:%S}Z" for old, at in times.items()}
        incident.say("decisions", **{"--revision 7": "--revision 2", **spans})
        lines = (git.folder.parent / "decisions.jsonl").read_text().splitlines()
        told = [json.loads(line) for line in lines]
        assert len(told) == ROWS
        assert {row["revision"] for row in told} == {2}
        assert max(row["amount"] for row in told) < 10_000  # as customers sent it
        why = incident.say("why", **{"REQUEST-ID": f"{wrong[0]} --row 0"})
        assert "revision 2" in why

        differs = incident.say("diff", **{" 6 7 ": " 1 2 "})
        assert "data digest" in differs
        report = git.folder.parent / "report.html"
        incident.say("open", **{" 7 ": " 2 ", "report.html": str(report)})
        assert "cents/payments" in report.read_text()

        # The mend: euros again, and a gate's worth of other parameters. The pause holds it until somebody is there.
        git.commit(data={"source": {"s3": {"uri": "s3://lake/fraud/payments/"}}}, **parameters(max_iter="15"))
        shop.until(
            "the commit to be held", 60,
            lambda: condition(shop.model(MODEL), "Ready")["reason"] == "PausedByHand",
        )  # fmt: skip
        assert incident.active() == 1
        incident.say("resume")
        said = incident.say("wait")
        assert "revision 3 answers" in said
        assert incident.ask("mended", first_day() + timedelta(days=3))[0] == {"3"}
        lineage = incident.say("lineage", **{"--revision 7": "--revision 2"})
        assert "revision 2" in lineage
        assert " to " in lineage.split("answered", 1)[1].splitlines()[0]
    assert incident.given == len(incident.commands)
    assert len(shop.runs(MODEL)) == 3
