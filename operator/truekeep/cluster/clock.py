"""The time of day that decisions go by: this machine's clock, unless the API server's contradicts it.

What is decided is written with its time into objects that outlive this process, and read by the next one, on another
node. A clock that somebody sets, or that was never right, would end a canary's step an hour early or late. Each answer
of the API server names its time; between two answers seconds are counted, which nobody sets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

# An answer may take ten seconds and names whole ones: a difference below this shows nothing.
TOLERANCE = timedelta(seconds=30)
logger = logging.getLogger(__name__)


class Clock:
    """`own`: this machine's time of day; `monotonic`: seconds since some moment, which only ever grow."""

    def __init__(self, own: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._own = own
        self._monotonic = monotonic
        self._heard: tuple[datetime, float] | None = None
        self._contradicted = False

    def heard(self, date: str | None) -> None:
        """The `Date` of an answer of the API server just now. One that is missing or no date tells nothing."""
        try:
            moment = parsedate_to_datetime(date or "")
        except ValueError:
            return
        self._heard = (moment if moment.tzinfo else moment.replace(tzinfo=UTC), self._monotonic())

    def now(self) -> datetime:
        """The time of day."""
        own = self._own()
        if self._heard is None:
            return own
        moment, at = self._heard
        theirs = moment.astimezone(UTC) + timedelta(seconds=self._monotonic() - at)
        contradicted = abs(own - theirs) > TOLERANCE
        if contradicted and not self._contradicted:
            ahead = (own - theirs).total_seconds()
            logger.warning("the clock here is %+.0f s off the API server's; decisions go by that one", ahead)
        self._contradicted = contradicted
        return theirs if contradicted else own
