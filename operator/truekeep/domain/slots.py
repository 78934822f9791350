"""Whose run trains next, where at most so many may train at once.

The slots are shared fairly between namespaces: the next free one goes to the namespace that has the fewest runs under
way; between namespaces that have as many, and within one, the run that was made first goes first. All of it follows
from what is there, so that a restarted operator decides the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from truekeep.domain.observed import RunView
from truekeep.domain.stand import finished, reason_of

AWAITS_TURN = "AwaitsTurn"


@dataclass(frozen=True, order=True)
class Waiting:
    """A run that could begin. Ordered as runs are made."""

    created: datetime
    namespace: str
    name: str
    model: str


@dataclass(frozen=True)
class Slots:
    """How many runs may train at once, where they do, and who waits."""

    limit: int
    taken: Mapping[str, int]  # by namespace
    waiting: tuple[Waiting, ...] = ()

    @property
    def free(self) -> int:
        """How many more may begin."""
        return max(0, self.limit - sum(self.taken.values()))


def waiting(run: RunView) -> Waiting:
    """A run as one that waits."""
    return Waiting(run.meta.created, run.meta.namespace, run.meta.name, run.spec.model_ref.name)


def slots(
    runs: Iterable[RunView], with_jobs: Iterable[tuple[str, str]], queued: Iterable[tuple[str, str]], limit: int
) -> Slots:
    """The slots as they are. runs: all that are not finished. with_jobs: namespace and name of those that have a Job
    which has not ended; queued: of those whose Job is for a queue to admit, and which take no slot of ours."""
    theirs = set(queued)
    under, wait = set(with_jobs) - theirs, []
    for run in runs:
        where = (run.meta.namespace, run.meta.name)
        if finished(run) or run.meta.deleting or where in theirs or where in under or run.spec.restore is not None:
            continue
        if run.status.start_time is not None:
            under.add(where)  # between two Jobs, or before another try: it keeps its slot
        elif reason_of(run) == AWAITS_TURN:
            wait.append(waiting(run))
    return Slots(limit, Counter(namespace for namespace, _ in under), tuple(sorted(wait)))


def turns(seen: Slots) -> list[Waiting]:
    """Those that wait and may begin now, the first first."""
    taken, left = Counter(seen.taken), set(seen.waiting)
    chosen: list[Waiting] = []
    while left and len(chosen) < seen.free:
        following = min(left, key=lambda each: (taken[each.namespace], each))
        left.remove(following)
        taken[following.namespace] += 1
        chosen.append(following)
    return chosen


def may_begin(run: RunView, seen: Slots) -> bool:
    """Whether it is a run's turn, among those that said that they wait."""
    me = waiting(run)
    everybody = {*seen.waiting, me}
    return me in turns(Slots(seen.limit, seen.taken, tuple(sorted(everybody))))
