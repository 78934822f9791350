"""Runs in a pod: asks one Model on and on, each request with an id and a key of its own, over one connection.

A line of JSON a request: its id, milliseconds, and the error ("" for none)."""

import json
import os
import time
from pathlib import Path

import httpx

URL = f"http://{os.environ['MODEL']}/v2/models/{os.environ['MODEL']}/infer"
PAUSE_SECONDS = float(os.environ["PAUSE_SECONDS"])
INPUTS = json.loads(Path(__file__).with_name("request.json").read_text())["inputs"]
STOP = Path("/tmp/stop")

with httpx.Client(timeout=10) as client:
    number = 0
    while not STOP.exists():
        number += 1
        key = {"name": os.environ["KEY"], "shape": [1], "datatype": "BYTES", "data": [f"person-{number % 50}"]}
        body = {"id": f"r{number:06d}", "inputs": [*INPUTS, key]}
        begun = time.perf_counter()
        try:
            answer = client.post(URL, json=body)
            error = "" if answer.status_code == 200 else f"HTTP {answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as failure:
            error = repr(failure)
        print(json.dumps([body["id"], round((time.perf_counter() - begun) * 1e3, 1), error]), flush=True)
        time.sleep(PAUSE_SECONDS)
    print("stopped", flush=True)
    time.sleep(600)
