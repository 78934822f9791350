"""What is asked of a cluster: read with the person's own credentials, and nothing is written.

A review of one's own rights is the only thing that is posted, and it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from truekeep.cli.kube import TIMEOUT_SECONDS, give_up

Json = Mapping[str, Any]


class NotAllowedError(Exception):
    """The person may not read this."""


@dataclass(frozen=True)
class Right:
    """A verb on a resource of a group; in a namespace, or in the whole cluster where that is empty."""

    verb: str
    group: str
    resource: str
    namespace: str = ""

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name}" + (f" in {self.namespace}" if self.namespace else "")


class Cluster(Protocol):
    """What the checks ask. NotAllowedError where the person may not read it."""

    def version(self) -> tuple[int, int]:
        """Of Kubernetes: major and minor."""

    def groups(self) -> frozenset[str]:
        """What the API server serves, as `group/version`."""

    def serves_policies(self) -> bool:
        """Whether there are ValidatingAdmissionPolicies."""

    def kind(self, name: str) -> Json | None:
        """A CustomResourceDefinition."""

    def namespace(self, name: str) -> Json | None:
        """A namespace."""

    def operators(self) -> list[Json]:
        """The Deployments of operators of ours, in whatever namespace."""

    def items(self, what: str) -> list[Json]:
        """ "nodes", "storageclasses", or "dns": the Services of the cluster's DNS."""

    def may(self, right: Right) -> bool:
        """Whether the person has a right."""


class Real:
    """The cluster of the kubeconfig, which was loaded before."""

    def __init__(self) -> None:
        from kubernetes import client

        self._client = client
        self._api = client.ApiClient()

    def version(self) -> tuple[int, int]:
        found = self._ask(self._client.VersionApi().get_code)
        return int(found["major"]), int("".join(c for c in found["minor"] if c.isdigit()))

    def groups(self) -> frozenset[str]:
        found = self._ask(self._client.ApisApi().get_api_versions)
        return frozenset(each["groupVersion"] for group in found["groups"] for each in group["versions"])

    def serves_policies(self) -> bool:
        try:
            found = self._ask(self._client.AdmissionregistrationV1Api().get_api_resources)
        except LookupError:
            return False
        return any(each["name"] == "validatingadmissionpolicies" for each in found["resources"])

    def kind(self, name: str) -> Json | None:
        return self._found(self._client.ApiextensionsV1Api().read_custom_resource_definition, name)

    def namespace(self, name: str) -> Json | None:
        return self._found(self._client.CoreV1Api().read_namespace, name)

    def operators(self) -> list[Json]:
        selector = "app.kubernetes.io/name=truekeep,app.kubernetes.io/component=operator"
        call = self._client.AppsV1Api().list_deployment_for_all_namespaces
        found: list[Json] = self._ask(call, label_selector=selector)["items"]
        return found

    def items(self, what: str) -> list[Json]:
        calls: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
            "nodes": (self._client.CoreV1Api().list_node, {}),
            "storageclasses": (self._client.StorageV1Api().list_storage_class, {}),
            "dns": (self._client.CoreV1Api().list_service_for_all_namespaces, {"label_selector": "k8s-app=kube-dns"}),
        }
        call, given = calls[what]
        found: list[Json] = self._ask(call, **given)["items"]
        return found

    def may(self, right: Right) -> bool:
        attributes = self._client.V1ResourceAttributes(
            verb=right.verb, group=right.group, resource=right.resource, namespace=right.namespace or None
        )
        review = self._client.V1SelfSubjectAccessReview(
            spec=self._client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        answer = self._ask(self._client.AuthorizationV1Api().create_self_subject_access_review, review)
        return bool(answer["status"].get("allowed"))

    def _found(self, call: Callable[..., Any], name: str) -> Json | None:
        try:
            found: Json = self._ask(call, name)
        except LookupError:
            return None
        return found

    def _ask(self, call: Callable[..., Any], *given: Any, **options: Any) -> Any:
        try:
            answer = call(*given, **options, _request_timeout=TIMEOUT_SECONDS)
        except self._client.ApiException as error:
            if error.status == 403:
                raise NotAllowedError from error
            if error.status == 404:
                raise LookupError from error
            give_up(error)
        except Exception as error:  # of the client: a dozen kinds, none of them for a person
            give_up(error)
        return self._api.sanitize_for_serialization(answer)  # type: ignore[no-untyped-call]
