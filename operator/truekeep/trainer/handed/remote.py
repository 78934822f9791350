"""Asks spec.serving.image for the probabilities of rows, over the Open Inference Protocol, on the loopback of this pod.

The image runs beside, with the delivered files and without any credentials, as it will when it serves. Nothing that it
answers is believed beyond one number a row: bodies are bounded, nothing is followed, and time is limited."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from truekeep.contract.artifact import UNKNOWN_CATEGORY, UNKNOWN_TEXT, SignatureFeature
from truekeep.features import encode
from truekeep.scores.metrics import Floats
from truekeep.trainer.faults import DeliveryInvalid
from truekeep.trainer.handed.model import probabilities
from truekeep.trainer.text import counted

HOST = "127.0.0.1"
READY_PATH = "/v2/health/ready"
READY_SECONDS = 300.0  # until it must have loaded the files
LOOK_SECONDS = 0.5
ROWS_AT_ONCE = 200  # of a request
TRIES = 3  # of a request that got no answer, or "not now"
ANSWER_BYTES = 1 << 20
SHOWN = 300  # characters of what it says
PROBABILITY = "probability"
WHO = "spec.serving.image, asked for what spec.training.image made,"


class Remote:
    """The image beside. `seconds`: for one answer."""

    def __init__(
        self, port: int, model: str, seconds: float, features: Sequence[SignatureFeature],
        sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._port = port
        self._path = f"/v2/models/{model}/infer"
        self._seconds = seconds
        self._features = tuple(features)
        self._sleep = sleep
        self._clock = clock

    def wait(self, seconds: float = READY_SECONDS) -> None:
        """Until it says that it is ready. DeliveryInvalid where it does not in time."""
        end, last = self._clock() + seconds, "it never answered"
        while self._clock() < end:
            try:
                status, _ = self._ask("GET", READY_PATH, None, min(self._seconds, 5.0))
            except (OSError, http.client.HTTPException) as error:
                last = f"{type(error).__name__}: {error!s:.200}"
            else:
                if status == 200:
                    return
                last = f"it answers HTTP {status}"
            self._sleep(LOOK_SECONDS)
        raise DeliveryInvalid(
            f"{WHO} was not ready on port {self._port} within {seconds:.0f} s ({last}); see the log of the container "
            "backend of this pod, and docs/any-framework.md"
        )

    def matrix(self, matrix: Floats) -> Floats:
        """Probabilities of rows as `features.encode` makes them, shape (rows, features) -> (rows,). An unknown
        category is asked for as a text that is none of the known ones."""
        columns = {}
        for place, feature in enumerate(self._features):
            values = matrix[:, place].tolist()
            columns[feature.name] = (
                [_text(feature, code) for code in values]
                if feature.type == "Category"
                else [_number(v) for v in values]
            )
        return self._answers(columns, len(matrix))

    def rows(self, columns: Mapping[str, Any]) -> Floats:
        """Probabilities of rows by their columns, as the data has them. Shape (rows,)."""
        found: dict[str, list[Any]] = {}
        for feature in self._features:
            values = columns[feature.name]
            if feature.type == "Category":
                found[feature.name] = encode.texts(feature.name, values).to_pylist()
            else:
                numbers = encode.matrix({feature.name: values}, [feature])[:, 0]
                found[feature.name] = [_number(value) for value in numbers.tolist()]
        return self._answers(found, len(found[self._features[0].name]))

    def _answers(self, columns: Mapping[str, list[Any]], rows: int) -> Floats:
        parts = []
        for start in range(0, rows, ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, rows))
            parts.append(self._infer({name: values[part] for name, values in columns.items()}, part.stop - start))
        return np.concatenate(parts) if parts else np.empty(0)

    def _infer(self, columns: Mapping[str, list[Any]], rows: int) -> Floats:
        inputs = [
            {
                "name": feature.name,
                "shape": [rows],
                "datatype": "BYTES" if feature.type == "Category" else "FP64",
                "data": columns[feature.name],
            }
            for feature in self._features
        ]
        body = json.dumps({"inputs": inputs, "outputs": [{"name": PROBABILITY}]}, allow_nan=False).encode()
        last = ""
        for turn in range(TRIES):
            if turn:
                self._sleep(2.0**turn)
            try:
                status, answer = self._ask("POST", self._path, body, self._seconds)
            except (OSError, http.client.HTTPException) as error:
                last = f"gave no answer ({type(error).__name__}: {error!s:.200})"
                continue
            if status == 200:
                return _probabilities(answer, rows)
            last = f"answers HTTP {status}: {_error(answer)}"
            if status not in (429, 502, 503, 504):
                break
        raise DeliveryInvalid(f"{WHO} {last}, of {counted(rows, 'row')} of spec.data; it must answer all of them")

    def _ask(self, method: str, path: str, body: bytes | None, seconds: float) -> tuple[int, bytes]:
        """Status and body, of which no more is read than ANSWER_BYTES."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=seconds)
        try:
            headers = {"accept": "application/json", "accept-encoding": "identity"}
            connection.request(method, path, body, headers | ({"content-type": "application/json"} if body else {}))
            answer = connection.getresponse()
            end, parts, size = self._clock() + seconds, [], 0
            while part := answer.read1(1 << 16):
                parts.append(part)
                size += len(part)
                if size > ANSWER_BYTES or self._clock() > end:
                    raise http.client.HTTPException(f"more than {ANSWER_BYTES} bytes, or longer than {seconds:g} s")
            return answer.status, b"".join(parts)
        finally:
            connection.close()


def _probabilities(body: bytes, rows: int) -> Floats:
    try:
        document = json.loads(body)
        (output,) = (one for one in document["outputs"] if one["name"] == PROBABILITY)
        data = output["data"]
        flat = [value for each in data for value in (each if isinstance(each, list) else [each])]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in flat):
            raise ValueError("data that are no numbers")
        scores = np.array(flat, dtype=np.float64)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DeliveryInvalid(
            f"{WHO} gives no infer response with one output {PROBABILITY}, its data as JSON ({type(error).__name__}); "
            "see docs/any-framework.md"
        ) from error
    return probabilities(scores, rows)


def _error(body: bytes) -> str:
    try:
        text = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        text = ""
    return " ".join(text.split())[:SHOWN] if isinstance(text, str) and text else "it does not say why"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _text(feature: SignatureFeature, code: float) -> str | None:
    if math.isnan(code):
        return None
    return UNKNOWN_TEXT if code == UNKNOWN_CATEGORY else (feature.categories or [])[int(code)]
