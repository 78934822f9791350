"""What a team's image is handed to fit a model on, and what it hands back: docs/training-image.md.

Both documents are ours. They lie in the store, written once, so that the Job that judges knows what the image knew."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from truekeep.api.common import Digest, Schema
from truekeep.contract.artifact import ArtifactFile, SignatureFeature
from truekeep.contract.pins import PinnedObject

IN_DIR = "/in"
OUT_DIR = "/out"
IN_DIR_ENV = "TRUEKEEP_IN"
OUT_DIR_ENV = "TRUEKEEP_OUT"
SEED_ENV = "TRUEKEEP_SEED"
TABLE_FILE = "train.parquet"
FEATURES_FILE = "features.json"
METRICS_FILE = "metrics.json"
PREPARE, UPLOAD, FETCH = "prepare", "upload", "fetch"  # the trainer's arguments: its parts beside the team's containers
OUT_BYTES = 512 << 20  # of all files together
MOST_FILES = 80  # an artifact has room for them, and for ours


class Prepared(Schema):
    """The rows that the image was given: all before the holdout. The rest of the data it never saw."""

    schema_: Literal["truekeep.dev/prepared/v1"] = Field(default="truekeep.dev/prepared/v1", alias="schema")
    run_uid: str
    training_fingerprint: Digest
    now: datetime  # for rules about age: the same moment counts when it is judged
    objects: list[PinnedObject]
    rows: int  # labelled ones, in order of time
    at: int  # of these, the first of the holdout
    features: list[SignatureFeature]  # as the rows before it have them


class Reported(Schema):
    """A number that the image says of itself. It is shown, and decides nothing."""

    name: str
    value: float


class Delivered(Schema):
    """What the image left in /out."""

    schema_: Literal["truekeep.dev/delivered/v1"] = Field(default="truekeep.dev/delivered/v1", alias="schema")
    run_uid: str
    files: list[ArtifactFile]
    problem: str = ""  # why nothing of it was taken, with a remedy; the Job that judges says so, with the record
    fit_seconds: float  # from its input to its output, the start of its container included
    reported: tuple[Reported, ...] = ()
    reported_problem: str = ""  # why metrics.json was passed over
