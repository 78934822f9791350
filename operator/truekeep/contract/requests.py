"""What the operator asks of a pod: one JSON document in the environment variable TRUEKEEP_REQUEST.

Every S3 location in a request is complete: `complete` has filled in what it takes from spec.store. Credentials never
travel in a request: they are mounted as files, `SECRETS/NAME/AWS_ACCESS_KEY_ID` and so on, and certificates likewise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from truekeep.api.capture import Capture
from truekeep.api.common import Column, Digest, S3Location, Schema, Source
from truekeep.api.data import Data
from truekeep.api.documentation import Documentation
from truekeep.api.driftpolicy import Blackout, DataDrift, MonitorWindow, PerformancePolicy
from truekeep.api.evaluation import Evaluation, Slice
from truekeep.api.training import Training
from truekeep.api.trainingrun import Restore, Trigger
from truekeep.contract.decisions import Decision

REQUEST_ENV = "TRUEKEEP_REQUEST"
SECRETS_DIR_ENV = "TRUEKEEP_SECRETS_DIR"
CERTIFICATES_DIR_ENV = "TRUEKEEP_CERTIFICATES_DIR"
VOLUMES_DIR_ENV = "TRUEKEEP_VOLUMES_DIR"
CACHE_DIR_ENV = "TRUEKEEP_CACHE_DIR"
TERMINATION_LOG_ENV = "TRUEKEEP_TERMINATION_LOG"
SPOOL_DIR_ENV = "TRUEKEEP_SPOOL_DIR"
DEFAULT_SPOOL_DIR = "/var/spool/truekeep"  # captures that wait for the store; outlives the container, not the pod
DEFAULT_SECRETS_DIR = "/var/run/truekeep/secrets"
DEFAULT_CERTIFICATES_DIR = "/var/run/truekeep/certificates"
DEFAULT_VOLUMES_DIR = "/var/run/truekeep/volumes"  # a folder for each claim
DEFAULT_CACHE_DIR = "/var/cache/truekeep"  # a volume of the pod: what a server fetched outlives its container
DEFAULT_TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LIMIT = 4096
SERVER_PORT = 8080
SERVER_GRPC_PORT = 8081
BACKEND_LIVE_PATH = "/backend/live"  # of our server: whether the team's own still reacts
MODEL_DIR = "/mnt/models"  # the artifact's files, for the team's own server
MODEL_DIR_ENV = "TRUEKEEP_MODEL_DIR"
FETCH = "fetch"  # the server's argument with which it puts the artifact into MODEL_DIR, and ends


def complete(location: S3Location, store: S3Location) -> S3Location:
    """The location with endpoint, region, credentials and certificates from the store where it has none.

    A location with an endpoint of its own takes no credentials from the store: they would go to a stranger."""
    if location.endpoint is not None and location.endpoint != store.endpoint:
        return location
    return location.model_copy(
        update={
            "endpoint": store.endpoint,
            "region": location.region or store.region,
            "credentials_secret_ref": location.credentials_secret_ref or store.credentials_secret_ref,
            "ca_bundle_ref": location.ca_bundle_ref or store.ca_bundle_ref,
        }
    )


def complete_data(data: Data, store: S3Location) -> Data:
    """The data section with every source completed."""

    label = data.label
    if label.source is not None:
        label = label.model_copy(update={"source": complete_source(label.source, store)})
    joins = [join.model_copy(update={"source": complete_source(join.source, store)}) for join in data.joins]
    return data.model_copy(update={"source": complete_source(data.source, store), "label": label, "joins": joins})


def complete_source(source: Source, store: S3Location) -> Source:
    """The source with its location in S3 completed, where it has one."""
    if source.s3 is not None:
        return source.model_copy(update={"s3": complete(source.s3, store)})
    if source.dvc is not None:
        output = source.dvc.model_copy(update={"remote": complete(source.dvc.remote, store)})
        return source.model_copy(update={"dvc": output})
    return source


def complete_training(training: Training, store: S3Location) -> Training:
    """The training section with the import's location completed, where there is one."""
    given = training.import_
    if given is None:
        return training
    return training.model_copy(update={"import_": given.model_copy(update={"s3": complete(given.s3, store)})})


def complete_evaluation(evaluation: Evaluation, store: S3Location) -> Evaluation:
    """The evaluation section with the benchmarks' sources completed."""
    benchmarks = [
        one.model_copy(update={"source": complete_source(one.source, store)}) for one in evaluation.benchmarks
    ]
    return evaluation.model_copy(update={"benchmarks": benchmarks})


class Champion(Schema):
    """The revision that serves, for the comparison."""

    revision: int = Field(ge=1)
    artifact_digest: Digest
    trained_until: datetime | None = None  # newest event that it was fitted on; None: unknown, compare on the holdout


class LastRun(Schema):
    """The newest earlier run whose data was in order, for rules that compare with it."""

    run: str
    rows: int = Field(ge=0)  # labelled ones, used
    positives: int | None = Field(default=None, ge=0)  # None: an older trainer did not tell
    rows_digest: Digest | None = None  # of what says which rows are used; None: likewise


class Captured(Schema):
    """Where the requests of the live revision are kept, to be held against the rows that train."""

    revision: int = Field(ge=1)
    location: S3Location
    prefix: str  # below it, of that revision
    left_out: tuple[str, ...] = ()  # features that are not captured, or only as hashes


class Backend(Schema):
    """A team's own server in the same pod, which answers for the model."""

    port: int = Field(ge=1, le=65535)  # on the loopback
    timeout_seconds: int = Field(default=5, ge=1)
    tolerance: float | None = Field(default=None, ge=0)  # None: the signature's


class TrainRequest(Schema):
    """One training run. `author`, `commit`: of the change that is trained, as the Model's annotations say."""

    namespace: str
    model: str
    model_uid: str
    model_generation: int
    run: str
    run_uid: str
    trigger: Trigger
    training_fingerprint: Digest
    image: str  # the trainer's own image, for the record
    operator_version: str
    store: S3Location
    data: Data
    training: Training
    evaluation: Evaluation
    author: str | None = None
    commit: str | None = None
    documentation: Documentation | None = None
    champion: Champion | None = None
    backend: Backend | None = None  # in the same pod, for what spec.training.image made, where it alone can answer
    fit_image_id: str | None = None  # the image that fitted, by digest, as its node names it
    last_run: LastRun | None = None
    captured: Captured | None = None


class ServeRequest(Schema):
    """One revision to serve."""

    namespace: str
    model: str
    revision: int
    run: str
    artifact_digest: Digest
    store: S3Location
    time_column: str  # captured when a request carries it; never fed to the model
    key: str  # likewise
    capture: Capture | None = None
    connection_max_age_seconds: int = 30
    backend: Backend | None = None  # None: this server answers itself


class Labels(Schema):
    """Where the labels of what was captured lie, and when they are final."""

    source: Source
    key: Column
    column: Column
    matures_after_seconds: int = 0
    hash_key_secret: str | None = None  # the Secret with the key of the hashes, where captures have the key as a hash


class MonitorRequest(Schema):
    """One look at what was captured."""

    namespace: str
    model: str
    policy: str
    policy_uid: str
    revision: int
    artifact_digest: Digest
    store: S3Location
    capture: S3Location
    window: MonitorWindow
    drift: DataDrift
    dropped: tuple[str, ...] = ()  # features that spec.serving.capture.drop leaves out: they are not missed
    blackouts: tuple[Blackout, ...] = ()
    shards: int = 1  # pods that count a window together
    max_duplicate_fraction: float | None = None  # the Model's strictest rule
    performance: PerformancePolicy | None = None
    labels: Labels | None = None  # there where `performance` is
    slices: tuple[Slice, ...] = ()  # the Model's: performance is told by these groups too
    hashed: tuple[str, ...] = ()  # columns that spec.serving.capture.hash keeps as hashes: training's have none


class SweepRequest(Schema):
    """Captures that are older than they may be, to be deleted."""

    namespace: str
    model: str
    capture: S3Location
    retention_days: int = Field(ge=1)


class CountRequest(Schema):
    """Rows that came since the last run, to be counted."""

    namespace: str
    model: str
    model_uid: str
    data: Data
    since: datetime


class KeepRequest(Schema):
    """Decisions on a Model's revisions, to be kept in its store."""

    namespace: str
    model: str
    store: S3Location
    decisions: tuple[Decision, ...]


class RestoreRequest(Schema):
    """A run that ended before its cluster was lost, to be read from the Model's store."""

    namespace: str
    model: str
    run: str
    run_uid: str  # that it has now
    training_fingerprint: Digest  # of the spec as it is now; the result says that which was trained
    store: S3Location
    restore: Restore


class NotifyRequest(Schema):
    """A CloudEvent to be sent to a webhook."""

    url: str
    token_secret: str | None = None
    token_key: str | None = None
    event: dict[str, Any]


class RehearseRequest(Schema):
    """Requests that the live revision answered, for a candidate to answer."""

    namespace: str
    model: str
    candidate: str  # its Deployment
    url: str  # of the candidate's own Service
    live_revision: int
    capture: S3Location
    rows: int
    wait_seconds: int = 240  # for the candidate to get ready


# The header with which a rehearsal marks its requests: answered like any other, not captured, and counted apart.
REHEARSAL_HEADER = "truekeep-rehearsal"
