"""Runs in a pod: takes CloudEvents by POST, and prints each as a line of JSON, with the headers that came with it."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(BaseHTTPRequestHandler):
    """Takes /events; sends everything else away."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/events":
            print(json.dumps({"headers": dict(self.headers), "event": json.loads(body)}), flush=True)
        self.send_response(202 if self.path == "/events" else 307)
        self.send_header("Location", "/events")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


ThreadingHTTPServer(("0.0.0.0", 8080), Receiver).serve_forever()
