"""The same reads and the same fits by hand, as somebody writes them who keeps no record: the limit of the bench.

Reads the same objects with boto3 in as many threads, joins the labels by key, sorts by time, encodes the categories,
fits on the older rows with the same estimator, parameters, seed and threads, scores the newest fifth, fits again on all
rows, and puts the pickled model into the store. No check, no digest, no gate but one printed number, nothing beside it.
Prints JSON: seconds that the fits took together, and roc_auc."""

from __future__ import annotations

import io
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from botocore.config import Config
from sklearn.metrics import roc_auc_score

ASKED = json.loads(os.environ["PLAIN_REQUEST"])
AT_ONCE = 8


def read(client: Any, prefix: str, columns: list[str]) -> pa.Table:
    """All files below a prefix."""
    keys = [
        one["Key"]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=ASKED["bucket"], Prefix=prefix)
        for one in page["Contents"]
    ]

    def fetch(key: str) -> pa.Table:
        return pq.read_table(
            pa.BufferReader(client.get_object(Bucket=ASKED["bucket"], Key=key)["Body"].read()), columns=columns
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return pa.concat_tables(pool.map(fetch, keys))


def estimator_of(numbers: list[int], categories: list[int]) -> Any:
    """As the recipe has it, by the same estimator."""
    module, _, name = ASKED["estimator"].rpartition(".")
    kind = getattr(__import__(module, fromlist=[name]), name)
    parameters = {key: json.loads(value) for key, value in ASKED["parameters"].items()}
    if name == "HistGradientBoostingClassifier":
        return kind(random_state=7, categorical_features=categories, **parameters)
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    impute: Any = SimpleImputer(strategy="median", add_indicator=True)
    linear = "linear_model" in module
    number = make_pipeline(impute, StandardScaler()) if linear else impute
    encode = ColumnTransformer(
        [("numbers", number, numbers), ("categories", OneHotEncoder(handle_unknown="ignore"), categories)]
    )
    return make_pipeline(encode, kind(random_state=7, n_jobs=None if linear else ASKED["threads"], **parameters))


def main() -> None:
    """The whole of it."""
    client = boto3.client(
        "s3",
        endpoint_url=ASKED["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=ASKED["access"],
        aws_secret_access_key=ASKED["secret"],
        config=Config(max_pool_connections=AT_ONCE),
    )
    features = [*ASKED["numbers"], *ASKED["categories"]]
    rows = read(client, ASKED["prefix"] + "rows/", ["id", "at", *features])
    labels = read(client, ASKED["prefix"] + "labels/", ["id", "late"])
    rows = rows.append_column("late", labels["late"].take(pc.index_in(rows["id"], value_set=labels["id"])))
    rows = rows.take(pc.sort_indices(rows["at"]))
    matrix = np.empty((len(rows), len(features)), order="F")
    for place, name in enumerate(features):
        column = rows[name].combine_chunks()
        matrix[:, place] = (
            column.dictionary_encode().indices.to_numpy(zero_copy_only=False)
            if name in ASKED["categories"]
            else column.to_numpy(zero_copy_only=False)
        )
    truth = rows["late"].to_numpy().astype(np.int64)
    del rows, labels
    at = len(truth) - -(-len(truth) // 5)
    count = len(ASKED["numbers"])
    places = list(range(count)), list(range(count, len(features)))

    began = time.perf_counter()
    model = estimator_of(*places).fit(matrix[:at], truth[:at])
    seconds = time.perf_counter() - began
    auc = roc_auc_score(truth[at:], model.predict_proba(matrix[at:])[:, 1])
    began = time.perf_counter()
    model = estimator_of(*places).fit(matrix, truth)
    seconds += time.perf_counter() - began
    buffer = io.BytesIO()
    pickle.dump(model, buffer)
    client.put_object(Bucket=ASKED["bucket"], Key=ASKED["to"] + "model.pickle", Body=buffer.getvalue())
    print(json.dumps({"fit": seconds, "roc_auc": auc}))


if __name__ == "__main__":
    main()
