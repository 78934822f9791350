"""The base image of machines without Docker: the distribution's Python and what it needs, no package manager.

With Docker the Dockerfiles' default base is used (or the one that `TRUEKEEP_BASE` names). Here it is made of the
host's own distribution by mmdebstrap, once, and kept as a tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from images.commands import run
from images.errors import ImagesError
from images.places import Cache

PACKAGES = ("python3", "libstdc++6", "ca-certificates", "tzdata", "usr-is-merged")  # libstdc++6: pyarrow, scipy
# Essential to a machine, not to a container: no login, no mounts, no Perl for maintainer scripts that never run again.
PURGED = (
    *("openssl", "debconf", "perl-base", "mount", "e2fsprogs", "util-linux-extra", "logsave", "libext2fs2", "libss2"),
    *("sysvinit-utils", "init-system-helpers", "login", "passwd", "bsdutils", "hostname", "ncurses-bin"),
)
# dpkg's status stays: it tells scanners what is inside.
DROPPED = re.compile(
    r"(dev|proc|sys|run|tmp|boot|media|mnt|root|home|srv|opt)/.+"
    r"|etc/(apt|resolv\.conf|hostname|hosts|machine-id)(/.*)?"
    r"|var/(lib/apt|cache|log|backups)/.+|var/lib/dpkg/.*-old"
    r"|usr/lib/[^/]+/(gconv|perl-base)(/.*)?|usr/lib/python3[^/]*/(lib2to3|pydoc_data|ensurepip|idlelib|turtledemo|test)(/.*)?"
    r"|usr/share/(i18n|perl5|debconf|bash-completion|lintian|bug|pixmaps|menu|applications|doc-base|info|man|locale|doc)(/.*)?"
)
_RECIPE = "1"


@dataclass(frozen=True)
class Base:
    """A root file system in the cache."""

    archive: str  # the tar's file name
    sha256: str
    python: str  # "3.11"
    glibc_minor: int  # 36 for glibc 2.36: which wheels fit

    @property
    def reference(self) -> str:
        """The name of the image that is made of it, in our own store."""
        return f"localhost/truekeep/base:{self.sha256[:12]}"


def recipe_key(release: dict[str, str], machine: str) -> str:
    """What a base is made by: a change of any of it makes another base."""
    recipe = [_RECIPE, release["ID"], release["VERSION_CODENAME"], machine, *PACKAGES, "-", *PURGED, DROPPED.pattern]
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def host_release() -> dict[str, str]:
    """The ID and VERSION_CODENAME of the host; it must be a Debian or an Ubuntu."""
    lines = Path("/etc/os-release").read_text().splitlines() if Path("/etc/os-release").exists() else []
    release = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    if release.get("ID") not in {"debian", "ubuntu"} or "VERSION_CODENAME" not in release:
        raise ImagesError(
            f"no Docker engine answers, and a base image can't be made on {release.get('ID', 'this system')!r}: "
            "start Docker, or use a Debian or Ubuntu release"
        )
    return release


def find(cache: Cache) -> Base | None:
    """The base that is there already, if it is the one that this recipe makes on this host."""
    try:
        base = Base(**json.loads(_record(cache, host_release()).read_text()))
    except (ImagesError, FileNotFoundError, ValueError, TypeError):
        return None
    return base if (cache.base / base.archive).exists() else None


def ensure(cache: Cache, log: Path, on_line: Callable[[str], None], *, renew: bool = False) -> Base:
    """The base of this host's distribution, made if it is missing or `renew` asks for today's packages."""
    release = host_release()
    if not renew and (there := find(cache)) is not None:
        return there
    if os.geteuid() != 0:
        raise ImagesError("no Docker engine answers, and a base image is made as root only: start Docker, or be root")
    cache.base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.base) as folder:
        raw, small = Path(folder, "raw.tar"), Path(folder, "small.tar")
        run(mmdebstrap(release, raw), log=log, on_line=on_line)
        base = filter_archive(raw, small)
        small.replace(cache.base / base.archive)
    for old in cache.base.iterdir():
        if old.name != base.archive:
            old.unlink()
    _record(cache, release).write_text(json.dumps(asdict(base)) + "\n")
    return base


def _record(cache: Cache, release: dict[str, str]) -> Path:
    return cache.base / f"{recipe_key(release, os.uname().machine)}.json"


def mmdebstrap(release: dict[str, str], target: Path) -> list[str | Path]:
    sources = [Path(f"/etc/apt/sources.list.d/{release['ID']}.sources"), Path("/etc/apt/sources.list")]
    purge = f'dpkg --root="$1" --force-all --purge {" ".join(PURGED)} >/dev/null 2>&1'
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")]
    return [
        *("mmdebstrap", "--variant=essential", "--format=tar", f"--include={','.join(PACKAGES)}"),
        *("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", '--aptopt=APT::Install-Recommends "false"'),
        *excluded,
        *(f"--customize-hook={purge}", release["VERSION_CODENAME"], target),
        *[source for source in sources if source.exists()][:1],  # the mirrors that this host uses
    ]


def filter_archive(raw: Path, target: Path) -> Base:
    """Copy the tar without what is dropped, and look up what wheels fit it."""
    python, glibc = "", -1
    with tarfile.open(raw) as source, tarfile.open(target, "w") as sink:
        for member in source:
            name = member.name.removeprefix("./")
            if DROPPED.fullmatch(name):
                continue
            content: IO[bytes] | None = source.extractfile(member) if member.isfile() else None
            if found := re.fullmatch(r"usr/bin/python(3\.\d+)", name):
                python = found.group(1)
            elif name == "var/lib/dpkg/status" and content is not None:
                data = content.read()
                glibc, content = glibc_minor(data.decode()), io.BytesIO(data)
            sink.addfile(member, content)
    if not python or glibc < 0:
        raise ImagesError("the base has no python3 or no glibc: its packages are not those of a Debian or Ubuntu")
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Base(f"{digest[:12]}.tar", digest, python, glibc)


def glibc_minor(status: str) -> int:
    """36 where dpkg's status has libc6 at 2.36-9; -1 where it has none."""
    found = re.search(r"^Package: libc6\n(?:.+\n)*?Version: 2\.(\d+)", status, re.MULTILINE)
    return int(found.group(1)) if found else -1
