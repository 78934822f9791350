"""Words of pods by what they do, and the report of a run from the store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from truekeep.cli import logs, report
from truekeep.cli.kube import Person
from truekeep.cli.main import app
from truekeep.storage import ObjectMissing, s3


def say(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output


def pod(name: str, waiting: str | None = None) -> Any:
    state = SimpleNamespace(waiting=SimpleNamespace(reason=waiting) if waiting else None)
    container = SimpleNamespace(name="trainer", state=state, restart_count=0)
    status = SimpleNamespace(init_container_statuses=None, container_statuses=[container])
    return SimpleNamespace(metadata=SimpleNamespace(name=name, creation_timestamp=name), status=status)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The selectors that were asked for."""
    asked: list[str] = []

    class Core:
        def list_namespaced_pod(self, namespace: str, label_selector: str, **more: Any) -> Any:
            asked.append(label_selector)
            if "empty" in label_selector:
                return SimpleNamespace(items=[])
            return SimpleNamespace(items=[pod("b", "ImagePullBackOff"), pod("a")])

        def read_namespaced_pod_log(self, name: str, namespace: str, **more: Any) -> str:
            return f"{more['tail_lines']} lines of {name}"

    monkeypatch.setattr("kubernetes.client.CoreV1Api", Core)
    monkeypatch.setattr(logs, "person", lambda namespace: Person("shop"))
    return asked


def test_logs_name_the_pod_and_say_what_one_waits_for(core: list[str]) -> None:
    code, text = say("logs", "late", "--tail", "7")
    assert code == 0
    assert text == "==> a trainer <==\n7 lines of a\n==> b trainer: waits, ImagePullBackOff <==\n"
    assert core == ["truekeep.dev/model=late,app.kubernetes.io/component in (trainer,tuner)"]


def test_logs_of_one_run(core: list[str]) -> None:
    assert say("logs", "late", "--run", "late-1")[0] == 0
    assert core == ["truekeep.dev/run=late-1"]


def test_no_pod_says_where_else_to_look(core: list[str]) -> None:
    code, text = say("logs", "empty")
    assert code == 2
    assert "truekeep status empty says what became of the last run" in text


MODEL = {
    "metadata": {"name": "late"},
    "spec": {
        "store": {
            "s3": {"uri": "s3://models/", "endpoint": "http://s3.shop:7070", "credentialsSecretRef": {"name": "lake"}}
        }
    },
    "status": {"active": {"revision": 2}},
}


def made(name: str, revision: int | None, uri: str | None) -> dict[str, Any]:
    status = {"revision": revision, "record": {"report": uri} if uri else {}}
    return {"metadata": {"name": name}, "spec": {"modelRef": {"name": "late"}}, "status": status}


class Cluster(Person):
    def get(self, plural: str, name: str) -> Any:
        return MODEL

    def list(self, plural: str) -> Any:
        return [
            made("late-1", 1, None),
            made("late-2", 2, "s3://models/records/ab/report.html"),
            made("late-3", None, None),
        ]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The locations that were opened."""
    seen: list[tuple[str, str]] = []

    def opened(location: Any) -> Any:
        assert location.credentials_secret_ref is None, "the Secret is the cluster's, the credentials are the person's"
        seen.append((location.uri, location.endpoint))
        return SimpleNamespace(get=get)

    def get(name: str) -> bytes:
        if name != "report.html":
            raise ObjectMissing(name)
        return b"<html>good</html>"

    monkeypatch.setattr(s3.Bucket, "open", opened)
    monkeypatch.setattr(report, "person", lambda namespace: Cluster("shop"))
    return seen


def test_the_report_of_what_answers(store: list[tuple[str, str]], tmp_path: Path) -> None:
    code, text = say("open", "late", "--to", str(tmp_path / "r.html"), "--endpoint", "http://localhost:9")
    assert code == 0, text
    assert (tmp_path / "r.html").read_bytes() == b"<html>good</html>"
    assert store == [("s3://models/records/ab/", "http://localhost:9")]


def test_it_is_opened_in_the_browser(store: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(report.webbrowser, "open", opened.append)
    assert say("open", "late", "2")[0] == 0
    (address,) = opened
    assert Path(address.removeprefix("file://")).read_bytes() == b"<html>good</html>"
    Path(address.removeprefix("file://")).unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("1",), "run late-1 has no report"),
        (("7",), "late has no revision 7"),
        (("--run", "x"), "late has no run x"),
    ],
)
def test_what_is_not_there_is_refused(store: list[tuple[str, str]], words: tuple[str, ...], said: str) -> None:
    code, text = say("open", "late", *words)
    assert code == 2
    assert said in text
    assert not store
