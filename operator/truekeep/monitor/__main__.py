"""The monitor's pod: `python -m truekeep.monitor`; request in TRUEKEEP_REQUEST, result as termination message."""

from __future__ import annotations

import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from truekeep.contract.requests import DEFAULT_TERMINATION_LOG, REQUEST_ENV, TERMINATION_LOG_ENV, MonitorRequest
from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUTSIDE, MonitorResult
from truekeep.monitor.look import ProfileMissingError, look
from truekeep.monitor.shards import shard_of
from truekeep.storage import StoreError

EXIT_CRASH = 1


def main() -> int:
    """One look. The exit code is one of `contract.results`."""
    try:
        request = MonitorRequest.model_validate_json(os.environ.get(REQUEST_ENV, ""))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        _say(
            f"{REQUEST_ENV} holds no valid request: {at or 'JSON'}: {first['msg']}; the operator writes it, restore it"
        )
        return EXIT_INPUT
    try:
        result, code = look(request, datetime.now(UTC), _say, shard_of(request.shards)), EXIT_JUDGED
    except ProfileMissingError as error:
        result, code = _failed(request, error, "ProfileMissing"), EXIT_INPUT
    except StoreError as error:
        result, code = _failed(request, error, "StoreUnreachable"), EXIT_OUTSIDE
    except Exception as error:  # the last line must tell what happened, not where
        traceback.print_exc()
        _say(f"the monitor has a defect: {type(error).__name__}: {error}")
        return EXIT_CRASH
    _hand_over(result)
    _say(f"{result.reason}: {result.message}")
    return code


def _failed(request: MonitorRequest, error: Exception, reason: str) -> MonitorResult:
    return MonitorResult.model_validate(
        {
            "policyUid": request.policy_uid,
            "revision": request.revision,
            "reason": reason,
            "message": str(error)[:1024],
        }
    )


def _hand_over(result: MonitorResult) -> None:
    path = Path(os.environ.get(TERMINATION_LOG_ENV, DEFAULT_TERMINATION_LOG))
    try:
        path.write_text(result.to_message(), encoding="utf-8")
    except OSError as error:
        _say(f"the result could not be written to {path}: {error}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
