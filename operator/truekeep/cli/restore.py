"""`truekeep restore`: brings Models back whose cluster is lost, or revisions whose runs are gone, from their store."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from truekeep.cli import archive
from truekeep.cli.kube import Json, Namespace, Person, of_model, person, refuse
from truekeep.cli.laptop import InputError
from truekeep.cli.restoring import ConflictError, Lost, Step, lost, models, steps, trained_anew
from truekeep.cli.shown import Output, console, give
from truekeep.cli.stores import Endpoint, located, opened
from truekeep.storage import StoreError

DONE = {"There": "there already", "Create": "is restored", "Again": "is restored again"}
TO_DO = {"There": "there already", "Create": "to be restored", "Again": "to be restored again"}


def restore(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Default: all Models of the namespace that the store has.")
    ] = None,
    *,
    store: Annotated[str, typer.Option(help="spec.store.s3.uri of the Model. Example: s3://models/.")],
    endpoint: Endpoint = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be restored, and write nothing.")] = False,
    model_uid: Annotated[
        str | None,
        typer.Option(help="Of several Models that had this name, one after the other: the one to restore."),
    ] = None,
    unsuccessful: Annotated[
        int, typer.Option(min=0, max=1000, help="So many runs that made no revision are restored, too, the newest.")
    ] = 20,
    revision: Annotated[
        list[int] | None,
        typer.Option(min=1, metavar="NUMBER", help="This revision alone, as where its run was pruned; several may be."),
    ] = None,
    despite_faults: Annotated[
        bool, typer.Option("--despite-faults", help="Restore what holds, where the store was altered or lost some.")
    ] = False,
    output: Output = "text",
    namespace: Namespace = None,
) -> None:
    """Bring back the TrainingRuns of MODEL from its store, in a cluster that lost them.

    Revisions keep their numbers; what answered last and what failed is known again. Nothing is trained. Restore before
    you apply the Model: it then serves the revision that answered last. Where it is applied already, the training that
    it began is ended. Done twice, the second time writes nothing. The store is read with your own credentials
    (AWS_ACCESS_KEY_ID and so on); pods of the Model read it again with the Model's. You need the verb restore on
    models.truekeep.dev: ClusterRole truekeep-restorer. Codes: 0, done; 1, something was altered or lost, and nothing
    was written, or only what holds; 2, wrong input, a conflict, or no answer."""
    _whole(model, model_uid, revision)
    who = person(namespace)
    try:
        place = opened(located("--store", store, endpoint))
        names = [model] if model else models(place, who.namespace)
        if not names:
            refuse(f"{store} has no runs below {who.namespace}/: is it spec.store.s3.uri, and the namespace's name?")
        found = {name: lost(place, who.namespace, name, model_uid, unsuccessful) for name in names}
    except (InputError, StoreError) as error:
        refuse(str(error))
    told: list[dict[str, Any]] = []
    faults = False
    for name, state in found.items():
        if state is None or not (state.runs or state.faults):
            uids = f" of a Model {model_uid}" if model_uid else ""
            refuse(f"{store} has no run of {who.namespace}/{name}{uids}; truekeep restore without MODEL finds names")
        faults = faults or bool(state.faults)
        chosen = _chosen(state, f"{who.namespace}/{name}", revision or [])
        told.append(_one(who, name, chosen, dry_run or bool(state.faults and not despite_faults), revision or []))
    if output != "text":
        give(told, output)
    else:
        for answer in told:
            _show(answer)
    for answer in told:
        for fault in answer["faults"]:
            typer.echo(f"truekeep: {fault}", err=True)
    if faults:
        if not despite_faults:
            typer.echo("truekeep: nothing was written of these; --despite-faults restores what holds", err=True)
        raise typer.Exit(1)


def _whole(model: str | None, model_uid: str | None, revisions: list[int] | None) -> None:
    """Ends with 2 where what is of one Model is asked for without its name."""
    if model is None and (model_uid is not None or revisions):
        option = "--model-uid" if model_uid is not None else "--revision"
        refuse(f"{option} is of one Model; name it: truekeep restore MODEL {option} ...")


def _chosen(state: Lost, name: str, revisions: list[int]) -> Lost:
    """Of what the store has, these revisions alone, if some are named. Ends with 2 where it has one of them not."""
    if not revisions:
        return state
    runs = tuple(run for run in state.runs if run.revision in revisions)
    if missing := sorted(set(revisions) - {run.revision for run in runs}):
        there = archive.spans(sorted(run.revision for run in state.runs if run.revision)) or "none"
        refuse(f"the store has no revision {missing[0]} of {name} that could be restored; it has {there}")
    return replace(state, runs=runs, notes=())


def _one(who: Person, name: str, state: Lost, dry_run: bool, revisions: list[int]) -> dict[str, Any]:
    """One Model: what is done, in the order in which an interruption hurts nobody, and what there is to say."""
    present = {item["metadata"]["name"]: item for item in who.list("models")}
    everything = who.list("trainingruns")
    runs = of_model(everything, name)
    try:
        # Names are the namespace's, numbers the Model's.
        todo = steps(state, [*runs, *_strangers(everything, name)])
    except ConflictError as error:
        refuse(f"{who.namespace}/{name}: {error}")
    ended = trained_anew(present.get(name), runs)
    if not dry_run:
        for step in todo:
            if step.delete:
                who.delete("trainingruns", step.former.name)
            if step.what != "There":
                who.create("trainingruns", step.former.manifest(who.namespace, name, state))
        for run in ended:
            who.delete("trainingruns", run)
    return {
        "namespace": who.namespace,
        "model": name,
        "modelUid": state.model_uid,
        "dryRun": dry_run,
        "applied": name in present,
        "latestRevision": state.latest,
        "revisions": sorted(set(revisions)),
        "answeredLast": state.champion,
        "since": f"{state.since:%Y-%m-%dT%H:%M:%SZ}" if state.since else None,
        "runs": [_row(step, dry_run) for step in todo],
        "ended": ended,
        "otherModels": list(state.others),
        "notes": list(state.notes),
        "faults": list(state.faults),
    }


def _strangers(runs: list[Json], model: str) -> list[Json]:
    """Runs of other Models: what they are called is taken, what numbers they have is theirs."""
    others = [run for run in runs if run["spec"]["modelRef"]["name"] != model]
    return [{**run, "status": {}} for run in others]


def _row(step: Step, dry_run: bool) -> dict[str, Any]:
    former = step.former
    return {
        "revision": former.revision,
        "run": former.name,
        "runUid": former.run_uid,
        "result": former.reason,
        "ended": f"{former.finished:%Y-%m-%dT%H:%M:%SZ}",
        "artifact": former.artifact,
        "what": (TO_DO if dry_run else DONE)[step.what],
    }


def say(words: str) -> None:
    """A sentence, at the terminal's width."""
    console().print(words, markup=False)


def _show(answer: dict[str, Any]) -> None:
    name = f"{answer['namespace']}/{answer['model']}"
    say(name)
    table = Table(box=None, pad_edge=False)
    for title in ("REV", "RUN", "RESULT", "ENDED", ""):
        table.add_column(title, overflow="fold", no_wrap=title in {"REV", "ENDED"})
    for row in answer["runs"]:
        cells = (row["revision"] or "-", row["run"], row["result"], row["ended"][:16].replace("T", " "), row["what"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    console().print(table)
    for run in answer["ended"]:
        words = "would be deleted" if answer["dryRun"] else "is deleted"
        say(f"run {run}, which began because the Model was applied before this, {words}")
    if answer["revisions"]:
        say(f"the other runs stay as they are; truekeep history {answer['model']} lists them")
    elif answer["answeredLast"]:
        since = (answer["since"] or "")[:16].replace("T", " ")
        then = "serves again" if answer["applied"] else "serves again once the Model is applied"
        say(f"revision {answer['answeredLast']} answered last, since {since}; it {then}")
    elif answer["latestRevision"]:
        say("the store does not say which revision answered; the newest that fits the spec is rolled out")
    for note in answer["notes"]:
        say(f"note: {note}")
    if answer["otherModels"]:
        uids = ", ".join(answer["otherModels"])
        say(f"note: other Models had this name, too; --model-uid restores one of them: {uids}")
