"""The base image of machines without Docker."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from images import base
from images.errors import ImagesError

STATUS = "Package: bash\nVersion: 5.2\n\nPackage: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u13\n\n"


def archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_package_managers_host_files_and_caches_do_not_get_in(tmp_path: Path) -> None:
    kept = {
        "usr/bin/python3.11": "elf",
        "usr/lib/python3.11/json/__init__.py": "",
        "var/lib/dpkg/status": STATUS,
        "etc/ssl/certs/ca-certificates.crt": "pem",
        "etc/passwd": "root",
        "usr/share/zoneinfo/UTC": "tz",
    }
    dropped = {
        "etc/apt/sources.list": "deb …",
        "etc/apt": "",
        "etc/resolv.conf": "nameserver …",
        "etc/hostname": "host",
        "var/lib/apt/lists/x": "",
        "var/cache/debconf/templates.dat": "",
        "var/lib/dpkg/status-old": "",
        "usr/share/doc/bash/copyright": "",
        "usr/lib/python3.11/lib2to3/main.py": "",
        "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so": "",
        "dev/null": "",
        "tmp/left": "",
    }
    target = tmp_path / "small.tar"
    found = base.filter_archive(archive(tmp_path / "raw.tar", kept | dropped), target)
    with tarfile.open(target) as tar:
        assert {name.removeprefix("./") for name in tar.getnames()} == set(kept)
        status = tar.extractfile("./var/lib/dpkg/status")
        assert status is not None
        assert status.read().decode() == STATUS
    assert (found.python, found.glibc_minor) == ("3.11", 36)
    assert found.archive == f"{found.sha256[:12]}.tar"


@pytest.mark.parametrize("lacking", ["usr/bin/python3.11", "var/lib/dpkg/status"])
def test_a_root_that_is_no_debian_with_python_is_refused(tmp_path: Path, lacking: str) -> None:
    files = {"usr/bin/python3.11": "", "var/lib/dpkg/status": STATUS}
    del files[lacking]
    with pytest.raises(ImagesError, match="no python3 or no glibc"):
        base.filter_archive(archive(tmp_path / "raw.tar", files), tmp_path / "small.tar")


def test_another_release_machine_or_recipe_is_another_base() -> None:
    bookworm = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    keys = {
        base.recipe_key(bookworm, "x86_64"),
        base.recipe_key(bookworm, "aarch64"),
        base.recipe_key({**bookworm, "VERSION_CODENAME": "trixie"}, "x86_64"),
    }
    assert len(keys) == 3
    assert base.recipe_key(bookworm, "x86_64") in keys


def test_nothing_recommended_is_installed_and_python_is() -> None:
    command = [str(word) for word in base.mmdebstrap({"ID": "debian", "VERSION_CODENAME": "bookworm"}, Path("out"))]
    assert '--aptopt=APT::Install-Recommends "false"' in command
    include = next(word for word in command if word.startswith("--include="))
    assert {"python3", "ca-certificates", "tzdata", "libstdc++6"} <= set(include.removeprefix("--include=").split(","))
    assert "bookworm" in command
