from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from truekeep.api.driftpolicy import DriftPolicyStatus
from truekeep.controller.health import Metrics
from truekeep.controller.policy_metrics import CONDITIONS, Policy, PolicyMetrics
from truekeep.controller.queue import Key

AT = datetime(2026, 1, 6, tzinfo=UTC)
WEEKLY = Policy("shop", "weekly", "late")


def status() -> DriftPolicyStatus:
    window = {"start": AT, "end": AT, "revision": 3, "metric": "roc_auc", "baseline": "0.71"}
    condition = {"observedGeneration": 1, "lastTransitionTime": AT, "reason": "Breach", "message": "it moved"}
    finding = {"kind": "DataDrift", "column": 'a"b\nc', "threshold": "0.1", "message": "moved"}
    return DriftPolicyStatus.model_validate(
        {
            "watchedRevision": 3,
            "consecutive": 2,
            "rejected": 1,
            "conditions": [
                {"type": "DriftDetected", "status": "True", **condition},
                {"type": "DataValid", "status": "Unknown", **condition},
            ],
            "findings": [
                {**finding, "statistic": "KolmogorovSmirnov", "value": "0.4"},
                {**finding, "statistic": "TotalVariation", "value": "0.5"},
            ],
            "performance": [
                {**window, "verdict": "InsufficientData", "estimate": "0.69", "estimated": "Holds"},
                {**window, "verdict": "Decayed", "value": "0.63", "low": "0.62", "high": "0.64"},
                {**window, "revision": 2, "verdict": "Decayed", "value": "0.1"},
            ],
            "lastCheckTime": AT,
        }
    )


def test_what_a_policy_found_is_shown_until_it_is_gone() -> None:
    metrics, policies = Metrics(), PolicyMetrics()
    metrics.registry.register(policies)
    policies.tell(WEEKLY, status())
    text = metrics.text().decode()
    who = 'model="late",namespace="shop",policy="weekly"'
    lines = {line for line in text.splitlines() if line.startswith("truekeep_policy")}
    assert {line.replace(", ", ",") for line in lines} == {
        f'truekeep_policy_condition{{condition="DriftDetected",{who}}} 1.0',
        f'truekeep_policy_performance{{basis="holdout",metric="roc_auc",{who}}} 0.71',
        f'truekeep_policy_performance{{basis="labels",metric="roc_auc",{who}}} 0.63',
        f'truekeep_policy_performance{{basis="estimate",metric="roc_auc",{who}}} 0.69',
        f'truekeep_policy_column_effect{{column="a\\"b\\nc",kind="DataDrift",{who}}} 0.5',
        f"truekeep_policy_drifted_windows{{{who}}} 2.0",
        f"truekeep_policy_decayed_windows{{{who}}} 0.0",
        f"truekeep_policy_rejected_runs{{{who}}} 1.0",
        f"truekeep_policy_last_check_timestamp_seconds{{{who}}} {AT.timestamp():.10g}".replace(
            "1767657600", "1.7676576e+09"
        ),
    }
    policies.tell(WEEKLY, DriftPolicyStatus())
    assert "0.63" not in metrics.text().decode()
    policies.forget("shop", "weekly")
    assert "weekly" not in metrics.text().decode()


def test_a_standby_shows_nothing_and_who_went_meanwhile_is_forgotten() -> None:
    leads = True
    metrics, policies = Metrics(), PolicyMetrics(shown=lambda: leads)
    metrics.registry.register(policies)
    policies.tell(WEEKLY, status())
    policies.tell(Policy("shop", "daily", "late"), status())
    leads = False
    assert 'namespace="shop"' not in metrics.text().decode()
    leads = True
    policies.keep([Key("DriftPolicy", "shop", "daily", "late"), Key("Model", "shop", "weekly", "late")])
    text = metrics.text().decode()
    assert 'policy="daily"' in text
    assert 'policy="weekly"' not in text


def test_a_policy_has_a_bounded_number_of_series_whatever_it_found() -> None:
    metrics, policies = Metrics(), PolicyMetrics()
    metrics.registry.register(policies)
    before = len(metrics.text().splitlines())
    base = status()
    most = DriftPolicyStatus.model_fields["findings"].metadata[0].max_length
    finding = base.findings[0]
    many = [finding.model_copy(update={"column": f"c{at}"}) for at in range(most)]
    everything = [
        base.conditions[0].model_copy(update={"type": kind, "status": "False"}) for kind in (*CONDITIONS, "Ready")
    ]
    performance = [one.model_copy(update={"metric": "roc_auc"}) for one in base.performance] * 10
    full = {"findings": many, "conditions": everything, "performance": performance}
    policies.tell(WEEKLY, base.model_copy(update=full))
    series = len(metrics.text().splitlines()) - before
    assert series == most + len(CONDITIONS) + 3 + 4
    assert series < 40
    with pytest.raises(ValidationError):
        DriftPolicyStatus.model_validate({"findings": [one.dump() for one in [*many, finding]]})
