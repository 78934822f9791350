"""`truekeep why`: a decision that was captured, found again, asked again and explained; from files of a store alone."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.unit.monitor.test_page import Tags
from tests.unit.trainer.test_report import Laptop
from truekeep.api import capture as api
from truekeep.api.common import S3Location
from truekeep.cli import erasure, kube, stores
from truekeep.cli.main import app
from truekeep.cli.why import find
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.canonical import sha256
from truekeep.contract.decisions import Decision, Page
from truekeep.contract.results import TrainResult
from truekeep.contract.sampling import sampled
from truekeep.features import models
from truekeep.features.encode import Encoder
from truekeep.server.capture import Capture, Source
from truekeep.server.limits import Limits
from truekeep.server.metrics import Metrics
from truekeep.storage import artifacts
from truekeep.storage.folder import Folder

NOON = datetime(2026, 11, 2, 12, 30, tzinfo=UTC)
KEY = b"0123456789abcdef"
ROWS: dict[str, list[Any]] = {"amount": [1.5, None, -0.25], "kind": ["a", "never seen", None]}
TREES = "sklearn.ensemble.HistGradientBoostingClassifier"


class Scene:
    """A model that was trained on files, and requests that its server captured into a folder."""

    def __init__(self, path: Path, **changes: Any) -> None:
        place = Laptop(path)
        self.result: TrainResult = place.run(**changes)
        self.store, self.captures = place.store, Folder(path / "captures")
        assert self.result.artifact is not None
        assert self.result.record is not None
        self.artifact, self.record = self.result.artifact.digest, self.result.record.id
        self.files = artifacts.read(self.store, self.artifact)
        self.signature = Signature.model_validate_json(self.files[layout.SIGNATURE])
        self.run_name = json.loads(self.store.get(layout.record(self.record)))["run"]["name"]

    def capture(
        self,
        *requests: str,
        received: datetime = NOON,
        revision: int = 1,
        wrong: float = 0.0,
        source: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """A file with these requests of three rows. `wrong`: so far from the model's answer."""
        predict, kind = models.predictor(self.files, self.signature)
        matrix = Encoder(self.signature.features).encode(ROWS, 3)
        origin: dict[str, Any] = {"artifact": self.artifact, "run": self.run_name, "format": kind, **(source or {})}
        capture = Capture(
            api.Capture(s3=S3Location(uri="s3://lake/captures/"), flush_seconds=3600, **settings),
            Source(
                namespace="shop", model="late", revision=revision, pod="p", cut_off=self.signature.cut_off,
                features=tuple(self.signature.features), key_column="id", **origin,
            ),
            Limits(),
            Metrics(),
            lambda: self.captures,  # type: ignore[arg-type, return-value]
            hash_key=KEY if settings.get("hash") else None,
        )  # fmt: skip
        capture.start()
        for place, name in enumerate(requests):
            capture.offer(
                name, matrix, predict(matrix) + wrong, round(received.timestamp() * 1e6) + place,
                event_times=None, keys=["k1", "k2", "k3"], unknown={1: ROWS["kind"]}, size=100,
            )  # fmt: skip
        capture.close(30)

    def ask(self, *arguments: str) -> tuple[int, str, str]:
        fixed = ["--store", str(self.store.path), "--captures", str(self.captures.path), "-n", "shop"]
        done = CliRunner().invoke(app, ["why", *arguments, *fixed])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    def decisions(self, *pages: list[Decision]) -> None:
        previous = None
        for number, page in enumerate(pages, start=1):
            content = Page(
                namespace="shop", model="late", number=number, previous=previous, written=NOON, decisions=tuple(page)
            ).to_bytes()
            self.store.put(layout.decisions("shop", "late", number), content)
            previous = sha256(content)

    def told(self) -> list[Decision]:
        common = {"model_uid": "u", "artifact_digest": self.artifact}
        made = {"revision": 1, "run": self.run_name, "record": self.record}
        word = {"approver": "maria", "reason": "reviewed"}
        live = {"revision": 1, "approver": "maria", "deployment": "late-r1", "captures": "s3://lake/captures/"}
        return [
            Decision.model_validate({"id": name, "kind": kind, "time": NOON - ago, **common, **more})
            for name, kind, ago, more in (
                ("a", "Revision", timedelta(days=2), made),
                ("b", "Approved", timedelta(days=1), word),
                ("c", "Promoted", timedelta(hours=9), live),
            )
        ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("trees"), estimator=TREES)


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Scene:
    """The trained model, in a store and with captures of the test's own."""
    import copy
    import shutil

    mine = copy.copy(made)
    shutil.copytree(made.store.path, tmp_path / "models")
    (tmp_path / "captures").mkdir()
    mine.store, mine.captures = Folder(tmp_path / "models"), Folder(tmp_path / "captures")
    return mine


def test_a_decision_is_told_whole(scene: Scene) -> None:
    scene.decisions(scene.told())
    scene.capture("other", "wanted")
    code, out, err = scene.ask("wanted", "--model", "late", "--row", "0", "-o", "json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    (one,) = said["decisions"]
    assert (one["requestId"], one["row"], one["rows"], one["revision"], one["key"]) == ("wanted", 0, 3, 1, "k1")
    assert one["features"] == {"amount": 1.5, "kind": "a"}
    assert one["recomputed"]["state"] == "Equal"
    assert one["recomputed"]["score"] == one["score"]
    assert one["decision"] == int(one["score"] >= one["cutOff"])
    why = one["attribution"]
    assert (why["method"], why["scale"]) == ("TreeSHAP", "log-odds")
    assert why["background"] == "100 rows that judged the model"
    assert set(why["values"]) == {"amount", "kind"}
    assert why["base"] + sum(why["values"].values()) == pytest.approx(why["answer"], abs=1e-9)
    assert 1 / (1 + np.exp(-why["answer"])) == pytest.approx(one["score"], abs=1e-12)
    assert (one["artifact"], one["record"]["id"], one["run"]) == (scene.artifact, scene.record, scene.run_name)
    assert one["record"]["content"]["data"]["digest"].startswith("sha256:")
    assert Path(one["report"]).is_file()
    assert [each["kind"] for each in one["decisions"]] == ["Revision", "Approved", "Promoted"]
    assert said["doubts"] == one["faults"] == one["notKnown"] == []


def test_it_reads_at_a_terminal(scene: Scene) -> None:
    scene.decisions(scene.told())
    scene.capture("wanted")
    code, out, _ = scene.ask("wanted")  # no --model: all that the namespace has
    assert code == 0
    for words in (
        "request wanted, row 2 of 3: shop/late, revision 1", "2026-11-02 12:30:00 UTC", "equal to the captured one",
        "never seen", "null", "maria, 2026-11-01 12:30:00 UTC: reviewed", "2026-11-02 03:30:00 UTC to now",
        scene.artifact, scene.record, "2,400 rows, 2024-01-01 00:00 to 2024-01-17", "from 1 object;", "exact",
    ):  # fmt: skip
        assert words in out, words
    for line in out.splitlines():
        assert len(line) <= 80 or "sha256" in line or str(scene.store.path) in line


def test_the_page_has_no_script_and_says_the_same(scene: Scene) -> None:
    scene.capture("<b>wanted</b>")
    code, out, _ = scene.ask("<b>wanted</b>", "-o", "html")
    assert code == 0
    assert Tags(out).open == []
    assert "<b>wanted" not in out
    for words in ("Decision", "equal to the captured one", scene.artifact, "amount", "added, log-odds", "default-src"):
        assert words in out
    assert out.count("<rect") == 2 * 3


def test_a_score_that_the_artifact_does_not_give_is_shouted(scene: Scene) -> None:
    scene.capture("wanted", wrong=2e-9)
    code, out, err = scene.ask("wanted", "--row", "0")
    assert code == 1
    assert "THE ARTIFACT DOES NOT GIVE THIS ANSWER" in out
    assert "THE ARTIFACT DOES NOT GIVE THIS ANSWER: captured" in err
    scene.capture("near", wrong=5e-10)
    assert scene.ask("near", "--row", "0")[0] == 0


def test_an_altered_record_and_an_altered_artifact_are_shouted(scene: Scene) -> None:
    scene.capture("wanted")
    record = scene.store.get(layout.record(scene.record))
    scene.store.put(layout.record(scene.record), record.replace(b"2024", b"2025"))
    code, _, err = scene.ask("wanted", "--row", "0")
    assert code == 1
    assert "THE RECORD WAS ALTERED" in err
    scene.store.put(layout.record(scene.record), record)
    scene.store.put(layout.artifact_file(scene.artifact, layout.SIGNATURE), scene.files[layout.SIGNATURE] + b" ")
    code, out, err = scene.ask("wanted", "--row", "0")
    assert code == 1
    assert "THE ARTIFACT CAN'T BE TRUSTED" in err
    assert "there is no artifact to ask" in out


def test_decisions_that_were_taken_away_show(scene: Scene) -> None:
    first, second, third = scene.told()
    scene.decisions([first], [second], [third])
    scene.capture("wanted")
    assert scene.ask("wanted", "--row", "0")[0] == 0
    page = scene.store.path / layout.decisions("shop", "late", 2)
    kept = page.read_bytes()
    page.write_bytes(kept.replace(b"maria", b"mario"))
    code, _, err = scene.ask("wanted", "--row", "0")
    assert code == 1
    assert "does not follow the page before it" in err
    page.unlink()
    assert "page 2 of" in scene.ask("wanted", "--row", "0")[2]


def test_ids_that_occur_twice_are_both_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "GROUP", 1)
    scene.capture("wanted")
    scene.capture("wanted", received=NOON + timedelta(minutes=20))
    scene.capture("wanted", received=NOON - timedelta(days=3))  # too far away to be looked for
    code, out, _ = scene.ask("wanted", "--row", "1")
    assert code == 0
    assert out.count("request wanted, row 1 of 3") == 2
    assert "2 requests had this id (2026-11-02 12:50:00, 2026-11-02 12:30:00 UTC)" in out
    code, out, _ = scene.ask("wanted", "--row", "1", "--at", "2026-10-30T12:00:00Z")
    assert "2026-10-30 12:30:00 UTC" in out
    assert scene.ask("wanted", "--row", "9")[2].startswith("truekeep: --row 9: the request has 3 rows, numbered from 0")


def test_a_request_that_is_not_there_says_what_may_have_become_of_it(scene: Scene) -> None:
    kept, left = (next(name for name in map(str, range(99)) if sampled(name, 50) is wanted) for wanted in (True, False))
    scene.capture(kept, left, fraction_percent=50)
    code, out, err = scene.ask(left, "--model", "late")
    assert (code, out) == (1, "")
    assert "is in the 1 capture files of shop/late that were searched" in err
    assert "50 % of the requests are captured, chosen by id: this one is NOT among them" in err
    code, _, err = scene.ask("other", "--at", "2026-11-03")
    assert code == 1
    assert "nothing was captured there" in err
    for number in range(3):
        scene.capture(f"many{number}", received=NOON - timedelta(days=number + 1))
    assert "older files than of 2026-11-01" in scene.ask("gone", "--limit", "2")[2]


def test_rows_that_were_erased_are_named_with_their_receipt(scene: Scene) -> None:
    scene.capture("wanted")
    sought = erasure.Sought(("k2",))
    account = erasure.search(scene.captures, "shop", "late", sought)  # type: ignore[arg-type]

    class Writable(Folder):
        def put(self, key: str, data: Any, only_if_absent: bool = False) -> bool:
            data.seek(0)
            return super().put(key, data.read())

    erasure.erase(Writable(scene.captures.path), account, sought, lambda _: None)  # type: ignore[arg-type]
    receipt = layout.captures("shop", "late") + layout.erasure(NOON, "abc")
    scene.captures.put(
        receipt,
        erasure.receipt(
            account, sought, namespace="shop", model="late", captures="x", state="Done", begun=NOON, ended=NOON,
            by="ann", reason="", salt="s",
        ),
    )  # fmt: skip
    code, out, _ = scene.ask("wanted")
    assert code == 0
    assert "row 0 of 2" in out
    assert "Rows 1 of the request are not there any more: they were erased; receipts that name its file" in out
    assert receipt in out
    assert "may be among them: " + receipt in scene.ask("nobody")[2]


def test_hashed_columns_stay_hashes_and_the_key_opens_known_categories(scene: Scene, tmp_path: Path) -> None:
    scene.capture("wanted", hash=["kind", "id"])
    code, out, _ = scene.ask("wanted", "--row", "0")
    assert code == 0
    assert "(keyed hash)" in out
    assert "kind is captured as a keyed hash alone; give --hash-key-file" in " ".join(out.split())
    secret = tmp_path / "key"
    secret.write_bytes(KEY)
    code, out, _ = scene.ask("wanted", "--hash-key-file", str(secret), "-o", "json")
    assert code == 0
    assert [one["recomputed"]["state"] for one in json.loads(out)["decisions"]] == ["Equal"] * 3
    scene.capture("number", hash=["amount"])
    assert "a number can't be told from its hash" in " ".join(scene.ask("number", "--row", "0")[1].split())
    scene.capture("dropped", drop=["amount"])
    assert "amount is not captured (spec.serving.capture.drop)" in scene.ask("dropped", "--row", "0")[1]


def test_a_teams_own_server_is_told_and_not_judged(scene: Scene) -> None:
    scene.capture("wanted", wrong=1e-3, source={"format": "image"})
    code, out, _ = scene.ask("wanted", "--row", "0", "-o", "json")
    assert code == 0
    (one,) = json.loads(out)["decisions"]
    assert one["recomputed"]["state"] == "NotChecked"
    assert "the team's own server answered" in one["recomputed"]["message"]


def test_files_that_do_not_say_their_artifact(scene: Scene) -> None:
    """Of servers before 0.3: the store's decisions know it, or the person."""
    scene.capture("wanted", source={"artifact": "", "run": "", "format": ""})
    code, out, _ = scene.ask("wanted", "--row", "0", "-o", "json")
    assert code == 0
    (one,) = json.loads(out)["decisions"]
    assert one["recomputed"]["state"] == "NotChecked"
    assert "give it with --artifact" in one["notKnown"][0]
    for given in (["--artifact", scene.artifact], []):
        if not given:
            scene.decisions(scene.told())
        (one,) = json.loads(scene.ask("wanted", "--row", "0", "-o", "json", *given)[1])["decisions"]
        assert (one["recomputed"]["state"], one["record"]["id"]) == ("Equal", scene.record)


def test_without_background_rows_the_examples_stand_in(scene: Scene) -> None:
    scene.capture("wanted")
    (scene.store.path / layout.beside_record(scene.record, layout.BACKGROUND)).unlink()
    code, out, _ = scene.ask("wanted", "--row", "0")
    assert code == 0
    assert f"the {len(scene.signature.examples)} examples of the artifact" in " ".join(out.split())


def test_a_linear_model(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.capture("wanted")
    _, out, _ = scene.ask("wanted", "-o", "json")
    for one in json.loads(out)["decisions"]:
        assert one["attribution"]["method"] == "Linear"
        assert one["recomputed"]["state"] == "Equal"


def test_the_file_that_a_server_wrote_is_told_from_one_that_is_none(scene: Scene) -> None:
    scene.capture("wanted")
    (info,) = scene.captures.list("shop/late/revision=1/")
    assert (
        pq.read_metadata(io.BytesIO(scene.captures.get(info.key))).metadata[b"truekeep.artifact"]
        == scene.artifact.encode()
    )
    scene.captures.put(info.key.replace("_000000.", "_000001."), b"no parquet")
    code, out, _ = scene.ask("wanted", "--row", "0")
    assert code == 0
    assert "1 files could not be searched" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "-o", "yaml"], "--output is 'yaml'"),
        (["x", "--at", "noon"], "--at noon: is no time"),
        (["x", "--store", "s3://m/"], "--namespace says in which namespace"),
        (["x", "--store", "s3://models", "-n", "shop"], "give --captures too, or --model"),
        (["x", "--store", "nowhere", "-n", "shop", "--captures", "s3://c/"], "neither an s3:// address nor a folder"),
        (["x", "--store", "s3://M", "-n", "shop", "--captures", "s3://c/"], "--store s3://M: is no s3:// address"),
        (["x", "--captures", "s3://c/"], "--captures is for --store"),
    ],
)
def test_wrong_input(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["why", *arguments])
    assert done.exit_code == 2
    assert words in done.stderr


MODEL_YAML = """
apiVersion: truekeep.dev/v1alpha1
kind: Model
metadata: {name: late, namespace: shop, uid: u}
spec:
  store: {s3: {uri: s3://models/}}
  data:
    source: {s3: {uri: s3://lake/rows/}}
    timeColumn: at
    key: id
    label: {column: late}
    features: [{name: amount, type: Number}]
  training: {recipe: {estimator: sklearn.linear_model.LogisticRegression}}
  serving: {capture: {s3: {uri: s3://lake/captures/}, fractionPercent: 40}}
"""


def test_a_yaml_file_and_the_cluster_say_where_to_look(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.decisions(scene.told())
    scene.capture("wanted")
    folders = {"s3://models/": scene.store, "s3://lake/captures/": scene.captures}
    monkeypatch.setattr(stores, "opened", lambda location: folders[location.uri])
    file = tmp_path / "model.yaml"
    file.write_text(MODEL_YAML)
    done = CliRunner().invoke(app, ["why", "wanted", "-f", str(file), "--row", "0"])
    assert (done.exit_code, "equal to the captured one" in done.stdout) == (0, True)
    done = CliRunner().invoke(app, ["why", "other", "-f", str(file), "--model", "another"])
    assert (done.exit_code, "has no Model another" in done.stderr) == (2, True)
    by_hand = ["--store", "s3://models/", "-n", "shop", "--model", "late"]
    done = CliRunner().invoke(app, ["why", "wanted", *by_hand, "--row", "0"])  # the decisions know the captures
    assert (done.exit_code, "equal to the captured one" in done.stdout) == (0, True)

    class Cluster(kube.Person):
        def get(self, plural: str, name: str) -> dict[str, Any]:
            import yaml

            return {**yaml.safe_load(MODEL_YAML), "status": {"decisions": {"head": "sha256:" + "0" * 64}}}

        def list(self, plural: str) -> list[Any]:
            return []

    monkeypatch.setattr(kube, "person", lambda namespace: Cluster("shop"))
    done = CliRunner().invoke(app, ["why", "wanted", "--model", "late", "--row", "0"])
    assert done.exit_code == 1
    assert "the newest were taken away, or altered" in done.stderr
