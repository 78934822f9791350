"""What a record says of the machine and the image: what bit-equality is promised for."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from truekeep.trainer.record.document import LOCK_DIGEST_ENV, cpu, lock_digest

X86 = "processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t: sse\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 7B13\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("told", "expected"),
    [(X86, "AMD EPYC 7B13"), (ARM, "CPU implementer 0x41, CPU part 0xd0c, CPU variant 0x3"), ("", None)],
)
def test_the_name_is_as_linux_tells_it(tmp_path: Path, told: str, expected: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    assert cpu(tmp_path / "cpuinfo")["model"] == expected


def test_the_kernels_of_linear_algebra_are_named() -> None:
    assert np.dot([1.0], [1.0])  # OpenBLAS is there
    assert cpu()["kernels"]


def test_the_lock_is_named_as_the_image_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the file that the Dockerfile writes with sha256sum, else by the environment."""
    said = subprocess.run(["sha256sum"], input=b"numpy==2", capture_output=True, check=True).stdout
    (tmp_path / "lock.sha256").write_bytes(said)
    monkeypatch.setenv(LOCK_DIGEST_ENV, "sha256:other")
    assert lock_digest(tmp_path / "lock.sha256") == f"sha256:{hashlib.sha256(b'numpy==2').hexdigest()}"
    assert lock_digest(tmp_path / "nowhere") == "sha256:other"
    monkeypatch.delenv(LOCK_DIGEST_ENV)
    (tmp_path / "lock.sha256").write_text("")
    assert lock_digest(tmp_path / "lock.sha256") is None
