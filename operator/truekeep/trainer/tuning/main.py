"""`python3 -m truekeep.trainer.tuning.main`: one trial of a tuning, in a pod of the stage Tune's Job.

The request is the training's own, from TRUEKEEP_REQUEST; which trial it is, from JOB_COMPLETION_INDEX. What comes out
goes to the store alone. Exit codes as in contract/results.py: 0 also where nothing could be tried, because the
training tells why.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from truekeep.trainer import threads
from truekeep.trainer.__main__ import say

if TYPE_CHECKING:
    from truekeep.contract.requests import TrainRequest
    from truekeep.trainer.tuning.trial import Prepared, Trials

INDEX_ENV = "JOB_COMPLETION_INDEX"  # Kubernetes sets it


def main() -> int:
    """Do one trial. Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    allowed = threads.fix()
    # Only now, because numpy reads the number of threads when it is imported.
    from pydantic import ValidationError

    from truekeep.contract.requests import REQUEST_ENV, TrainRequest
    from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUT_OF_MEMORY
    from truekeep.sources.places import in_pod
    from truekeep.storage import StoreError
    from truekeep.trainer.faults import InputFault
    from truekeep.trainer.run import World
    from truekeep.trainer.tuning.trial import Trials

    try:
        request = TrainRequest.model_validate_json(os.environ.get(REQUEST_ENV, ""))
        index = int(os.environ.get(INDEX_ENV, ""))
    except (ValidationError, ValueError) as error:
        print(f"{REQUEST_ENV} and {INDEX_ENV} name no trial: {error}", file=sys.stderr)
        return EXIT_INPUT
    say(f"trial {index} of run {request.run} of {request.namespace}/{request.model}, {allowed} threads")
    try:
        world = World(in_pod, lambda: datetime.now(UTC), say, allowed)
        trials = Trials(request, in_pod(request.store), world)
        if not 0 <= index < trials.tuning.count:
            print(f"{INDEX_ENV} is {index}, and there are {trials.tuning.count} trials", file=sys.stderr)
            return EXIT_INPUT
        if not trials.done(index) and not isinstance(prepared := trials.prepared(), str):
            _bound(trials, prepared, index)
        trials.run(index)
    except StoreError as error:
        return _no_store(request, error)
    except MemoryError as error:
        print(f"out of memory: {error}", file=sys.stderr)
        return EXIT_OUT_OF_MEMORY
    except InputFault as fault:
        print(str(fault), file=sys.stderr)
        return EXIT_INPUT
    return EXIT_JUDGED


def _no_store(request: TrainRequest, error: Exception) -> int:
    """Say so to whoever decides about another try: of all ends of a trial, this alone is handed over."""
    from truekeep.contract.requests import DEFAULT_TERMINATION_LOG, TERMINATION_LOG_ENV
    from truekeep.contract.results import EXIT_OUTSIDE, TrainResult

    result = TrainResult(
        run_uid=request.run_uid,
        reason="StoreUnreachable",
        message=str(error)[:2048],
        training_fingerprint=request.training_fingerprint,
    )
    print(result.message, file=sys.stderr)
    log = Path(os.environ.get(TERMINATION_LOG_ENV, DEFAULT_TERMINATION_LOG))
    try:
        log.write_text(result.to_message(), encoding="utf-8")
    except OSError as problem:
        print(f"could not write {log}: {problem}; set {TERMINATION_LOG_ENV}", file=sys.stderr)
    return EXIT_OUTSIDE


def _bound(trials: Trials, prepared: Prepared, index: int) -> None:
    """End the process when the budget is over, also in the midst of a fit."""

    def end() -> None:
        from truekeep.contract.results import EXIT_JUDGED
        from truekeep.storage import StoreError

        try:
            trials.out_of_time(index)
        except StoreError as error:
            os._exit(_no_store(trials.request, error))
        sys.stdout.flush()
        os._exit(EXIT_JUDGED)

    left = (trials.until(prepared.inputs) - datetime.now(UTC)).total_seconds()
    timer = threading.Timer(max(left, 0.0), end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
