"""A registry of images on loopback, gone when its test ends."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import fetch_binary
from tests.cluster.plane import free_ports


@contextmanager
def registry() -> Iterator[str]:
    """HOST:PORT of it, once it answers."""
    (port,) = free_ports(1)
    command = [fetch_binary("registry"), "-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        host = f"127.0.0.1:{port}"
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield host
        finally:
            process.kill()
