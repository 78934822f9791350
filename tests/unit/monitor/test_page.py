"""The report as a page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tests.unit.monitor import made
from truekeep.api.driftpolicy import PerformanceVerdict, WindowVerdict
from truekeep.contract.artifact import SignatureFeature
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.page import Subject, page
from truekeep.monitor.timeline import Past, drawings
from truekeep.profiling.build import profile
from truekeep.profiling.schema import PREDICTION, Profile

NASTY = "</style><script>alert(1)</script>\"'\u202e\x00`" + "x" * 500
SETTINGS = Settings(min_rows=100)


class Tags(HTMLParser):
    """Every tag with its attributes; fails where one is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


MONDAY = datetime(2013, 3, 4, tzinfo=UTC)
WEEK = timedelta(days=7)


def weeks(verdicts: Sequence[str]) -> tuple[Past, ...]:
    return tuple(
        Past(
            WindowVerdict.model_validate(
                {
                    "start": MONDAY + n * WEEK,
                    "end": MONDAY + (n + 1) * WEEK,
                    "revision": 1,
                    "rows": 9,
                    "verdict": verdict,
                }
            ),
            0.1 * n,
        )
        for n, verdict in enumerate(verdicts)
    )


def shown(week: int, **values: str) -> PerformanceVerdict:
    body = {
        "start": MONDAY + week * WEEK, "end": MONDAY + (week + 1) * WEEK, "revision": 1, "metric": "roc_auc",
        "baseline": "0.70", "verdict": "Holds",
    }  # fmt: skip
    return PerformanceVerdict.model_validate(body | values)


def test_the_timeline_has_every_window_and_what_is_known_of_it() -> None:
    measured = shown(1, value="0.60", low="0.58", high="0.62", verdict="Decayed")
    text = "".join(
        drawings(
            weeks(["NoDrift", "Drift", "DataQuality", "InsufficientData"]),
            [measured, shown(2, estimate="0.69", estimated="Holds"), shown(9, value="0.1")],
            0.15,
            0.03,
        )
    )
    tags = Tags(text)
    assert tags.open == []
    heights = [float(attrs["height"] or 0) for tag, attrs in tags.tags if tag == "rect"]
    assert heights == sorted(heights)
    assert text.count('class="dot Decayed"') == 1
    assert text.count('class="guess Holds"') == 1
    assert "from where it is decay" in text
    assert "0.60 (0.58 … 0.62)" in text
    assert text.count("<tr>") == 5
    (dot,) = [attrs for tag, attrs in tags.tags if tag == "circle" and str(attrs["class"]).startswith("dot")]
    (limit,) = [attrs for tag, attrs in tags.tags if tag == "line" and attrs["class"] == "limit"][1:]
    assert float(dot["cy"] or 0) > float(limit["y1"] or 0), "below the limit is below the line"


def test_one_window_is_no_timeline() -> None:
    assert "".join(drawings(weeks(["Drift"]), [], 0.1, None)) == ""


def made_page(columns: dict[str, Any], there: Profile) -> str:
    window = made.counted(columns, there)
    return page(Subject(f"now and {NASTY}", there, window, judge(there, window, SETTINGS), SETTINGS))


@pytest.fixture(scope="module")
def hostile() -> str:
    rng = np.random.default_rng(0)
    features = [SignatureFeature(name=NASTY, type="Category"), SignatureFeature(name=f"n{NASTY}", type="Number")]
    then = {NASTY: rng.choice(["a", NASTY], 3000), f"n{NASTY}": rng.normal(size=3000)}
    there = Profile.model_validate(profile(then, features, rng.random(3000)))
    now = {NASTY: rng.choice([f"<b>{NASTY}", NASTY], 3000), f"n{NASTY}": rng.normal(2, 1, 3000)}
    return made_page({**now, PREDICTION: rng.random(3000)}, there)


def test_it_is_well_formed_and_holds_nothing_that_runs_or_loads(hostile: str) -> None:
    found = Tags(hostile)
    assert found.open == []
    names = {tag for tag, _ in found.tags}
    assert {"svg", "rect", "polyline", "article"} <= names
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "form", "b>", "base"}
    attributes = {name for _, given in found.tags for name in given}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "style")}
    assert hostile.count("<style>") == 1
    assert "\u202e" not in hostile
    assert "\x00" not in hostile


def test_its_policy_allows_its_own_style_alone(hostile: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", hostile, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [given["content"] for tag, given in Tags(hostile).tags if "http-equiv" in given and tag == "meta"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_it_shows_every_column_the_moved_first() -> None:
    there = made.reference(20_000)
    columns = made.draw(np.random.default_rng(1), 5000)
    columns["normal"] = columns["normal"] + 1
    columns["zeros"] = np.full(5000, np.nan)
    text = made_page(columns, there)
    titles = re.findall(r"<h3>(.*?)</h3>", text)
    assert titles[:2] == ["zeros", "normal"]  # what broke comes first
    assert len(titles) == len(there.columns)
    assert "not judged: the column is broken" in text
    assert '<article class="moved"><h3>normal</h3>' in text
    assert text == made_page(columns, there)


def test_too_few_rows_say_so() -> None:
    there = made.reference(20_000)
    text = made_page(made.draw(np.random.default_rng(1), 50), there)
    assert "Too few rows to judge" in text
    assert "At least 100 rows are needed" in text


def test_bars_are_the_shares() -> None:
    there = made.reference(20_000)
    columns = made.draw(np.random.default_rng(1), 5000)
    columns["flag"] = np.ones(5000)
    card = made_page(columns, there).partition("<h3>flag</h3>")[2].partition("</article>")[0]
    heights = [float(height) for height in re.findall(r'class="then"[^>]* height="([\d.]+)"/>', card)]
    assert len(heights) == 2
    assert heights[0] / heights[1] == pytest.approx(0.7 / 0.3, rel=0.1)
