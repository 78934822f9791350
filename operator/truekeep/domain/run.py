"""What to do about a TrainingRun: wait for its turn, go through its stages, try again what failed, end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from truekeep.api.names import ANNOTATION_AUTHOR, ANNOTATION_FINGERPRINT, ANNOTATION_GENERATION, ANNOTATION_IMAGE
from truekeep.api.trainingrun import Stage, TrainingRunStatus
from truekeep.domain.conditions import whole_seconds
from truekeep.domain.failures import LOST, OUTSIDE, remedy, told, why_failed
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.handover import finish, result_of
from truekeep.domain.observed import JobView, ModelView, RunObserved, RunView
from truekeep.domain.plan import Attempt, Note, RunPlan, Settings
from truekeep.domain.pods import Trouble
from truekeep.domain.progress import progress
from truekeep.domain.restoring import AT_ONCE, to_come
from truekeep.domain.retries import again, before, deadline, due_at, failed, memory, no_time, number, record, recorded
from truekeep.domain.slots import AWAITS_TURN
from truekeep.domain.stages import LAST, Order, furthest, job_name, stages
from truekeep.domain.stand import Stand, finished, message_of, reason_of, says, stand_again

POLL_SECONDS = 15.0
TURN_SECONDS = 60.0  # whoever ends wakes who is next; this is for the one that could not
LEAST_SECONDS = 60  # that a Job gets
# Of an Indexed Job, which Kubernetes calls failed also where a single index of it is.
SOME_FAILED = frozenset({"FailedIndexes", "MaxFailedIndexesExceeded"})


@dataclass(frozen=True)
class Case:
    """A run in the making: what was seen, and its status as it is known by now."""

    observed: RunObserved
    model: ModelView
    status: TrainingRunStatus
    now: datetime
    order: tuple[Stage, ...]  # the stages that the spec asks for now

    @property
    def run(self) -> RunView:
        """The run."""
        return self.observed.run

    def knowing(self, **update: object) -> Case:
        """With more in the status."""
        return replace(self, status=self.status.model_copy(update=update))

    def says(self, stand: Stand, look_again: float | None = None, note: Note | None = None) -> RunPlan:
        """A plan that does nothing yet but say where the run stands."""
        return says(self.run, self.status, stand, self.now, look_again, [note] if note else [])

    def ends(self, stand: Stand) -> RunPlan:
        """The end of the run."""
        return self.knowing(completion_time=whole_seconds(self.now)).says(stand, 1.0)

    @property
    def of_another_spec(self) -> bool:
        """Whether the Model changed since the run's first Job was made. To a run that is restored it is all one."""
        now = training_fingerprint(self.model.spec)
        return self.run.spec.restore is None and self.status.training_fingerprint != now


def decide(observed: RunObserved, settings: Settings, now: datetime, order: Order = stages) -> RunPlan:
    """What to do about a run. Pure: the same observation and time, the same answer. order: the stages of a spec."""
    run = observed.run
    if finished(run):
        return _retire_jobs(observed, settings, now)
    if run.meta.deleting:
        return RunPlan(status=run.status)
    if observed.model is None:
        name = run.spec.model_ref.name
        message = f"there is no Model {name} in this namespace; the run starts when there is one"
        return says(run, run.status, Stand("Stuck", "ModelNotFound", message), now)
    train = run.spec.restore is None
    case = Case(observed, observed.model, run.status, now, order(observed.model.spec) if train else (LAST,))
    job = furthest(observed.jobs)
    if job is not None:
        return _follow_job(case, job)
    return _waits_for_others(case, settings) or _begin(case, case.order[0])


def _waits_for_others(case: Case, settings: Settings) -> RunPlan | None:
    """What to say while a run may not begin because of other runs, if so."""
    observed = case.observed
    ahead = _ahead(observed, case.model)
    if ahead is not None:
        rule = "what is restored goes first" if ahead.spec.restore else "a model is trained by one run at a time"
        message = f"waits for run {ahead.meta.name}: {rule}"
        return case.says(Stand("Working", "Queued", message), POLL_SECONDS)
    if not observed.turn and not begun(case.run):
        most = f"at most {settings.max_training_runs} runs train at once, and namespaces take turns"
        return case.says(Stand("Working", AWAITS_TURN, f"waits for its turn: {most}"), TURN_SECONDS)
    return None


def begun(run: RunView) -> bool:
    """Whether a Job was made for the run, ever."""
    return run.status.start_time is not None or run.status.job is not None


def _ahead(observed: RunObserved, model: ModelView) -> RunView | None:
    """The unfinished run that goes first, if one does: the older one, by name where they are of one second.

    Runs that are restored go before all others, whose numbers follow theirs, and a few of them at once."""
    restoring = [run for run in to_come(observed.siblings) if run.meta.name < observed.run.meta.name]
    if observed.run.spec.restore is not None:
        return restoring[-1] if len(restoring) >= AT_ONCE else None
    if others := to_come(observed.siblings):
        return others[0]
    if model.spec.retraining is not None and model.spec.retraining.concurrency == "Allow":
        return None
    mine = (observed.run.meta.created, observed.run.meta.name)
    older = [
        other
        for other in observed.siblings
        if not finished(other) and not other.meta.deleting and (other.meta.created, other.meta.name) < mine
    ]
    return min(older, key=lambda other: (other.meta.created, other.meta.name), default=None)


def _begin(case: Case, stage: Stage) -> RunPlan:
    """Make the Job of a stage, or of its next try once that is due, with what is left of the run's time."""
    tries = failed(case.status, stage)
    if tries and case.of_another_spec:
        return case.ends(_changed(f"stage {stage} was tried first"))
    if tries and case.now < due_at(case.status, stage):
        return _pause(case, stage)
    count = number(case.status, stage)
    start = case.status.start_time or whole_seconds(case.now)
    case = case.knowing(job=job_name(case.run.meta.name, stage, count), start_time=start)
    spec = case.model.spec
    seconds = math.ceil((deadline(case.status, spec, case.now) - case.now).total_seconds())
    if tries and seconds <= 0:
        return case.ends(Stand("Failed", tries[-1].reason, f"{tries[-1].message}; {no_time(spec)}"))
    # A first try's Job that somebody deleted may have left its result in the store: there is time to read it.
    seconds = seconds if tries else max(seconds, LEAST_SECONDS)
    attempt = Attempt(count, seconds, memory(case.status, stage, spec.training.retries.memory))
    plan = case.says(Stand("Working", "Starting", f"the Job of stage {stage} is being made"), POLL_SECONDS)
    return replace(plan, create_job=stage, attempt=attempt)


def _pause(case: Case, stage: Stage) -> RunPlan:
    """Before the next try, it goes on being said why the last one failed."""
    last, due = failed(case.status, stage)[-1], due_at(case.status, stage)
    words = f"{last.message}; try {last.number + 1} begins at {due:%H:%M:%S} UTC"
    message = message_of(case.run) if reason_of(case.run) == last.reason else words
    return case.says(_waits(last.reason, message), (due - case.now).total_seconds())


def _follow_job(case: Case, job: JobView) -> RunPlan:
    """What to do about the Job of the stage that the run came to."""
    marks, status = job.meta.annotations, case.status
    generation = marks.get(ANNOTATION_GENERATION, "")
    case = case.knowing(
        job=job.meta.name,
        start_time=None
        if _in_queue(case, job)
        else status.start_time or whole_seconds(job.started or job.meta.created),
        training_fingerprint=marks.get(ANNOTATION_FINGERPRINT, status.training_fingerprint),
        image=marks.get(ANNOTATION_IMAGE, status.image),
        author=marks.get(ANNOTATION_AUTHOR, status.author),
        model_generation=int(generation) if generation.isdecimal() else status.model_generation,
    )
    if recorded(case.status, job):
        return _after_failure(case, job)
    result = result_of(job, case.run.meta.uid)
    if result is not None and result.reason not in OUTSIDE:
        return finish(case.observed, case.model, case.status, result, case.now)
    if job.failed_reason is not None:
        seen = Trouble(reason_of(case.run), message_of(case.run))
        trouble = Trouble(result.reason, result.message) if result else why_failed(job, case.model.spec, seen)
        return _write_down(case, job, trouble)
    if not job.complete:
        return _wait_for(case, job)
    if job.stage != LAST:
        return _go_on(case, job)
    # The pod and its message are gone, but the result is in the store: a new pod finds it there.
    stand = Stand("Working", "ResultLost", "the pod is gone with its message; a new one reads the result again")
    return replace(case.says(stand, 2.0), delete_jobs=(job.stage,))


def _in_queue(case: Case, job: JobView) -> bool:
    """Whether the run waits for a queue to let its first Job begin: its time does not run yet."""
    return bool(job.queue) and job.suspended and not case.status.attempts and job.stage == case.order[0]


def _wait_for(case: Case, job: JobView) -> RunPlan:
    """What to say while a Job is under way."""
    stand = progress(case.run, job, case.model.spec, case.now)
    moved = job.suspended and job.queue != (case.model.spec.training.queue_name or "")
    if not (stand.state == "Stuck" or moved) or not _may_start_anew(case, job):
        return case.says(stand, POLL_SECONDS)
    if len(case.observed.jobs) == 1 and not case.status.attempts:
        case = case.knowing(start_time=None)  # nothing ran yet: all of its time is left
    message = f"the Model changed while the pod could not start, so its Job is made anew; it was {stand.reason}"
    return replace(case.says(Stand("Working", "Starting", message), 2.0), delete_jobs=(job.stage,))


def _may_start_anew(case: Case, job: JobView) -> bool:
    """Whether a stuck Job stands for a spec that was mended since, and nothing is lost with it: no pod of it ran yet.

    A Job can't be changed; without this a mended node selector would wait for the old Job's deadline."""
    idle = all(pod.phase == "Pending" and pod.exit_code is None and pod.restarts == 0 for pod in job.pods)
    return idle and case.status.model_generation not in (None, case.model.meta.generation)


def _write_down(case: Case, job: JobView, trouble: Trouble) -> RunPlan:
    """A try failed. The next look makes the next one, where there is one."""
    earlier = before(case.status.attempts)
    case = replace(case, status=record(case.status, job, trouble, case.now))
    if _trials_are_over(case, job, trouble):
        return _go_on(case, job)
    after = again(case.status, job, trouble, case.model.spec, case.now)
    message = told(trouble, after.words, f"before: {earlier}" if earlier else "")
    if after.due is None:
        return case.ends(Stand("Failed", trouble.reason, message))
    wait = max((after.due - case.now).total_seconds(), 0.0)
    return case.says(_waits(trouble.reason, message), wait, Note("Warning", trouble.reason, message))


def _after_failure(case: Case, job: JobView) -> RunPlan:
    """What follows a try whose failure is in the status."""
    last = failed(case.status, job.stage)[-1]
    if _trials_are_over(case, job, Trouble(last.reason, last.message)):
        return _go_on(case, job)
    return _begin(case, job.stage)


def _trials_are_over(case: Case, job: JobView, trouble: Trouble) -> bool:
    """Whether some trials of a tuning failed, and no other try would bring them: the training then decides whether
    those that are done are enough. Its Job tried a crash again already, each trial by itself."""
    if job.failed_reason not in SOME_FAILED:
        return False
    return (
        remedy(trouble.reason) == "Counted" or again(case.status, job, trouble, case.model.spec, case.now).due is None
    )


def _waits(reason: str, message: str) -> Stand:
    """A run that waits for its next try. It is stuck where it needs somebody: a lost pod mends itself, a store not."""
    return Stand("Stuck" if reason in OUTSIDE - LOST else "Working", reason, message)


def _go_on(case: Case, job: JobView) -> RunPlan:
    """From a stage that is complete to the next, unless that one would be of another spec."""
    if case.of_another_spec or job.stage not in case.order:
        return case.ends(_changed(f"stage {job.stage} began"))
    following = case.order[case.order.index(job.stage) + 1]
    if case.now >= deadline(case.status, case.model.spec, case.now):
        limit = case.model.spec.training.timeout_seconds
        took = f"the run took longer than spec.training.timeoutSeconds ({limit})"
        return case.ends(Stand("Failed", "DeadlineExceeded", f"{took}; stage {following} did not begin any more"))
    return _begin(case, following)


def _changed(since: str) -> Stand:
    rule = "one run never mixes two specs; a run of its own is started for the new one"
    return Stand("Declined", "SpecChanged", f"the Model changed after {since}, and {rule}")


def _retire_jobs(observed: RunObserved, settings: Settings, now: datetime) -> RunPlan:
    run = observed.run
    plan = says(run, run.status, stand_again(run), now)
    if all(job.meta.deleting for job in (*observed.jobs.values(), *observed.earlier)):
        return plan
    done = run.status.completion_time or now
    left = (done + timedelta(seconds=settings.job_retention_seconds) - now).total_seconds()
    if left > 0:
        return replace(plan, look_again_seconds=left)
    return replace(plan, delete_jobs=tuple(observed.jobs))
