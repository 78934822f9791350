"""A run's report as a page: the record in the words and drawings of a person who must decide about the model.

All that it says comes from the record and from `evidence`. Names in it come from data: all is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from truekeep.contract.artifact import Performance, Signature
from truekeep.pages.skeleton import document, facts, table, text
from truekeep.profiling.schema import Profile
from truekeep.scores.intervals import interval
from truekeep.trainer.record import card, data_page
from truekeep.trainer.record.evidence import Evidence, Group, Importance
from truekeep.trainer.text import counted
from truekeep.trainer.tuning import page as tuning_page

SHOWN = 30  # features by importance
MOST_OBJECTS = 200
MOST_ROWS = 500  # of any other table
SIDE = 320  # of the calibration's square

_STYLE = """
dl{display:grid;grid-template-columns:minmax(6.5rem,auto) 1fr;gap:.15rem .8rem;margin:.4rem 0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;min-width:0}
h3{margin:1rem 0 .2rem}
tr.Failed td{color:var(--bad)}tr.NotJudged td{color:var(--soft)}
td,th{padding:.15rem .45rem}td:first-child,th:first-child{padding-left:0;min-width:6rem}
tr+tr td{border-top:1px solid var(--line)}
@media (max-width:30rem){td,th{padding:.15rem .3rem}td:first-child,th:first-child{min-width:4.5rem}}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
svg.square,svg.bars{max-width:26rem}
.dot{fill:var(--now)}.span{stroke:var(--now);stroke-width:2}.gain{fill:var(--now)}.loss{fill:var(--then)}
.name{fill:var(--ink);font:11px system-ui,sans-serif}.word{fill:var(--soft);font:10px system-ui,sans-serif}
"""

_VERDICTS = {
    "Succeeded": ("good", "Passed: this model may serve"),
    "GatesFailed": ("bad", "A gate failed: this model does not serve"),
    "ChampionKept": ("bad", "Not shown to be good enough: the live model stays"),
    "DataInvalid": ("bad", "The data is not as declared: nothing was trained"),
    "DataTooLarge": ("bad", "There is more data than can be read: nothing was trained"),
    "ParametersInvalid": ("bad", "The parameters can't be used: no model came out"),
    "DataChanged": ("bad", "The data changed while the run went on: nothing is judged"),
    "DeliveryInvalid": ("bad", "What the training image made can't be taken"),
    "ImportInvalid": ("bad", "The imported model can't be taken"),
}


class Champion(NamedTuple):
    """The live revision's own files, as far as they could be read; `fault` says why not."""

    signature: Signature | None = None
    performance: Performance | None = None
    fault: str = ""


class Told(NamedTuple):
    """What a report is made from."""

    record: Mapping[str, Any]
    digest: str  # the record's
    evidence: Evidence | None = None  # None: nothing was judged
    signature: Signature | None = None  # the published model's
    profile: Profile | None = None  # of the rows that it was fitted on
    champion: Champion | None = None


def page(told: Told) -> str:
    """The whole page, as HTML."""
    run = told.record["run"]
    title = f"{run['namespace']}/{run['model']}: training run {run['name']}"
    parts = [
        *_head(told.record, title),
        *data_page.wrong(told.record["data"]["violations"]),
        *_metrics(told),
        *_gates(told.record["evaluation"]),
        *_changed(told),
        *tuning_page.section(told.record["training"].get("tuning")),
        *_decision(told),
        *_calibration(told.evidence.groups if told.evidence else ()),
        *_importance(told.evidence.importance if told.evidence else None),
        *_data(told.record),
        *_card(told),
        *_environment(told),
    ]
    return document(title, _STYLE, parts)


def _head(record: Mapping[str, Any], title: str) -> Iterator[str]:
    outcome = record["outcome"]
    kind, words = _VERDICTS.get(outcome["reason"], ("warn", outcome["reason"]))
    yield f'<h1><span class="{kind}">{text(words)}</span></h1><p>{text(title)}</p><p>{text(outcome["message"])}</p>'
    trigger = record["run"]["trigger"]
    said = f": {trigger['message']}" if trigger.get("message") else ""
    yield f'<p class="soft">Trained because of {text(trigger["type"])}{text(said)}. '
    yield f"From {text(record['times']['started'])} to {text(record['times']['finished'])}.</p>"


def _metrics(told: Told) -> Iterator[str]:
    if told.evidence is None:
        return
    shown = told.evidence.performance
    yield f'<h2>Metrics</h2><p class="soft">On {shown.rows:,} rows that judged the model, {shown.positives:,} of '
    yield "them positive. The interval is of 95 %; greater is better for all.</p>"
    rows = []
    for one in shown.metrics:
        error = one.standard_error
        ends = "–"
        if error is not None:
            measured = interval(one.name, one.value, error)  # type: ignore[arg-type]
            ends = f"{measured.low:.4f} … {measured.high:.4f}"
        rows.append((one.name, f"{one.value:.4f}", ends))
    yield from table(("metric", "value", "interval"), rows)


def _gates(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """A table for each kind of gate; the failed ones first, as the record has them."""
    declared = evaluation["declared"]
    if not evaluation["gates"]:
        yield '<h2>Gates</h2><p class="warn">None is declared, so nothing kept this model out.</p>'
        return
    kinds = {
        "Slices": {one["name"] for one in declared.get("slices", [])},
        "Fairness": {one["name"] for one in declared.get("fairness", [])},
        "Missing columns": {one["name"] for one in declared.get("robustness", [])},
    }
    sorted_by: dict[str, list[Mapping[str, Any]]] = {"Gates": [], **{name: [] for name in kinds}, "Benchmark sets": []}
    for gate in evaluation["gates"]:
        kind = next((kind for kind, names in kinds.items() if gate["name"].partition("=")[0] in names), "Gates")
        benchmark = any(gate["name"].startswith(f"{one['name']}/") for one in declared.get("benchmarks", []))
        sorted_by["Benchmark sets" if benchmark else kind].append(gate)
    for kind, gates in sorted_by.items():
        if not gates:
            continue
        failed = sum(gate["result"] == "Failed" for gate in gates)
        state = f'<span class="bad">{failed} failed</span>' if failed else '<span class="good">none failed</span>'
        yield f"<h2>{kind}: {state}</h2>"
        shown = gates[:MOST_ROWS]
        bounds = {"Minimum": "≥ ", "Maximum": "≤ "}
        rows = [
            (
                gate["name"], gate["result"], gate["value"], bounds[gate["bound"]] + gate["threshold"],
                f"{gate['rows']:,}", gate["metric"],
            )
            for gate in shown
        ]  # fmt: skip
        head = ("name", "result", "value", "must be", "rows", "metric")
        yield from table(head, rows, [gate["result"] for gate in shown])
        yield from _more(len(gates), MOST_ROWS)


def _changed(told: Told) -> Iterator[str]:
    previous, compared = told.record["previous"], told.record["evaluation"]["champion"]
    yield "<h2>What changed since the champion</h2>"
    if previous is None:
        yield '<p class="soft">No revision served when this run was made.</p>'
        return
    yield f"<p>Revision {previous['revision']} serves.</p>"
    if compared is None:
        yield '<p class="soft">It was not compared on the same rows: no comparison was made or declared.</p>'
    elif compared["result"] == "NotJudged":
        yield f'<p class="warn">Not compared: {text(compared["rule"])}</p>'
    else:
        yield f"<p>{text(compared['rule'])}</p>"
        yield from facts(
            [
                ("result", compared["result"]),
                (compared["metric"], f"{compared['challenger']}, the champion's is {compared['champion']}"),
                ("difference", f"{compared['low']} … {compared['high']}"),
                ("on", f"{compared['rows']:,} rows that are new to both"),
            ]
        )
    champion = told.champion or Champion()
    yield "<h3>Settings and inputs</h3>"
    yield from facts(_differences(told, previous, champion.signature))
    if champion.performance is not None and told.evidence:
        then = {one.name: one.value for one in champion.performance.metrics}
        yield "<h3>Metrics, each on its own holdout</h3>"
        rows = [
            (one.name, f"{then[one.name]:.4f}" if one.name in then else "–", f"{one.value:.4f}")
            for one in told.evidence.performance.metrics
        ]
        yield from table(("metric", "champion", "this model"), rows)
    if champion.fault:
        yield f'<p class="warn">Its files could not be read: {text(champion.fault)}</p>'


def _differences(told: Told, previous: Mapping[str, Any], before: Signature | None) -> Iterator[tuple[str, str]]:
    """What is not as it was says so with an arrow."""
    record = told.record
    yield "trained until", _moved(previous.get("trainedUntil") or "unknown", record["training"]["trainedUntil"] or "–")
    if before is None:
        return
    yield "estimator", _moved(before.estimator, card.estimator(record))
    yield "cut-off", _moved(f"{before.cut_off:.6f}", record["evaluation"]["cutOff"] or "–")
    if told.evidence:
        then, now = {one.name for one in before.features}, {one.name for one in told.evidence.features}
        yield "inputs", f"{len(now):,}, as before" if then == now else f"{len(then):,} → {len(now):,}"
        yield "new inputs", ", ".join(sorted(now - then))
        yield "gone inputs", ", ".join(sorted(then - now))


def _moved(then: str, now: str) -> str:
    return f"{now}, as before" if then == now else f"{then} → {now}"


def _decision(told: Told) -> Iterator[str]:
    cut_off = told.record["evaluation"]["cutOff"]
    if cut_off is None:
        return
    yield f"<h2>Decision</h2><p>A row is taken as positive from a probability of <b>{text(cut_off)}</b>"
    yield f" ({text(card.rule(told.record))}).</p>"
    if told.evidence:
        cells = told.evidence.decided
        yield from table(
            ("of the judged rows", "taken", "left"),
            [
                ("positive", f"{cells.found:,}", f"{cells.missed:,}"),
                ("negative", f"{cells.alarmed:,}", f"{cells.quiet:,}"),
            ],
        )


def _calibration(groups: Sequence[Group]) -> Iterator[str]:
    if not groups:
        return
    top = min(1.0, 1.05 * max(*(one.high for one in groups), *(one.predicted for one in groups), 0.01))

    def x(value: float) -> str:
        return f"{SIDE * value / top:.1f}"

    def y(value: float) -> str:
        return f"{SIDE * (1 - value / top):.1f}"

    yield "<h2>Calibration</h2>"
    yield '<p class="soft">Across: the probability that the model gives. Up: the share that was positive, with its '
    yield "95 % interval, in groups of equal size. On the dashed line both are the same.</p>"
    marks = "".join(
        f'<line class="span" x1="{x(one.predicted)}" x2="{x(one.predicted)}" y1="{y(one.low)}" y2="{y(one.high)}"/>'
        f'<circle class="dot" cx="{x(one.predicted)}" cy="{y(one.seen)}" r="4"/>'
        for one in groups
    )
    yield (
        f'<svg class="square" viewBox="-2 -2 {SIDE + 4} {SIDE + 18}" role="img" aria-label="calibration curve">'
        f'<line class="base" x1="0" y1="{SIDE}" x2="{SIDE}" y2="0"/>'
        f'<line class="axis" x1="0" x2="{SIDE}" y1="{SIDE}" y2="{SIDE}"/><line class="axis" x1="0" x2="0" y1="0" '
        f'y2="{SIDE}"/>{marks}<text class="word" x="0" y="{SIDE + 13}">0</text>'
        f'<text class="word" x="{SIDE}" y="{SIDE + 13}" text-anchor="end">{top:.3g}</text></svg>'
    )
    yield "<details><summary>As a table</summary>"
    rows = [
        (f"{one.predicted:.4f}", f"{one.seen:.4f}", f"{one.low:.4f} … {one.high:.4f}", f"{one.rows:,}")
        for one in groups
    ]
    yield from table(("mean probability", "share positive", "interval", "rows"), rows)
    yield "</details>"


def _importance(found: Importance | None) -> Iterator[str]:
    if found is None:
        return
    yield "<h2>Importance of the features</h2>"
    yield f'<p class="soft">What {text(found.metric)} ({found.whole:.4f} on {found.rows:,} judged rows) loses when one '
    yield "feature's values change places among the rows. Features that tell the same share their importance.</p>"
    shown = [one for one in found.losses if math.isfinite(one.mean)][:SHOWN]
    if shown:
        top = max(*(abs(one.mean) for one in shown), 1e-12)
        bars = "".join(_bar(place, one.name, one.mean, top) for place, one in enumerate(shown))
        size = f"0 0 {SIDE} {22 * len(shown)}"
        yield f'<svg class="bars" viewBox="{size}" role="img" aria-label="importance">{bars}</svg>'
    yield from _more(len(found.losses), SHOWN)
    if found.unmeasured:
        count = len(found.unmeasured)
        yield f'<p class="warn">Not measured, because the time was up: {count} of '
        yield f"{count + len(found.losses)} features.</p>"


def _bar(place: int, name: str, loss: float, top: float) -> str:
    at = 22 * place
    kind = "gain" if loss > 0 else "loss"
    return (
        f'<text class="name" x="0" y="{at + 11}">{text(name, 40)}</text>'
        f'<text class="word" x="{SIDE}" y="{at + 11}" text-anchor="end">{loss:.4f}</text>'
        f'<rect class="track" x="0" y="{at + 14}" width="{SIDE}" height="4"/>'
        f'<rect class="{kind}" x="0" y="{at + 14}" width="{SIDE * abs(loss) / top:.1f}" height="4"/>'
    )


def _data(record: Mapping[str, Any]) -> Iterator[str]:
    data = record["data"]
    objects = data["objects"]
    yield "<h2>Data</h2>"
    superseded, drawn = data["superseded"], data.get("sampledFrom")
    yield from facts(
        [
            ("labelled rows", f"{data.get('rows', 0):,}"),
            ("of them positive", f"{data['positives']:,}" if data.get("positives") is not None else ""),
            ("sampled from", f"{drawn:,} rows, by the hash of their key" if drawn else ""),
            ("without a label", f"{data.get('unlabelled', 0):,}"),
            ("label not ripe", f"{data.get('unripe', 0):,}"),
            ("superseded", "" if superseded is None else f"{superseded:,} by a later row of their key"),
            ("oldest event", data.get("windowStart", "")),
            ("newest event", data.get("windowEnd", "")),
            ("objects", f"{len(objects):,}, {sum(one['size'] for one in objects):,} bytes"),
            ("digest of all", data.get("digest", "")),
            ("digest of schema", data["schemaDigest"]),
            ("can be replayed", "yes" if data.get("replayable") == "True" else "no: the store keeps no versions"),
        ]
    )
    yield from data_page.warned(data)
    if objects:
        yield f"<details><summary>{counted(len(objects), 'object')}</summary>"
        rows = [(one["uri"], f"{one['rows']:,}", f"{one['size']:,}", one["sha256"]) for one in objects[:MOST_OBJECTS]]
        yield from table(("object", "rows", "bytes", "sha256"), rows, most=1024)
        yield from _more(len(objects), MOST_OBJECTS)
        yield "</details>"


def _card(told: Told) -> Iterator[str]:
    yield "<h2>Model card</h2>"
    yield from facts([*card.purpose(told.record), *card.documents(told.record)])
    features = told.signature.features if told.signature else told.evidence.features if told.evidence else ()
    yield "<h3>Inputs</h3>"
    inputs = list(card.inputs(told.record, features, told.profile))
    yield from table(("input", "type", "declared", "nulls", "in training"), inputs[:MOST_ROWS])
    yield from _more(len(inputs), MOST_ROWS)
    yield "<h3>Training data</h3>"
    yield from facts(card.training(told.record))
    yield "<h3>Evaluation data</h3>"
    yield from facts(card.evaluation(told.record))
    yield "<h3>Limits</h3><ul>"
    yield from (f"<li>{text(limit)}</li>" for limit in card.limits(told.record))
    yield "</ul>"


def _environment(told: Told) -> Iterator[str]:
    environment, artifact, run = told.record["environment"], told.record["artifact"], told.record["run"]
    yield "<h2>Environment and identity</h2>"
    yield from facts(
        [
            ("artifact", artifact["digest"] if artifact else "none"),
            ("record", told.digest),
            ("run", f"{run['name']} ({run['uid']})"),
            ("generation", f"{run['modelGeneration']} of the Model"),
            ("fingerprint", run["trainingFingerprint"]),
            ("image", environment["image"]),
            ("lock digest", environment["lockDigest"] or "not known: the image did not say"),
            ("truekeep", f"{environment['truekeep']}, operator {environment['operator']}"),
            ("python", f"{environment['python']} on {environment['machine']}"),
            ("threads", _plain(told.record["training"]["threads"])),
            ("libraries", ", ".join(f"{name} {version}" for name, version in environment["libraries"].items())),
            ("all packages", environment["packagesDigest"]),
        ]
    )


def _more(count: int, most: int) -> Iterator[str]:
    if count > most:
        yield f'<p class="soft">And {count - most:,} more, all in the record.</p>'


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(one) for one in value)
    return str(value)


__all__ = ["Champion", "Told", "page"]
