"""Where things lie in the object store, below `spec.store.s3.uri`.

```
artifacts/sha256/HEX/…                              immutable, content-addressed; manifest.json is written last
records/sha256/HEX.json                             record.json of a run, named by its own digest
records/sha256/HEX.html                             the run's report as a page
records/sha256/HEX.provenance.json                  SLSA provenance (in-toto) of its artifact, where it made one
records/sha256/HEX.openlineage.jsonl                OpenLineage's events of the run, one a line
records/sha256/HEX.background.json                  some rows that judged it, to compare a captured one with
NAMESPACE/MODEL/decisions/NUMBER.json               what was decided on its revisions (contract.decisions)
NAMESPACE/MODEL/runs/RUN-UID/result.json            a run's result; the first that is written wins
NAMESPACE/MODEL/runs/RUN-UID/tuning/inputs.json     what all trials of a tuning go by; likewise
NAMESPACE/MODEL/runs/RUN-UID/tuning/NNN.json        how a trial ended, by its index; likewise
NAMESPACE/MODEL/runs/RUN-UID/fit/prepared.json      what a team's image was given to fit on; likewise
NAMESPACE/MODEL/runs/RUN-UID/fit/files/HEX          what it made, each file named by its sha256
NAMESPACE/MODEL/runs/RUN-UID/fit/delivered.json     which files those are; last, and the first that is written wins
NAMESPACE/MODEL/monitor/POLICY-UID/rN/START.json    what a monitor found in one window
NAMESPACE/MODEL/monitor/POLICY-UID/rN/START.html    the same as a page, with the windows before it
NAMESPACE/MODEL/monitor/POLICY-UID/rN/START.part-I-of-N.json    what one of several pods counted; gone with the report
NAMESPACE/MODEL/monitor/POLICY-UID/rN/START.performance.json    how good the model was in it, by labels
NAMESPACE/MODEL/monitor/POLICY-UID/rN/START.estimate.json       as it was estimated before; rewritten until labels came
```
and below `spec.serving.capture.s3.uri`:
```
NAMESPACE/MODEL/revision=N/date=YYYY-MM-DD/hour=HH/FIRST_LAST_WRITER_SEQ.parquet
NAMESPACE/MODEL/erasures/TIME_ID.json               what `truekeep erase` took out of them
```
date and hour: when the first of its rows was received (UTC); FIRST, LAST: event times, ms since 1970; WRITER: the pod,
and a random part for each start of its process, so that no name is ever used for two contents.
All functions answer a key relative to that prefix.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_RECEIVED = re.compile(
    r"(?:^|/)revision=[0-9]+/date=(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})/(?:hour=(?P<hour>[0-1][0-9]|2[0-3])/)?[^/]+$"
)

MANIFEST = "manifest.json"
MODEL_FILE = "model.skops"
ONNX_FILE = "model.onnx"  # the same model, where the two agree
# In the metadata of a capture file: names of columns, with commas between.
HASHED_COLUMNS = "truekeep.hashed"  # hold keyed hashes (`contract.hashing`)
DROPPED_COLUMNS = "truekeep.dropped"  # features that are left out
# And, whatever becomes of the cluster, what answered.
CAPTURED_ARTIFACT = "truekeep.artifact"  # digest
CAPTURED_RUN = "truekeep.run"  # name of the TrainingRun that made it
CAPTURED_FORMAT = "truekeep.format"  # onnx, skops, or image: the team's own server
CAPTURED_PERCENT = "truekeep.fraction_percent"  # of the requests that are captured
SIGNATURE = "signature.json"
PROFILE = "profile.json"
PERFORMANCE = "performance.json"
# Beside a record, never part of it.
REPORT = "html"
PROVENANCE = "provenance.json"
EVENTS = "openlineage.jsonl"
BACKGROUND = "background.json"  # rows to compare a captured one with
IMPORT_REPORT = "import.json"  # of a model that was trained elsewhere: what it was, and how it agrees


def artifact_file(digest: str, path: str) -> str:
    """Key of one file of an artifact."""
    return f"artifacts/sha256/{digest.removeprefix('sha256:')}/{path}"


def record(digest: str) -> str:
    """Key of a record."""
    return f"records/sha256/{digest.removeprefix('sha256:')}.json"


def beside_record(digest: str, suffix: str) -> str:
    """Key of what belongs to a record: REPORT, PROVENANCE, EVENTS or BACKGROUND."""
    return record(digest).removesuffix("json") + suffix


def run_result(namespace: str, model: str, run_uid: str) -> str:
    """Key of a run's result."""
    return f"{namespace}/{model}/runs/{run_uid}/result.json"


def tuning_inputs(namespace: str, model: str, run_uid: str) -> str:
    """Key of what all trials of a run go by."""
    return f"{namespace}/{model}/runs/{run_uid}/tuning/inputs.json"


def tuning_trial(namespace: str, model: str, run_uid: str, index: int) -> str:
    """Key of how one trial ended."""
    return f"{namespace}/{model}/runs/{run_uid}/tuning/{index:03d}.json"


def fit_prepared(namespace: str, model: str, run_uid: str) -> str:
    """Key of what says which rows a team's image was given."""
    return f"{namespace}/{model}/runs/{run_uid}/fit/prepared.json"


def fit_delivered(namespace: str, model: str, run_uid: str) -> str:
    """Key of what says which files it made of them."""
    return f"{namespace}/{model}/runs/{run_uid}/fit/delivered.json"


def fit_file(namespace: str, model: str, run_uid: str, digest: str) -> str:
    """Key of one of these files."""
    return f"{namespace}/{model}/runs/{run_uid}/fit/files/{digest.removeprefix('sha256:')}"


def decisions(namespace: str, model: str, number: int | None = None) -> str:
    """Key of one page of what was decided, or the prefix of all."""
    return f"{namespace}/{model}/decisions/" + (f"{number:08d}.json" if number is not None else "")


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
    writer: str
    sequence: int


def capture_file(revision: int, received: datetime, name: CaptureName) -> str:
    """Key of a capture file, below `captures(namespace, model)`."""
    hour = received.astimezone(UTC).strftime("date=%Y-%m-%d/hour=%H")
    return f"revision={revision}/{hour}/{name.first}_{name.last}_{name.writer}_{name.sequence:06d}.parquet"


def received_until(key: str) -> datetime | None:
    """The end of the hour in which a capture file's first row was received, by its path; of the day, where the path has
    no hour (files before 0.2). None where the key is no capture file of ours."""
    found = _RECEIVED.search(key)
    if found is None or parse_capture_file(key) is None:
        return None
    try:
        day = datetime.strptime(found["date"], "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day + (timedelta(hours=int(found["hour"]) + 1) if found["hour"] else timedelta(days=1))


def erasure(moment: datetime, identifier: str) -> str:
    """Key of an erasure's receipt, below `captures(namespace, model)`."""
    return f"erasures/{moment.astimezone(UTC):%Y-%m-%dT%H%M%SZ}_{identifier}.json"


def parse_capture_file(key: str) -> CaptureName | None:
    """The name's parts, or None where the key is no capture file of ours."""
    parts = key.rsplit("/", 1)[-1].removesuffix(".parquet").split("_")
    if len(parts) != 4 or not key.endswith(".parquet"):
        return None
    try:
        return CaptureName(int(parts[0]), int(parts[1]), parts[2], int(parts[3]))
    except ValueError:
        return None
