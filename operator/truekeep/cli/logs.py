"""`truekeep logs`: what the pods of a Model say, found by what they do instead of by their names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from truekeep.api.names import LABEL_COMPONENT, LABEL_MODEL, LABEL_RUN
from truekeep.cli.kube import TIMEOUT_SECONDS, Namespace, Person, give_up, person, refuse

Part = Literal["training", "serving", "monitor", "all"]
COMPONENTS = {
    "training": ("trainer", "tuner"),
    "serving": ("server",),
    "monitor": ("monitor", "notice", "retention", "newdata", "rehearsal"),
}


def logs(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the Model.")],
    *,
    part: Annotated[Part, typer.Option(help="Whose words.")] = "training",
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Of this TrainingRun alone.")] = None,
    tail: Annotated[int, typer.Option(min=1, max=100_000, help="Lines of each container.")] = 100,
    previous: Annotated[bool, typer.Option("--previous", help="Of containers that ended before.")] = False,
    namespace: Namespace = None,
) -> None:
    """Show what the pods of MODEL say: of its training, its serving or its monitors.

    Ends with 2 where there is no such pod; a finished run's pods stay for ten minutes."""
    who = person(namespace)
    found = pods(who, model, part, run)
    if not found:
        remedy = f"; truekeep status {model} says what became of the last run" if part == "training" else ""
        whose = f"run {run}" if run else f"{part} of {model}"
        refuse(f"there is no pod now for {whose} in {who.namespace}{remedy}")
    for pod in found:
        statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
        for container in statuses:
            if container.state.waiting is not None and not previous and not container.restart_count:
                typer.echo(f"==> {pod.metadata.name} {container.name}: waits, {container.state.waiting.reason} <==")
                continue
            typer.echo(f"==> {pod.metadata.name} {container.name} <==")
            typer.echo(said(who, pod.metadata.name, container.name, tail, previous), nl=False)


def pods(who: Person, model: str, part: Part, run: str | None) -> list[Any]:
    """The pods, the oldest first."""
    from kubernetes import client

    parts = COMPONENTS.values() if part == "all" else [COMPONENTS[part]]
    components = ",".join(name for names in parts for name in names)
    selector = f"{LABEL_MODEL}={model},{LABEL_COMPONENT} in ({components})"
    if run is not None:
        selector = f"{LABEL_RUN}={run}"
    try:
        listed = client.CoreV1Api().list_namespaced_pod(
            who.namespace, label_selector=selector, _request_timeout=TIMEOUT_SECONDS
        )
    except Exception as error:  # of the client: a dozen kinds, none of them for a person
        give_up(error)
    return sorted(listed.items, key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))


def said(who: Person, pod: str, container: str, tail: int, previous: bool) -> str:
    """The last lines of a container."""
    from kubernetes import client

    try:
        text: str = client.CoreV1Api().read_namespaced_pod_log(
            pod, who.namespace, container=container, tail_lines=tail, previous=previous,
            _request_timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    except client.ApiException as error:
        if error.status in {400, 404}:
            return "(nothing)\n"
        give_up(error)
    return text if text.endswith("\n") or not text else f"{text}\n"
