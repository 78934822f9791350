"""Runs in a pod: asks every Model again and again, on a new connection each time, and says what came back.

A line of JSON a second: for each Model the requests, those that failed, the first failures, and who answered."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

EVERY_SECONDS = 0.2
MODELS = os.environ["MODELS"].split(",")
BODY = Path(__file__).with_name("request.json").read_bytes()
counts = {name: {"requests": 0, "failed": 0, "failures": [], "versions": {}} for name in MODELS}


def ask(name: str) -> None:
    count = counts[name]
    while True:
        try:
            answer = httpx.post(f"http://{name}/v2/models/{name}/infer", content=BODY, timeout=5)
            why = "" if answer.status_code == 200 else f"HTTP {answer.status_code} {answer.text[:200]}"
            version = answer.json()["model_version"] if not why else ""
        except (httpx.HTTPError, ValueError, KeyError) as error:
            why, version = repr(error), ""
        if count["versions"] or not why:  # before the first answer nothing serves yet
            count["requests"] += 1
            if why:
                count["failed"] += 1
                count["failures"] = [*count["failures"], f"{time.strftime('%H:%M:%S')} {why}"][-5:]
            else:
                count["versions"][version] = count["versions"].get(version, 0) + 1
        time.sleep(EVERY_SECONDS)


with ThreadPoolExecutor(len(MODELS)) as pool:
    for model in MODELS:
        pool.submit(ask, model)
    while True:
        time.sleep(1)
        print(json.dumps(counts), flush=True)
