"""The page on a window, beside its report: what a person opens when a finding was told."""

from __future__ import annotations

from collections.abc import Iterable

from truekeep.api.driftpolicy import PerformanceVerdict
from truekeep.contract import layout
from truekeep.monitor.judge import Settings
from truekeep.monitor.page import Subject, page
from truekeep.monitor.report import StoredReport
from truekeep.monitor.timeline import past
from truekeep.profiling.schema import Profile
from truekeep.storage.s3 import Bucket

PAGE = ".html"


def publish(store: Bucket, key: str, subject: Subject) -> None:
    """Write the page of the report at `key`. A later look may write it again, with what labels said since."""
    store.put(layout.beside(key, PAGE), page(subject).encode())


def subject_of(
    report: StoredReport,
    reference: Profile,
    window: Profile,
    settings: Settings,
    before: Iterable[StoredReport] = (),
    performance: Iterable[PerformanceVerdict] = (),
    max_drop: float | None = None,
) -> Subject:
    """What the page shows: the window, and those before it."""
    about = report.window
    title = (
        f"{report.namespace}/{report.model}, revision {about.revision}, policy {report.policy}: "
        f"{about.start:%Y-%m-%d %H:%M} to {about.end:%Y-%m-%d %H:%M} UTC"
    )
    earlier = [past(one.window, one.report) for one in before if one.window.start < about.start]
    known = tuple(one for one in performance if one.start <= about.start and one.revision == about.revision)
    return Subject(
        title, reference, window, report.report, settings,
        windows=(*earlier, past(about, report.report)), performance=known, max_drop=max_drop,
    )  # fmt: skip
