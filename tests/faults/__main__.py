"""`python -m tests.faults`: tell the story with faults in it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import planted
from tests.faults.plans import BY_NAME, KINDS, Plan
from tests.faults.script import CHAPTERS
from tests.faults.suite import PARALLEL, Report, every, run, sample, try_out
from tests.faults.theatre import PlanError, Telling, Theatre, Undisturbed, theatre

SEED = 20131231


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", type=int, nargs="+", metavar="N", help="replay plans by their numbers")
    what.add_argument("--all", action="store_true", help="every write × every fault of writes, and events and reads")
    what.add_argument("--planted", nargs="*", metavar="BUG", help="does the suite find these bugs? all without a name")
    what.add_argument("--list", action="store_true", help="the undisturbed story's writes, and the kinds of faults")
    parser.add_argument("--sample", type=int, default=2, metavar="TELLINGS", help="how many without --all; default 2")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--kinds", nargs="+", choices=sorted(BY_NAME), help="only these faults, with --all")
    parser.add_argument("--stride", type=int, default=5, help="with --all: each how-manieth event and read; default 5")
    parser.add_argument("--parallel", type=int, default=PARALLEL, metavar="TELLINGS", help="at a time")
    parser.add_argument("--bug", choices=sorted(planted.BUGS), help="with this bug planted")
    return asyncio.run(_main(parser.parse_args(arguments)))


async def _main(asked: argparse.Namespace) -> int:
    async with theatre() as house:
        print(f"the operators' logs are in {house.folder}", flush=True)
        try:
            undisturbed = await Telling(house).record()
        except PlanError as error:
            print(f"FAILED {error}")
            return 1
        writes = sum(map(len, undisturbed.writes))
        print(
            f"undisturbed: {undisturbed.seconds:.0f} s, {writes} writes, {sum(undisturbed.events)} events, "
            f"{sum(undisturbed.reads)} reads; {undisturbed.accounts[-1]}",
            flush=True,
        )
        if asked.list:
            _list(undisturbed)
            return 0
        if asked.planted is not None:
            return await _try_out(house, undisturbed, asked)
        plans = _plans(undisturbed, asked)
        began = time.monotonic()
        report = await run(house, undisturbed, plans, planted=asked.bug, parallel=asked.parallel, say=_progress)
        print(f"\n{report.words()}, in {time.monotonic() - began:.0f} s")
        for plan in report.unsteady:
            print(f"unsteady: {plan}")
        _tell_failures(report, house.folder)
        return 1 if report.failed else 0


def _plans(undisturbed: Undisturbed, asked: argparse.Namespace) -> list[Plan]:
    if asked.plan:
        return [Plan.of(number) for number in asked.plan]
    if asked.all:
        kinds = [BY_NAME[name] for name in asked.kinds] if asked.kinds else KINDS
        return every(undisturbed, kinds, asked.stride)
    return sample(undisturbed, asked.sample, asked.seed)


async def _try_out(house: Theatre, undisturbed: Undisturbed, asked: argparse.Namespace) -> int:
    """Plant each bug, and say which plan found it."""
    names = asked.planted or list(planted.BUGS)
    more = sample(undisturbed, asked.sample, asked.seed)
    found = await try_out(house, undisturbed, names, more, at_a_time=max(1, asked.parallel // 2), say=_progress)
    print("\n| bug | what is wrong | found by plan | fault | what differed |\n| --- | --- | --- | --- | --- |")
    for one in found:
        plan = f"{one.plan.number} | {one.plan.kind.name} in chapter {one.plan.chapter}" if one.plan else "- | -"
        print(f"| {one.bug} | {planted.BUGS[one.bug].words} | {plan} | {one.words[:120]} |")
    count = sum(one.plan is not None for one in found)
    print(f"\n{count} of {len(names)} bugs found")
    return 0 if count >= len(names) * 0.9 else 1


def _tell_failures(report: Report, folder: Path) -> None:
    for plan, words in report.failed.items():
        print(f"\n{words}\n  replay: python -m tests.faults --plan {plan.number}")


def _progress(line: str) -> None:
    print(line, flush=True)


def _list(undisturbed: Undisturbed) -> None:
    for number, chapter in enumerate(CHAPTERS):
        events, reads = undisturbed.events[number], undisturbed.reads[number]
        print(f"chapter {number}: {chapter.name}; {events} events, {reads} reads")
        for index, write in enumerate(undisturbed.writes[number]):
            print(f"  {index:3} {write}")
    for kind in KINDS:
        print(f"{kind.code:3} {kind.name} (of a {kind.of}): {kind.words}")


if __name__ == "__main__":
    sys.exit(main())
