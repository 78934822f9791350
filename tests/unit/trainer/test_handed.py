"""A team's image, from the rows that it gets to the verdict on what it made: on a real store, with the docs' own."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.unit.conftest import Versitygw, free_port
from tests.unit.trainer.lake import START, data_of, events, replaced, with_value
from tests.unit.trainer.teams import REFERENCE, Team, example, leaving, script
from tests.unit.trainer.test_run import GATE, champion
from truekeep.contract import layout
from truekeep.contract.handed import OUT_BYTES
from truekeep.features import models
from truekeep.features.encode import Encoder, matrix
from truekeep.storage import artifacts
from truekeep.trainer.handed import upload as handed_upload
from truekeep.trainer.run import exit_code

LIGHTGBM = script(example())
HOLDOUT = 480


def changed(old: str, new: str) -> str:
    """The docs' program with something else in one place."""
    assert example().count(old) == 1, old
    return example().replace(old, new)


@pytest.fixture
def team(versitygw: Versitygw, tmp_path: Path) -> Team:
    team = Team.at(versitygw, tmp_path)
    team.place.write(events())
    return team


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the docs' program makes of the rows of the lake, made once."""
    given, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    rows = events().slice(0, 1920).drop_columns(["id"])
    pq.write_table(rows.select(["amount", "kind", "at", "late"]), given / "train.parquet")
    features = [{"name": "amount", "type": "Number"}, {"name": "kind", "type": "Category", "categories": list("abc")}]
    (given / "features.json").write_text(json.dumps({"features": features, "label": "late", "seed": 7}))
    LIGHTGBM(given, out)
    return (out / "model.onnx").read_bytes()


def test_the_example_of_the_docs_becomes_a_judged_artifact(team: Team) -> None:
    result = team.run(LIGHTGBM, evaluation={**GATE, "decision": {"rule": "RecallAtFalsePositiveRate", "value": "0.1"}})
    assert result.reason == "Succeeded", result.message
    assert result.message.endswith("trained on 1,920 rows by spec.training.image")
    assert result.artifact is not None
    assert result.artifact.format == "onnx"
    assert result.trained_until == START + timedelta(minutes=10 * 1919)
    (gate,) = result.gates
    assert (gate.result, gate.rows) == ("Passed", HOLDOUT)
    files = team.place.files(result)
    assert set(files) == {"model.onnx", "signature.json", "profile.json", "performance.json"}
    signature = models.read_signature(files[layout.SIGNATURE])
    assert signature.cut_off == pytest.approx(float(result.cut_off or 0), abs=1e-6) != 0.5
    assert signature.imported is not None
    assert signature.imported.codes == ("kind",)
    predict, kind = models.predictor(files, signature)
    assert kind == "onnx"
    models.self_test(signature, Encoder(signature.features), predict)
    new = events().slice(1920)
    scores = predict(matrix({name: new[name] for name in ("amount", "kind")}, signature.features))
    from sklearn.metrics import roc_auc_score

    assert float(gate.value) == pytest.approx(roc_auc_score(new["late"].to_numpy(), scores), abs=1e-4)


def test_it_gets_the_rows_before_the_holdout_and_no_other(team: Team) -> None:
    assert team.fitted(leaving(), team.request()) is None
    rows = pq.read_table(team.given / "train.parquet")
    assert rows.column_names == ["amount", "kind", "at", "late"]
    old = events().slice(0, 1920)
    assert rows.equals(old.select(rows.column_names).cast(rows.schema))
    assert sorted(path.name for path in team.given.iterdir()) == ["features.json", "train.parquet"]
    meaning = json.loads((team.given / "features.json").read_text())
    assert (meaning["label"], meaning["timeColumn"], meaning["rows"], meaning["seed"]) == ("late", "at", 1920, 7)
    assert [one["name"] for one in meaning["features"]] == ["amount", "kind"]
    assert meaning["features"][1]["categories"] == ["a", "b", "c"]
    secret = events().slice(1920)["amount"].to_pylist()
    assert not set(secret) & set(rows["amount"].to_pylist())


def test_the_record_has_the_image_its_files_and_what_it_says_of_itself(team: Team) -> None:
    team.image["env"] = [{"name": "ROUNDS", "value": "9"}]
    record = team.place.record(team.run(LIGHTGBM, fit_image_id="sha256:" + "1" * 64))
    assert record["training"]["declared"]["image"]["reference"] == REFERENCE
    assert record["training"]["declared"]["image"]["env"] == [{"name": "ROUNDS", "value": "9"}]
    told = record["evaluation"]["image"]
    assert (told["reference"], told["imageId"], told["format"]) == (REFERENCE, "sha256:" + "1" * 64, "ONNX")
    (file,) = told["delivered"]
    assert (file["path"], file["sha256"]) == ("model.onnx", team.delivered().files[0].sha256)
    assert 0.5 < told["reported"]["accuracy_on_its_own_rows"] <= 1
    assert float(record["training"]["fitSeconds"]) > 0
    assert record["training"]["seed"] == 7
    assert [one["sha256"] for one in record["data"]["objects"]] == [one.sha256 for one in team.prepared().objects]


def test_the_report_and_the_provenance_name_the_image(team: Team, onnx: bytes) -> None:
    hostile = b'{"<script>alert(1)</script>": 1.0}'
    result = team.run(leaving(model_onnx=onnx, metrics_json=hostile))
    assert result.record is not None
    page = team.place.bucket.get(layout.beside_record(result.record.id, layout.REPORT)).decode()
    assert f"what spec.training.image made ({REFERENCE}), format ONNX" in page
    assert "reported by the image" in page
    assert "its own words, which decided nothing" in page
    assert "<script>alert" not in page
    told = json.loads(team.place.bucket.get(layout.beside_record(result.record.id, layout.PROVENANCE)))
    dependencies = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    (image,) = [one for one in dependencies if one["name"] == "training image"]
    assert image == {"name": "training image", "uri": f"oci://{REFERENCE}", "digest": {"sha256": "5c" * 32}}


def test_a_lying_metrics_json_changes_nothing(team: Team, onnx: bytes) -> None:
    """The same model twice: once with no word of its own, once with the best that it could say, gates and all."""
    worse = {"evaluation": {"gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.999"}]}}
    lies = {"roc_auc": 1.0, "auc": 1.0, "holdout": 1.0, "gates": 1}
    told = {}
    for name, metrics in (("honest", None), ("lying", lies)):
        more = {"metrics_json": json.dumps(metrics).encode()} if metrics else {}
        result = team.run(leaving(model_onnx=onnx, **more), run_uid=name, **worse)
        assert (result.reason, result.artifact, exit_code(result)) == ("GatesFailed", None, 0)
        told[name] = (result.metrics, result.gates, result.cut_off, result.message)
        record = team.place.record(result)
        assert record["evaluation"]["image"]["reported"] == (lies if metrics else {})
    assert told["honest"] == told["lying"]
    assert team.place.artifacts() == []


def test_what_came_meanwhile_is_neither_fitted_nor_judged_on(team: Team, onnx: bytes) -> None:
    request = team.request(evaluation=GATE)
    assert team.fitted(leaving(model_onnx=onnx), request) is None
    team.place.write(events(rows=600, seed=5, start=START + timedelta(days=20)), "b.parquet")
    result = team.judge(request)
    assert result.reason == "Succeeded", result.message
    assert result.data is not None
    assert (result.data.rows, result.data.objects, result.gates[0].rows) == (2400, 1, HOLDOUT)


def test_an_object_that_changed_meanwhile_fails_clearly(team: Team, onnx: bytes) -> None:
    request = team.request()
    assert team.fitted(leaving(model_onnx=onnx), request) is None
    team.place.write(events(seed=9))
    result = team.judge(request)
    assert (result.reason, exit_code(result)) == ("DataChanged", 3)
    assert "rows/a.parquet was read with sha256:" in result.message
    assert team.place.artifacts() == []


def test_a_bucket_with_versions_gives_back_what_was_replaced(versitygw: Versitygw, tmp_path: Path, onnx: bytes) -> None:
    from tests.unit.trainer.test_run import Place

    team = Team(Place(versitygw, versions=True), tmp_path)
    team.place.write(events())
    request = team.request(evaluation=GATE)
    assert team.fitted(leaving(model_onnx=onnx), request) is None
    team.place.write(events(seed=9))
    result = team.judge(request)
    assert result.reason == "Succeeded", result.message


def test_a_pod_that_prepares_again_gets_the_same_rows(team: Team, onnx: bytes) -> None:
    request = team.request()
    assert team.fitted(leaving(), request) is None  # it left nothing, and its Job is lost with the list of that
    first = (team.given / "train.parquet").read_bytes()
    team.place.write(events(rows=600, seed=5, start=START + timedelta(days=20)), "b.parquet")
    assert team.part("prepare", request) is None
    assert (team.given / "train.parquet").read_bytes() == first


def test_bad_data_ends_the_run_before_the_image_is_started(team: Team) -> None:
    rules = [{"name": "enough", "minRows": 100_000}]
    result = team.fitted(leaving(), team.request(data=data_of(rules=rules)))
    assert result is not None
    assert (result.reason, exit_code(result)) == ("DataInvalid", 3)
    record = team.place.record(result)
    assert record["outcome"]["reason"] == "DataInvalid"
    assert not (team.given / "train.parquet").exists()
    assert team.judge().message == result.message  # the first result that was written wins


def test_a_store_that_is_away_may_be_tried_again(team: Team) -> None:
    store = team.place.store.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    request = team.request().model_copy(update={"store": store})
    (team.given).mkdir()
    (team.given / "features.json").write_text("{}")
    for part in ("prepare", "upload"):
        result = team.part(part, request)
        assert result is not None
        assert (result.reason, exit_code(result)) == ("StoreUnreachable", 4)


def test_the_champion_is_compared_and_a_worse_one_is_kept_out(team: Team, onnx: bytes) -> None:
    live = team.place.run(estimator="sklearn.linear_model.LogisticRegression")
    rule = {"evaluation": {"champion": {"metric": "roc_auc"}}, **champion(live, START + timedelta(days=1))}
    kept = team.run(leaving(model_onnx=onnx), run_uid="same", **rule)
    assert kept.champion is not None
    assert kept.champion.result == "Passed"
    fit = 'model.fit(matrix, rows[meaning["label"]].to_numpy())'
    upside_down = script(changed(fit, fit.replace("rows[", "1 - rows[")))
    assert team.run(upside_down, run_uid="worse", **rule).reason == "ChampionKept"


def test_what_an_image_made_is_a_champion_like_any_other(team: Team, onnx: bytes) -> None:
    live = team.run(leaving(model_onnx=onnx), run_uid="live")
    rule = {"evaluation": {"champion": {"metric": "roc_auc"}}, **champion(live, START + timedelta(days=1))}
    result = team.place.run(run_uid="next", estimator="sklearn.linear_model.LogisticRegression", **rule)
    assert result.champion is not None
    assert (result.champion.result, result.champion.rows) == ("Passed", HOLDOUT)
    assert float(result.champion.champion) == pytest.approx(float(live.metrics[0].value), abs=1e-3)


def pipeline(rows: Any) -> Any:
    columns = ColumnTransformer(
        [("n", SimpleImputer(), ["amount"]), ("k", OneHotEncoder(handle_unknown="ignore"), ["kind"])]
    )
    return make_pipeline(columns, LogisticRegression()).fit(rows[["amount", "kind"]], rows["late"])


def saving(made: Callable[[Any], Any], dump: Callable[[Any, Path], Any]) -> Callable[[Path, Path], None]:
    def fit(given: Path, out: Path) -> None:
        dump(made(pq.read_table(given / "train.parquet").to_pandas()), out / "model.skops")

    return fit


def test_a_pipeline_as_skops_is_taken_and_served_as_onnx_too(team: Team) -> None:
    team.image["format"] = "Skops"
    result = team.run(saving(pipeline, skops.io.dump), evaluation=GATE)
    assert result.reason == "Succeeded", result.message
    files = team.place.files(result)
    assert {"model.skops", "model.onnx"} <= set(files)
    signature = models.read_signature(files[layout.SIGNATURE])
    new = events().slice(1920)
    rows = matrix({name: new[name] for name in ("amount", "kind")}, signature.features)
    expected = pipeline(events().slice(0, 1920).to_pandas()).predict_proba(new.to_pandas()[["amount", "kind"]])[:, 1]
    for name in ("model.skops", "model.onnx"):
        predict, _ = models.predictor({name: files[name]}, signature)
        np.testing.assert_allclose(predict(rows), expected, rtol=0, atol=1e-9)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_is_never_loaded_whatever_it_is_called(team: Team, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    for name, content in (("Skops", bomb), ("ONNX", bomb)):
        team.image["format"] = name
        file = "model.skops" if name == "Skops" else "model.onnx"
        result = team.run(lambda _, out, file=file, content=content: (out / file).write_bytes(content), run_uid=name)
        assert (result.reason, exit_code(result)) == ("DeliveryInvalid", 3), result.message
        assert f"{file} of spec.training.image" in result.message
    assert not (tmp_path / "boom").exists()
    assert team.place.artifacts() == []


def test_a_model_of_the_wrong_width_or_without_probabilities_is_refused(team: Team) -> None:
    whole = 'np.column_stack([column(feature) for feature in meaning["features"]])'
    narrow = changed(whole, 'column(meaning["features"][0])[:, None]')
    result = team.run(script(narrow), run_uid="narrow")
    assert result.reason == "DeliveryInvalid"
    assert "it takes a matrix of 1 columns, and there are 2 features" in result.message
    assert "amount, kind" in result.message
    odd = (
        changed("LGBMClassifier", "LGBMRegressor")
        .replace(", zipmap=False", "")
        .partition('with open(f"{out}/metrics')[0]
    )
    result = team.run(script(odd), run_uid="odd")
    assert result.reason == "DeliveryInvalid", result.message


def test_rows_that_it_refuses_are_told_by_their_column(team: Team) -> None:
    """An encoder that knows only what it was fitted on: the holdout holds another value."""
    rows = events()
    rows = with_value(rows, "kind", 2300, "new")
    team.place.write(rows)
    team.image["format"] = "Skops"

    def strict(frame: Any) -> Any:
        columns = ColumnTransformer([("n", "passthrough", ["amount"]), ("k", OneHotEncoder(), ["kind"])])
        return make_pipeline(columns, LogisticRegression()).fit(frame[["amount", "kind"]], frame["late"])

    result = team.run(saving(strict, skops.io.dump))
    assert result.reason == "DataInvalid"
    assert "kind: 1 row of 480 hold a value that what spec.training.image made does not know" in result.message


def folder_of(out: Path) -> None:
    (out / "sub").mkdir()


def linked(out: Path) -> None:
    (out / "model.onnx").symlink_to("/etc/passwd")


def hard(out: Path) -> None:
    (out / "model.onnx").write_bytes(b"x")
    os.link(out / "model.onnx", out / "metrics.json")


def pipe(out: Path) -> None:
    os.mkfifo(out / "model.onnx")


def big(out: Path) -> None:
    with (out / "model.onnx").open("wb") as file:
        file.truncate(OUT_BYTES + 1)


HOSTILE = [
    (lambda out: None, "it left no file there"),
    (folder_of, "'sub' in /out, which is a folder"),
    (linked, "'model.onnx' in /out, which is a link"),
    (hard, "which is no plain file"),
    (pipe, "'model.onnx' in /out, which is no file"),
    (big, "it is more than is taken (536,870,912 bytes)"),
    (
        lambda out: [(out / n).write_bytes(b"x") for n in ("model.onnx", "notes.txt")],
        "only model.onnx and metrics.json",
    ),
]


@pytest.mark.parametrize(("leave", "words"), HOSTILE)
def test_what_is_no_plain_file_of_that_name_is_refused(team: Team, leave: Any, words: str) -> None:
    result = team.run(lambda _, out: leave(out))
    assert (result.reason, exit_code(result)) == ("DeliveryInvalid", 3)
    assert words in result.message
    assert team.delivered().files == [] or words in team.delivered().problem
    record = team.place.record(result)
    assert record["data"]["objects"], "the record says which data it was given"


@pytest.mark.parametrize("name", ["signature.json", "manifest.json", ".hidden", "UPPER.bin", "a b", "-x", "x" * 64])
def test_names_that_are_ours_or_no_names_are_refused(team: Team, name: str) -> None:
    team.image["format"] = "Opaque"
    result = team.run(lambda _, out: (out / name).write_bytes(b"x"))
    assert result.reason == "DeliveryInvalid"
    assert "rename it" in result.message


@pytest.mark.parametrize(
    ("content", "reported", "problem"),
    [
        (b'{"a": 1, "b": 0.5}', {"a": 1.0, "b": 0.5}, ""),
        (b'{"a": NaN}', {}, "is no number of JSON"),
        (b'{"a": 1e400, "b": "x", "c": true, "d": [1], "e": 2}', {"e": 2.0}, "more than names and numbers"),
        (b"[1]", {}, "no JSON object"),
        (b"[" * 60_000, {}, "is not read"),
        (b"{" + b" " * (64 << 10) + b"}", {}, "is not read"),
        (b'{"<script>alert(1)</script>": 1}', {"<script>alert(1)</script>": 1.0}, ""),
    ],
)
def test_metrics_json_is_bounded_and_never_fails_a_run(
    tmp_path: Path, content: bytes, reported: dict[str, float], problem: str
) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    found, why = handed_upload.metrics(tmp_path)
    assert {one.name: one.value for one in found} == reported
    assert problem in why if problem else why == ""


def test_what_was_altered_in_the_store_is_not_judged(team: Team, onnx: bytes) -> None:
    request = team.request()
    assert team.fitted(leaving(model_onnx=onnx), request) is None
    (file,) = team.delivered().files
    key = layout.fit_file("shop", "late", "run-uid", file.sha256)
    team.place.bucket.put(key, onnx[:-1] + b"\0")
    result = team.judge(request)
    assert result.reason == "DeliveryInvalid"
    assert "was altered after it was delivered" in result.message


def test_the_first_delivery_wins(team: Team, onnx: bytes) -> None:
    request = team.request(evaluation=GATE)
    assert team.fitted(leaving(model_onnx=onnx), request) is None
    before = team.delivered()
    (team.out / "model.onnx").write_bytes(b"another")
    assert team.part("upload", request) is None
    assert team.delivered() == before
    assert team.judge(request).reason == "Succeeded"


def test_without_a_delivery_there_is_nothing_to_judge(team: Team) -> None:
    result = team.judge()
    assert result.reason == "DeliveryInvalid"
    assert "delivered.json is missing" in result.message


def test_nulls_and_codes_are_fed_as_the_program_saw_them(team: Team) -> None:
    rows = events()
    amounts = rows["amount"].to_pylist()
    amounts[::7] = [None] * len(amounts[::7])
    kinds = rows["kind"].to_pylist()
    kinds[::11] = [None] * len(kinds[::11])
    rows = replaced(replaced(rows, "amount", amounts), "kind", kinds)
    team.place.write(rows)
    result = team.run(LIGHTGBM, evaluation={"robustness": [{"name": "sturdy", "metric": "roc_auc", "maxDrop": "0.9"}]})
    assert result.reason == "Succeeded", result.message
    assert {gate.name for gate in result.gates} == {"sturdy=amount", "sturdy=kind"}
    files = team.place.files(result)
    signature = models.read_signature(files[layout.SIGNATURE])
    predict, _ = models.predictor(files, signature)
    new = rows.slice(1920)
    got = predict(matrix({name: new[name] for name in ("amount", "kind")}, signature.features))
    codes = {"a": 0.0, "b": 1.0, "c": 2.0, None: np.nan}
    raw = np.array([[np.nan if a is None else a for a in new["amount"].to_pylist()],
                    [codes[k] for k in new["kind"].to_pylist()]], dtype=np.float32).T  # fmt: skip
    import onnxruntime

    session = onnxruntime.InferenceSession((team.out / "model.onnx").read_bytes())
    np.testing.assert_allclose(got, session.run(["probabilities"], {"X": raw})[0][:, 1], rtol=0, atol=1e-6)


def test_the_same_delivery_makes_the_same_artifact(team: Team, onnx: bytes) -> None:
    first, second = (team.run(leaving(model_onnx=onnx), run_uid=uid) for uid in ("one", "two"))
    assert first.artifact is not None
    assert second.artifact is not None
    assert first.artifact.digest == second.artifact.digest
    assert artifacts.read(team.place.bucket, first.artifact.digest)


def test_parquet_holds_no_page_of_the_holdout(team: Team) -> None:
    """A key of the holdout is in no byte of what it gets, also not in statistics or dictionaries."""
    rows = events()
    kinds = rows["kind"].to_pylist()
    marked = replaced(rows, "kind", [*kinds[:1920], *["holdoutsecret"] * (len(kinds) - 1920)])
    team.place.write(marked)
    assert team.fitted(leaving(), team.request()) is None
    for path in team.given.iterdir():
        assert b"holdoutsecret" not in path.read_bytes()
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": ["holdoutsecret"]}), sink)
    assert b"holdoutsecret" in sink.getvalue()  # the mark would be seen
