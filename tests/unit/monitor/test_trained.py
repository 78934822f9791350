"""What training writes is what the monitor reads: a real artifact, its own predictions, labels that come later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import events, parquet
from tests.unit.trainer.test_run import Place
from truekeep.api.common import Source
from truekeep.api.driftpolicy import DataDrift, MonitorWindow, PerformancePolicy, Together
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.layout import CaptureName
from truekeep.contract.requests import Labels, MonitorRequest
from truekeep.features.encode import matrix
from truekeep.features.trust import load_pipeline
from truekeep.monitor.look import look
from truekeep.storage.s3 import Bucket
from truekeep.trainer.recipe.pipeline import probabilities

BEGINS = datetime(2024, 6, 3, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "Holds"), (1.0, "Decayed")])
def test_a_trained_revision_is_watched(versitygw: Versitygw, shift: float, verdict: str) -> None:
    """With `shift` the same inputs mean the opposite: no column moves, and only labels can tell."""
    place = Place(versitygw).write(events())
    result = place.run()
    assert result.artifact is not None, result.message
    files = place.files(result)
    signature = Signature.model_validate_json(files[layout.SIGNATURE])
    model = load_pipeline(files[layout.MODEL_FILE], signature.estimator)
    captures, landed = (versitygw.location(f"{name}/", bucket=place.name) for name in ("captures", "landed"))
    for day in range(2):
        begin = BEGINS + day * DAY
        rows = events(rows=1000, seed=50 + day, start=begin, minutes=1, shift=shift)
        write(Bucket.open(captures), day, rows, probabilities(model, matrix(columns(rows), signature.features)))
        Bucket.open(landed).put(f"{day}.parquet", parquet(rows.select(["id", "late"])))
    request = MonitorRequest(
        namespace="ns", model="late", policy="p", policy_uid="u", revision=1,
        artifact_digest=result.artifact.digest, store=place.store, capture=captures,
        window=MonitorWindow(hours=24, min_rows=500, idle_seconds=10),
        drift=DataDrift(minimum_effect="0.1", together=Together()),
        performance=PerformancePolicy(metric="roc_auc", max_drop="0.1", min_labels=300),
        labels=Labels(source=Source(s3=landed), key="id", column="late"),
    )  # fmt: skip
    said: list[str] = []
    found = look(request, datetime.now(UTC) + timedelta(hours=1), said.append)
    assert [window.verdict for window in found.windows] == ["NoDrift", "NoDrift"], said
    assert [one.verdict for one in found.performance] == [verdict, verdict], said
    assert [one.estimated for one in found.performance] == ["Holds", "Holds"], said
    shown = {metric.name: metric.value for metric in result.metrics}
    assert {one.baseline for one in found.performance} == {shown["roc_auc"]}


def columns(rows: pa.Table) -> dict[str, Any]:
    return {"amount": rows["amount"].combine_chunks(), "kind": rows["kind"].combine_chunks()}


def write(bucket: Bucket, day: int, rows: pa.Table, probability: np.ndarray) -> None:
    """As the server captures."""
    table = pa.table(
        {
            "truekeep.event_time": rows["at"],
            "truekeep.received_at": rows["at"],
            "truekeep.key": rows["id"],
            "truekeep.probability": probability,
            "amount": rows["amount"],
            "kind": rows["kind"],
        }
    )
    times = [value.timestamp() * 1000 for value in (rows["at"][0].as_py(), rows["at"][-1].as_py())]
    name = CaptureName(int(times[0]), int(times[1]), "pod", day)
    bucket.put(layout.captures("ns", "late") + layout.capture_file(1, BEGINS, name), parquet(table))
