"""When what happened, and what the loop itself cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

GOAL_SECONDS = 30.0


@dataclass(frozen=True)
class Moment:
    """Something that happened."""

    time: datetime
    what: str


@dataclass
class Timeline:
    """The moments of a story."""

    moments: list[Moment] = field(default_factory=list)

    def add(self, time: datetime | str, what: str) -> None:
        """A moment, with a time as the API server writes it."""
        self.moments.append(Moment(parse(time) if isinstance(time, str) else time, what))

    def rows(self) -> list[tuple[str, str, str]]:
        """In the order of time: since the first, since the one before, what."""
        ordered = sorted(self.moments, key=lambda moment: moment.time)
        rows = []
        for before, moment in zip([*ordered[:1], *ordered], ordered, strict=False):
            since, step = moment.time - ordered[0].time, moment.time - before.time
            rows.append((_clock(since.total_seconds()), f"+{step.total_seconds():.0f} s", moment.what))
        return rows


@dataclass(frozen=True)
class Cost:
    """What passed from breach to promoted, in seconds, and what of it was asked for."""

    total: float
    fit: float
    steps: float

    @property
    def loop(self) -> float:
        """What the loop itself took: all that is neither fitting nor a declared step of the canary."""
        return self.total - self.fit - self.steps

    def words(self) -> str:
        """The sum, for people."""
        return (
            f"{self.total:.0f} s from breach to promoted − {self.fit:.1f} s fit − {self.steps:.0f} s declared canary "
            f"= {self.loop:.1f} s (goal: at most {GOAL_SECONDS:.0f} s)"
        )


def cost(breach: str, promoted: str, fit_seconds: str | None, step_seconds: Sequence[int]) -> Cost:
    """From the times in the statuses (whole seconds), the run's `fitSeconds` and the steps' `durationSeconds`.

    ValueError where the promotion is before the breach."""
    total = (parse(promoted) - parse(breach)).total_seconds()
    if total < 0:
        raise ValueError(f"promoted at {promoted}, before the breach at {breach}")
    return Cost(total, float(fit_seconds or 0), float(sum(step_seconds)))


def parse(time: str) -> datetime:
    """A time as Kubernetes writes it."""
    moment = datetime.fromisoformat(time)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
