"""How event time is cut into windows, and when a window is closed. Pure; times are milliseconds since 1970, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from truekeep.api.driftpolicy import MonitorWindow
from truekeep.contract.layout import CaptureName

HOUR = 3_600_000
MONDAY = 4 * 24 * HOUR  # 1970-01-05, 00:00 UTC
# Beyond these years a time is a mistake, and no key can be made of it.
EARLIEST = -30_610_224_000_000  # the year 1000
LATEST = 221_845_392_000_000  # the year 9000
WIDE = 1000  # windows that a file may touch before they are no more looked at one by one
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cut:
    """Windows of equal length, one after the other."""

    hours: int

    def index(self, time: int) -> int:
        """Number of the window that a time is in."""
        return (time - MONDAY) // (self.hours * HOUR)

    def start(self, index: int) -> int:
        """First time of a window."""
        return MONDAY + index * self.hours * HOUR

    def end(self, index: int) -> int:
        """First time after a window."""
        return self.start(index + 1)

    def touched(self, name: CaptureName) -> range:
        """Windows that a capture file may have rows in; it has some in the first and the last."""
        return range(self.index(name.first), self.index(name.last) + 1)


@dataclass(frozen=True)
class Clock:
    """What decides whether a window is closed."""

    newest_event: int | None  # over all captures of the model
    idle: bool  # nothing was captured for idleSeconds
    now: int  # wall clock
    lateness: int  # allowed, in ms

    def closes(self, end: int) -> bool:
        """Whether a window that ends then is closed.

        Idleness closes only what ends before now by the wall clock: a model that nobody asks at night must not have its
        week judged on Monday's rows. In a replay or a back-fill, whose events are of the past, that is always so."""
        return self.passed(end) or (self.idle and end <= self.now)

    def passed(self, end: int) -> bool:
        """Whether event time has passed a window that ends then."""
        return self.newest_event is not None and self.newest_event >= end + self.lateness


class Seen:
    """What the names of capture files tell about time."""

    def __init__(self, window: MonitorWindow, now: datetime) -> None:
        self._window = window
        self._now = now
        # One event further ahead of the wall clock than a window is long closes nothing: a wrong year in one request
        # must not end all windows for good.
        self._bound = milliseconds(now) + max(window.hours, 24) * HOUR
        self.newest_event: int | None = None
        self.newest_upload: datetime | None = None

    def add(self, name: CaptureName, uploaded: datetime) -> None:
        """Take in a file, of any revision."""
        for time in (name.first, name.last):
            if time <= self._bound and (self.newest_event is None or time > self.newest_event):
                self.newest_event = time
        if self.newest_upload is None or uploaded > self.newest_upload:
            self.newest_upload = uploaded

    def clock(self) -> Clock:
        """The clock of this look."""
        patience = timedelta(seconds=self._window.idle_seconds)
        idle = self.newest_upload is not None and self._now - self.newest_upload >= patience
        return Clock(self.newest_event, idle, milliseconds(self._now), self._window.allowed_lateness_seconds * 1000)


def plausible(name: CaptureName) -> bool:
    """Whether a file's name makes sense."""
    return EARLIEST <= name.first <= name.last <= LATEST


def milliseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def moment(time: int) -> datetime:
    """As a datetime in UTC."""
    return EPOCH + timedelta(milliseconds=time)
