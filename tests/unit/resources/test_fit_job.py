"""A team's image in a pod of ours: what it may touch, and who holds the credentials."""

from __future__ import annotations

from typing import Any

from tests.unit.resources.samples import CHAMPION, FITTING, OPAQUE, SETTINGS, model, run
from truekeep.contract.requests import TrainRequest
from truekeep.domain.plan import Attempt
from truekeep.domain.stages import job_name, stages
from truekeep.resources.fit_job import fit_job
from truekeep.resources.stage_job import stage_job
from truekeep.resources.training_job import training_job

Json = dict[str, Any]


def containers(job: Json) -> dict[str, Json]:
    pod = job["spec"]["template"]["spec"]
    return {each["name"]: each for each in [*pod["initContainers"], *pod["containers"]]}


def paths(container: Json) -> dict[str, bool]:
    """Mounts, and whether each is read-only."""
    return {each["mountPath"]: bool(each.get("readOnly")) for each in container["volumeMounts"]}


def environment(container: Json) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


def test_the_stages_of_an_image_are_fit_and_train() -> None:
    assert stages(model(FITTING).spec) == ("Fit", "Train")
    job = stage_job("Fit", model(FITTING), run(), SETTINGS, CHAMPION, Attempt(2, 300, "9Gi"))
    assert job["metadata"]["name"] == job_name(run().meta.name, "Fit", 2)
    assert job["spec"]["activeDeadlineSeconds"] == 300
    made = containers(job)
    assert made["fit"]["resources"]["limits"]["memory"] == "9Gi"
    assert made["upload"]["resources"]["limits"]["memory"] != "9Gi"


def test_a_team_s_container_has_no_secret_and_nothing_of_ours() -> None:
    job = fit_job(model(FITTING), run(), SETTINGS)
    pod, made = job["spec"]["template"]["spec"], containers(job)
    assert pod["automountServiceAccountToken"] is False
    theirs = made["fit"]
    assert paths(theirs) == {"/tmp": False, "/in": True, "/out": False}
    assert set(environment(theirs)) == {
        "TRUEKEEP_IN", "TRUEKEEP_OUT", "TRUEKEEP_SEED", "MODEL_NAME", "HOME", "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "DEPTH",
    }  # fmt: skip
    assert environment(theirs)["OMP_NUM_THREADS"] == "1"
    assert (environment(theirs)["TRUEKEEP_SEED"], theirs["image"]) == ("7", FITTING["training"]["image"]["reference"])
    assert (theirs["command"], theirs["args"]) == (["python", "/fit.py"], ["--rounds", "80"])
    tmp = [each["name"] for each in theirs["volumeMounts"] if each["mountPath"] == "/tmp"]
    ours = [each["name"] for each in made["prepare"]["volumeMounts"] if each["mountPath"] == "/tmp"]
    assert set(tmp).isdisjoint(ours), "what ours write to /tmp is not theirs to read"


def test_each_of_ours_has_what_it_needs_and_no_more() -> None:
    made = containers(fit_job(model(FITTING), run(), SETTINGS))
    prepare, upload = paths(made["prepare"]), paths(made["upload"])
    secrets = {path for path in prepare if path.startswith("/var/run/truekeep/secrets/")}
    assert secrets == {"/var/run/truekeep/secrets/lake", "/var/run/truekeep/secrets/arrivals.reader"}
    assert "/out" not in prepare
    assert {path for path in upload if path.startswith("/var/run/truekeep/secrets/")} == {
        "/var/run/truekeep/secrets/lake"
    }
    assert (upload["/in"], upload["/out"], prepare["/in"]) == (True, True, False)
    assert (made["prepare"]["args"], made["upload"]["args"]) == (["prepare"], ["upload"])
    assert {made[name]["image"] for name in ("prepare", "upload")} == {SETTINGS.trainer_image}


def test_all_of_them_pass_restricted() -> None:
    for job in (fit_job(model(FITTING), run(), SETTINGS), training_job(model(OPAQUE), run(), SETTINGS, None)):
        pod = job["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(job).values():
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_what_is_judged_on_is_not_asked_for_where_the_image_fits() -> None:
    further = {
        "name": "storms",
        "source": {"s3": {"uri": "s3://storms/", "credentialsSecretRef": {"name": "sets"}}},
        "gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}],
    }
    spec = {**FITTING, "evaluation": {**FITTING["evaluation"], "benchmarks": [further]}}
    fitting, judging = fit_job(model(spec), run(), SETTINGS), training_job(model(spec), run(), SETTINGS, None)
    assert "sets" not in str(fitting)
    assert "sets" in str(judging)


def test_the_judge_of_opaque_files_has_their_server_beside_it() -> None:
    job = training_job(model(OPAQUE), run(), SETTINGS, None)
    made = containers(job)
    assert list(made) == ["fetch", "backend", "trainer"]
    backend = made["backend"]
    assert backend["restartPolicy"] == "Always"
    assert "livenessProbe" not in backend, "nobody answers for it there"
    assert paths(backend) == {"/tmp": False, "/mnt/models": True}
    assert made["fetch"]["args"] == ["fetch"]
    assert "/mnt/models" not in paths(made["trainer"])
    request = TrainRequest.model_validate_json(environment(made["trainer"])["TRUEKEEP_REQUEST"])
    assert request.backend is not None
    assert request.backend.port == 9001
    plain = training_job(model(FITTING), run(), SETTINGS, None)
    assert "initContainers" not in plain["spec"]["template"]["spec"]
