"""What the steps of a story share: the cluster, the namespace, the store, and who listens."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.cluster import environment, require_own_context
from tests.story.kube import ROOT, Json, Kube, condition, holds, image_names, name_of
from tests.story.narrator import Narrator
from tests.story.timeline import Cost, Timeline
from truekeep.api.common import S3Location
from truekeep.storage.errors import ObjectMissing
from truekeep.storage.s3 import Bucket

EXAMPLES = ROOT / "manifests" / "examples"
MODEL = "flight-delay"
S3_PORT = 7070
DETAIL = 60  # characters of what is told while waiting


class StoryError(AssertionError):
    """The story did not go as it is told."""


def check(true: object, otherwise: str) -> None:
    """An assertion of the story, with words for when it fails."""
    if not true:
        raise StoryError(otherwise)


def own_cluster() -> Kube:
    """The cluster that `make up` made. ClusterError for any other, and where there is none."""
    variables = environment()
    kubeconfig = Path(variables["KUBECONFIG"])
    require_own_context(kubeconfig)
    return Kube(kubeconfig, Path(variables["PATH"].split(os.pathsep)[0]) / "kubectl")


@dataclass
class Stage:
    """One telling. A context: what it opened is closed at its end, and the namespace stays."""

    kube: Kube
    namespace: str
    tell: Narrator
    images: Mapping[str, str] = field(default_factory=image_names)
    timeline: Timeline = field(default_factory=Timeline)
    endpoint: str = ""  # of the store, from this machine
    breach: str = ""  # when drift was found
    spent: Cost | None = None  # from there to the promotion
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def folder(self) -> Path:
        """A folder for the data, gone at the end."""
        return Path(self._stack.enter_context(TemporaryDirectory(prefix="truekeep-story-")))

    def open_store(self) -> None:
        """Make the store reachable from here, with the keys of the namespace's Secret."""
        secret = self.kube.get(self.namespace, "secrets", "lake") or {}
        for name, value in secret.get("data", {}).items():
            os.environ[name] = base64.b64decode(value).decode()
        port = self._stack.enter_context(self.kube.forward(self.namespace, "s3", S3_PORT))
        self.endpoint = f"http://127.0.0.1:{port}"

    def bucket(self, name: str) -> Bucket:
        """One bucket of the store."""
        return Bucket.open(S3Location(uri=f"s3://{name}/", endpoint=self.endpoint))

    def model(self) -> Json:
        """The Model as it is now."""
        found = self.kube.get(self.namespace, "models", MODEL)
        check(found, f"the Model {MODEL} is gone")
        assert found is not None
        return found

    def policy(self) -> Json:
        """The DriftPolicy as it is now."""
        found = self.kube.get(self.namespace, "driftpolicies", MODEL)
        check(found, f"the DriftPolicy {MODEL} is gone")
        assert found is not None
        return found

    def runs(self, trigger: str | None = None) -> list[Json]:
        """The TrainingRuns, the oldest first; those of one trigger."""
        runs = self.kube.list(self.namespace, "trainingruns")
        return [run for run in runs if trigger in (None, run["spec"].get("trigger", {}).get("type"))]

    def ledger(self) -> dict[str, Any]:
        """The replay's account, as of the last day that it finished; empty before."""
        try:
            stored: dict[str, Any] = json.loads(self.bucket("replay").get(f"{MODEL}/ledger.json"))
        except ObjectMissing:
            return {}
        return stored

    def kubectl(self, *words: str, show: Sequence[str] = ()) -> str:
        """Run kubectl in the namespace, after telling it as lines to copy: `show`, or the words themselves."""
        first, *more = show or [" ".join(words)]
        lines = [f"kubectl -n {self.namespace} {first}", *(f"  {line}" for line in more)]
        self.tell.command(*(f"{line} \\" for line in lines[:-1]), lines[-1])
        text = self.kube.kubectl("-n", self.namespace, *words)
        self.tell.output(text)
        return text

    def until(
        self,
        what: str,
        seconds: float,
        get: Callable[[], Json],
        true: Callable[[Json], object],
        detail: Callable[[Json], str] = lambda item: "",
    ) -> Json:
        """What `get` answers, once it is as wanted; `detail` tells of it meanwhile. NotInTime after so many seconds."""
        with self.tell.waiting(what) as progress:

            def look() -> Json | None:
                item = get()
                if true(item):
                    return item
                progress(detail(item)[:DETAIL])
                return None

            return self.kube.wait(what, seconds, look)

    def finished_run(self, what: str, seconds: float, trigger: str, number: int = 0) -> Json:
        """The run of this trigger, once it succeeded. StoryError where it ended otherwise."""

        def get() -> Json:
            runs = self.runs(trigger)
            return runs[number] if len(runs) > number else {}

        def ended(run: Json) -> bool:
            return any(holds(run, kind) for kind in ("Complete", "Failed"))

        run = self.until(what, seconds, get, ended, lambda run: condition(run, "Ready").get("message", "no run yet"))
        ready = condition(run, "Ready")
        check(holds(run, "Complete"), f"run {name_of(run)} ended with {ready.get('reason')}: {ready.get('message')}")
        return run

    def no_failure(self) -> None:
        """The replay counts every request, and none may have failed."""
        ledger = self.ledger()
        check(ledger.get("requests"), "the replay has sent nothing")
        words = f"{ledger['failed']} of {ledger['requests']} requests failed: {ledger['failures'][:3]}"
        check(not ledger["failed"], words)
