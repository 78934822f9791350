"""The replay itself: for each day, each hour's events as one request, then the day's rows into the lake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from truekeep.cli.examples.world import Example, days
from truekeep.cli.replay.caller import Caller
from truekeep.cli.replay.lake import Lake, hours
from truekeep.cli.replay.ledger import Ledger
from truekeep.cli.replay.tensors import Tensor, inputs_of, request

HOURS = 24


@dataclass(frozen=True)
class Plan:
    """What to replay: the days in [start, end), UTC, and how many seconds each is to take; those before `hurry_to` take
    `hurry_seconds_per_day`."""

    start: datetime
    end: datetime
    seconds_per_day: float
    hurry_to: datetime | None = None
    hurry_seconds_per_day: float = 0.0
    report_every_days: int = 7
    patience_seconds: float = 120.0

    def seconds(self, day: datetime) -> float:
        """What this day is to take."""
        hurries = self.hurry_to is not None and day < self.hurry_to
        return self.hurry_seconds_per_day if hurries else self.seconds_per_day


class Replay:
    """One replay. `stop` ends it after the requests that are under way; what is not yet in the lake is sent again by
    the next start, under the same names."""

    def __init__(self, example: Example, lake: Lake, caller: Caller, plan: Plan, say: Callable[[str], None]) -> None:
        self._example = example
        self._lake = lake
        self._caller = caller
        self._plan = plan
        self._say = say
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End soon, in order."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` came."""
        return self._stop.is_set()

    async def run(self) -> Ledger:
        """Replay to the end of the plan, or until `stop`; answers the account, that of earlier starts included."""
        ledger = await asyncio.to_thread(self._lake.ledger)
        start = self._plan.start
        if ledger.last_day is not None:
            start = max(start, datetime.fromisoformat(ledger.last_day).replace(tzinfo=UTC) + timedelta(days=1))
            self._say(f"going on after {ledger.last_day}")
        inputs = inputs_of(await self._caller.metadata(self._plan.patience_seconds))
        begins = asyncio.get_running_loop().time()
        for number, day in enumerate(days(start, self._plan.end), start=1):
            if not await self._send(day, inputs, ledger, begins):
                await asyncio.to_thread(self._lake.store, ledger)
                self._say(f"stopped within {day:%Y-%m-%d}; the next start sends this day again")
                break
            events, labels = await asyncio.to_thread(self._lake.append, day)
            ledger.events, ledger.labels = ledger.events + events, ledger.labels + labels
            ledger.last_day = f"{day:%Y-%m-%d}"
            await asyncio.to_thread(self._lake.store, ledger)
            # A day that took longer than it should does not make the next ones hurry.
            begins = max(begins + self._plan.seconds(day), asyncio.get_running_loop().time() - 0.5)
            if number % self._plan.report_every_days == 0:
                self._say(ledger.line(ledger.last_day))
        return ledger

    async def _send(self, day: datetime, inputs: tuple[Tensor, ...], ledger: Ledger, begins: float) -> bool:
        """The day's requests, each when its hour has come; False where `stop` came first."""
        rows = await asyncio.to_thread(self._lake.events, day)
        under_way: list[asyncio.Task[None]] = []
        for hour, batch in hours(rows, self._example.time_column) if rows is not None else ():
            due = begins + hour.hour / HOURS * self._plan.seconds(day)
            if await self._stopped_before(due):
                break
            identifiers = (self._example.time_column, self._example.key)
            body = request(f"{hour:%Y%m%dT%H}", batch, inputs, identifiers)
            under_way.append(asyncio.create_task(self._one(body, batch.num_rows, hour, ledger)))
        await asyncio.gather(*under_way)
        return not self._stop.is_set()

    async def _one(self, body: bytes, rows: int, event: datetime, ledger: Ledger) -> None:
        answer = await self._caller.infer(body)
        now = datetime.now(UTC)
        if answer.version is None:
            ledger.refused(answer.why, answer.seconds, event, now)
            self._say(f"FAILED {ledger.failed}: {answer.why}")
        else:
            ledger.answered(answer.version, answer.seconds, rows, event, now)

    async def _stopped_before(self, due: float) -> bool:
        """Wait until `due`, on the loop's clock; True where `stop` came before."""
        wait = due - asyncio.get_running_loop().time()
        if wait > 0:
            try:
                await asyncio.wait_for(self._stop.wait(), wait)
            except TimeoutError:
                return False
        return self._stop.is_set()
