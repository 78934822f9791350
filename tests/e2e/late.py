"""In a pod: the operator, whose clock of the day is wrong by as many seconds as AHEAD (a file) says, from one moment to
the next, as when somebody sets a node's clock. What counts seconds goes on, as it does then."""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path

AHEAD = Path(os.environ["AHEAD"])
real_time, real_datetime = time.time, datetime.datetime


def ahead() -> float:
    """Seconds."""
    try:
        return float(AHEAD.read_text() or 0)
    except FileNotFoundError:
        return 0.0


class Moved(real_datetime):
    """A datetime, by the wrong clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return real_datetime.fromtimestamp(time.time(), tz)


if __name__ == "__main__":
    from truekeep import operator_main
    from truekeep.cluster import lease, observe

    time.time = lambda: real_time() + ahead()
    for module in (operator_main, lease, observe):  # who asks for the time of day: decisions, the Lease, and the log
        module.datetime = Moved  # type: ignore[attr-defined]
    sys.exit(operator_main.main())
