from __future__ import annotations

import io
from typing import Any

import pytest

from tests.story.loop import outline
from tests.story.narrator import Narrator
from tests.story.steps import STEPS
from tests.story.trouble import tell_trouble


class Cluster:
    """What the telling of trouble asks of a cluster."""

    def __init__(self, **items: list[dict[str, Any]]) -> None:
        self.items = items

    def list(self, namespace: str, plural: str, selector: str = "") -> list[dict[str, Any]]:
        if plural == "events" and "events" not in self.items:
            raise ConnectionError("gone")
        return self.items.get(plural, []) if namespace == "demo" else []

    def logs(self, namespace: str, pod: str, lines: int = 20) -> str:
        return f"last words of {pod}"


def told(cluster: Cluster) -> str:
    stream = io.StringIO()
    tell_trouble(cluster, "demo", Narrator(stream))  # type: ignore[arg-type]
    return stream.getvalue()


def meta(name: str) -> dict[str, str]:
    return {"name": name, "creationTimestamp": "2026-01-01T10:00:00Z"}


def test_trouble_is_told_with_condition_event_and_last_words() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "GatesFailed", "message": "auc 0.5 is below 0.65"}
    fine = {"type": "Reconciling", "status": "False", "reason": "GatesFailed"}
    model = {"kind": "Model", "metadata": meta("m"), "status": {"conditions": [ready, fine]}}
    event = {
        "metadata": meta("e"),
        "type": "Warning",
        "reason": "GatesFailed",
        "message": "it failed",
        "involvedObject": {"kind": "TrainingRun", "name": "r", "apiVersion": "truekeep.dev/v1alpha1"},
    }
    ended = {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    pod = {"metadata": meta("p"), "status": {"phase": "Failed", "containerStatuses": [ended]}}
    good = {"metadata": meta("q"), "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    text = told(Cluster(models=[model], events=[event], pods=[pod, good]))
    assert "Model m: Ready=False GatesFailed: auc 0.5 is below 0.65" in text
    assert "Reconciling" not in text, "a condition that is as it should be is not trouble"
    assert "10:00:00 Warning GatesFailed TrainingRun/r: it failed" in text
    assert "p (Failed): OOMKilled 137" in text
    assert "last words of p" in text
    assert "last words of q" not in text


def test_what_cannot_be_read_hides_nothing_else() -> None:
    text = told(Cluster())
    assert "could not be read: ConnectionError('gone')" in text
    assert "Operator:" in text


def test_words_fit_into_80_columns_and_commands_are_never_broken() -> None:
    stream = io.StringIO()
    tell = Narrator(stream)
    tell.say("word " * 60)
    tell.proof("number " * 40)
    assert max(map(len, stream.getvalue().splitlines())) <= 80
    stream.truncate(0)
    tell.command("kubectl " + "x" * 100)
    assert f"$ kubectl {'x' * 100}\n" in stream.getvalue()


def test_a_long_wait_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    now = [0.0]
    monkeypatch.setattr("tests.story.narrator.time.monotonic", lambda: now[0])
    with Narrator(stream).waiting("training") as progress:
        progress("too early")
        now[0] = 16.0
        progress("half done")
    assert stream.getvalue() == "    … training: 16 s, half done\n"


def test_an_outline_counts_what_lies_deeper() -> None:
    document = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": "x" * 70}
    assert outline(document) == {"a": {"b": "1 fields …", "d": "2 items …"}, "e": "x" * 60 + " …"}


def test_every_step_has_a_name_of_its_own() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS) == 12
