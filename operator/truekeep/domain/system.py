"""How the live revision's pods do, as a policy tells of it: errors and latency, never mistaken for drift. Pure."""

from __future__ import annotations

from truekeep.api.rollout import Rollout
from truekeep.contract.chance import interval
from truekeep.domain.analysis import SLOW
from truekeep.domain.conditions import Finding
from truekeep.domain.observed import ModelView, PolicyObserved, Traffic

LOOK_BACK_SECONDS = 300
KIND = "ServingHealthy"


def serving(observed: PolicyObserved) -> Finding:
    """What the pods counted in the last five minutes, held against the limits of the Model's rollout. It fails where
    chance does not explain it, at three standard errors."""
    model, traffic = observed.model, observed.traffic
    if model is None or model.status.active is None:
        return Finding(KIND, "Unknown", "NothingServes", "no revision serves")
    if traffic is None:
        return Finding(KIND, "Unknown", "MetricsUnreadable", "no pod of the live revision tells what it counted")
    if traffic.requests == 0:
        return Finding(KIND, "Unknown", "NoTraffic", "nobody asked in the last five minutes")
    return _judged(model, model.spec.serving.rollout, traffic)


def _judged(model: ModelView, rollout: Rollout, traffic: Traffic) -> Finding:
    words = f"{traffic.errors:,} of {traffic.requests:,} replies failed in the last five minutes"
    allowed = float(rollout.max_error_fraction)
    if interval(traffic.errors, traffic.requests)[0] > allowed:
        return Finding(KIND, "False", "ErrorRate", f"{words}; rollout.maxErrorFraction is {rollout.max_error_fraction}")
    limit, total = rollout.max_p99_milliseconds, traffic.seconds.total
    if limit is not None and total and interval(traffic.seconds.above(limit / 1000), total)[0] > SLOW:
        late = traffic.seconds.quantile(1 - SLOW) or 0.0
        slow = f"99 % of {total:,} replies came within {1000 * late:.0f} ms; rollout.maxP99Milliseconds is {limit}"
        return Finding(KIND, "False", "TooSlow", slow)
    revision = model.status.active.revision if model.status.active else 0
    return Finding(KIND, "True", "Healthy", f"revision {revision}: {words}")
