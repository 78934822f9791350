"""What a team's image gets: the rows before the holdout, as Parquet, and what they mean. Not one row of the holdout.

Sources are read, joined, checked and split as for a recipe, by the same code; whoever judges reads the same objects."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json
from truekeep.contract.handed import FEATURES_FILE, TABLE_FILE, Prepared
from truekeep.contract.requests import TrainRequest
from truekeep.sources.columns import Want
from truekeep.storage import StoreUnreachable
from truekeep.storage.artifacts import Store
from truekeep.trainer.data import pinned
from truekeep.trainer.data.dataset import Dataset, Say
from truekeep.trainer.faults import DataChanged
from truekeep.trainer.handed import delivery as handed
from truekeep.trainer.judging import evaluate
from truekeep.trainer.recipe import bundle
from truekeep.trainer.text import counted, iso

ROWS_AT_ONCE = 100_000  # of the Parquet file: a row group


def described(request: TrainRequest, dataset: Dataset, now: datetime) -> Prepared:
    """Which rows the image gets of these. DataInvalid where they can't be split."""
    wants = [Want(feature.name, feature.type) for feature in request.data.features]
    at = evaluate.split(dataset.times, dataset.labels, request.evaluation.holdout.latest_fraction).at
    return Prepared(
        run_uid=request.run_uid,
        training_fingerprint=request.training_fingerprint,
        now=now,
        objects=pinned.written(dataset.pins),
        rows=len(dataset),
        at=at,
        features=bundle.signature_features(request.data.features, dataset.named(wants, slice(None, at))),
    )


def hand_over(
    request: TrainRequest,
    store: Store,
    dataset: Dataset,
    before: Prepared | None,
    now: datetime,
    folder: Path,
    say: Say,
) -> Prepared:
    """Write the rows into the folder, and into the store which they are. `before`: what an earlier pod of this run
    wrote, whose objects were read again. DataInvalid, DataChanged, StoreError, OSError."""
    made = described(request, dataset, now if before is None else before.now)
    if before is not None:
        check_same(made, before)
    else:
        key = layout.fit_prepared(request.namespace, request.model, request.run_uid)
        if not store.put(key, canonical_json(made.dump()), only_if_absent=True):
            raise StoreUnreachable(f"{store.uri(key)}: another pod of this run was first; the next try reads its rows")
        say(f"wrote {store.uri(key)}")
    write(request, dataset, made, folder)
    say(
        f"handed over {counted(made.at, 'row')} until {iso(dataset.times[made.at - 1])}; {made.rows - made.at:,} newer "
        "ones are kept for judging"
    )
    return made


def check_same(made: Prepared, before: Prepared) -> None:
    """DataChanged where the same objects no longer make the same rows."""
    for what in ("rows", "at", "features"):
        if getattr(made, what) != getattr(before, what):
            raise DataChanged(
                f"the objects that this run pinned make other {what} than before, so that nobody knows any more which "
                f"rows training did not see; {handed.AGAIN}"
            )


def write(request: TrainRequest, dataset: Dataset, what: Prepared, folder: Path) -> None:
    """TABLE_FILE: the features in their order, the event's time unless it is one of them, and the label; FEATURES_FILE
    is what they mean."""
    data, rows = request.data, slice(None, what.at)
    values = dataset.named([Want(feature.name, feature.type) for feature in what.features], rows)
    columns: dict[str, Any] = {feature.name: handed.column(feature, values[feature.name]) for feature in what.features}
    if data.time_column not in columns:
        columns[data.time_column] = pa.array(np.asarray(dataset.times[rows]), pa.timestamp("us", "UTC"))
    columns[data.label.column] = pa.array(np.asarray(dataset.labels[rows]), pa.int8())
    pq.write_table(pa.table(columns), folder / TABLE_FILE, row_group_size=ROWS_AT_ONCE)
    meaning = {
        "model": request.model,
        "rows": what.at,
        "label": data.label.column,
        "timeColumn": data.time_column,
        "seed": handed.image_of(request).seed,
        "features": [feature.dump() for feature in what.features],
    }
    (folder / FEATURES_FILE).write_text(json.dumps(meaning, indent=1) + "\n", encoding="utf-8")
