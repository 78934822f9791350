"""The monitor's pod: `python -m truekeep.monitor`; request in TRUEKEEP_REQUEST, result as termination message."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from truekeep.contract.requests import MonitorRequest
from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUTSIDE, MonitorResult
from truekeep.monitor.errand import Done, run, say
from truekeep.monitor.look import ProfileMissingError, look
from truekeep.monitor.shards import shard_of
from truekeep.storage import StoreError


def main() -> int:
    """One look. The exit code is one of `contract.results`."""
    return run(MonitorRequest, "the monitor", _work)


def _work(request: MonitorRequest) -> Done:
    try:
        result, code = look(request, datetime.now(UTC), say, shard_of(request.shards)), EXIT_JUDGED
    except ProfileMissingError as error:
        result, code = _failed(request, error, "ProfileMissing"), EXIT_INPUT
    except StoreError as error:
        result, code = _failed(request, error, "StoreUnreachable"), EXIT_OUTSIDE
    return Done(f"{result.reason}: {result.message}", result.to_message(), code)


def _failed(request: MonitorRequest, error: Exception, reason: str) -> MonitorResult:
    return MonitorResult.model_validate(
        {
            "policyUid": request.policy_uid,
            "revision": request.revision,
            "reason": reason,
            "message": str(error)[:1024],
        }
    )


if __name__ == "__main__":
    sys.exit(main())
