from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from truekeep.cli.main import app


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_made_up_payments_are_written_as_history_and_future(tmp_path: Path) -> None:
    code, said = run("example", "fraud", str(tmp_path), "--days", "10", "--rows-per-day", "20", "--history-days", "4")
    assert code == 0, said
    rows = {place: int(count) for count, _, place in (line.split() for line in said.splitlines())}
    assert rows["lake/fraud/payments"] + rows["replay/fraud/payments"] == 200
    assert 50 < rows["lake/fraud/payments"] < 110
    assert rows["lake/fraud/chargebacks"] < rows["lake/fraud/payments"], "labels come later"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "replay"]


def test_a_store_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, said = run("example", "upload", str(tmp_path), "--endpoint", "http://127.0.0.1:9")
    assert code == 2
    assert "http://127.0.0.1:9" in said
    assert "AWS_ACCESS_KEY_ID" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "is none of flight-delay, fraud"),
        (("flight-delay", "--from", "2013-03-02", "--to", "2013-03-01"), "is not after --from 2013-03-02"),
    ],
)
def test_a_replay_of_nothing_is_refused(arguments: tuple[str, ...], words: str) -> None:
    code, said = run("replay", *arguments, "--endpoint", "http://127.0.0.1:9", "--url", "http://127.0.0.1:9")
    assert code == 2
    assert words in " ".join(said.replace("│", " ").split())
