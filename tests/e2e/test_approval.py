"""A revision that people decide on: real users with roles of their own, and what they try to get around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.people import Someone, hire
from tests.e2e.shop import Shop, merged, open_shop, parameters, small_model
from tests.story.kube import Json, Kube, KubectlError, condition

NAMESPACE = "truekeep-e2e-approval"
MODEL = "credit"
AUTHOR = "truekeep.dev/author"


@dataclass
class Office:
    """The namespace and its people."""

    shop: Shop
    bob: Someone  # edits Models
    ann: Someone  # approves
    boss: Someone  # may do both

    @property
    def model(self) -> Json:
        return self.shop.model(MODEL)

    def awaiting(self, revision: int) -> str:
        """The digest that waits, once that revision does."""

        def look() -> bool:
            return (self.model.get("status", {}).get("awaiting") or {}).get("revision") == revision

        self.shop.until(f"revision {revision} to wait for a decision", 240, look)
        return str(self.model["status"]["awaiting"]["artifactDigest"])

    def bobs_model(self, author: str | None = None, **spec: Json) -> Json:
        """The Model as Bob would apply it."""
        document = merged(small_model(MODEL), {"spec": {"approval": {"mode": "Manual"}, **spec}})
        document["metadata"]["annotations"] = {AUTHOR: author or self.bob.name}
        return document


def decision(who: Someone, digest: str, name: str, approver: str | None = None, verdict: str = "Approve") -> Json:
    return {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "ModelApproval",
        "metadata": {"name": name},
        "spec": {
            "modelRef": {"name": MODEL},
            "artifactDigest": digest,
            "decision": verdict,
            "reason": "looked at the slices",
            "approver": approver or who.name,
        },
    }


@pytest.fixture(scope="module")
def office(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder: Path = tmp_path_factory.mktemp("people")
    with open_shop(kube, NAMESPACE, {}) as shop:

        def new(name: str, *roles: str) -> Someone:
            # Who writes a Model names the Secret of its store.
            return hire(kube, folder, NAMESPACE, name, roles, ["lake"] if "truekeep-editor" in roles else [])

        people = Office(
            shop,
            bob=new("bob", "truekeep-editor", "truekeep-viewer"),
            ann=new("ann", "truekeep-approver"),
            boss=new("boss", "truekeep-editor", "truekeep-approver"),
        )
        people.bob.applies(people.bobs_model())
        yield people


def refused(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(KubectlError) as caught:
        action()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_revision_waits_and_no_trick_lets_it_serve(office: Office) -> None:
    bob, ann, boss = office.bob, office.ann, office.boss
    digest = office.awaiting(1)
    assert condition(office.model, "Approved")["reason"] == "AwaitingApproval"
    assert condition(office.model, "Stalled")["status"] == "False"

    # In another's name; without the right; with the right to make the object alone.
    refused(lambda: ann.creates(decision(ann, digest, "forged", approver=boss.name)), boss.name, "nobody decides")
    refused(lambda: bob.creates(decision(bob, digest, "mine")), "forbidden")
    office.shop.kube.kubectl(
        "create", "role", "maker", "-n", NAMESPACE, "--verb=create,get,patch", "--resource=modelapprovals.truekeep.dev"
    )
    office.shop.kube.kubectl(
        "create", "rolebinding", "bob-maker", "-n", NAMESPACE, "--role=maker", f"--serviceaccount={NAMESPACE}:bob"
    )
    refused(lambda: bob.creates(decision(bob, digest, "mine")), "the verb approve", "truekeep-approver")
    # Posing as another author; hiding who changed it; turning approval off; loosening it; writing the status.
    refused(lambda: bob.applies(office.bobs_model(author=ann.name)), "truekeep.dev/author", bob.name)
    refused(lambda: boss.applies(office.bobs_model(**parameters(max_iter="13"))), "truekeep.dev/author", boss.name)
    refused(lambda: bob.applies(office.bobs_model(approval={"mode": "Automatic"})), "may not loosen")
    refused(lambda: bob.applies(office.bobs_model(approval={"author": "MayApprove"})), "may not loosen")
    patch = '{"status":{"awaiting":null}}'
    refused(lambda: bob.does("patch", "tkm", MODEL, "--subresource=status", "--type=merge", "-p", patch), "forbidden")
    # A pin is no way around; it is admitted, and answered in the status.
    bob.applies(office.bobs_model(serving={"pinnedRevision": 1}))
    office.shop.reason(MODEL, "PinnedRevisionNotApproved", 60)
    bob.applies(office.bobs_model())
    # An approval of something else approves nothing.
    ann.creates(decision(ann, "sha256:" + "0" * 64, "something-else"))
    office.shop.until(
        "the pin to be gone", 60, lambda: condition(office.model, "Ready")["reason"] == "AwaitingApproval"
    )
    assert office.model["status"].get("active") is None
    assert not office.shop.kube.list(NAMESPACE, "deployments", f"truekeep.dev/model={MODEL}")


def test_an_approval_from_the_command_line_lets_it_serve_and_can_not_be_changed(office: Office) -> None:
    digest = office.awaiting(1)
    done = office.ann.truekeep("approve", MODEL, "-m", "reviewed with risk")
    assert done.returncode == 0, done.stderr
    assert f"approved revision 1 of {NAMESPACE}/{MODEL}" in done.stdout
    model = office.shop.ready(MODEL, 1)
    assert model["status"]["active"]["approval"]["approver"] == office.ann.name
    assert condition(model, "Approved")["reason"] == "Approved"
    name = model["status"]["active"]["approval"]["name"]
    (stored,) = [
        each for each in office.shop.kube.list(NAMESPACE, "modelapprovals") if each["metadata"]["name"] == name
    ]
    assert stored["spec"]["artifactDigest"] == digest
    assert stored["spec"]["reason"] == "reviewed with risk"
    change = '{"spec":{"decision":"Reject"}}'
    refused(
        lambda: office.shop.kube.kubectl("patch", "tka", name, "-n", NAMESPACE, "--type=merge", "-p", change),
        "can't be changed",
    )


def test_the_author_may_not_approve_his_own_change_even_as_an_approver(office: Office) -> None:
    document = office.bobs_model(author=office.boss.name, **parameters(max_iter="13"))
    office.boss.applies(document)
    office.awaiting(2)
    done = office.boss.truekeep("approve", MODEL, "-m", "trust me")
    assert done.returncode == 0, "the object itself is in order"
    office.shop.until("the answer", 30, lambda: condition(office.model, "Approved")["reason"] == "ApproverIsAuthor")
    assert office.model["status"]["active"]["revision"] == 1


def test_a_rejection_stays_and_the_live_revision_goes_on(office: Office) -> None:
    done = office.ann.truekeep("reject", MODEL, "-m", "unfair to small shops")
    assert done.returncode == 0, done.stderr
    words = office.shop.reason(MODEL, "Rejected", 30)
    assert "unfair to small shops" in words["message"]
    assert condition(office.model, "Serving")["status"] == "True"
    assert office.model["status"]["active"]["revision"] == 1
    done = office.ann.truekeep("approve", MODEL, "-m", "again")
    assert done.returncode == 2
    assert "waits for a decision" in done.stderr


def test_decisions_outlive_the_model(office: Office) -> None:
    office.shop.kube.kubectl("delete", "tkm", MODEL, "-n", NAMESPACE)
    kept = {each["spec"]["decision"] for each in office.shop.kube.list(NAMESPACE, "modelapprovals")}
    assert kept == {"Approve", "Reject"}
