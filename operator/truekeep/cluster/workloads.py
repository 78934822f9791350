"""Jobs and pods as they are, and what Events say of those that don't come up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypedDict

from truekeep.api.trainingrun import Stage
from truekeep.cluster import kinds
from truekeep.cluster.kinds import Kind
from truekeep.cluster.together import Together
from truekeep.cluster.views import controller_uid, disrupted_pod, disruption_by_events, job_view, meta, pod_view
from truekeep.domain.observed import JobView, PodView

Json = dict[str, Any]
# A pod that waits for its mounts says so only in events; they are asked for when it took this long.
QUIET = timedelta(seconds=5)


class Workloads:
    """Reads Jobs and pods."""

    def __init__(self, reads: Together, clock: Callable[[], datetime]) -> None:
        self._reads = reads
        self._clock = clock

    async def jobs(self, namespace: str, labels: Mapping[str, str], owner: str) -> tuple[JobView, ...]:
        """The Jobs with these labels that the object with the UID `owner` made, with their pods."""
        jobs, pods = await asyncio.gather(
            self._reads.list(kinds.JOB, namespace, labels), self._reads.list(kinds.POD, namespace, labels)
        )
        mine = [job for job in jobs if controller_uid(job) == owner]
        return tuple(await asyncio.gather(*(self.job(job, pods) for job in mine)))

    async def jobs_of_cronjob(
        self, namespace: str, name: str, labels: Mapping[str, str], owner: str
    ) -> tuple[Json | None, tuple[JobView, ...]]:
        """A CronJob that the object with the UID `owner` made, None where there is none, and its Jobs."""
        cronjob, jobs, pods = await asyncio.gather(
            self._reads.get(kinds.CRON_JOB, namespace, name),
            self._reads.list(kinds.JOB, namespace, labels),
            self._reads.list(kinds.POD, namespace, labels),
        )
        if cronjob is None or controller_uid(cronjob) != owner:
            return None, ()
        mine = [job for job in jobs if controller_uid(job) == meta(cronjob).uid]
        return cronjob, tuple(await asyncio.gather(*(self.job(job, pods) for job in mine)))

    async def job(self, job: Json, pods: list[Json]) -> JobView:
        """A Job with those of the pods that are its own."""
        about = meta(job)
        mine = [pod for pod in pods if controller_uid(pod) == about.uid]
        views = [view for group in (await self.pods_by(mine, lambda pod: "")).values() for view in group]
        seen = job_view(job, views)
        if seen.failed_reason and not views and (pod := disrupted_pod(seen.failed_message)):
            return replace(seen, disruption=await self._who_took(about.namespace, pod))
        if views or seen.complete or seen.failed_reason or self._clock() - about.created < QUIET:
            return seen
        return job_view(job, views, await self._why_no_pod(about.namespace, about.uid))

    async def pods_by(self, pods: list[Json], group: Callable[[Json], str]) -> dict[str, list[PodView]]:
        """Pods by what `group` says of each."""
        result: dict[str, list[PodView]] = {}
        for pod in pods:
            view = pod_view(pod)
            creating = view.phase == "Pending" and view.waiting_reason == "ContainerCreating"
            if creating and self._clock() - view.created > QUIET:
                about = meta(pod)
                view = pod_view(pod, await self._warnings(about.namespace, kinds.POD, about.uid))
            result.setdefault(group(pod), []).append(view)
        return result

    async def _why_no_pod(self, namespace: str, uid: str) -> str | None:
        """What the Job controller said when it could make no pod: a quota, an admission policy."""
        events = await self._warnings(namespace, kinds.JOB, uid)
        failed = [event for event in events if event.get("reason") == "FailedCreate"]
        return str(failed[-1].get("note") or "") if failed else None

    async def _who_took(self, namespace: str, pod: str) -> str:
        """Who took a pod away that is gone, by the Events that it left."""
        events = await self._reads.list(kinds.EVENT, namespace, fields=f"regarding.kind=Pod,regarding.name={pod}")
        return disruption_by_events(str(event.get("reason") or "") for event in events)

    async def _warnings(self, namespace: str, kind: Kind, uid: str) -> list[Json]:
        """Warnings about an object, the oldest first."""
        fields = f"regarding.kind={kind.kind},regarding.uid={uid},type=Warning"
        events = await self._reads.list(kinds.EVENT, namespace, fields=fields)
        return sorted(events, key=_last_seen)


class Tries(TypedDict):
    """The Jobs of a run, as RunObserved takes them."""

    jobs: dict[Stage, JobView]
    earlier: tuple[JobView, ...]


def by_stage(jobs: Iterable[JobView]) -> Tries:
    """The newest Job of each stage of a run, and those before."""
    newest: dict[Stage, JobView] = {}
    earlier = []
    for job in sorted(jobs, key=lambda job: (job.attempt, job.meta.created, job.meta.name)):
        if job.stage in newest:
            earlier.append(newest[job.stage])
        newest[job.stage] = job
    return {"jobs": newest, "earlier": tuple(earlier)}


def _last_seen(event: Json) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")
