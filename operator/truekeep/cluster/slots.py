"""The slots for training runs: who has one, and who waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from truekeep.api.names import LABEL_COMPONENT, LABEL_RUN, MANAGED_BY
from truekeep.cluster import kinds
from truekeep.cluster.errors import Refused
from truekeep.cluster.together import Together
from truekeep.cluster.views import SpecInvalidError, job_view, label, meta, run_view
from truekeep.domain.observed import ModelView, RunView
from truekeep.domain.plan import Settings
from truekeep.domain.run import begun
from truekeep.domain.slots import Slots, may_begin, slots

Json = dict[str, Any]
ENDED_FIELD = "status.completionTime"


class TrainingSlots:
    """Counts the runs that are under way, in the namespaces that are looked at; None stands for all."""

    def __init__(self, reads: Together, settings: Settings, namespaces: Sequence[str | None]) -> None:
        self._reads = reads
        self._settings = settings
        self._namespaces = namespaces

    async def has_turn(self, run: RunView, model: ModelView | None) -> bool:
        """Whether a run may take a slot. One that has begun, is for a queue, or is restored needs none."""
        if model is None or model.spec.training.queue_name or run.spec.restore or begun(run):
            return True
        seen = await self.now()
        return seen is None or may_begin(run, seen)

    async def now(self) -> Slots | None:
        """The slots for runs as they are now, in all namespaces; None where there may be as many as there are."""
        limit = self._settings.max_training_runs
        if limit == 0:
            return None
        runs: list[RunView] = []
        with_jobs, queued = set(), set()
        for namespace in self._namespaces:
            async for item in self._unfinished(namespace):
                with suppress(SpecInvalidError):
                    runs.append(run_view(item))
            async for job in self._reads.each(kinds.JOB, namespace, {**MANAGED_BY, LABEL_COMPONENT: "trainer"}):
                seen, where = job_view(job), (meta(job).namespace, label(job, LABEL_RUN))
                if seen.complete or seen.failed_reason:
                    continue
                with_jobs.add(where)
                if seen.queue:
                    queued.add(where)
        return slots(runs, with_jobs, queued, limit)

    async def _unfinished(self, namespace: str | None) -> AsyncIterator[Json]:
        """Runs that did not end yet, and where Kubernetes can't select by that, all."""
        if self._reads.selects:
            with suppress(Refused):
                async for item in self._reads.each(kinds.TRAINING_RUN, namespace, fields=f"{ENDED_FIELD}="):
                    yield item
                return
            self._reads.cannot_select()
        async for item in self._reads.each(kinds.TRAINING_RUN, namespace):
            yield item
