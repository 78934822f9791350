"""What is said about one window, whole; the termination message carries the strongest part of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from truekeep.api.common import Digest, Schema
from truekeep.api.driftpolicy import (
    DataDrift,
    Finding,
    FindingKind,
    MonitorWindow,
    PerformancePolicy,
    PerformanceVerdict,
    WindowVerdict,
)
from truekeep.api.evaluation import Metric
from truekeep.profiling.schema import Quantile

SCHEMA = "truekeep.dev/window-report/v1"
Severity = Literal["Break", "Breach", "Notice"]


class ReportFinding(Finding):
    """A finding with its weight. Break: the data is broken, which blocks retraining. Breach: the policy's responses
    follow, once enough windows in a row breach. Notice: it is reported and nothing follows."""

    severity: Severity
    effect: float  # share of rows, or distance, 0 to 1
    score: float  # what findings are ranked by: effect, times the column's share of the importance where it is known


class Significance(Schema):
    """A test."""

    value: float
    p_value: float
    degrees: int | None = None


class Statistics(Schema):
    """Distances of a window from the reference; definitions, sources and units are with `profiling.statistics`."""

    population_stability: float  # nats; numbers: of ten equal shares of the reference
    jensen_shannon: float  # 0 to 1; numbers: likewise
    corrected_population_stability: float | None = None  # less what sampling alone makes of it
    corrected_jensen_shannon: float | None = None  # likewise
    chi_square: Significance  # cells that expect few rows are pooled; numbers: of the ten shares
    g_test: Significance
    kolmogorov_smirnov: Significance | None = None  # numbers
    resolution: float | None = None  # numbers: how much the true distance may be larger
    wasserstein: float | None = None  # numbers: in robust standard deviations (interquartile range / 1.349)
    total_variation: float | None = None  # categories: as counted
    corrected_total_variation: float | None = None  # less sampling noise; numbers: of ten equal shares and both tails


class Facts(Schema):
    """A column, on one side."""

    rows: int
    values: int  # rows with a value that can be compared
    missing: float  # share of rows that are null or NaN, or lie in files without the column
    infinite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    standard_deviation: float | None = None
    quantiles: tuple[Quantile, ...] = ()
    categories: int | None = None  # distinct values
    unknown: float | None = None  # share of rows with a category that the reference has not


class ColumnReport(Schema):
    """A column, before and now."""

    name: str
    type: Literal["Number", "Category"]
    kind: FindingKind
    judged: bool  # for drift
    why_not: str = ""
    ignored: bool = False
    drifted: bool = False
    statistic: str | None = None  # which one `effect` is
    effect: float | None = None
    threshold: float | None = None
    p_value: float | None = None  # of the test that decides
    p_corrected: float | None = None  # over all columns (Holm)
    importance: float | None = None
    reference: Facts
    window: Facts
    statistics: Statistics | None = None


class WindowReport(Schema):
    """The judgement on a window's profile."""

    rows: int
    verdict: Literal["NoDrift", "Drift", "DataQuality", "InsufficientData", "Blackout"]
    blackout: str = ""  # the name of the one that the window touches
    compared_rows: int | None = None  # of the same hours in the weeks before; None: compared with training
    kinds: tuple[FindingKind, ...] = ()
    drifted: int = 0  # columns
    left_out: tuple[str, ...] = ()  # columns of the reference that captures lack, or have as hashes, on purpose
    alpha: float = 0.0  # probability of an alarm where nothing moved, over all columns
    findings: tuple[ReportFinding, ...] = ()  # the strongest first
    columns: tuple[ColumnReport, ...] = ()


class Shown(Schema):
    """A metric on a sample, its standard error and 95 % interval."""

    value: float
    error: float
    low: float
    high: float
    p_value: float  # of one as low where nothing became worse; both samples' errors counted


class GroupShown(Schema):
    """A metric in a group of rows; told, not judged."""

    slice: str
    group: str
    metric: Metric
    rows: int
    value: float
    low: float
    high: float


class StoredPerformance(Schema):
    """How good a revision was in one window, as it lies in the store."""

    schema_: Literal["truekeep.dev/window-performance/v1"] = Field(
        default="truekeep.dev/window-performance/v1", alias="schema"
    )
    policy_uid: str
    artifact_digest: Digest
    verdict: PerformanceVerdict
    settings: PerformancePolicy
    final: bool = False  # labels were judged, and the verdict stays
    label_files: str = ""  # which label files were looked at: a digest of their names and ETags
    judged_at: datetime
    rows: int  # of the window; of many, those that were drawn
    repeated: int = 0  # rows left out, because a later one has the same key
    without_key: int = 0  # rows that nothing can be joined to
    baseline_rows: int = 0  # of the holdout
    baseline_error: float | None = None
    alpha: float  # probability of Decayed by labels where nothing became worse
    measured: Shown | None = None
    estimated: Shown | None = None
    groups: tuple[GroupShown, ...] = ()
    unmatched: int | None = None  # labels of the window's time that belong to no captured row, by EntityTime
    problems: tuple[str, ...] = ()  # of label files, the first few
    why_not: str = ""  # why there is no verdict by labels


class StoredReport(Schema):
    """A window report as it lies in the store."""

    schema_: Literal["truekeep.dev/window-report/v1"] = Field(default="truekeep.dev/window-report/v1", alias="schema")
    namespace: str
    model: str
    policy: str
    policy_uid: str
    artifact_digest: Digest
    window: WindowVerdict
    settings: DataDrift
    cut: MonitorWindow
    judged_at: datetime
    closed_by: Literal["NewestEvent", "Idle"]
    files: int
    skipped: tuple[str, ...] = ()  # files that could not be read, and why; the first 20
    skipped_files: int = 0
    report: WindowReport
