"""What tests/unit/redteam writes into objects, sent to a real API server: none of it is stored."""

from __future__ import annotations

import json
import subprocess

import yaml

from tests.cluster import environment
from tests.story.kube import Kube
from tests.unit.redteam.fields import PODSPEC, WRITTEN, Written, good

CLOSED = [each for each in WRITTEN if each.group == PODSPEC]  # fields that nobody knows: left out, not refused


def asked(kube: Kube, documents: list[object], *options: str) -> subprocess.CompletedProcess[str]:
    """What kubectl and the API server say to all of these, in one call; nothing is stored."""
    command = [kube.program, "--kubeconfig", environment()["KUBECONFIG"], "create", "-n", "default", "--dry-run=server"]
    text = "---\n".join(json.dumps(each) + "\n" for each in documents)
    return subprocess.run(
        [*command, *options, "-f", "-"], input=text, capture_output=True, text=True, timeout=120, check=False
    )


def named(attack: Written, number: int) -> dict[str, object]:
    """The object, under a name by which its answer is found, where its name is not the attack."""
    document = attack.document()
    if not attack.path.startswith("metadata"):
        document["metadata"]["name"] = f"attack-{number}"
    return document


def test_the_objects_are_taken_as_they_are(kube: Kube) -> None:
    """But for the approval, which is in another's name."""
    documents = [each for each in good().values() if each["kind"] != "ModelApproval"]
    for number, each in enumerate(documents):
        each["metadata"]["name"] = f"good-{number}"
    done = asked(kube, list(documents))
    assert done.stdout.count("created (server dry run)") == len(documents), done.stderr


def test_nothing_hostile_is_taken(kube: Kube) -> None:
    done = asked(kube, [named(each, number) for number, each in enumerate(WRITTEN)])
    assert "created" not in done.stdout
    assert done.returncode != 0


def test_unknown_fields_are_not_stored_where_nobody_checks_them(kube: Kube) -> None:
    """With kubectl's own check turned off, the API server leaves them out."""
    done = asked(kube, [named(each, number) for number, each in enumerate(CLOSED)], "--validate=ignore", "-o", "yaml")
    stored = list(yaml.safe_load_all(done.stdout))
    kept = stored[0]["items"] if stored and stored[0].get("kind") == "List" else stored
    assert len(kept) == len(CLOSED), done.stderr
    for attack, document in zip(CLOSED, kept, strict=True):
        *way, last = attack.path.split(".")
        node = document
        for part in way:
            node = node.get(part, {})
        assert last not in node, attack.name
