"""A rehearsal: a candidate answers what the live revision answered before, while nobody depends on it.

`python -m truekeep.monitor.rehearse`; request in TRUEKEEP_REQUEST, result as termination message. The rows are the
newest that were captured, in the requests in which they came. What is measured: requests that failed, the time that
answers took, and how far the predictions moved from the live revision's on the same rows."""

from __future__ import annotations

import http.client
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from truekeep.api.model import Rehearsal
from truekeep.contract.chance import SURE, interval
from truekeep.contract.layout import captures, parse_capture_file
from truekeep.contract.requests import REHEARSAL_HEADER, RehearseRequest
from truekeep.contract.results import EXIT_JUDGED, EXIT_OUTSIDE, RehearseResult
from truekeep.features import times
from truekeep.monitor.captures import incomplete
from truekeep.monitor.errand import Done, run, say
from truekeep.storage import StoreError
from truekeep.storage.s3 import Bucket

PREFIX = "truekeep."
Floats = np.ndarray[Any, np.dtype[np.float64]]
TIMEOUT_SECONDS = 10.0
LONGEST_SECONDS = 60.0  # enough is known by then
ROWS_PER_REQUEST = 1000
VALUES = 101  # at which the predictions' distributions are compared
SLOW = 0.01  # the fraction of requests that may be slower than the 99th percentile
KEPT_WORDS = 400


@dataclass
class Tally:
    """What was counted."""

    rows: int = 0
    requests: int = 0
    failed: int = 0
    first_failure: str = ""
    seconds: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    request_of: list[int] = field(default_factory=list)  # of each of these rows

    def result(self, message: str = "") -> Rehearsal:
        """As it is handed over."""
        late = 1000 * float(np.quantile(self.seconds, 0.99)) if self.seconds else 0.0
        surely_late = 1000 * late_at_least(self.seconds)
        before, after = np.array(self.before), np.array(self.after)
        shift = distance(before, after) if self.after else 0.0
        surely_shift = distance_at_least(before, after, np.array(self.request_of)) if self.after else 0.0
        return Rehearsal(
            rows=self.rows,
            requests=self.requests,
            failed=self.failed,
            p99_milliseconds=f"{late:.1f}",
            p99_at_least_milliseconds=f"{surely_late:.1f}",
            prediction_shift=f"{shift:.4f}",
            prediction_shift_at_least=f"{surely_shift:.4f}",
            message=(self.first_failure or message)[:KEPT_WORDS],
        )


def distance(before: Floats, after: Floats) -> float:
    """Kolmogorov-Smirnov distance of two samples, 0 to 1: the largest difference of their distribution functions."""
    values = np.unique(np.concatenate([before, after]))
    places = [np.searchsorted(values, sample) for sample in (before, after)]
    counts = [np.bincount(place, minlength=values.size).astype(np.float64) for place in places]
    return float(np.max(np.abs(np.cumsum(counts[0]) / before.size - np.cumsum(counts[1]) / after.size)))


def distance_at_least(before: Floats, after: Floats, request: npt.NDArray[np.int64]) -> float:
    """The distance less three of its standard errors, at the value where that is most. The rows are paired, so that
    what both say alike makes no noise; and rows of one request, whose numbers are given, stand or fall together."""
    count = np.bincount(request).astype(np.float64)
    best = 0.0
    for value in np.unique(np.quantile(np.concatenate([before, after]), np.linspace(0, 1, VALUES), method="nearest")):
        moved = (before <= value).astype(np.float64) - (after <= value)
        mean = float(moved.mean())
        spread = np.bincount(request, weights=moved) - mean * count
        error = float(np.sqrt(np.square(spread).sum())) / before.size
        best = max(best, abs(mean) - SURE * error)
    return best


def late_at_least(seconds: list[float]) -> float:
    """What the 99th percentile is at least: the slowest that has surely more than one in a hundred at or above it."""
    for rank, value in enumerate(sorted(seconds, reverse=True), start=1):
        if interval(rank, len(seconds))[0] > SLOW:
            return value
    return 0.0


def captured_requests(bucket: Bucket, namespace: str, model: str, revision: int, rows: int) -> Iterator[pa.Table]:
    """The newest captured rows, a table for each request in which they came. At most so many rows in all.

    A file that can't be read, or lacks features, is left out: it says nothing about the candidate."""
    prefix = captures(namespace, model, revision)
    files = [(name.last, info.key) for info in bucket.list(prefix) if (name := parse_capture_file(info.key))]
    left = rows
    for _, key in sorted(files, reverse=True):
        try:
            content = io.BytesIO(bucket.get(key))
            if incomplete(pq.read_metadata(content)):  # captured before the Model asked for whole rows
                continue
            content.seek(0)
            table = pq.read_table(content)
        except (pa.ArrowException, OSError):
            continue
        if f"{PREFIX}request_id" not in table.column_names:
            continue
        for request in _by_request(table):
            if left <= 0:
                return
            yield request.slice(0, min(left, ROWS_PER_REQUEST))
            left -= request.num_rows


def _by_request(table: pa.Table) -> Iterator[pa.Table]:
    """Neighbouring rows with the same request id."""
    ids = table.column(f"{PREFIX}request_id").to_pylist()
    start = 0
    for index in range(1, len(ids) + 1):
        if index == len(ids) or ids[index] != ids[start]:
            yield table.slice(start, index - start)
            start = index


def body_of(request: pa.Table) -> dict[str, Any]:
    """An Open Inference Protocol request with a tensor a feature."""
    inputs = []
    for name in request.column_names:
        if name.startswith(PREFIX):
            continue
        column = request.column(name)
        if pa.types.is_timestamp(column.type):
            moments = times.of_column(column).tolist()
            column = pa.chunked_array([pa.array([None if math.isnan(one) else times.to_text(one) for one in moments])])
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        values = column.to_pylist() if text else [_number(value) for value in column.to_pylist()]
        datatype = "BYTES" if text else "FP64"
        inputs.append({"name": name, "shape": [request.num_rows], "datatype": datatype, "data": values})
    return {"inputs": inputs, "outputs": [{"name": "probability"}]}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value  # NaN is how a missing number was captured


class Candidate:
    """The candidate, over one connection."""

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._path = f"/v2/models/{model}/infer"
        self._connection: http.client.HTTPConnection | None = None

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        try:
            return self._ask("GET", "/v2/health/ready", None)[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def answer(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of its answer. OSError or HTTPException where there is none."""
        return self._ask("POST", self._path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_SECONDS)
        headers = {"content-type": "application/json", REHEARSAL_HEADER: "true"}
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            raise
        return response.status, content


def rehearse(request: RehearseRequest, bucket: Bucket) -> RehearseResult:
    """The whole rehearsal. StoreError where the captures can't be read."""
    candidate = Candidate(request.url, request.model)
    say(f"waits for {request.candidate} to be ready")
    deadline = time.monotonic() + request.wait_seconds
    while not candidate.ready():
        if time.monotonic() > deadline:
            message = f"{request.candidate} was not ready after {request.wait_seconds} s"
            return RehearseResult(candidate=request.candidate, reason="NotReady", rehearsal=Tally().result(message))
        time.sleep(0.2)
    tally, started = Tally(), time.monotonic()
    found = captured_requests(bucket, request.namespace, request.model, request.live_revision, request.rows)
    for table in found:
        if time.monotonic() - started > LONGEST_SECONDS:
            break
        _ask_once(candidate, table, tally)
    if not tally.requests:
        message = f"revision {request.live_revision} has no captured request yet, so there was nothing to rehearse"
        return RehearseResult(candidate=request.candidate, reason="NothingCaptured", rehearsal=tally.result(message))
    return RehearseResult(candidate=request.candidate, reason="Rehearsed", rehearsal=tally.result())


def _ask_once(candidate: Candidate, table: pa.Table, tally: Tally) -> None:
    body = body_of(table)
    begun = time.perf_counter()
    try:
        status, content = candidate.answer(body)
    except (OSError, http.client.HTTPException) as error:
        status, content = 0, f"no answer: {type(error).__name__} {error}".encode()
    seconds = time.perf_counter() - begun
    tally.requests += 1
    tally.rows += table.num_rows
    answers = _probabilities(content, table.num_rows) if status == http.HTTPStatus.OK else None
    if answers is None:
        tally.failed += 1
        tally.first_failure = tally.first_failure or f"{status} {content[:KEPT_WORDS].decode('utf-8', 'replace')}"
        return
    tally.seconds.append(seconds)
    tally.before += [float(value) for value in table.column(f"{PREFIX}probability").to_numpy()]
    tally.after += answers
    tally.request_of += [tally.requests - 1] * table.num_rows


def _probabilities(content: bytes, rows: int) -> list[float] | None:
    """What was answered, one number a row; None where that is no answer."""
    try:
        found = [float(value) for value in json.loads(content)["outputs"][0]["data"]]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return found if len(found) == rows and all(map(math.isfinite, found)) else None


def main() -> int:
    """One rehearsal. The exit code is one of `contract.results`."""
    return run(RehearseRequest, "the rehearsal", _work)


def _work(request: RehearseRequest) -> Done:
    try:
        result = rehearse(request, Bucket.open(request.capture))
        code = EXIT_OUTSIDE if result.reason == "NotReady" else EXIT_JUDGED
    except StoreError as error:
        seen = Tally().result(str(error))
        result = RehearseResult(candidate=request.candidate, reason="StoreUnreachable", rehearsal=seen)
        code = EXIT_OUTSIDE
    words = f"{result.reason}: {result.rehearsal.model_dump_json(by_alias=True)}"
    return Done(words, result.model_dump_json(by_alias=True, exclude_none=True), code)


if __name__ == "__main__":
    sys.exit(main())
