"""How each pod of the monitor begins and ends: a request in TRUEKEEP_REQUEST, a result as termination message.

Where there is no result, the kubelet takes the last words of the log. The exit
code is one of `contract.results`, or 1 for a defect of ours, which the log shows with its traceback."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from truekeep.api.common import Schema
from truekeep.contract.requests import DEFAULT_TERMINATION_LOG, REQUEST_ENV, TERMINATION_LOG_ENV
from truekeep.contract.results import EXIT_INPUT, EXIT_JUDGED

EXIT_DEFECT = 1
Request = TypeVar("Request", bound=Schema)


@dataclass(frozen=True)
class Done:
    """How an errand ended: words for the log, what is handed over to the operator, and the exit code."""

    words: str
    handed_over: str
    code: int = EXIT_JUDGED


def run(kind: type[Request], name: str, work: Callable[[Request], Done]) -> int:
    """Do it once; `name` is what it is called in the log where it has a defect. Returns the exit code."""
    try:
        request = kind.model_validate_json(os.environ.get(REQUEST_ENV, ""))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in first["loc"]) or "JSON"
        say(f"{REQUEST_ENV} holds no valid request: {at}: {first['msg']}; the operator writes it, restore it")
        return EXIT_INPUT
    try:
        done = work(request)
    except Exception as error:  # the last line must tell what happened, not where
        traceback.print_exc()
        say(f"{name} has a defect: {type(error).__name__}: {error}")
        return EXIT_DEFECT
    say(done.words)
    path = Path(os.environ.get(TERMINATION_LOG_ENV, DEFAULT_TERMINATION_LOG))
    try:
        path.write_text(done.handed_over, encoding="utf-8")
    except OSError as error:
        say(f"the result could not be written to {path}: {error}")
    return done.code


def say(line: str) -> None:
    """A line of the log."""
    print(line, flush=True)
