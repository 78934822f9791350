"""`python -m truekeep.trainer`: the training pod. Request from TRUEKEEP_REQUEST, result to the termination log.

With prepare, upload or fetch: its parts beside a team's image (`trainer.handed.main`)."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from truekeep.trainer import threads

STARTED = time.monotonic()


def main() -> int:
    """Train as asked. Returns the exit code, see contract/results.py."""
    # Process 1 of a container has no default for SIGTERM; there is nothing to put in order, the result is written once.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    allowed = threads.fix()
    # Only now, because numpy reads the number of threads when it is imported.
    from pydantic import ValidationError

    from truekeep.contract.requests import (
        DEFAULT_TERMINATION_LOG,
        REQUEST_ENV,
        TERMINATION_LOG_ENV,
        TrainRequest,
    )
    from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED, EXIT_OUT_OF_MEMORY
    from truekeep.sources.places import in_pod
    from truekeep.trainer.handed import main as handed_main
    from truekeep.trainer.run import World, exit_code, run

    try:
        request = TrainRequest.model_validate_json(os.environ.get(REQUEST_ENV, ""))
    except ValidationError as error:
        print(f"{REQUEST_ENV} holds no training request: {error}", file=sys.stderr)
        return EXIT_INPUT
    say(f"run {request.run} of {request.namespace}/{request.model}, {allowed} threads")
    world = World(in_pod, lambda: datetime.now(UTC), say, allowed)
    part = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        result = run(request, world) if part is None else handed_main.do(part, request, world)
    except MemoryError as error:
        say(f"out of memory: {error}")
        return EXIT_OUT_OF_MEMORY
    if result is None:
        return EXIT_JUDGED
    say(f"{result.reason}: {result.message}")
    log = Path(os.environ.get(TERMINATION_LOG_ENV, DEFAULT_TERMINATION_LOG))
    try:
        log.write_text(result.to_message(), encoding="utf-8")
    except OSError as error:
        print(f"could not write {log}: {error}; set {TERMINATION_LOG_ENV}", file=sys.stderr)
    return exit_code(result)


def say(words: str) -> None:
    """A line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {words}", flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to put in order, and taking the libraries down takes half a second
