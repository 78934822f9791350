"""Load on a Model from within the cluster, and what came back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.e2e.load import Load
from tests.e2e.shop import REQUEST, Shop, script_pod
from tests.story.kube import image_names

POD = "load"
# Busy ones, and those that ask so rarely that only a closed connection tells them to leave in time.
KEEP_ALIVE = [0.1, 0.1, 0.1, 0.1, 1.3, 3]
FRESH = [0.2, 0.5]
GRPC = [0.1, 0.1, 0.1, 1.3, 3]


@dataclass(frozen=True)
class Reply:
    """One request, and what became of it."""

    time: float
    client: str
    revision: int  # 0: none answered
    milliseconds: float
    error: str

    @property
    def failed(self) -> bool:
        """Not answered, or turned away by the server; a model that finds the request wrong has answered."""
        return bool(self.error) and not self.error.startswith(("HTTP 400", "gRPC INVALID_ARGUMENT"))


@dataclass(frozen=True)
class Figures:
    """What a switch away from a revision looked like to its clients."""

    bad_after: int  # replies of the bad revision after the verdict
    first_to_last: float  # seconds between the first and the last of them
    verdict_to_last: float
    last_client: str
    requests: int
    failed: list[str]

    def __str__(self) -> str:
        return (
            f"{self.bad_after} bad replies after the verdict within {self.first_to_last:.2f} s, the last one "
            f"{self.verdict_to_last:.2f} s after it ({self.last_client}); {len(self.failed)} of {self.requests} "
            f"requests failed"
        )


class Loaded:
    """A Model under load."""

    def __init__(self, shop: Shop, model: str) -> None:
        self._shop = shop
        self.model = model

    def replies(self, since: float = 0) -> list[Reply]:
        """All replies from that time on, the oldest first."""
        text = self._shop.kube.kubectl("logs", POD, "-n", self._shop.namespace, timeout=60)
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("[") and line.endswith("]")]
        return sorted((Reply(*line) for line in lines if line[0] >= since), key=lambda reply: reply.time)

    def settled(self, seconds: float = 8) -> None:
        """Every client has asked twice at least since now."""
        moment = time.time()

        def all_asked() -> bool:
            seen = [reply.client for reply in self.replies(moment + seconds / 2)]
            wanted = len(set(KEEP_ALIVE)) + len(set(FRESH)) + len(set(GRPC))
            return time.time() > moment + seconds and len(set(seen)) == wanted

        self._shop.until("every client to have asked", seconds + 30, all_asked)

    def figures(self, began: float, verdict: float, bad: int) -> Figures:
        """Of everything since `began`, with a verdict on a revision. Replies that say that the request is wrong count
        as the bad revision's."""
        replies = self.replies(began)
        after = [reply for reply in replies if reply.time >= verdict and (reply.revision == bad or reply.error)]
        after = [reply for reply in after if not reply.failed]
        return Figures(
            bad_after=len(after),
            first_to_last=after[-1].time - after[0].time if after else 0.0,
            verdict_to_last=after[-1].time - verdict if after else 0.0,
            last_client=after[-1].client if after else "none",
            requests=len(replies),
            failed=[
                f"{reply.time - verdict:+.2f} s {reply.client}: {reply.error}" for reply in replies if reply.failed
            ],
        )


@contextmanager
def under_load(shop: Shop, model: str, seconds: float = 900) -> Iterator[Loaded]:
    """A pod with all kinds of clients asks the Model, until the end of the context."""
    inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in REQUEST.items()]
    load = Load(model, model, inputs, seconds, KEEP_ALIVE, FRESH, GRPC)
    script = Path(__file__).with_name("load.py")
    # The server's image, because it has gRPC.
    shop.apply(*script_pod(POD, image_names()["server"], script, {"LOAD": json.dumps(asdict(load))}))
    loaded = Loaded(shop, model)
    shop.until("the load", 90, lambda: loaded.replies() if shop.running(POD) else None)
    yield loaded
    shop.kube.kubectl("delete", "pod", POD, "-n", shop.namespace, "--wait=false")
