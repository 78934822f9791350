"""A year of flights under a policy: the product's own decisions, day by day, in the time of the events.

An arm is the example's Model (`manifests/examples/flight-delay/model.yaml`: data, window of 60 days, recipe, gates,
and comparison with the live revision) with something that starts runs: a DriftPolicy, a schedule, or nothing. Each day
at 06:00 UTC windows that closed are judged (`monitor.judge`, `monitor.performance`), the policy's status is made of it
(`domain.policy`), and `domain.triggers` says whether a run starts: so cooldown, budget, backing off and the schedule
are the operator's. A run is the trainer's (`trainer.run`) on a folder with the rows that were known by then: flights
that were scheduled, planes that had landed. What passes gates and champion serves from that moment on.

What it leaves out: the minutes that training and a canary take, and the store (captures are handed over as arrays, so
that findings about how rows arrive are not made).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from truekeep.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus, Finding, PerformanceVerdict, WindowVerdict
from truekeep.api.evaluation import Metric
from truekeep.api.model import ModelSpec, ModelStatus, ServedRevision
from truekeep.api.trainingrun import Artifact, TrainingRunSpec, TrainingRunStatus
from truekeep.cli.examples import flights
from truekeep.contract import layout
from truekeep.contract.artifact import Performance, Signature
from truekeep.contract.requests import Champion
from truekeep.contract.results import MonitorResult, TrainResult
from truekeep.domain import policy as policies
from truekeep.domain import triggers
from truekeep.domain.fingerprints import training_fingerprint
from truekeep.domain.observed import (
    JobView,
    Meta,
    ModelObserved,
    ModelView,
    PodView,
    PolicyObserved,
    PolicyView,
    RunView,
)
from truekeep.domain.plan import RunIntent, Settings
from truekeep.domain.stand import Stand, says
from truekeep.features import models
from truekeep.features.encode import matrix
from truekeep.monitor import judge as drift
from truekeep.monitor import performance
from truekeep.monitor.captures import PROBABILITY
from truekeep.monitor.performance import Case, Ripe
from truekeep.monitor.predictions import Predicted
from truekeep.monitor.windows import Cut, milliseconds, moment
from truekeep.profiling.build import window
from truekeep.profiling.schema import PREDICTION, Profile
from truekeep.resources.train_request import train_request
from truekeep.scores.metrics import Scored, value
from truekeep.sources.columns import NO_LABEL
from truekeep.storage import artifacts
from truekeep.storage.folder import Folder
from truekeep.trainer.run import World, run

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "manifests/examples/flight-delay/model.yaml"
BACKTESTED = Path(__file__).parent / "flights-policy.yaml"
POLICY = ROOT / "manifests/examples/flight-delay/driftpolicy.yaml"
BEGIN = datetime(2013, 3, 4, 6, tzinfo=UTC)  # a Monday
END = datetime(2013, 12, 30, 6, tzinfo=UTC)  # likewise: all weeks are whole
DAY, WEEK = timedelta(days=1), timedelta(days=7)
MEASURES: tuple[Metric, ...] = ("roc_auc", "average_precision", "neg_log_loss")
WEATHER_AGE = timedelta(hours=3)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """What starts runs. `retraining` and `policy`: parts of a Model's and a DriftPolicy's spec, as in YAML."""

    name: str
    retraining: Mapping[str, Any] | None = None
    policy: Mapping[str, Any] | None = None


def example_policy() -> dict[str, Any]:
    """The spec of the example's DriftPolicy."""
    return dict(yaml.safe_load(POLICY.read_text())["spec"])


def by_labels(**changes: Any) -> dict[str, Any]:
    """A policy with the defaults that answers lost performance, as labels show it, with a run."""
    alerts = [{"finding": kind, "action": "Alert"} for kind in ("DataDrift", "DataQuality")]
    return {
        "modelRef": {"name": "flight-delay"},
        "schedule": "0 6 * * *",
        "window": {"hours": 168},
        "performance": {"metric": "roc_auc"},
        "responses": [{"finding": "Performance", "action": "Retrain"}, *alerts],
        **changes,
    }


def by_inputs(**changes: Any) -> dict[str, Any]:
    """A policy with the defaults that answers drift of the inputs with a run."""
    return {
        "modelRef": {"name": "flight-delay"},
        "schedule": "0 6 * * *",
        "window": {"hours": 168},
        "responses": [{"finding": "DataDrift", "action": "Retrain"}, {"finding": "DataQuality", "action": "Alert"}],
        **changes,
    }


def by_both(**data: Any) -> dict[str, Any]:
    """The policy that `truekeep backtest` is asked about, with what it proposes for twelve runs a year."""
    spec = dict(yaml.safe_load(BACKTESTED.read_text())["spec"])
    return {**spec, "data": {**spec["data"], **data}}


def scheduled(cron: str) -> dict[str, Any]:
    """Retraining by the clock, UTC."""
    return {"schedule": {"cron": cron}}


ARMS = (
    Arm("never"),
    Arm("policy: labels", policy=by_labels()),
    Arm("policy: the example's", policy=example_policy()),
    Arm("policy: inputs", policy=by_inputs()),
    Arm("policy: the backtest's", policy=by_both(minimumEffect="0.6")),
    Arm("policy: labels, Brier", policy=by_labels(performance={"metric": "neg_brier_score", "maxDrop": "0.01"})),
    Arm("monthly", retraining=scheduled("0 6 1 * *")),
    Arm("weekly", retraining=scheduled("0 6 * * 2")),  # on Tuesday the labels of the week before are ripe
)


@dataclass
class Run:
    """A run that was started."""

    at: str
    because: str
    reason: str  # how it ended
    message: str
    revision: int | None = None
    champion: str = ""


@dataclass
class Week:
    """How good what served was."""

    start: str
    rows: int  # with a label
    revision: int  # that served at its end
    values: dict[str, float] = field(default_factory=dict)


@dataclass
class Seen:
    """What the policy saw in a window."""

    start: str
    end: str
    revision: int
    rows: int
    verdict: str
    kinds: list[str]
    message: str
    performance: str = ""
    value: float | None = None
    estimated: str = ""
    estimate: float | None = None
    baseline: float | None = None


@dataclass
class Year:
    """What became of an arm."""

    name: str
    weeks: list[Week] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)  # days on which a breach was held back, by the reason

    def area(self, measure: str) -> float:
        """Area under the weekly metric, in weeks times the metric's unit, divided by the weeks: their mean."""
        return float(np.mean([week.values[measure] for week in self.weeks]))

    @property
    def promoted(self) -> int:
        """Runs that made a revision."""
        return sum(run.revision is not None for run in self.runs)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Flights:
    """All flights with the weather as it was known, and what was known when."""

    def __init__(self) -> None:
        self.tables = flights.tables(flights.package_folder())
        events = self.tables["flights"].sort_by([("scheduled_at", "ascending"), ("flight_id", "ascending")])
        known = self.tables["weather"].sort_by("observed_at")
        joined = events.join_asof(
            known, on="scheduled_at", by="origin", tolerance=-(WEATHER_AGE // timedelta(microseconds=1)),
            right_on="observed_at", right_by="origin",
        )  # fmt: skip
        labelled = joined.join(self.tables["arrivals"], "flight_id").sort_by(
            [("scheduled_at", "ascending"), ("flight_id", "ascending")]
        )
        self.columns = {name: labelled[name].combine_chunks() for name in labelled.column_names}
        self.times = np.asarray(labelled["scheduled_at"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()))
        self.landed = pc.fill_null(
            labelled["landed_at"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()), np.iinfo(np.int64).max
        ).to_numpy()
        self.late = pc.fill_null(labelled["late"].cast(pa.int8()), NO_LABEL).to_numpy()

    def between(self, start: datetime, end: datetime) -> slice:
        """Rows that were scheduled in [start, end)."""
        first, last = np.searchsorted(self.times, [milliseconds(start), milliseconds(end)])
        return slice(int(first), int(last))

    def labels(self, rows: slice, now: datetime) -> Any:
        """Of rows, as far as planes had landed."""
        return np.where(self.landed[rows] < milliseconds(now), self.late[rows], NO_LABEL).astype(np.int8)

    def write(self, folder: Path, now: datetime) -> None:
        """The lake as it was."""
        for name, column in (("flights", "scheduled_at"), ("arrivals", "landed_at"), ("weather", "observed_at")):
            table = self.tables[name]
            path = folder / name / "known.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.filter(pc.less(table[column], pa.scalar(now, table.schema.field(column).type))), path)


@cache
def the_flights() -> Flights:
    """Read once."""
    return Flights()


@dataclass
class Revision:
    """One that serves."""

    number: int
    digest: str
    since: datetime
    trained_until: datetime | None
    profile: Profile
    shown: Performance
    probabilities: Any  # of all rows of the year, shape (rows,)
    judged: set[int] = field(default_factory=set)
    measured: set[int] = field(default_factory=set)


class Workshop:
    """The trainer on a folder, for all arms: the same run is not made twice."""

    def __init__(self, folder: Path, threads: int = 1, say: Say = lambda _: None) -> None:
        self.folder, self.threads, self.say = folder, threads, say
        self.store = Folder(folder / "store")
        self.flights = the_flights()
        self._known: dict[tuple[datetime, str], TrainResult] = {}
        self._answers: dict[str, Any] = {}

    def train(self, model: ModelView, view: RunView, live: Revision | None, now: datetime) -> TrainResult:
        """A run at some time."""
        key = (now, live.digest if live else "")
        if key not in self._known:
            self.flights.write(self.folder / "lake", now)
            # A folder that is used again knows the runs that were made in it; what decides about one is in its uid.
            apart = f"{view.meta.uid}-{now:%Y%m%d}-{live.digest[-16:] if live else 'first'}"
            view = replace(view, meta=replace(view.meta, uid=apart))
            champion = Champion(revision=live.number, artifact_digest=live.digest, trained_until=live.trained_until) \
                if live else None  # fmt: skip
            request = train_request(model, view, Settings(), champion)
            world = World(self._opened, lambda: now, lambda _: None, self.threads)
            self._known[key] = run(request, world)
            self.say(f"  {now:%Y-%m-%d} {self._known[key].reason}: {self._known[key].message}")
        return self._known[key]

    def revision(self, number: int, made: Artifact, until: datetime | None, now: datetime) -> Revision:
        """What a run made, ready to answer."""
        files = artifacts.read(self.store, made.digest)
        if made.digest not in self._answers:
            signature = Signature.model_validate_json(files[layout.SIGNATURE])
            predict, _ = models.predictor(files, signature)
            self._answers[made.digest] = predict(matrix(self.flights.columns, signature.features))
        shown = Performance.model_validate_json(files[layout.PERFORMANCE])
        profile = Profile.model_validate_json(files[layout.PROFILE])
        return Revision(number, made.digest, now, until, profile, shown, self._answers[made.digest])

    def _opened(self, place: Any) -> Any:
        bucket, _, prefix = place.uri.removeprefix("s3://").partition("/")
        return self.store if bucket == "models" else Folder(self.folder / bucket / prefix)


class Play:
    """One arm through the year."""

    def __init__(self, arm: Arm, workshop: Workshop, begin: datetime = BEGIN, end: datetime = END) -> None:
        self.arm, self.workshop, self.flights = arm, workshop, workshop.flights
        self.begin, self.end = begin, end
        spec = yaml.safe_load(MODEL.read_text())["spec"]
        if arm.retraining is not None:
            spec["retraining"] = arm.retraining
        self.model = ModelView(_meta("flight-delay", begin), ModelSpec.model_validate(spec), ModelStatus())
        self.policy: PolicyView | None = None
        if arm.policy is not None:
            watch = DriftPolicySpec.model_validate(arm.policy)
            self.policy = PolicyView(_meta("watch", begin), watch, DriftPolicyStatus())
        self.runs: list[RunView] = []
        self.live: Revision | None = None
        self.served = np.full(len(self.flights.times), np.nan)
        self.by = np.zeros(len(self.flights.times), dtype=np.int32)
        self.year = Year(arm.name)
        self._seen: dict[tuple[int, int], Seen] = {}

    def through(self) -> Year:
        """From `begin` to `end`."""
        now = self.begin
        while now <= self.end:
            self._day(now)
            now += DAY
        self._close()
        return self.year

    def recorded(self, folder: Path) -> None:
        """What a lake would hold at the end: `history.parquet` of all that was answered, with labels where they came,
        and profile and performance of the first revision, as its artifact has them."""
        rows = self.flights.between(self.begin, self.end)
        table = pa.table(self._columns(rows) | {"scheduled_at": self.flights.columns["scheduled_at"][rows]})
        table = table.rename_columns([PROBABILITY if name == PREDICTION else name for name in table.column_names])
        late = self.flights.late[rows]
        table = table.append_column("late", pa.array(late, pa.int8(), mask=late == NO_LABEL))
        pq.write_table(table, folder / "history.parquet")
        first = self.runs[0].status.artifact
        assert first is not None
        files = artifacts.read(self.workshop.store, first.digest)
        for name in (layout.PROFILE, layout.PERFORMANCE):
            (folder / name).write_bytes(files[name])

    def _day(self, now: datetime) -> None:
        self._look(now)
        observed = ModelObserved(self.model, tuple(self.runs), (self.policy,) if self.policy else ())
        found = triggers.training(observed, training_fingerprint(self.model.spec), False, now)
        status = self.model.status.model_copy(update={"schedule": found.schedule})
        self.model = replace(self.model, status=status)
        if found.wanted is not None:
            self._run(found.wanted, now)

    def _look(self, now: datetime) -> None:
        """The monitor's look, and what the policy's status is then."""
        if self.policy is None or self.live is None:
            return
        windows, findings, shown = self._judge(self.policy.spec, self.live, now)
        result = MonitorResult(
            policy_uid=self.policy.meta.uid, revision=self.live.number, reason="Looked", windows=windows,
            findings=findings, performance=shown, newest_event=now,
        )  # fmt: skip
        ended = PodView("look", now, exit_code=0, exit_message=result.model_dump_json(by_alias=True), finished=now)
        job = JobView(_meta("look", now), complete=True, finished=now, pods=(ended,))
        seen = PolicyObserved(self.policy, self.model, tuple(self.runs), (job,), cronjob_intact=True)
        self.policy = replace(self.policy, status=policies.decide(seen, Settings(), now).status)
        held = next(one for one in self.policy.status.conditions if one.type == "RetrainHeld")
        if held.status == "True":
            self.year.held[held.reason] = self.year.held.get(held.reason, 0) + 1

    def _judge(self, spec: DriftPolicySpec, live: Revision, now: datetime) -> tuple[Any, Any, Any]:
        cut = Cut(spec.window.hours)
        settings = drift.settings_of(spec.data, spec.window.min_rows)
        windows: list[WindowVerdict] = []
        shown: list[PerformanceVerdict] = []
        findings: tuple[Any, ...] = ()
        for index in range(cut.index(milliseconds(live.since)), cut.index(milliseconds(now))):
            start, end = moment(cut.start(index)), moment(cut.end(index))
            rows = self.flights.between(max(start, live.since), end)
            if rows.start == rows.stop:
                continue
            if index not in live.judged:
                live.judged.add(index)
                report = drift.judge(live.profile, window(self._columns(rows), live.profile), settings)
                windows.insert(0, WindowVerdict(
                    start=start, end=end, revision=live.number, rows=report.rows, verdict=report.verdict,
                    kinds=list(report.kinds)[:3], columns=report.drifted,
                ))  # fmt: skip
                findings = tuple(Finding.model_validate(one.dump()) for one in report.findings[:20])
                self._seen[live.number, index] = Seen(
                    f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}", live.number, report.rows, report.verdict,
                    list(report.kinds), next((f.message for f in report.findings if f.severity != "Notice"), ""),
                )  # fmt: skip
                shown += self._performance(spec, live, index, rows, None, now)
            matures = timedelta(seconds=self.model.spec.data.label.matures_after_seconds)
            if index not in live.measured and now >= end + matures:
                live.measured.add(index)
                waited = int((now - end).total_seconds())
                shown += self._performance(
                    spec, live, index, rows, Ripe(self.flights.labels(rows, now), "", waited), now
                )
        return tuple(windows), findings, tuple(shown)

    def _performance(
        self, spec: DriftPolicySpec, live: Revision, index: int, rows: slice, ripe: Ripe | None, now: datetime
    ) -> list[PerformanceVerdict]:
        if spec.performance is None:
            return []
        cut = Cut(spec.window.hours)
        case = Case(
            moment(cut.start(index)), moment(cut.end(index)), live.number, "", live.digest, spec.performance,
            live.shown, spec.data.false_alarms_per_thousand_windows / 1000, spec.window.min_rows,
        )  # fmt: skip
        keys: Any = self.flights.columns["flight_id"][rows.start : rows.stop]
        stored = performance.judge(case, Predicted(keys, self.served[rows], {}, seen=len(keys)), ripe, now)
        verdict, seen = stored.verdict, self._seen[live.number, index]
        seen.performance, seen.estimated = verdict.verdict, verdict.estimated
        seen.value = stored.measured.value if stored.measured else None
        seen.estimate = stored.estimated.value if stored.estimated else None
        seen.baseline = case.shown.value if case.shown else None
        return [verdict]

    def _columns(self, rows: slice) -> dict[str, Any]:
        names = [feature.name for feature in self.model.spec.data.features]
        found: dict[str, Any] = {name: self.flights.columns[name][rows.start : rows.stop] for name in names}
        return found | {PREDICTION: self.served[rows]}

    def _run(self, intent: RunIntent, now: datetime) -> None:
        """Started, trained, judged, and, where it passed, serving."""
        asked = {"modelRef": {"name": self.model.meta.name}, "trigger": intent.trigger.dump()}
        spec = TrainingRunSpec.model_validate(asked)
        view = RunView(_meta(intent.name, now), spec, TrainingRunStatus())
        result = self.workshop.train(self.model, view, self.live, now)
        good = result.reason == "Succeeded"
        number = self.model.status.latest_revision + 1 if good else None
        status = TrainingRunStatus(
            revision=number, training_fingerprint=result.training_fingerprint, data=result.data,
            artifact=result.artifact, champion=result.champion, completion_time=now,
        )  # fmt: skip
        stand = Stand("Succeeded" if good else "Failed", result.reason, result.message)
        self.runs.append(replace(view, status=says(view, status, stand, now).status))
        against = result.champion
        told = f"{against.challenger} against {against.champion}, {against.low} to {against.high}" if against else ""
        self.year.runs.append(
            Run(f"{now:%Y-%m-%d}", intent.trigger.message, result.reason, result.message, number, told)
        )
        if number is None or result.artifact is None:
            return
        self.live = self.workshop.revision(number, result.artifact, result.trained_until, now)
        rest = slice(self.flights.between(now, self.end + WEEK).start, None)
        self.served[rest], self.by[rest] = self.live.probabilities[rest], number
        served = ServedRevision(
            revision=number, run=intent.name, artifact_digest=self.live.digest, deployment=f"r{number}", since=now
        )
        changed = {"latest_revision": number, "active": served}
        self.model = replace(self.model, status=self.model.status.model_copy(update=changed))

    def _close(self) -> None:
        """How good every week was, by all labels that ever came."""
        self.year.seen = [self._seen[key] for key in sorted(self._seen)]
        start = self.begin
        while start + WEEK <= self.end:
            rows = self.flights.between(start, start + WEEK)
            there = self.flights.late[rows] != NO_LABEL
            scored = Scored(self.flights.late[rows][there], self.served[rows][there], 0.5)
            values = {name: round(value(name, scored), 6) for name in MEASURES}
            self.year.weeks.append(Week(f"{start:%Y-%m-%d}", int(there.sum()), int(self.by[rows][-1]), values))
            start += WEEK


def _meta(name: str, now: datetime) -> Meta:
    return Meta("shop", name, f"uid-{name}", now)


def difference(one: Year, other: Year, measure: str, seed: int = 0) -> tuple[float, float, float]:
    """Mean weekly difference, and the ends of its 95 % interval over weeks (bootstrap of whole weeks, in pairs)."""
    apart = np.array([a.values[measure] - b.values[measure] for a, b in zip(one.weeks, other.weeks, strict=True)])
    random = np.random.default_rng(seed)
    means = apart[random.integers(len(apart), size=(4000, len(apart)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(apart.mean()), float(low), float(high)
