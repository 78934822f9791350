"""One line of JSON for each event. Bodies and values of requests are never logged."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from truekeep.contract.requests import DEFAULT_TERMINATION_LOG, TERMINATION_LIMIT, TERMINATION_LOG_ENV

log = logging.getLogger("truekeep.server")


def last_words(message: str) -> None:
    """Leave the reason where Kubernetes shows it."""
    path = Path(os.environ.get(TERMINATION_LOG_ENV, DEFAULT_TERMINATION_LOG))
    try:
        path.write_bytes(message.encode()[:TERMINATION_LIMIT])
    except OSError as error:  # outside of Kubernetes there is no such file
        log.warning("the termination message could not be written", extra=fields(path=str(path), reason=str(error)))


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `message`, the fixed fields of this process, and what the event brings in `extra["fields"]`."""

    def __init__(self, fixed: dict[str, Any]) -> None:
        super().__init__()
        self._fixed = fixed

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **self._fixed,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(**fixed: Any) -> None:
    """Send every log record of the process to standard error, as JSON, with these fields in each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(fixed))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # uvicorn warns of every malformed request, which a stranger can send at any rate; those are counted instead.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    for library in ("botocore", "boto3", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)


def fields(**values: Any) -> dict[str, Any]:
    """`extra` for a log call: `log.info("loaded", extra=fields(seconds=0.3))`."""
    return {"fields": values}
