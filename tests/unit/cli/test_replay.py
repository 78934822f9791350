from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.cli.conftest import BEGINS, FolderBucket
from truekeep.cli.examples.world import FLIGHT_DELAY
from truekeep.cli.replay.caller import Caller
from truekeep.cli.replay.lake import Lake, hours
from truekeep.cli.replay.ledger import Ledger
from truekeep.cli.replay.run import Plan, Replay
from truekeep.cli.replay.tensors import Tensor, inputs_of, request

PLAN = Plan(BEGINS, datetime(2013, 3, 3, tzinfo=UTC), seconds_per_day=0, report_every_days=1, patience_seconds=0)
METADATA = {
    "name": "flight-delay",
    "inputs": [{"name": "carrier", "datatype": "BYTES"}, {"name": "temp", "datatype": "FP64"}],
}
ANSWER = {"model_name": "flight-delay", "model_version": "1", "outputs": [{"name": "probability"}]}

Buckets = tuple[FolderBucket, FolderBucket]
Handler = Callable[[dict[str, Any]], httpx.Response]


class Stub:
    """A served model that remembers what it was asked."""

    def __init__(self, answer: Handler = lambda body: httpx.Response(200, json=ANSWER)) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.asked = asyncio.Event()
        self._answer = answer

    def caller(self) -> Caller:
        return Caller("http://stub", "flight-delay", 2, 5, httpx.MockTransport(self._handle))

    def _handle(self, asked: httpx.Request) -> httpx.Response:
        if asked.url.path.endswith("/infer"):
            self.bodies.append(json.loads(asked.content))
            self.asked.set()
            return self._answer(self.bodies[-1])
        return httpx.Response(200, json=METADATA)


async def replayed(buckets: Buckets, stub: Stub, plan: Plan = PLAN) -> tuple[Ledger, list[str]]:
    said: list[str] = []
    async with stub.caller() as caller:
        ledger = await Replay(FLIGHT_DELAY, Lake(FLIGHT_DELAY, *buckets), caller, plan, said.append).run()
    return ledger, said


async def test_every_event_is_sent_once_in_hours_and_in_order(buckets: Buckets) -> None:
    stub = Stub()
    ledger, _ = await replayed(buckets, stub)
    keys = [tensor for body in stub.bodies for tensor in body["inputs"] if tensor["name"] == "flight_id"]
    sent = [key for tensor in keys for key in tensor["data"]]
    future = pq.read_table(buckets[0].folder / "flight-delay/flights/2013-03.parquet")
    days = [row for row in future.to_pylist() if row["scheduled_at"] < PLAN.end]
    assert sorted(sent) == sorted(row["flight_id"] for row in days)
    hours_sent = [body["id"] for body in stub.bodies]
    assert hours_sent == sorted(set(hours_sent))
    assert (ledger.requests, ledger.rows, ledger.failed) == (len(stub.bodies), len(days), 0)


async def test_time_and_key_go_along_and_weather_is_that_of_the_hour(buckets: Buckets) -> None:
    stub = Stub()
    await replayed(buckets, stub)
    first = {tensor["name"]: tensor for tensor in stub.bodies[0]["inputs"]}
    assert set(first) == {"scheduled_at", "flight_id", "carrier", "temp"}
    assert first["scheduled_at"]["data"][0].endswith("Z")
    assert first["scheduled_at"]["datatype"] == first["flight_id"]["datatype"] == "BYTES"
    # The first flight of March departs before any weather of March: it is joined with the lake's last hour.
    assert first["temp"]["data"][0] is not None


async def test_the_lake_grows_by_day_and_labels_come_on_the_day_of_landing(buckets: Buckets) -> None:
    ledger, _ = await replayed(buckets, Stub())
    lake = buckets[1].folder
    assert {path.name for path in (lake / "flights").glob("2013-03-*")} == {"2013-03-01.parquet", "2013-03-02.parquet"}
    labels = pq.read_table(lake / "arrivals/2013-03-01.parquet")
    assert all(f"{landed:%Y-%m-%d}" == "2013-03-01" for landed in labels["landed_at"].to_pylist())
    assert "late" not in pq.read_schema(lake / "flights/2013-03-01.parquet").names
    assert ledger.last_day == "2013-03-02"
    assert ledger.labels >= labels.num_rows > 0


async def test_the_events_of_a_day_are_written_after_what_belongs_to_them(buckets: Buckets) -> None:
    await replayed(buckets, Stub())
    first_day = [key.split("/")[0] for key in buckets[1].writes if "2013-03-01" in key]
    assert first_day == ["weather", "arrivals", "flights"]


async def test_it_goes_on_after_the_last_day_that_is_in_the_lake(buckets: Buckets) -> None:
    one_day = replace(PLAN, end=datetime(2013, 3, 2, tzinfo=UTC))
    first, _ = await replayed(buckets, Stub(), one_day)
    stub = Stub()
    ledger, said = await replayed(buckets, stub)
    assert said[0] == "going on after 2013-03-01"
    assert all(body["id"].startswith("20130302") for body in stub.bodies)
    assert ledger.requests == first.requests + len(stub.bodies)


async def test_a_failed_request_is_counted_said_and_never_tried_again(buckets: Buckets) -> None:
    seen: list[str] = []

    def fail_first(body: dict[str, Any]) -> httpx.Response:
        seen.append(body["id"])
        if len(seen) == 1:
            return httpx.Response(503, json={"error": "no room"})
        if len(seen) == 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=ANSWER)

    ledger, said = await replayed(buckets, Stub(fail_first))
    assert ledger.failed == 2
    assert ledger.requests == len(seen) == len(set(seen))
    assert "HTTP 503" in ledger.failures[0]
    assert "ConnectError: refused" in ledger.failures[1]
    assert any(line.startswith("FAILED 1: HTTP 503") for line in said)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"hello", b'{"outputs": [{"name": "probability"}]}'])
async def test_an_answer_without_outputs_or_version_is_a_failure(buckets: Buckets, body: bytes) -> None:
    ledger, _ = await replayed(buckets, Stub(lambda _: httpx.Response(200, content=body)))
    assert ledger.failed == ledger.requests > 0


async def test_it_tells_which_revision_answered_from_when_to_when(buckets: Buckets) -> None:
    def answer(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(200, json=ANSWER | {"model_version": "1" if body["id"] < "20130302" else "2"})

    ledger, said = await replayed(buckets, Stub(answer))
    assert set(ledger.revisions) == {"1", "2"}
    assert ledger.revisions["1"].last_event < ledger.revisions["2"].first_event
    assert sum(share.requests for share in ledger.revisions.values()) == ledger.requests
    assert f"revisions=1:{ledger.revisions['1'].requests},2:{ledger.revisions['2'].requests}" in said[-1]


async def test_stopped_within_a_day_it_sends_that_day_again(buckets: Buckets) -> None:
    stub = Stub()
    said: list[str] = []
    async with stub.caller() as caller:
        slow = replace(PLAN, seconds_per_day=86400)
        replay = Replay(FLIGHT_DELAY, Lake(FLIGHT_DELAY, *buckets), caller, slow, said.append)
        going = asyncio.create_task(replay.run())
        await stub.asked.wait()
        replay.stop()
        ledger = await going
    assert replay.stopped
    assert ledger.last_day is None
    assert said == ["stopped within 2013-03-01; the next start sends this day again"]
    assert buckets[1].writes == []
    again, _ = await replayed(buckets, Stub())
    assert again.requests > ledger.requests


async def test_a_model_that_never_answers_is_named_with_the_remedy() -> None:
    async with Caller("http://stub", "x", 1, 1, httpx.MockTransport(lambda _: httpx.Response(404))) as caller:
        with pytest.raises(ConnectionError, match="is the Model Serving"):
            await caller.metadata(patience_seconds=0)


def test_days_before_a_date_hurry() -> None:
    plan = replace(PLAN, seconds_per_day=3, hurry_to=datetime(2013, 3, 2, tzinfo=UTC), hurry_seconds_per_day=0.5)
    assert [plan.seconds(datetime(2013, 3, day, tzinfo=UTC)) for day in (1, 2, 3)] == [0.5, 3, 3]
    assert PLAN.seconds(BEGINS) == PLAN.seconds_per_day


async def test_connections_are_used_in_turn() -> None:
    """A Service spreads connections, not requests: with one connection a canary sees all or nothing."""
    caller = Caller("http://stub", "x", 3, 1, httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER)))
    clients = [next(caller._turns)[0] for _ in range(6)]
    assert clients[:3] == clients[3:]
    assert len(set(map(id, clients))) == 3


def test_a_request_has_a_tensor_per_column_and_nulls_stay_null() -> None:
    rows = pa.table({"t": [datetime(2013, 3, 1, tzinfo=UTC)] * 2, "k": ["a", "b"], "temp": [1.5, None], "code": [1, 2]})
    inputs = (Tensor("temp", "FP64"), Tensor("code", "BYTES"), Tensor("t", "INT64"))
    body = json.loads(request("id", rows, inputs, ("t", "k")))
    assert {tensor["name"]: tensor["data"] for tensor in body["inputs"]} == {
        "t": ["2013-03-01T00:00:00Z"] * 2,
        "k": ["a", "b"],
        "temp": [1.5, None],
        "code": ["1", "2"],
    }
    assert all(tensor["shape"] == [2] for tensor in body["inputs"])


def test_metadata_without_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="names no inputs"):
        inputs_of({"name": "x"})


def test_hours_come_in_order() -> None:
    times = [datetime(2013, 3, 1, hour, 30, tzinfo=UTC) for hour in (5, 3, 5)]
    cut = [(hour.hour, rows.num_rows) for hour, rows in hours(pa.table({"t": times}), "t")]
    assert cut == [(3, 1), (5, 2)]


def test_quantiles_are_right_to_a_few_percent_and_survive_storage() -> None:
    ledger = Ledger()
    now = datetime(2013, 3, 1, tzinfo=UTC)
    for milliseconds in range(1, 1001):
        ledger.answered("1", milliseconds / 1000, 1, now, now)
    again = Ledger.load(json.loads(json.dumps(ledger.dump())))
    assert again == ledger
    for fraction in (0.5, 0.9, 0.99):
        assert again.quantile(fraction) == pytest.approx(fraction, rel=0.05)
    assert "latencies" not in again.summary()


def test_an_account_without_requests_has_no_latency() -> None:
    assert Ledger().quantile(0.5) == 0
    assert "requests=0 failed=0" in Ledger().line("2013-03-01")


def test_a_month_that_the_future_lacks_has_no_events(tmp_path: Path) -> None:
    empty = FolderBucket(tmp_path)
    assert Lake(FLIGHT_DELAY, empty, empty).events(datetime(2015, 1, 1, tzinfo=UTC)) is None  # type: ignore[arg-type]
