"""The second half: drift, retraining, promotion; a bad change and its rollback; what is left to read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tests.story.kube import Json, condition, holds, name_of
from tests.story.opening import EXAMPLE, SHOWN
from tests.story.stage import MODEL, Stage, check
from tests.story.timeline import cost

LAST_DAY = "2013-12-31"
HEAD = 60  # characters of a text of the record that are shown
NEXT = (
    (
        "Mend the bad change; revision 3 is rolled out then:",
        "kubectl -n {namespace} patch models.truekeep.dev {model} --type merge \\",
        f"  --patch-file {SHOWN}/changes/mended.yaml",
    ),
    (
        "Go back to revision 1, as one does from Git:",
        "kubectl -n {namespace} patch models.truekeep.dev {model} --type merge \\",
        '  -p \'{{"spec":{{"serving":{{"pinnedRevision":1}}}}}}\'',
    ),
    (
        "Ask for a training run by hand:",
        "kubectl -n {namespace} annotate models.truekeep.dev {model} \\",
        '  truekeep.dev/retrain="$(date)" --overwrite',
    ),
    ("Read one model's life in its Events:", "kubectl -n {namespace} events --for model.truekeep.dev/{model}"),
    ("See what every field means:", "kubectl explain models.truekeep.dev.spec --recursive"),
    ("kubectl for this cluster, and the end of it all:", "eval $(.venv/bin/python -m tests.cluster env)", "make down"),
)


def drift(stage: Stage) -> None:
    """The world changes, and that is seen."""
    stage.tell.say(
        """Winter ends, and nobody tells the model. Every four weeks of captured flights are compared with the flights
        that revision 1 was trained on. One odd window is weather, two in a row are a breach. The policy looks every
        minute."""
    )

    def told(policy: Json) -> str:
        return f"the replay is at {stage.ledger().get('last_day')}; {policy['status'].get('summary', 'no window yet')}"

    def found(policy: Json) -> bool:
        return condition(policy, "DriftDetected").get("status") == "True"

    policy = stage.until("drift to be detected", 240, stage.policy, found, told)
    stage.breach = condition(policy, "DriftDetected")["lastTransitionTime"]
    stage.timeline.add(stage.breach, "DriftDetected")
    windows = [window for window in policy["status"]["windows"] if window["revision"] == 1]
    stage.tell.table(
        ("four weeks from", "flights", "verdict", "columns that drifted"),
        [(w["start"][:10], f"{w['rows']:,}", w["verdict"], str(w.get("columns", 0))) for w in reversed(windows)],
    )
    ignored = policy["spec"]["data"].get("ignore", [])
    found_ones = [f for f in policy["status"]["findings"] if f["kind"] == "DataDrift" and f["column"] not in ignored]
    check(found_ones, f"drift was detected, but no finding says which column: {policy['status']['findings']}")
    for finding in found_ones[:5]:
        sure = finding.get("pValue", "1")
        chance = "p < 1e-300" if float(sure) == 0 else f"p {sure}"
        stage.tell.proof(f"{finding['message']} ({finding['statistic']} {finding['value']}, {chance})")
    verdicts = [window["verdict"] for window in windows]
    check(verdicts[:2] == ["Drift", "Drift"], f"the two newest windows do not both breach: {verdicts}")
    stage.kubectl("get", "driftpolicies")


def retrain(stage: Stage) -> None:
    """The policy's run, and the duel."""
    run = stage.until(
        "the DriftPolicy to start a run", 60, lambda: next(iter(stage.runs("DriftPolicy")), {}), lambda run: run
    )
    stage.timeline.add(run["metadata"]["creationTimestamp"], "a TrainingRun by the DriftPolicy")
    cause = run["spec"]["trigger"]["policy"]
    stage.tell.proof(f"{name_of(run)}, made by DriftPolicy {cause['name']}: {cause['finding']}")
    check(cause["revision"] == 1, f"the run was made for revision {cause['revision']}")
    status = stage.finished_run("retraining on the newest 60 days", 300, "DriftPolicy")["status"]
    stage.timeline.add(status["completionTime"], "the challenger is trained and judged")
    data, duel = status["data"], status.get("champion")
    stage.tell.proof(
        f"trained on {data['rows']:,} flights, {data['windowStart'][:10]} to {data['windowEnd'][:10]}, in "
        f"{float(status['fitSeconds']):.1f} s"
    )
    check(duel and duel["result"] == "Passed", f"the challenger did not pass the comparison with the champion: {duel}")
    stage.tell.proof(
        f"on {duel['rows']:,} flights new to both, {duel['metric']}: challenger {float(duel['challenger']):.3f}, "
        f"champion {float(duel['champion']):.3f}; 95 % of the difference lies in {float(duel['low']):+.3f} … "
        f"{float(duel['high']):+.3f}; {duel['rule']}: {duel['result']}"
    )
    check(float(duel["challenger"]) > float(duel["champion"]), f"the challenger is not the better one: {duel}")
    check(status["revision"] == 2, f"the retrained revision is number {status['revision']}")


def promote(stage: Stage) -> None:
    """Revision 2 takes over while traffic runs."""
    shares = [0]

    def told(model: Json) -> str:
        shares.append((model["status"].get("candidate") or {}).get("reachedPercent", 0))
        return str(condition(model, "RolledOut").get("message", ""))

    model = stage.until(
        "revision 2 to be promoted", 180, stage.model, lambda m: m["status"]["active"]["revision"] == 2, told
    )
    since = model["status"]["active"]["since"]
    stage.timeline.add(since, "revision 2 is promoted")
    check(max(shares) > 0, "revision 2 got no share of the traffic before it was promoted")
    ledger = stage.until(
        "revision 2 in the replay's account", 30, stage.ledger, lambda ledger: "2" in ledger.get("revisions", {})
    )
    stage.no_failure()
    check(ledger["last_day"] < LAST_DAY, "the replay had ended before the promotion: it shows nothing")
    stage.tell.proof(f"revision 2 had {max(shares)} % of the traffic for its trial, and all of it now")
    answered = ", ".join(f"{share['requests']:,} by revision {n}" for n, share in sorted(ledger["revisions"].items()))
    stage.tell.proof(
        f"the replay's own count on {ledger['last_day']}: {ledger['requests']:,} requests, {ledger['failed']} failed; "
        f"{answered}"
    )
    (run,) = stage.runs("DriftPolicy")
    steps = [step["durationSeconds"] for step in model["spec"]["serving"]["rollout"]["steps"]]
    stage.spent = cost(stage.breach, since, run["status"].get("fitSeconds"), steps)
    stage.tell.proof(stage.spent.words())
    stage.kubectl("get", "models.truekeep.dev")


def push_bad(stage: Stage) -> None:
    """A change that trains well and cannot serve."""
    stage.tell.say(
        """Somebody saves memory. The patch changes the training a little, which is fine, and leaves the server 64 MiB,
        in which it cannot even start."""
    )
    before = stage.model()["status"]["active"]
    stage.timeline.add(datetime.now(UTC), "a bad change is pushed")
    patch = ("patch", "models.truekeep.dev", MODEL, "--type", "merge")
    shown = (" ".join(patch), f"--patch-file {SHOWN}/changes/too-small.yaml")
    stage.kubectl(*patch, "--patch-file", str(EXAMPLE / "changes" / "too-small.yaml"), show=shown)
    run = stage.finished_run("the training that it asks for", 300, "Spec", number=1)
    check(run["status"]["revision"] == 3, f"the bad revision is number {run['status']['revision']}, not 3")
    stage.tell.proof("its training passes every gate: revision 3")
    model = stage.until(
        "the operator to roll it back",
        240,
        stage.model,
        lambda model: condition(model, "Ready").get("reason") == "RolledBack",
        lambda model: condition(model, "RolledOut").get("message", ""),
    )
    status = model["status"]
    failure = status["lastFailure"]
    stage.timeline.add(failure["time"], "revision 3 is rolled back")
    check((failure.get("revision"), failure["reason"]) == (3, "ServerOutOfMemory"), f"failed otherwise: {failure}")
    check([r["revision"] for r in status["rejected"]] == [3], f"rejected is {status['rejected']}")
    check(status["active"] == before, f"the live revision changed: {status['active']}")
    check(status.get("candidate") is None, f"there is a candidate still: {status.get('candidate')}")
    check(holds(model, "Serving"), f"the Model does not serve: {condition(model, 'Serving')}")
    stage.kube.wait("an Event RolledBack", 30, lambda: _event(stage, "RolledBack"))
    stage.tell.proof(f"{failure['reason']}: {failure['message']}")
    _unnoticed(stage)


def _event(stage: Stage, reason: str) -> Json | None:
    """An Event of this reason about the Model; Events are written after the status."""
    events = stage.kube.list(stage.namespace, "events")
    return next((e for e in events if e["reason"] == reason and e["involvedObject"]["kind"] == "Model"), None)


def _unnoticed(stage: Stage) -> None:
    """Live traffic went on, also after the rollback, and met revisions 1 and 2 alone."""
    last = stage.ledger()["last_day"]
    ledger = stage.until(
        "the traffic to go on", 60, stage.ledger, lambda ledger: ledger["last_day"] > min(last, "2013-12-30")
    )
    stage.no_failure()
    check(set(ledger["revisions"]) == {"1", "2"}, f"revisions {sorted(ledger['revisions'])} answered, not 1 and 2")
    stage.tell.proof(
        f"live traffic never noticed: revision 2 goes on; {ledger['failed']} of {ledger['requests']:,} requests failed"
    )


def look_around(stage: Stage) -> None:
    """How it stands, at one look."""
    stage.kubectl("get", "models.truekeep.dev,trainingruns,driftpolicies")
    runs = stage.runs()
    made = [(run["spec"]["trigger"]["type"], run["status"].get("revision")) for run in runs]
    check(made == [("Spec", 1), ("DriftPolicy", 2), ("Spec", 3)], f"other runs than the three were made: {made}")
    if condition(stage.policy(), "DriftDetected").get("status") == "True":
        stage.tell.say(
            """The replay has reached summer meanwhile, and the policy has found that revision 2 does not know it. It
            waits for its cooldown of an hour before it starts another run."""
        )


def record(stage: Stage) -> None:
    """Where the record is."""
    (run,) = stage.runs("DriftPolicy")
    found = run["status"]["record"]
    stage.tell.say("For whoever asks later: each revision has a record, named by its own digest.")
    stage.kubectl("get", "trainingruns", name_of(run), "-o", "jsonpath={.status.record.uri}")
    bucket, _, key = found["uri"].removeprefix("s3://").partition("/")
    content = stage.bucket(bucket).get(key)
    check(found["id"].removeprefix("sha256:") in key, f"{key} is not named by the record's digest {found['id']}")
    stage.tell.output(json.dumps(outline(json.loads(content)), indent=1, ensure_ascii=False), lines=60)
    stage.tell.proof(f"{len(content):,} bytes of canonical JSON; above is its head")


def outline(value: Any, depth: int = 2) -> Any:
    """The upper levels of a JSON value; what lies deeper is counted."""
    if isinstance(value, dict):
        return {key: outline(each, depth - 1) for key, each in value.items()} if depth else f"{len(value)} fields …"
    if isinstance(value, list):
        return f"{len(value)} items …"
    return f"{value[:HEAD]} …" if isinstance(value, str) and len(value) > HEAD else value


def end(stage: Stage) -> None:
    """The timeline, and what to try next."""
    stage.tell.table(("at", "", "what happened"), stage.timeline.rows())
    check(stage.spent, "the promotion was not timed")
    assert stage.spent is not None
    stage.tell.proof(stage.spent.words())
    stage.tell.say("Everything goes on running: the replay, until December is over, and the watching. Try next:")
    for words, *lines in NEXT:
        stage.tell.say(words)
        stage.tell.command(*(line.format(namespace=stage.namespace, model=MODEL) for line in lines))
