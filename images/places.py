"""Names and places: nothing else in the tool spells them out."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENT_FILE = Path("build", "images.env")  # below the repository
KEPT_TAGS = 2  # per image: the newest, and the one before it to compare with or to go back to


@dataclass(frozen=True)
class Image:
    """One image. What goes into it is said by its Dockerfile and by nothing else."""

    name: str
    binaries: tuple[str, ...] = ()  # of the cluster tool, put beside the Dockerfile's other sources

    @property
    def repository(self) -> str:
        return f"truekeep/{self.name}"

    @property
    def dockerfile(self) -> str:
        """Relative to the repository, and to every build context."""
        return f"images/{self.name}/Dockerfile"

    @property
    def variable(self) -> str:
        """The environment variable that tells others the image's full name."""
        return f"TRUEKEEP_{self.name.upper()}_IMAGE"


IMAGES = (
    Image("operator"),
    Image("trainer"),
    Image("server"),
    Image("monitor"),
    Image("tools"),
    Image("versitygw", binaries=("versitygw",)),
)


@dataclass(frozen=True)
class Cache:
    """What survives a session. `TRUEKEEP_CACHE` moves it."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        configured = os.environ.get("TRUEKEEP_CACHE")
        return cls((Path(configured) if configured else Path.home() / ".cache" / "truekeep").absolute() / "images")

    @property
    def archives(self) -> Path:
        return self.root / "archives"

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def packages(self) -> Path:
        """Mounted into the builder stages where there is no Docker: `pip/` and `wheels/`."""
        return self.root / "packages"

    @property
    def storage(self) -> Path:
        """Buildah's images and layers: a store of our own, so that pruning touches nobody else's."""
        return self.root / "storage"

    @property
    def contexts(self) -> Path:
        return self.root / "contexts"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def archive(self, image: Image, tag: str) -> Path:
        return self.archives / f"{image.name}-{tag}.tar"

    @contextmanager
    def lock(self, when_waiting: Callable[[], None]) -> Iterator[None]:
        """One build at a time in this cache; a second one waits for the first."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                when_waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
