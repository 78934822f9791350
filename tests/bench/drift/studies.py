"""All studies on real data, and the page that tells them: `python -m tests.bench.drift.studies [--only NAME …]`.

Each study writes its figures to `tests/bench/drift/results/NAME.json`; then the plots (`docs/figures/*.svg`) and the
tables of `docs/real-data.md` are made anew from all figures that are there, what stands between them is written by
hand. `--only` with no name draws alone. All of it takes some 30 minutes of two cores: `year` does most of it, and
`--arms NAME …` plays some of its arms alone and keeps what is known of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.bench.drift import census, decay, millions, plots, year
from tests.unit.monitor import bikes
from truekeep.cli.main import app
from truekeep.trainer import threads

ROOT = Path(__file__).parents[3]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs/real-data.md"
FIGURES = ROOT / "docs/figures"
RUNS_A_YEAR = 12
HISTORY = ("--time-column", "scheduled_at", "--label-column", "late", "--label-delay-hours", "24")


def known(name: str) -> Any:
    """The figures of a study; None where it was never made."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def keep(name: str, figures: Any) -> None:
    """For the page, and for whoever wants to look closer."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def the_year(arms: Sequence[str] = (), kept: Path | None = None) -> list[dict[str, Any]]:
    """Every arm through the year. `kept`: a folder in which runs of an earlier start are known."""
    found = {arm["name"]: arm for arm in known("year") or []} if arms else {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = year.Workshop(kept or Path(folder), say=print)
        for arm in year.ARMS:
            if not arms or arm.name in arms:
                print(arm.name, flush=True)
                found[arm.name] = year.Play(arm, workshop).through().dump()
    return [found[arm.name] for arm in year.ARMS if arm.name in found]


def the_lateness() -> dict[str, Any]:
    """By length of a window."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {str(hours): [_watched(one, hours) for one in decay.watch(hours, decay.DROPS)] for hours in (168, 672)}


def _watched(one: decay.Watched, hours: int) -> dict[str, Any]:
    onset = one.onset()
    return asdict(one) | {
        "onset": None if onset is None else one.starts[onset],
        "labels": decay.lateness(one, one.by_labels, decay.DELAY, hours),
        "estimates": decay.lateness(one, one.by_estimate, decay.DELAY * 0, hours),
        "false_labels": one.false(one.by_labels),
        "false_estimates": one.false(one.by_estimate),
    }


def the_census() -> list[dict[str, Any]]:
    """The default answer to drift, and a run."""
    rows = census.history()
    found = []
    for answer in ("Alert", "Retrain"):
        with tempfile.TemporaryDirectory() as folder:
            found.append(asdict(census.replay(rows, answer, Path(folder))))
    return found


def the_bikes() -> list[dict[str, Any]]:
    """By week."""
    return [asdict(week) for week in bikes.weeks()]


def the_backtest() -> dict[str, Any]:
    """`truekeep backtest` on what the first revision answered from March on, with the labels that came."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        play = year.Play(year.ARMS[0], year.Workshop(there / "made"))
        play.through()
        play.recorded(there)
        given = ["backtest", "-f", str(year.BACKTESTED), "--history", str(there / "history.parquet"), *HISTORY]
        given += ["--profile", str(there / "profile.json"), "--performance", str(there / "performance.json")]
        answers = {}
        for kind in ("text", "html", "json"):
            done = CliRunner().invoke(app, [*given, "-o", kind])
            assert done.exit_code == 0, done.output
            answers[kind] = done.stdout.replace(f"{folder}/", "")
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / "backtest.html").write_text(answers["html"])
    _photograph(FIGURES / "backtest.html")
    return {"text": answers["text"], "answer": json.loads(answers["json"])}


def _photograph(page: Path) -> None:
    """As a browser shows its beginning; left as it is where there is none."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is not None:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,900"]
        subprocess.run([browser, *options, f"--screenshot={page.with_suffix('.png')}", page.as_uri()], check=True,
                       capture_output=True, timeout=120)  # fmt: skip


STUDIES: dict[str, Callable[[], Any]] = {
    "year": the_year,
    "lateness": the_lateness,
    "census": the_census,
    "bikes": the_bikes,
    "millions": millions.study,
    "backtest": the_backtest,
}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown; the first column is text, the others are numbers where they look like it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def prices(arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By arm: runs, and the mean of each measure over weeks, with what it is more than never."""
    years = {arm["name"]: _year(arm) for arm in arms}
    still = years[plots.NEVER]
    found = []
    for arm in arms:
        mine = years[arm["name"]]
        gain, low, high = year.difference(mine, still, "roc_auc")
        kind = "policy" if arm["name"].startswith("policy") else plots.NEVER if mine is still else "schedule"
        found.append(
            {
                "name": arm["name"],
                "kind": kind,
                "runs": len(arm["runs"]) - 1,
                "promoted": mine.promoted - 1,
                "gain": gain,
                "low": low,
                "high": high,
                **{measure: mine.area(measure) for measure in year.MEASURES},
            }
        )
    return found


def _year(arm: Mapping[str, Any]) -> year.Year:
    weeks = [year.Week(**week) for week in arm["weeks"]]
    return year.Year(arm["name"], weeks, [year.Run(**run) for run in arm["runs"]], [], dict(arm["held"]))


def year_table(arms: Sequence[Mapping[str, Any]]) -> str:
    """What each arm spent and got."""
    rows = [
        (
            one["name"], one["runs"], one["promoted"], f"{one['roc_auc']:.4f}",
            "–" if one["kind"] == plots.NEVER else f"{one['gain']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})",
            f"{one['average_precision']:.4f}", f"{one['neg_log_loss']:.4f}",
        )
        for one in prices(arms)
    ]  # fmt: skip
    head = ("arm", "runs", "promoted", "roc_auc", "more than never (95 %)", "average_precision", "neg_log_loss")
    return table(head, rows)


def runs_table(arms: Sequence[Mapping[str, Any]]) -> str:
    """What policies found, and what came of it."""
    rows = []
    for arm in arms:
        if arm["name"].startswith("policy"):
            for run in arm["runs"][1:]:
                because = run["because"].partition(": ")[2]
                if " on " in because and because.startswith(("roc_auc", "neg_")):
                    because = because.partition(" on ")[0]
                came = f"revision {run['revision']}" if run["revision"] else run["reason"]
                rows.append((arm["name"].removeprefix("policy: "), run["at"], because[:110], came))
    return table(("policy", "run on", "because", "what came of it"), rows)


def lateness_table(figures: Mapping[str, Any]) -> str:
    """Of weekly windows."""
    rows = [
        (
            one["metric"], f"{one['baseline']:.3f}", one["max_drop"], one["onset"] or "–", one["labels"],
            one["estimates"], f"{one['false_labels']}, {one['false_estimates']} of {len(one['starts'])}",
        )
        for one in figures["168"]
    ]  # fmt: skip
    return table(("metric", "holdout", "maxDrop", "onset", "by labels", "by the estimate", "false"), rows)


def census_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """By answer to drift."""
    rows = [
        (
            one["answer"], one["windows"], f"{one['decayed']}, {one['decayed_by_estimate']}",
            f"{one['lowest']:.3f} to {one['highest']:.3f} ({one['baseline']:.3f})",
            one["drifted"], ", ".join(one["columns"]), one["runs"],
        )
        for one in figures
    ]  # fmt: skip
    head = ("DataDrift is answered with", "windows", "decayed by labels, by estimate", "roc_auc (2015)")
    return table((*head, "windows whose inputs drifted", "columns", "runs"), rows)


def bikes_table(weeks: Sequence[Mapping[str, Any]]) -> str:
    """By reference."""
    rows = []
    for name, words in (("training", "January and February"), ("season", "the same hours of the four weeks before")):
        drifted = [week[name] == "Drift" for week in weeks]
        longest = max(len(run) for run in re.findall("1*", "".join("1" if one else "0" for one in drifted)))
        rows.append((words, len(weeks), sum(drifted), longest, "yes" if longest >= 2 else "no"))
    return table(("compared with", "weeks", "of Drift", "in a row at most", "a breach (two in a row)"), rows)


def millions_table(figures: Mapping[str, Any]) -> str:
    """Against reading alone."""
    first = next(iter(figures["contenders"].values()))
    rows = [
        (
            name, f"{one['wall']:.2f} s", f"{one['cpu']:.2f} s", f"{one['wall'] / first['wall']:.2f}",
            f"{one['peak']:.0f} MiB", f"{figures['rows'] / one['wall'] / 1e6:.1f} million",
        )
        for name, one in figures["contenders"].items()
    ]  # fmt: skip
    return table(("", "wall clock", "CPU", "times reading", "peak of the process", "rows a second"), rows)


def backtest_text(figures: Mapping[str, Any]) -> str:
    """As it is printed."""
    return f"```\n{figures['text'].rstrip()}\n```"


BLOCKS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "year": ("year", year_table),
    "runs": ("year", runs_table),
    "lateness": ("lateness", lateness_table),
    "census": ("census", census_table),
    "bikes": ("bikes", bikes_table),
    "millions": ("millions", millions_table),
    "backtest": ("backtest", backtest_text),
}


def rendered(page: str) -> str:
    """The page with every table made of the figures that are kept."""
    for name, (study, block) in BLOCKS.items():
        figures = known(study)
        if figures is not None:
            put = f"<!-- {name} -->\n{block(figures)}\n<!-- /{name} -->"
            page = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, put=put: put, page, flags=re.S)
    return page


def draw() -> None:
    """Plots and page."""
    arms, late, weeks = known("year"), known("lateness"), known("bikes")
    if arms:
        plots.write(plots.year(arms, "roc_auc"), FIGURES / "year.svg")
        plots.write(plots.price(prices(arms), "roc_auc"), FIGURES / "price.svg")
    if late:
        shown = [one for one in late["168"] if one["metric"] in ("accuracy", "roc_auc")]
        plots.write(plots.lateness(shown), FIGURES / "lateness.svg")
    if weeks:
        plots.write(plots.seasons(weeks), FIGURES / "seasons.svg")
    PAGE.write_text(rendered(PAGE.read_text()))


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--arms", nargs="*", choices=[arm.name for arm in year.ARMS], default=[])
    parser.add_argument("--folder", type=Path, help="where the runs of `year` are kept; a second start goes on there")
    chosen = parser.parse_args()
    if not threads.SPIN.keys() <= os.environ.keys():  # threads that spin double the time; they read this as they start
        threads.fix()
        os.execv(sys.executable, [sys.executable, "-m", "tests.bench.drift.studies", *sys.argv[1:]])
    for name in chosen.only:
        print(f"{name} …", flush=True)
        keep(name, the_year(chosen.arms, chosen.folder) if name == "year" else STUDIES[name]())
    draw()


if __name__ == "__main__":
    main()
