"""Attacks by people who may write some objects and not others: each is refused by an admission policy of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.manifests import admission
from tests.unit.redteam.attack import Attack, Scene

Json = dict[str, Any]
WHO = "names of others, approvals, Secrets"
ACCOUNTS = "service accounts"
AUTHOR = "truekeep.dev/author"
RESTORE = "old artifacts brought back to serve"
POLICIES = ("approvals", "authors", "identities", "restores")
APPROVALS, AUTHORS, IDENTITIES, RESTORES = (f"{name}.truekeep.dev" for name in POLICIES)


def refused_by(group: str, name: str, policy: str, ask: Callable[[], list[str]]) -> Attack:
    """Gets through where the policy refuses nothing; without its guard, the policy asks nothing."""

    def unguard(scene: Scene) -> None:
        without = {**admission.policies(), policy: {"variables": [], "validations": []}}
        scene.patch.setattr(admission, "policies", lambda: without)

    return Attack(group, name, lambda scene: ask() == [], unguard)


def approval(approver: str) -> Json:
    return {"spec": {"approver": approver, "modelRef": {"name": "credit"}, "decision": "Approve"}}


def model(author: str | None, mode: str = "Manual", **spec: Any) -> Json:
    annotations = {} if author is None else {AUTHOR: author}
    body = {"approval": {"mode": mode}, **spec}
    return {"metadata": {"name": "credit", "annotations": annotations}, "spec": body}


MAY_APPROVE = ["truekeep.dev/models/shop/credit/approve"]
STORE = {"store": {"s3": {"uri": "s3://m/", "credentialsSecretRef": {"name": "payroll"}}}}
TOKEN = {"url": "http://mine/", "tokenSecretRef": {"name": "payroll"}}


def run(**spec: Any) -> Json:
    return {"metadata": {"name": "credit-1"}, "spec": {"modelRef": {"name": "credit"}, **spec}}


def restoring() -> Iterator[Attack]:
    """A TrainingRun that puts what served long ago in place of what serves, made by who may only train."""
    back = {"restore": {"runUid": "u", "modelUid": "m", "latestRevision": 9, "revision": 1}}
    right = "truekeep.dev/models/shop/credit/restore"
    asks: dict[str, Callable[[], list[str]]] = {
        "by who may train": lambda: admission.refusals(RESTORES, run(**back)),
        "by who may approve": lambda: admission.refusals(RESTORES, run(**back), rights=MAY_APPROVE),
        "with the right to another Model": lambda: admission.refusals(
            RESTORES, run(**back), rights=[right.replace("credit", "other")]
        ),
        "with the right in another namespace": lambda: admission.refusals(
            RESTORES, run(**back), rights=[right.replace("shop", "lab")]
        ),
        "by the operator": lambda: admission.refusals(
            RESTORES, run(**back), user="system:serviceaccount:truekeep-system:truekeep-operator"
        ),
        "as a change of a run that trained": lambda: admission.refusals(RESTORES, run(**back), run()),
    }
    for name, ask in asks.items():
        yield refused_by(RESTORE, name, RESTORES, ask)


def pod(account: str) -> Json:
    return {"spec": {"serviceAccountName": account}}


def unlabelled(account: str) -> Json:
    """What the binding hands to the policy: each ServiceAccount that does not carry the label."""
    return {"metadata": {"name": account}}


def attacks() -> Iterator[Attack]:
    """All of these."""
    yield from restoring()
    ask = admission.refusals
    yield refused_by(
        WHO, "an approval in another's name", APPROVALS, lambda: ask(APPROVALS, approval("ann"), rights=MAY_APPROVE)
    )
    yield refused_by(WHO, "an approval without the right", APPROVALS, lambda: ask(APPROVALS, approval("bob")))
    yield refused_by(
        WHO,
        "an approval with the right to another Model",
        APPROVALS,
        lambda: ask(APPROVALS, approval("bob"), rights=["truekeep.dev/models/shop/other/approve"]),
    )
    yield refused_by(
        WHO,
        "a change in another's name",
        AUTHORS,
        lambda: ask(AUTHORS, model("ann"), model("ann") | {"spec": {"approval": {"mode": "Manual"}, "x": 1}}),
    )
    yield refused_by(WHO, "a change in nobody's name", AUTHORS, lambda: ask(AUTHORS, model(None)))
    yield refused_by(WHO, "approval turned off", AUTHORS, lambda: ask(AUTHORS, model("bob", "Automatic"), model("ann")))
    yield refused_by(WHO, "the author's annotation alone", AUTHORS, lambda: ask(AUTHORS, model("ann"), model("bob")))
    for kind, body in (("models", STORE), ("driftpolicies", {"webhook": TOKEN})):
        policy = f"{kind}.secrets.truekeep.dev"
        yield refused_by(
            WHO,
            f"a Secret that one may not read, in {kind}",
            policy,
            lambda policy=policy, body=body: ask(policy, {"spec": body}),
        )  # type: ignore[misc]
    moved = {"webhook": {**TOKEN, "url": "http://mine.example/"}}
    yield refused_by(
        WHO,
        "another's token at an address of one's own",
        "driftpolicies.secrets.truekeep.dev",
        lambda: ask("driftpolicies.secrets.truekeep.dev", {"spec": moved}, {"spec": {"webhook": TOKEN}}),
    )
    for account in ("admin", "truekeep-operator", "ci-deployer", "lake-writer", "system"):
        yield refused_by(
            ACCOUNTS,
            f"the identity of {account}",
            IDENTITIES,
            lambda account=account: ask(IDENTITIES, pod(account), params=unlabelled(account)),
        )  # type: ignore[misc]
