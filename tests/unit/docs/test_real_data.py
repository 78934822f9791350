"""The page on real data says what the kept figures say."""

from __future__ import annotations

import re

from tests.bench.drift import studies


def test_every_table_is_made_of_the_figures() -> None:
    assert studies.PAGE.read_text() == studies.rendered(studies.PAGE.read_text()), (
        "run `python -m tests.bench.drift.studies --only`"
    )


def test_every_plot_is_there() -> None:
    shown = re.findall(r"!\[[^\]]+\]\((figures/[^)]+)\)", studies.PAGE.read_text())
    assert shown
    assert all((studies.PAGE.parent / path).is_file() for path in shown)


def test_what_the_page_claims_of_the_arms() -> None:
    spent = {one["name"]: one for one in studies.prices(studies.known("year"))}
    assert spent["policy: inputs"]["low"] > 0
    assert spent["monthly"]["low"] > 0
    assert spent["policy: labels"]["promoted"] == 0
    assert spent["policy: the example's"]["runs"] < spent["monthly"]["runs"] < spent["policy: inputs"]["runs"]
    assert spent["policy: labels, Brier"]["runs"] == 2
    assert spent["policy: labels, Brier"]["low"] > 0
    assert spent["policy: inputs"]["runs"] <= spent["weekly"]["runs"] / 2 + 1
    runs = {one["answer"]: one["runs"] for one in studies.known("census")}
    assert runs["Alert"] == 0
