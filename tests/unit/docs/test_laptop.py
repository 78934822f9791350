"""The commands that README.md shows for a laptop, as they stand there, one after the other in one folder."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
SECTION = README.split("\n## On a laptop\n")[1].split("\n## ")[0]
COMMANDS = [line[2:] for line in SECTION.splitlines() if line.startswith("$ ")]
ROWS = 3000


def customers(seed: int, start: datetime, months: float) -> pa.Table:
    """Rows as the smallest YAML of the README declares them; those who are new leave more often."""
    random = np.random.default_rng(seed)
    tenure = random.gamma(2.0, months, ROWS)
    plan = random.choice(["basic", "family", "pro"], ROWS)
    left = random.random(ROWS) < 1 / (1 + np.exp(tenure / 12 - 1 - (plan == "basic")))
    return pa.table(
        {
            "customer_id": [f"c{seed}-{number}" for number in range(ROWS)],
            "seen_at": pa.array([start + timedelta(minutes=10 * n) for n in range(ROWS)], pa.timestamp("us", "UTC")),
            "tenure_months": tenure,
            "plan": plan,
            "churned": left.astype(np.int64),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands find: the README's own YAML, data, and a pipeline that somebody trained."""
    here = tmp_path_factory.mktemp("laptop")
    yaml = README.split("## The smallest useful YAML")[1].split("```yaml\n")[1].split("```")[0]
    (here / "model.yaml").write_text(yaml)
    (here / "lake" / "customers").mkdir(parents=True)
    january = customers(1, datetime(2026, 1, 1, tzinfo=UTC), 12)
    pq.write_table(january, here / "lake" / "customers" / "january.parquet")
    inputs = ["tenure_months", "plan"]
    pq.write_table(january.select(inputs), here / "january.parquet")
    pq.write_table(customers(2, datetime(2026, 3, 1, tzinfo=UTC), 20).select(inputs), here / "march.parquet")
    script = (
        "import sys, pandas, skops.io\n"
        "from sklearn.compose import make_column_transformer\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import OneHotEncoder\n"
        "rows = pandas.read_parquet('lake/customers/january.parquet')\n"
        "plans = OneHotEncoder(handle_unknown='ignore')\n"
        "columns = make_column_transformer((plans, ['plan']), remainder='passthrough')\n"
        "model = make_pipeline(columns, LogisticRegression())\n"
        "skops.io.dump(model.fit(rows[['tenure_months', 'plan']], rows['churned']), 'pipeline.skops')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=here, check=True, capture_output=True, timeout=120)
    return here


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One command line, as a person types it."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def test_all_commands_are_of_ours() -> None:
    assert len(COMMANDS) >= 7
    assert all(command.startswith("truekeep ") for command in COMMANDS)


def test_they_do_what_the_readme_says(folder: Path) -> None:
    codes = {"drift": 1}  # there is drift
    for command in COMMANDS:
        name = command.split()[1]
        if name == "serve":
            continue
        done = run(command, folder)
        assert done.returncode == codes.get(name, 0), f"{command}: {done.stdout}{done.stderr}"
    assert "tenure_months" in (folder / "drift.html").read_text()
    assert (folder / "artifact" / "manifest.json").is_file()
    assert (folder / "imported" / "manifest.json").is_file()
    (serve,) = (command for command in COMMANDS if command.split()[1] == "serve")
    _serve(serve, folder)


def _serve(command: str, folder: Path) -> None:
    """Starts it on a free port, asks, and ends it as Ctrl-C does."""
    free = re.sub(r"--port \d+", "--port 0", command)
    program = Path(sys.executable).parent / "truekeep"
    process = subprocess.Popen(
        [str(program), *shlex.split(free)[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline, told = time.monotonic() + 60, ""
        address = None
        while address is None and time.monotonic() < deadline and process.poll() is None:
            line = process.stdout.readline() if process.stdout else ""
            told += line
            address = re.search(r"http://[0-9.a-z]+:\d+", line)
        assert address, told
        with urllib.request.urlopen(f"{address[0]}/v2/models/churn/ready", timeout=10) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
    assert process.returncode == 0
