"""The limit: an ASGI application that reads the body and answers bytes that it was given. Run by uvicorn."""

import os
from pathlib import Path

ANSWER = Path(os.environ["ECHO_ANSWER"]).read_bytes()
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))],
}
BODY = {"type": "http.response.body", "body": ANSWER}


async def app(scope, receive, send):
    """Answer every request with the same bytes."""
    while (await receive()).get("more_body", False):
        pass
    await send(START)
    await send(BODY)
