"""Attacks by names that data, people and stores bring into a training report and a backtest's page.

The pages of drift and of one decision are in `answers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.redteam.answers import PAYLOADS, XSS, runs, unescaped
from tests.unit.redteam.attack import Attack
from truekeep.cli import backtest_page
from truekeep.contract.artifact import MetricResult, Performance, SignatureFeature
from truekeep.monitor.judge import Settings
from truekeep.trainer.record import report
from truekeep.trainer.record.evidence import Decided, Evidence, Importance, Loss

Json = dict[str, Any]


def record(
    *,
    model: str = "m",
    trigger: str = "",
    message: str = "",
    column: str = "",
    place: str = "",
    gate: str = "",
    parameter: str = "",
    uri: str = "s3://lake/",
    warning: str = "",
    documented: str = "",
    library: str = "1",
) -> Json:
    """A record as small as one can be; each text is where somebody else chooses it."""
    source = {"s3": {"uri": uri}}
    feature = {"name": column or "c", "type": "Number"}
    broken: Json = {"severity": "Fail", "check": "Range", "column": column, "count": 1, "problem": "p", "remedy": "r"}
    tried = {
        "index": 0, "mean": "0.5", "parameters": [{"name": "p", "value": parameter}], "status": "Scored",
        "scores": ["0.5"], "seconds": "1", "message": "",
    }  # fmt: skip
    fold = {"trainRows": 1, "rows": 1, "positives": 1, "since": "a", "until": "b"}
    tuning = {
        "trials": [tried], "folds": [fold], "best": tried, "metric": "roc_auc", "search": "Random", "seed": 1,
        "started": "a", "timeoutSeconds": 1, "image": "i", "dataDigest": None,
    }  # fmt: skip
    broken["places"] = [{"object": place, "row": 1, "value": place}]
    judged = {
        "name": gate, "result": "Failed", "value": "0", "bound": "Minimum", "threshold": "1", "rows": 1,
        "metric": "roc_auc",
    }  # fmt: skip
    return {
        "run": {
            "namespace": "n", "model": model, "name": "m-1", "uid": "u", "modelGeneration": 1,
            "trainingFingerprint": "f", "trigger": {"type": "Manual", "message": trigger},
        },
        "outcome": {"reason": "GatesFailed", "message": message},
        "times": {"started": "a", "finished": "b"},
        "data": {
            "violations": [broken] if column or place else [],
            "declared": {"features": [feature], "source": source, "label": {"column": "y"}, "key": "k"},
            "objects": [{"uri": uri, "rows": 1, "size": 1, "sha256": "0"}], "schemaDigest": "d", "superseded": None,
        },
        "training": {
            "declared": {"recipe": {"estimator": "e", "parameters": [{"name": "p", "value": parameter}]}},
            "seed": 1, "threads": None, "trainedUntil": None, "tuning": tuning if parameter else None,
        },
        "evaluation": {
            "declared": {}, "gates": [judged] if gate else [], "champion": None, "cutOff": None,
            "warnings": [warning] if warning else [],
        },
        "artifact": None,
        "previous": None,
        "documentation": {"purpose": documented},
        "environment": {
            "image": "i", "lockDigest": None, "truekeep": "t", "operator": "o", "python": "3", "machine": "m",
            "libraries": {"numpy": library}, "packagesDigest": "d",
        },
    }  # fmt: skip


def _evidence(text: str) -> Evidence:
    """A feature of this name, of which the judged rows say how much it matters."""
    metric = MetricResult(name="roc_auc", value=0.5)
    performance = Performance(rows=1, positives=1, cut_off=0.5, metrics=[metric])
    importance = Importance("roc_auc", 1, 0.5, (Loss(text, 0.1, 0.0),), ())
    feature = SignatureFeature(name="c", type="Category", categories=[text])
    return Evidence([feature], performance, (), Decided(1, 0, 0, 1), importance)


def _report(**texts: str) -> str:
    return report.page(report.Told(record(**texts), "sha256:0"))


def _judged(text: str) -> str:
    return report.page(report.Told(record(), "sha256:0", evidence=_evidence(text)))


def _champion(text: str) -> str:
    """The live revision's own files can't be read: the words are the store's."""
    previous = {"revision": 1, "trainedUntil": None}
    told = report.Told({**record(), "previous": previous}, "sha256:0", champion=report.Champion(fault=text))
    return report.page(told)


def _backtest(policy: str = "p", note: str = "", said: str = "", action: str = "Alert", source: str = "history") -> str:
    window = {
        "start": "2026-01-01T00:00:00Z", "rows": 1, "verdict": "Drift", "action": action, "answers": "DataDrift",
        "message": said,
    }  # fmt: skip
    known = {
        "maxDrop": 0.1, "maxDrops": [], "metric": source, "baseline": 0.5, "baselineRows": 1, "baselineFrom": source,
    }  # fmt: skip
    answer = {
        "from": "2026-01-01", "to": "2026-02-01", "runs": [], "windows": [window], "minimumEffect": 0.1,
        "thresholds": [], "notes": [note], "proposal": {"runsPerYear": 1.0}, "performance": known,
    }  # fmt: skip
    return backtest_page.page(answer, [], Settings(), policy)


PAGES: dict[str, Callable[[str], str]] = {
    "a Model of a training report": lambda text: _report(model=text),
    "a person's reason in a training report": lambda text: _report(trigger=text),
    "a message of a training report": lambda text: _report(message=text),
    "a broken column of a training report": lambda text: _report(column=text),
    "a broken value of a training report": lambda text: _report(place=text),
    "a slice's category in a training report": lambda text: _report(gate=f"by-kind={text}"),
    "a tuned parameter of a training report": lambda text: _report(parameter=text),
    "an object's name in a training report": lambda text: _report(uri=f"s3://lake/{text}"),
    "a warning of a training report": lambda text: _report(warning=text),
    "a document of a training report": lambda text: _report(documented=text),
    "a library of a training report": lambda text: _report(library=text),
    "a feature or category of a training report": _judged,
    "a store's words in a training report": _champion,
    "a policy of a backtest": lambda text: _backtest(policy=text),
    "a note of a backtest": lambda text: _backtest(note=text),
    "a window's message of a backtest": lambda text: _backtest(said=text),
    "an action of a backtest": lambda text: _backtest(action=text),
    "a metric of a backtest": lambda text: _backtest(source=text),
}


def attacks() -> Iterator[Attack]:
    """All of these."""
    for name, payload in PAYLOADS.items():
        for where, make in PAGES.items():
            attempt = lambda scene, make=make, payload=payload: runs(make(payload))  # noqa: E731
            yield Attack(XSS, f"{name} in {where}", attempt, unescaped)
