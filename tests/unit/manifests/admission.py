"""Our ValidatingAdmissionPolicies, evaluated without an API server; tests/e2e ask a real one."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

import cel
import yaml

from tests.story.kube import ROOT
from truekeep.cli.admission import _escaped

Json = dict[str, Any]


@cache
def policies() -> dict[str, Json]:
    """Those that we ship, by name."""
    found = {}
    for file in ("admission", "identities", "secrets"):
        for each in yaml.safe_load_all((ROOT / "manifests" / "operator" / f"{file}.yaml").read_text()):
            if each["kind"] == "ValidatingAdmissionPolicy":
                found[each["metadata"]["name"]] = each["spec"]
    return found


def refusals(
    name: str,
    new: Json,
    old: Json | None = None,
    *,
    user: str = "bob",
    rights: Collection[str] = (),
    params: Json | None = None,
) -> list[str]:
    """What a policy says to this change in namespace `shop`: its refusals, none where it lets it pass.

    `rights`: what the user may do, as GROUP/RESOURCE/NAMESPACE/NAME/VERB."""
    policy = policies()[name]
    variables: Json = {}

    def evaluate(expression: str) -> Any:
        context = cel.Context()
        for step in ("group", "resource", "namespace", "name", "check"):
            context.add_function(step, lambda before, part: part if before is None else f"{before}/{part}")
        context.add_function("allowed", lambda path: path.removeprefix("?") in rights)
        context.add_variable("authorizer", None)
        context.add_variable("request", {"namespace": "shop", "userInfo": {"username": user}})
        context.add_variable("object", _escaped(new))
        context.add_variable("oldObject", None if old is None else _escaped(old))
        context.add_variable("variables", variables)
        context.add_variable("params", params)
        return cel.evaluate(expression, context)

    for each in policy.get("variables", []):
        variables[each["name"]] = evaluate(each["expression"])
    return [
        each.get("message") or evaluate(each["messageExpression"])
        for each in policy["validations"]
        if not evaluate(each["expression"])
    ]
