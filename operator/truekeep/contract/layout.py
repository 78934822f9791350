"""Where things lie in the object store, below `spec.store.s3.uri`.

```
artifacts/sha256/HEX/…                              immutable, content-addressed; manifest.json is written last
records/sha256/HEX.json                             record.json of a run, named by its own digest
NAMESPACE/MODEL/runs/RUN-UID/result.json            a run's result; the first that is written wins
NAMESPACE/MODEL/monitor/POLICY-UID/rN/START.json    what a monitor found in one window
NAMESPACE/MODEL/monitor/POLICY-UID/rN/START.performance.json    how good the model was; rewritten until labels are there
```
and below `spec.serving.capture.s3.uri`:
```
NAMESPACE/MODEL/revision=N/date=YYYY-MM-DD/FIRST_LAST_POD_SEQ.parquet     FIRST, LAST: event time, ms since 1970
```
All functions answer a key relative to that prefix.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

MANIFEST = "manifest.json"
MODEL_FILE = "model.skops"
ONNX_FILE = "model.onnx"  # the same model, where the two agree
# In the metadata of a capture file: names of columns, with commas between.
HASHED_COLUMNS = "truekeep.hashed"  # hold keyed hashes (`contract.hashing`)
DROPPED_COLUMNS = "truekeep.dropped"  # features that are left out
SIGNATURE = "signature.json"
PROFILE = "profile.json"
PERFORMANCE = "performance.json"


def artifact_file(digest: str, path: str) -> str:
    """Key of one file of an artifact."""
    return f"artifacts/sha256/{digest.removeprefix('sha256:')}/{path}"


def record(digest: str) -> str:
    """Key of a record."""
    return f"records/sha256/{digest.removeprefix('sha256:')}.json"


def run_result(namespace: str, model: str, run_uid: str) -> str:
    """Key of a run's result."""
    return f"{namespace}/{model}/runs/{run_uid}/result.json"


def window_report(namespace: str, model: str, policy_uid: str, revision: int, start: datetime) -> str:
    """Key of the report on one window."""
    return f"{namespace}/{model}/monitor/{policy_uid}/r{revision}/{start.astimezone(UTC):%Y-%m-%dT%H}.json"


def beside(report: str, suffix: str) -> str:
    """Key of what belongs to the report on a window, such as its `.performance.json`."""
    return report.removesuffix(".json") + suffix


def captures(namespace: str, model: str, revision: int | None = None) -> str:
    """Prefix of the captures of a model, or of one revision of it."""
    return f"{namespace}/{model}/" + (f"revision={revision}/" if revision is not None else "")


class CaptureName(NamedTuple):
    """What the name of a capture file says: first and last event in it (ms since 1970), and who wrote it."""

    first: int
    last: int
    pod: str
    sequence: int


def capture_file(revision: int, received: datetime, name: CaptureName) -> str:
    """Key of a capture file, below `captures(namespace, model)`."""
    day = received.astimezone(UTC).strftime("%Y-%m-%d")
    return f"revision={revision}/date={day}/{name.first}_{name.last}_{name.pod}_{name.sequence:06d}.parquet"


def parse_capture_file(key: str) -> CaptureName | None:
    """The name's parts, or None where the key is no capture file of ours."""
    parts = key.rsplit("/", 1)[-1].removesuffix(".parquet").split("_")
    if len(parts) != 4 or not key.endswith(".parquet"):
        return None
    try:
        return CaptureName(int(parts[0]), int(parts[1]), parts[2], int(parts[3]))
    except ValueError:
        return None
