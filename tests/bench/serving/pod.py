"""As shipped: the flights' own Model on the cluster, one pod of the restricted image with one CPU, everything captured.

`python -m tests.bench.serving.pod` needs the cluster of `make install`. It makes the namespace truekeep-bench, trains
the example on the flights of January and February 2013, and asks the pod 2,000 times a second in an open loop: a flight
a request, with its time and key, as clients send them, while /metrics is read each few seconds. The goal: p99 of at
most 5 ms, nothing failed, nothing lost. On a cluster of one node, the sender, the store and Kubernetes share its CPUs
with the pod.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.serving.openloop import Loop, attack
from tests.story import opening
from tests.story.kube import Json, condition, holds, load, name_of
from tests.story.narrator import Narrator
from tests.story.stage import MODEL, Stage, own_cluster
from truekeep.cli.examples import world
from truekeep.cli.replay.lake import Lake
from truekeep.cli.replay.tensors import inputs_of, request

NAMESPACE = "truekeep-bench"
GOAL = 5.0  # milliseconds
SCRAPE_SECONDS = 5
PORT = 8080
SERVING: Json = {
    "replicas": 1,
    "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
}


def main() -> None:
    """Set up, ask, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving.pod", description=__doc__)
    parser.add_argument("--rate", type=int, default=2000, help="requests a second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--estimator", help="instead of the example's own")
    parser.add_argument("--keep", action="store_true", help="keep the namespace, and use the one that is there")
    parser.add_argument("--out", type=Path, default=Path("build/bench/serving-pod.txt"))
    given = parser.parse_args()
    with Stage(own_cluster(), NAMESPACE, Narrator()) as stage, TemporaryDirectory() as folder:
        if given.keep and stage.kube.get(NAMESPACE, "models", MODEL):
            stage.open_store()
        else:
            opening.prepare(stage)
            stage.kube.apply(NAMESPACE, [_model(given.estimator)])
        model = stage.until(
            "the Model to be Ready", 400, stage.model, lambda one: holds(one, "Ready"),
            lambda one: condition(one, "Ready").get("message", ""),
        )  # fmt: skip
        lines = list(_measured(stage, model, given.rate, given.seconds, Path(folder)))
        print("\n".join(lines))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text("\n".join(lines) + "\n")
        if not given.keep:
            stage.kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _model(estimator: str | None) -> Json:
    (document,) = load(opening.EXAMPLE / "model.yaml")
    model = copy.deepcopy(document)
    model["spec"]["serving"].update(SERVING)
    if estimator:
        model["spec"]["training"]["recipe"] = {"estimator": estimator}
    return model


def _measured(stage: Stage, model: Json, rate: int, seconds: int, folder: Path) -> Iterator[str]:
    revision = model["status"]["active"]["revision"]
    selector = f"truekeep.dev/model={MODEL},truekeep.dev/revision={revision},app.kubernetes.io/component=server"
    pod = stage.kube.wait(
        "the pod", 60, lambda: next((p for p in stage.kube.list(NAMESPACE, "pods", selector) if _ready(p)), None)
    )
    address = pod["status"]["podIP"]
    try:
        socket.create_connection((address, PORT), 3).close()
    except OSError as error:
        raise SystemExit(f"pod {name_of(pod)} can't be reached at {address} from here: {error}") from error
    bodies = _bodies(stage, address)
    url = f"http://{address}:{PORT}/v2/models/{MODEL}/infer"
    before = os.getloadavg()[0]
    attack(url, bodies, rate // 4, 5, folder)  # warm
    first = _counted(address)
    with _scraped(address):
        found = attack(url, bodies, rate, seconds, folder)
    last = _settled(address)
    used = last["process_cpu_seconds_total"] - first["process_cpu_seconds_total"]
    lost = last[_DROPPED] - first[_DROPPED]
    captured = last[_CAPTURED] - first[_CAPTURED]
    yield f"{MODEL} revision {revision} ({_format(last)}) in pod {name_of(pod)}, image {_image(pod)}, 1 CPU"
    yield found.line()
    for why, count in found.failures.items():
        yield f"  {count} times: {why}"
    yield f"{1e6 * used / len(found.latency):.0f} µs CPU of the pod a request, capture and metrics included"
    yield f"{captured:,.0f} rows captured since the first of them, {lost:.0f} lost"
    yield _verdict(found, lost)
    yield f"load average before: {before:.1f}"


def _verdict(found: Loop, lost: float) -> str:
    p99, failed = found.quantile(0.99), sum(found.failures.values())
    met = p99 <= GOAL and not failed and not lost
    return f"{'met   ' if met else 'MISSED'}  p99 at most {GOAL:g} ms, nothing failed, nothing lost: {p99:.2f} ms"


_DROPPED, _CAPTURED = "truekeep_server_capture_dropped_rows_total", "truekeep_server_capture_rows_total"
_WAITING = ("truekeep_server_capture_buffered_rows", "truekeep_server_capture_spooled_rows")


def _ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def _image(pod: Json) -> str:
    image: str = pod["spec"]["containers"][0]["image"]
    return image


def _format(metrics: dict[str, float]) -> str:
    return next((name.partition('format="')[2].partition('"')[0] for name in metrics if 'format="' in name), "?")


def _counted(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}:{PORT}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] not in ("", "#")}


def _settled(address: str, seconds: float = 60) -> dict[str, float]:
    """What is counted once all that was captured is in the store."""
    end = time.monotonic() + seconds
    while True:
        found = _counted(address)
        if not any(found.get(name) for name in _WAITING):
            return found
        if time.monotonic() > end:
            raise SystemExit(f"captured rows were not written within {seconds:.0f} s")
        time.sleep(0.5)


@contextlib.contextmanager
def _scraped(address: str) -> Iterator[None]:
    """Somebody reads the metrics all the while."""
    end = threading.Event()

    def scrape() -> None:
        while not end.wait(SCRAPE_SECONDS):
            with contextlib.suppress(OSError):
                _counted(address)

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _bodies(stage: Stage, address: str) -> list[bytes]:
    """A request for each flight of the first three days of March."""
    with urllib.request.urlopen(f"http://{address}:{PORT}/v2/models/{MODEL}", timeout=10) as answer:
        metadata: dict[str, Any] = json.loads(answer.read())
    inputs = inputs_of(metadata)
    example = world.FLIGHT_DELAY
    lake = Lake(example, stage.bucket(world.FUTURE), stage.bucket(world.LAKE))
    bodies: list[bytes] = []
    for day in range(3):
        rows = lake.events(opening.BEGINS + timedelta(days=day))
        assert rows is not None
        for row in range(rows.num_rows):
            identity = f"bench-{day}-{row}"
            bodies.append(request(identity, rows.slice(row, 1), inputs, (example.time_column, example.key)))
    return bodies


if __name__ == "__main__":
    main()
