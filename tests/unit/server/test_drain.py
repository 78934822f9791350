"""SIGTERM under load: every request that was sent is answered, and what was captured is written."""

from __future__ import annotations

import http.client
import io
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

import grpc
import orjson
import pyarrow.parquet as pq

from tests.unit.server.conftest import MODEL, ROWS, Published, Start, body
from tests.unit.server.test_connections import answers, connect, everything, head
from truekeep.contract.layout import captures, parse_capture_file
from truekeep.server import grpc_messages as messages
from truekeep.storage.s3 import Bucket

INFER = f"/v2/models/{MODEL}/infer"
CONTENT = orjson.dumps(body())


@dataclass
class Client(threading.Thread):
    """Asks one after the other, on connections that it keeps as long as the server lets it."""

    port: int
    stop: threading.Event
    answered: int = 0
    goodbyes: int = 0
    failures: list[str] = field(default_factory=list)

    __hash__ = threading.Thread.__hash__

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.stop.is_set():
            try:
                connection.request("POST", INFER, CONTENT)
                answer = connection.getresponse()
                document = json.loads(answer.read())
                if answer.status != 200 or len(document["outputs"][0]["data"]) != 5:
                    self.failures.append(f"{answer.status} {document}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            self.answered += 1
            self.goodbyes += answer.getheader("connection") == "close"
        connection.close()


def captured_rows(published: Published, capture: Any) -> tuple[Any, list[str]]:
    """All rows in the store as one table, and the files' keys."""
    bucket = Bucket.open(capture.s3)
    keys = [info.key for info in bucket.list(captures("demo", MODEL))]
    tables = [pq.read_table(io.BytesIO(bucket.get(key))) for key in keys]
    import pyarrow as pa

    return pa.concat_tables(tables), keys


def test_a_rollout_under_load_loses_nothing(published: Published, start: Start) -> None:
    capture = published.capture(flush_seconds=3600)
    running = start(
        published.request(capture=capture, connection_max_age_seconds=3600),
        # The connection that stays idle keeps the server from ending before this test lets it go.
        limits={"drain_linger_seconds": 0.5, "drain_idle_seconds": 300, "drain_seconds": 300},
    ).ready()
    stop = threading.Event()
    clients = [Client(running.port, stop) for _ in range(6)]
    quiet = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    quiet.request("POST", INFER, CONTENT)
    assert quiet.getresponse().read()
    unfinished = connect(running)
    unfinished.sendall(head(f"Content-Length: {len(CONTENT)}") + CONTENT[:30])
    for client in clients:
        client.start()
    running.until(lambda: all(client.answered >= 20 for client in clients))
    assert sum(client.goodbyes for client in clients) == 0

    running.terminate()
    running.until(lambda: running.logged("draining"))
    # As the kubelet and kube-proxy see it: alive, not ready; and whoever still comes is answered.
    with running.client() as probe:
        assert probe.get("/v2/health/ready").status_code == 503
        live = probe.get("/v2/health/live")
        assert (live.status_code, live.json(), live.headers["connection"]) == (
            200,
            {"live": True, "ready": False},
            "close",
        )
    unfinished.sendall(CONTENT[30:])
    ((status, headers, _),) = answers(everything(unfinished))
    assert (status, headers["connection"]) == (200, "close")
    before = [client.answered for client in clients]
    running.until(lambda: all(c.answered >= n + 10 for c, n in zip(clients, before, strict=True)))
    stop.set()
    for client in clients:
        client.join(20)
    quiet.request("POST", INFER, CONTENT)  # on a connection that was idle all the while
    last = quiet.getresponse()
    assert (last.status, last.getheader("connection")) == (200, "close")
    last.read()

    assert running.exit_code() == 0
    assert [client.failures for client in clients] == [[] for _ in clients]
    assert all(client.goodbyes >= 10 for client in clients)
    table, keys = captured_rows(published, capture)
    assert table.num_rows == 5 * (sum(client.answered for client in clients) + 3)
    assert all(parse_capture_file(key) for key in keys)
    assert "Traceback" not in running.log.read_text()
    assert running.logged("stopped")[0]["exit_code"] == 0


def test_whoever_keeps_a_connection_is_told_to_leave_at_once_and_newcomers_are_answered(
    published: Published, start: Start
) -> None:
    """A revision that was taken back must not go on answering those who do not know yet."""
    running = start(
        published.request(connection_max_age_seconds=3600),
        limits={"drain_linger_seconds": 600, "drain_idle_seconds": 0.5, "drain_seconds": 600},
    ).ready()
    idle, asks_rarely = connect(running), http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    asks_rarely.request("POST", INFER, CONTENT)
    assert asks_rarely.getresponse().read()
    running.terminate()
    assert everything(idle) == b""
    assert asks_rarely.sock is not None
    assert everything(asks_rarely.sock) == b""
    with running.client() as client:
        answer = client.post(INFER, content=CONTENT)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert running.process.poll() is None
    assert "Traceback" not in running.log.read_text()


@dataclass
class Caller(threading.Thread):
    """Calls over gRPC, one call after the other, on a channel of its own. It tries nothing again; gRPC itself sends
    again what no server has seen."""

    target: str
    stop: threading.Event
    answered: int = 0
    connections: int = 0
    failures: list[str] = field(default_factory=list)

    __hash__ = threading.Thread.__hash__

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        request = messages.ServerReadyRequest().SerializeToString()
        with grpc.insecure_channel(self.target, options) as channel:
            channel.subscribe(self.count)
            ask = channel.unary_unary(f"/{messages.SERVICE}/ServerReady")
            while not self.stop.is_set():
                try:
                    messages.ServerReadyResponse.FromString(ask(request, timeout=20))
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()} {error.details()}")
                self.answered += 1

    def count(self, state: grpc.ChannelConnectivity) -> None:
        self.connections += state == grpc.ChannelConnectivity.READY


def test_whoever_calls_over_grpc_goes_on_to_a_new_connection_and_no_call_fails(
    published: Published, start: Start
) -> None:
    """Also while draining: in a cluster the new connection leads to another pod."""
    running = start(
        published.request(connection_max_age_seconds=3600),
        limits={"grpc_age_seconds": 0.3, "drain_linger_seconds": 600, "drain_seconds": 600},
    ).ready()
    stop = threading.Event()
    callers = [Caller(running.grpc, stop) for _ in range(6)]
    for caller in callers:
        caller.start()
    running.until(lambda: all(caller.connections >= 4 for caller in callers))
    running.terminate()
    running.until(lambda: running.logged("draining"))
    before = [caller.connections for caller in callers]
    running.until(lambda: all(c.connections >= n + 4 for c, n in zip(callers, before, strict=True)))
    stop.set()
    for caller in callers:
        caller.join(20)
    assert [caller.failures for caller in callers] == [[] for _ in callers]
    assert all(caller.answered >= 100 for caller in callers)


def test_a_server_that_nobody_asks_ends_soon_and_one_that_is_loading_at_once(
    published: Published, start: Start
) -> None:
    idle = start(published.request(), limits={"drain_linger_seconds": 0.2}).ready()
    loading = start(published.request(), limits={"drain_linger_seconds": 600, "drain_seconds": 600}).listen()
    for running in (loading, idle):
        running.terminate()
        assert running.exit_code() == 0


def test_captured_columns(published: Published, start: Start) -> None:
    capture = published.capture(drop=["hour", "gate"], flush_seconds=3600)
    running = start(published.request(capture=capture)).ready()
    request = body(id="first")
    request["inputs"] += [
        {
            "name": "scheduled_at",
            "shape": [5],
            "datatype": "BYTES",
            "data": ["2013-05-01T12:00:00Z", "2013-05-01T11:00:00Z", None, "2013-05-01T13:30:00+02:00", "2013-05-02"],
        },
        {"name": "flight_id", "shape": [5], "datatype": "INT64", "data": [11, 12, None, 14, 15]},
    ]
    with running.client() as client:
        first = client.post(INFER, json=request).json()
        second = client.post(INFER, json=body()).json()
    running.terminate()
    assert running.exit_code() == 0
    table, (key,) = captured_rows(published, capture)
    assert re.match(rf"demo/{MODEL}/revision=3/date=\d{{4}}-\d\d-\d\d/hour=\d\d/", key)
    name = parse_capture_file(key)
    assert name is not None
    assert name.first == 1367406000000  # 2013-05-01T11:00Z; the last is when the second request came
    assert name.last > 1700000000000
    assert table.schema.to_string(show_schema_metadata=False).split("\n") == [
        "truekeep.request_id: string",
        "truekeep.row: int32",
        "truekeep.revision: int32",
        "truekeep.received_at: timestamp[us, tz=UTC]",
        "truekeep.event_time: timestamp[us, tz=UTC]",
        "truekeep.key: string",
        "truekeep.probability: double",
        "truekeep.prediction: int64",
        "truekeep.cut_off: double",
        "distance: double",
        "carrier: string",
    ]
    rows = table.to_pydict()
    assert rows["truekeep.request_id"] == ["first"] * 5 + [second["id"]] * 5
    assert rows["truekeep.row"] == [0, 1, 2, 3, 4] * 2
    assert rows["truekeep.revision"] == [3] * 10
    assert rows["truekeep.key"] == ["11", "12", None, "14", "15"] + [None] * 5
    times = [time and time.strftime("%m-%dT%H:%M") for time in rows["truekeep.event_time"]]
    assert times == ["05-01T12:00", "05-01T11:00", None, "05-01T11:30", "05-02T00:00"] + [None] * 5
    assert rows["truekeep.probability"] == first["outputs"][0]["data"] + second["outputs"][0]["data"]
    assert rows["truekeep.prediction"] == first["outputs"][1]["data"] + second["outputs"][1]["data"]
    assert rows["truekeep.cut_off"] == [0.4] * 10
    assert rows["distance"] == ROWS["distance"] * 2
    assert rows["carrier"] == ROWS["carrier"] * 2
    assert None not in rows["truekeep.received_at"]
