"""The cluster as a person sees it: with the credentials of the kubeconfig, and with errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, NoReturn

import typer

from truekeep.api.common import GROUP, VERSION

Json = Mapping[str, Any]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: that of the kubeconfig's context.")]
TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class Person:
    """Who asks, and in which namespace."""

    namespace: str

    def get(self, plural: str, name: str) -> Json:
        """One object of ours."""
        found: Json = self._ask("get_namespaced_custom_object", plural, name)
        return found

    def find(self, plural: str, name: str) -> Json | None:
        """One object of ours; None where there is none."""
        from kubernetes import client

        try:
            found: Any = client.CustomObjectsApi().get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, plural, name, _request_timeout=TIMEOUT_SECONDS
            )
        except Exception as error:  # of the client: a dozen kinds, none of them for a person
            if getattr(error, "status", None) == HTTPStatus.NOT_FOUND:
                return None
            give_up(error)
        return dict(found)

    def list(self, plural: str) -> list[Json]:
        """All objects of one of our kinds in the namespace."""
        found: list[Json] = self._ask("list_namespaced_custom_object", plural)["items"]
        return found

    def runs(self, model: str) -> Sequence[Json]:
        """The TrainingRuns of a Model."""
        return of_model(self.list("trainingruns"), model)

    def revision(self, model: str, number: int) -> Json:
        """The run that made a revision. Ends with 2 where there is none."""
        made = {
            int(run["status"]["revision"]): run for run in self.runs(model) if (run.get("status") or {}).get("revision")
        }
        if number not in made:
            there = ", ".join(map(str, sorted(made))) or "none"
            refuse(
                self.pruned(model, number) or f"{self.namespace}/{model} has no revision {number}; there are {there}"
            )
        return made[number]

    def pruned(self, model: str, number: int) -> str | None:
        """What to do about a revision that has no run any more. None where there never was such a revision."""
        found = self.get("models", model)
        if number > int((found.get("status") or {}).get("latestRevision") or 0):
            return None
        store = found["spec"]["store"]["s3"]["uri"]
        return (
            f"the run of revision {number} of {self.namespace}/{model} is not in the cluster any more: it was pruned "
            "(spec.retraining.keepRuns) or deleted. Its artifact and record are in the store; bring it back first: "
            f"truekeep restore {model} --revision {number} --store {store} --namespace {self.namespace}"
        )

    def create(self, plural: str, manifest: Json) -> Json:
        """Make an object."""
        made: Json = self._ask("create_namespaced_custom_object", plural, manifest)
        return made

    def delete(self, plural: str, name: str) -> None:
        """Delete an object; what it owns goes with it, later."""
        self._ask("delete_namespaced_custom_object", plural, name)

    def annotate(self, plural: str, name: str, annotations: Mapping[str, str | None]) -> Json:
        """Set annotations of an object, or remove those that are None. Nothing else of it is touched."""
        body = {"metadata": {"annotations": dict(annotations)}}
        done: Json = self._ask("patch_namespaced_custom_object", plural, name, body)
        return done

    def user(self) -> str:
        """The name with which the cluster knows this person."""
        from kubernetes import client

        try:
            seen: Any = client.AuthenticationV1Api().create_self_subject_review(
                client.V1SelfSubjectReview(), _request_timeout=TIMEOUT_SECONDS
            )
        except Exception as error:  # of the client: a dozen kinds, none of them for a person
            give_up(error)
        return str(seen.status.user_info.username)

    def _ask(self, call: str, plural: str, *rest: Any) -> Any:
        from kubernetes import client

        try:
            return getattr(client.CustomObjectsApi(), call)(
                GROUP, VERSION, self.namespace, plural, *rest, _request_timeout=TIMEOUT_SECONDS
            )
        except Exception as error:  # likewise
            give_up(error)


def of_model(items: Iterable[Json], model: str) -> list[Json]:
    """Those that name the Model."""
    return [item for item in items if item["spec"]["modelRef"]["name"] == model]


def person(namespace: str | None) -> Person:
    """Whoever the kubeconfig names; in the namespace of its context, unless another is given."""
    from kubernetes import config

    try:
        config.load_kube_config()  # type: ignore[no-untyped-call]
        if namespace is None:
            _, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
            namespace = str(current["context"].get("namespace", "default"))
    except Exception as error:  # likewise
        give_up(error)
    return Person(namespace)


def give_up(error: Exception) -> NoReturn:
    """Say in one line what the API server said, or why it could not be asked, and end with 2."""
    body = getattr(error, "body", None)
    try:
        said = str(json.loads(body)["message"]) if body else ""
    except (ValueError, KeyError, TypeError):
        said = ""
    words = said or f"the cluster can't be asked: {error}; is KUBECONFIG right, and are the CRDs there?"
    refuse(words, error)


def refuse(words: str, cause: Exception | None = None) -> NoReturn:
    """Say what is wrong and end with 2."""
    typer.echo(f"truekeep: {words}", err=True)
    raise typer.Exit(2) from cause
