"""A repository of Git as Argo CD sees it: what it holds is applied, by a pipeline or again and again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import environment
from tests.e2e.shop import Shop, merged
from tests.story.kube import Json

RECIPES = Path(__file__).parents[2] / "docs/recipes"


class Repository:
    """What Git holds: a folder with a Model and its policy."""

    def __init__(self, shop: Shop, folder: Path, model: Json, policy: Json) -> None:
        self.shop = shop
        self.folder = folder
        self.model = model
        self.policy = policy
        self.commit()

    def commit(self, **spec: Any) -> None:
        """Another commit: the Model with this merged into its spec."""
        self.model["spec"] = merged(self.model["spec"], spec)
        for name, document in (("model", self.model), ("policy", self.policy)):
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(document))

    def run(self, *words: str | Path, timeout: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of a pipeline, with kubectl and truekeep in its path."""
        path = f"{Path(sys.executable).parent}:{Path(self.shop.kube.program).parent}:{os.environ['PATH']}"
        env = {**os.environ, **environment(), "PATH": path, "COLUMNS": "80", **variables}
        return subprocess.run(
            [str(word) for word in words], env=env, capture_output=True, text=True, timeout=timeout, check=False
        )

    def deploy(self) -> subprocess.CompletedProcess[str]:
        """Applies what there is, and waits for it."""
        return self.run(RECIPES / "deploy.sh", self.folder, self.shop.namespace, "180")

    def truekeep(self, *words: str) -> str:
        """What the command line says; it must end well."""
        done = self.run("truekeep", *words, "--namespace", self.shop.namespace)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def self_heal(self) -> Iterator[None]:
        """Applies what Git holds, again and again, as Argo CD does where it may heal."""
        over = threading.Event()

        def heal() -> None:
            while not over.wait(1.0):
                self.run(
                    self.shop.kube.program, "apply", "--server-side", "--force-conflicts", "--filename", self.folder,
                    "--namespace", self.shop.namespace,
                )  # fmt: skip

        thread = threading.Thread(target=heal)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
