"""`python -m tests.bench.training`: what a run costs beyond `fit`, against a plain script. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.training.measure import Cost, ended, middle, ratio
from tests.unit.conftest import Versitygw, running_store

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "bench"
GOAL = 1.15
RECIPES = ("boosting", "logistic", "forest")
BUCKET = "bench"
_LINE = re.compile(r"\[ *([0-9.]+) s\] (.*)")


def prepared(store: Versitygw, rows: int, folder: Path) -> None:
    """Put a lake of so many rows into the store."""
    made = folder / str(rows)
    subprocess.run([sys.executable, "-m", "tests.bench.training.world", str(made), str(rows)], check=True, cwd=ROOT)
    client = store.client()
    for path in sorted(made.rglob("*.parquet")):
        client.upload_file(str(path), BUCKET, f"{rows}/{path.relative_to(made)}")
        path.unlink()


def ours(store: Versitygw, asked: dict[str, Any], number: str, log: Path) -> tuple[Cost, list[tuple[float, str]]]:
    """The training pod's own process, and its lines."""
    asked = {**asked, "run_uid": number, "run": f"bench-{number}"}
    asked["store"] = {**asked["store"], "uri": f"s3://{BUCKET}/models-{number}/"}
    environment = _environment(store, asked["threads"]) | {
        "TRUEKEEP_REQUEST": json.dumps({key: value for key, value in asked.items() if key != "threads"}),
        "TRUEKEEP_TERMINATION_LOG": str(log),
    }
    said, wall, cpu, peak = ended([sys.executable, "-m", "truekeep.trainer"], environment)
    result = json.loads(log.read_text())
    if result["reason"] != "Succeeded":
        raise SystemExit(f"the run ended with {result['reason']}: {result['message']}")
    lines = [(float(found[1]), found[2]) for found in map(_LINE.fullmatch, said.splitlines()) if found]
    return Cost(wall, cpu, float(result["fitSeconds"]), peak), lines


def plain(store: Versitygw, asked: dict[str, Any], number: str) -> tuple[Cost, float]:
    """The plain script, and its roc_auc."""
    environment = _environment(store, asked["threads"]) | {
        "PLAIN_REQUEST": json.dumps({**asked, "to": f"plain-{number}/"})
    }
    said, wall, cpu, peak = ended([sys.executable, str(HERE / "plain.py")], environment)
    found = json.loads(said.splitlines()[-1])
    return Cost(wall, cpu, found["fit"], peak), found["roc_auc"]


def _environment(store: Versitygw, threads: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TRUEKEEP_"))}
    return {
        **kept,
        **store.environment(),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "GOMP_SPINCOUNT": "1000",  # as ours sets it: the bench is of what a run costs beyond its fits
        "PYTHONPATH": f"{HERE / 'as_in_image'}:{ROOT / 'operator'}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def requests(store: Versitygw, rows: int, recipe: str, threads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the run is asked, and what the script."""
    # In a process of its own: numpy and pyarrow would count in the children's peaks.
    done = subprocess.run(
        [sys.executable, "-c", "import json; from tests.bench.training import world as w; "
         "print(json.dumps([w.DATA, w.EVALUATION, w.RECIPES, w.NUMBERS, list(w.CATEGORIES)]))"],
        check=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    data, evaluation, recipes, numbers, categories = json.loads(done.stdout)
    estimator, parameters = recipes[recipe]
    location = {"endpoint": store.endpoint, "credentialsSecretRef": {"name": "lake"}}
    source = {"s3": {"uri": f"s3://{BUCKET}/{rows}/rows/", **location}}
    label = {"column": "late", "source": {"s3": {"uri": f"s3://{BUCKET}/{rows}/labels/", **location}}}
    run: dict[str, Any] = {
        "namespace": "bench", "model": "bench", "model_uid": "bench", "model_generation": 1,
        "trigger": {"type": "Spec"}, "training_fingerprint": "sha256:" + "0" * 64, "image": "bench",
        "operator_version": "bench", "store": location,
        "data": {**data, "source": source, "label": label},
        "training": {"recipe": {
            "estimator": estimator, "seed": 7,
            "parameters": [{"name": name, "value": value} for name, value in parameters.items()],
        }},
        "evaluation": evaluation, "threads": threads,
    }  # fmt: skip
    script = {
        "endpoint": store.endpoint, "access": store.access, "secret": store.secret, "bucket": BUCKET,
        "prefix": f"{rows}/", "estimator": estimator, "parameters": parameters, "threads": threads,
        "numbers": numbers, "categories": categories,
    }  # fmt: skip
    return run, script


def parts(lines: list[tuple[float, str]]) -> Iterator[str]:
    """Where a run's time went, by its own words: what a line tells took until that line."""
    before = 0.0
    for at, words in lines:
        if at - before >= 0.05:
            yield f"    {at - before:6.2f} s  until {at:6.2f} s: {words[:100]}"
        before = at


def told(name: str, mine: list[Cost], limit: list[Cost]) -> Iterator[str]:
    """The figures of one size and recipe."""
    for who, found in (("ours", middle(mine)), ("plain", middle(limit))):
        beyond = found.wall - found.fit
        yield (
            f"{name:<20} {who:<6} {found.wall:>8.2f} {found.cpu:>8.2f} {found.fit:>8.2f} {beyond:>8.2f} "
            f"{found.peak:>9.0f}"
        )
    for what in ("wall", "cpu", "peak"):
        one = ratio([getattr(cost, what) for cost in mine], [getattr(cost, what) for cost in limit])
        goal = f"; goal <= {GOAL:.2f}: {'met' if one.median <= GOAL else 'MISSED'}" if what == "wall" else ""
        yield f"{name:<20} {what:<6} {one.median:8.3f} of the plain script's ({one.low:.3f} to {one.high:.3f}){goal}"


def main() -> int:
    """The table, also into build/bench/training.txt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=["boosting"])
    parser.add_argument("--rounds", type=int, default=5, help="pairs that count; one more comes first, and does not")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", action="store_true", help="also say where the time of the last run went")
    chosen = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    table = [f"{'':<20} {'':<6} {'wall s':>8} {'CPU s':>8} {'fit s':>8} {'beyond':>8} {'peak MiB':>9}"]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch, running_store(Path(scratch) / "store") as store:
        store.client().create_bucket(Bucket=BUCKET)
        for rows in chosen.rows:
            prepared(store, rows, Path(scratch))
            for recipe in chosen.recipes:
                run, script = requests(store, rows, recipe, chosen.threads)
                mine, limit, lines = [], [], []
                for number in range(chosen.rounds + 1):
                    cost, lines = ours(store, run, f"{recipe}-{rows}-{number}", Path(scratch) / "log")
                    other, auc = plain(store, script, f"{recipe}-{rows}-{number}")
                    print(f"{recipe} {rows:,}: {cost.wall:.2f} s, {other.wall:.2f} s (roc_auc {auc:.6f})", flush=True)
                    if number:
                        mine.append(cost)
                        limit.append(other)
                table += told(f"{recipe} {rows:,}", mine, limit)
                if chosen.parts:
                    table += parts(lines)
    busy = os.getloadavg()[0]
    table.append(f"threads {chosen.threads}; load average {busy:.1f} at the end")
    text = "\n".join(table)
    (BUILD / "training.txt").write_text(text + "\n")
    print("\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
