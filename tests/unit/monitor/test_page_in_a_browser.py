"""The report as a browser shows it, on phone and desktop: nothing runs, nothing is loaded, nothing sticks out."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.unit.monitor import made
from tests.unit.monitor.test_page import NASTY, SETTINGS, shown, weeks
from truekeep.contract.artifact import SignatureFeature
from truekeep.monitor.judge import judge
from truekeep.monitor.page import Subject, page
from truekeep.profiling.build import profile
from truekeep.profiling.schema import PREDICTION, Profile

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
NAMES = (
    "<script>document.title='run'</script>",
    '"><img src=http://127.0.0.1:9/x onerror="document.title=\'run\'">',
    "</title><svg/onload=\"document.title='run'\">",
    "x" * 300,
    "W" * 63,
    "a name of many words " * 9,
    NASTY,
)
STICKS_OUT = """
[...document.querySelectorAll('html, article, li, h1, p')].filter(e => e.scrollWidth > e.clientWidth + 1)
.map(e => e.tagName + ': ' + e.innerText.slice(0, 60))
"""
SQUEEZED = """
[...document.querySelectorAll('td, th')].filter(e => e.innerText.length > 2 && e.clientWidth < 25)
.map(e => e.innerText)
"""
pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no Chromium here (Debian: chromium); the pages' text is tested anyway"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile names, of columns and of values; numbers from tiny to huge; many windows with labels."""
    random = np.random.default_rng(0)
    features = [SignatureFeature(name=f"n{name}", type="Number") for name in NAMES]
    features += [SignatureFeature(name=f"c{name}", type="Category") for name in NAMES]
    rows = 3000

    def table(move: float) -> dict[str, Any]:
        numbers = {f"n{name}": random.normal(move, 1, rows) * 10.0 ** (3 * at - 9) for at, name in enumerate(NAMES)}
        return numbers | {f"c{name}": random.choice(NAMES[int(move) :], rows) for name in NAMES}

    there: Profile = Profile.model_validate(profile(table(0), features, random.random(rows)))
    window = made.counted({**table(1), PREDICTION: random.random(rows)}, there)
    verdicts = ["NoDrift", "Drift", "DataQuality", "InsufficientData", "Drift"] * 6
    labels = tuple(shown(week, value="0.60", low="0.58", high="0.62", verdict="Decayed") for week in range(0, 30, 2))
    subject = Subject(NASTY, there, window, judge(there, window, SETTINGS), SETTINGS, weeks(verdicts), labels, 0.03)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(subject))
    return path


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """The address of a browser's debugging socket."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail("the browser ended at once")
    finally:
        process.kill()
        process.wait()


class Tab:
    """One page, by Chrome's DevTools protocol; keeps what happened in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str = "") -> None:
        self._socket = socket
        self._session = session
        self._number = 0
        self.happened: list[dict[str, Any]] = []

    async def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        await self._socket.send_json(command | ({"sessionId": self._session} if self._session else {}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.receive_str(), 60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.happened.append(message)

    async def opened(self) -> Tab:
        """A new tab."""
        target = await self.do("Target.createTarget", url="about:blank")
        attached = await self.do("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self._socket, attached["sessionId"])
        tab._number = 1000
        for domain in ("Page", "Network", "Log", "Runtime"):
            await tab.do(f"{domain}.enable")
        return tab

    async def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        answer = await self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")


async def look(address: str, path: Path, width: int) -> tuple[Tab, dict[str, Any]]:
    """The page at a width, and what can be seen of it."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        tab = await Tab(socket).opened()
        await tab.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600
        )
        await tab.do("Page.navigate", url=path.as_uri())
        while await tab.value("document.readyState") != "complete" or not await tab.value("document.body.innerText"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await tab.value("document.querySelectorAll('details').forEach(e => e.open = true)")
        seen = {
            name: await tab.value(expression)
            for name, expression in (
                ("title", "document.title"),
                ("width", "document.documentElement.scrollWidth"),
                ("cards", "document.querySelectorAll('article').length"),
                ("sticks out", STICKS_OUT),
                ("squeezed", SQUEEZED),
                ("style", "getComputedStyle(document.body).maxWidth"),
            )
        }
        return tab, seen


@pytest.mark.parametrize("width", [390, 1280])
async def test_it_fits_and_nothing_runs_or_is_loaded(report: Path, tmp_path: Path, width: int) -> None:
    with browser(tmp_path) as address:
        tab, seen = await look(address, report, width)
    assert seen["cards"] == 2 * len(NAMES) + 1
    assert seen["width"] <= width
    assert seen["sticks out"] == []
    assert seen["squeezed"] == []
    assert seen["style"] == "1152px", "the policy lets the page's own style through"
    assert seen["title"] != "run"
    methods = [each["method"] for each in tab.happened if "method" in each]
    asked = [e["params"]["request"]["url"] for e in tab.happened if e.get("method") == "Network.requestWillBeSent"]
    assert asked == [report.as_uri()]
    assert "Page.javascriptDialogOpening" not in methods
    assert not [each for each in tab.happened if each.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]


def with_hole(report: Path, path: Path) -> Path:
    """The page with names that nobody escaped."""
    path.write_text(report.read_text().replace("</body>", f"{NAMES[0]}<p>{NAMES[1][2:]}</p></body>"))
    return path


async def test_the_policy_stops_what_an_escape_would_miss(report: Path, tmp_path: Path) -> None:
    """The same page with a hole in it: what the hole lets in neither runs nor loads."""
    holed = with_hole(report, tmp_path / "holed.html")
    with browser(tmp_path / "profile") as address:
        tab, seen = await look(address, holed, 1280)
    assert seen["title"] != "run"
    refused = [e["params"]["entry"]["text"] for e in tab.happened if e.get("method") == "Log.entryAdded"]
    assert sum("Content Security Policy" in each for each in refused) >= 2, refused
