"""`python -m truekeep.server`: serve the revision that TRUEKEEP_REQUEST names, until SIGTERM; in front of a team's own
server where the request names one. `python -m truekeep.server fetch`: put its artifact into a folder for that server.

Exit codes: 0 told to stop; 3 the request or the artifact is invalid; 4 the store could not be reached; 1 a fault.
"""

from __future__ import annotations

import os
import sys
import time

_STARTED = time.time()

# One pod is one process on about one CPU: more threads inside one prediction only fight each other. And Arrow's own
# allocator holds memory back that the rest could use. All three are read when the libraries are imported.
for _name, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("ARROW_DEFAULT_MEMORY_POOL", "system")):
    os.environ.setdefault(_name, _value)


def main() -> int:
    """Serve; the exit code."""
    import uvloop
    from pydantic import ValidationError

    from truekeep.contract.requests import FETCH, REQUEST_ENV, ServeRequest
    from truekeep.contract.results import EXIT_INPUT
    from truekeep.server import folder, logs
    from truekeep.server.limits import from_environment
    from truekeep.server.process import Process
    from truekeep.server.proxy import ProxyProcess

    logs.configure()
    try:
        text = os.environ.get(REQUEST_ENV)
        if not text:
            raise ValueError(f"{REQUEST_ENV} is not set; the operator sets it to a ServeRequest as JSON")
        request = ServeRequest.model_validate_json(text)
        limits = from_environment()
    except (ValidationError, ValueError) as error:
        reason = str(error).replace("\n", " ")[:1000]
        logs.log.error("the request is invalid", extra=logs.fields(reason=reason, exit_code=EXIT_INPUT))
        logs.last_words(reason)
        return EXIT_INPUT
    logs.configure(namespace=request.namespace, model=request.model, revision=request.revision)
    if FETCH in sys.argv[1:]:
        return folder.fetch(request, limits)
    # The capture thread's Python may hold up an answer by one interval; the default of 5 ms would show in the p99.
    sys.setswitchinterval(0.001)
    process = Process if request.backend is None else ProxyProcess
    return uvloop.run(process(request, limits, _STARTED).run())


if __name__ == "__main__":
    code = main()
    # Not sys.exit: threads that still wait for a stalled store, or wind down an OpenMP pool, must not delay the end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
