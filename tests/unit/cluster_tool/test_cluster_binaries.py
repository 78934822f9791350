"""What is built is found again by its content alone."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cluster import binaries
from tests.cluster.binaries import (
    GATEWAY_API,
    KIND_MODULES,
    KUBERNETES,
    KUBERNETES_VERSION,
    METRICS_SERVER,
    NODE_HELPER,
    ONE_NODE_MODULES,
    VERSITYGW,
    Builder,
    GoModule,
    cache_key,
    fetch_binary,
)
from tests.cluster.errors import ClusterError
from tests.cluster.layout import KIND_CONFIG
from tests.cluster.progress import Progress
from tests.cluster.toolchain import Go, find_go, required_version

GO = Go(Path("go"), "go1.26.8")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoModule:
    monkeypatch.setattr(binaries, "MODULES_DIRECTORY", tmp_path / "go")
    folder = tmp_path / "go" / "tool"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module tool\n\ngo 1.24.0\n")
    (folder / "go.sum").write_text("a v1 h1:1\n")
    (folder / "main.go").write_text("package main\n")
    return GoModule("tool", "tool", 1, {"tool": "."})


def test_the_key_is_the_same_for_the_same_content(module: GoModule) -> None:
    key = cache_key(module, "go1.26.8")
    (module.directory / "README.md").write_text("not built")
    assert cache_key(replace(module, title="another title", usual=9), "go1.26.8") == key


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go"])
def test_the_key_changes_with_every_file_that_is_built(module: GoModule, file: str) -> None:
    key = cache_key(module, "go1.26.8")
    with (module.directory / file).open("a") as changed:
        changed.write("// changed\n")
    assert cache_key(module, "go1.26.8") != key


def test_the_key_changes_with_flags_packages_and_go(module: GoModule) -> None:
    keys = {
        cache_key(module, "go1.26.8"),
        cache_key(module, "go1.26.9"),
        cache_key(replace(module, ldflags="-X a=b"), "go1.26.8"),
        cache_key(replace(module, packages={"tool": ".", "other": "./other"}), "go1.26.8"),
    }
    assert len(keys) == 4


def test_only_what_is_missing_is_to_be_built(module: GoModule, tmp_path: Path) -> None:
    builder = Builder(GO, tmp_path / "cache")
    assert builder.missing([module]) == [module]
    builder.directory(module).mkdir(parents=True)
    assert builder.missing([module]) == []
    assert builder.path(module, "tool") == builder.directory(module) / "tool"
    builder.build([], Progress([]))  # nothing to build takes no lock and no space
    assert not (tmp_path / "cache" / ".lock").exists()


def test_every_module_pins_what_it_builds() -> None:
    for module in (*ONE_NODE_MODULES, *KIND_MODULES, VERSITYGW, METRICS_SERVER, GATEWAY_API):
        go_mod = (module.directory / "go.mod").read_text()
        assert (module.directory / "go.sum").exists()
        assert "latest" not in go_mod
        if module is not NODE_HELPER:
            version = module.title.split()[-1]
            assert re.search(rf" v{re.escape(version)}\s", go_mod), f"{module.title} is not what its go.mod requires"


def test_kubernetes_and_its_staging_modules_are_of_one_release() -> None:
    staging = KUBERNETES_VERSION.replace("1.", "0.", 1)
    replaced = [line for line in (KUBERNETES.directory / "go.mod").read_text().splitlines() if "=>" in line]
    assert len(replaced) > 20
    assert {line.split()[-1] for line in replaced} == {f"v{staging}"}


def test_the_go_that_is_asked_for_is_the_highest_of_the_modules(tmp_path: Path) -> None:
    for name, line in {"a": "go 1.24.0", "b": "go 1.25.3", "c": "go 1.9"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "go.mod").write_text(f"module {name}\n\n{line}\n")
    assert required_version(tmp_path) == (1, 25)


@pytest.mark.parametrize(
    ("said", "found"),
    [("go version go1.24.9 linux/amd64", False), ("go version go1.25.0 linux/amd64", True), ("broken", False)],
)
def test_a_go_that_is_too_old_is_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: bool
) -> None:
    program = tmp_path / "go"
    program.write_text(f"#!/bin/sh\necho {said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert (find_go((1, 25), tmp_path / "cache") is not None) == found


def test_an_unknown_binary_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ClusterError, match=r"no binary 'minio'; there are .*versitygw"):
        fetch_binary("minio")


def test_kind_reads_the_configuration_and_refuses_a_bad_one(tmp_path: Path) -> None:
    """With kind's own parser, defaults and validation."""
    configcheck = fetch_binary("configcheck")
    done = subprocess.run([configcheck, KIND_CONFIG], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{KIND_CONFIG}: truekeep, 1 node(s)\n"
    for wrong in ("roles: [control-plane]", "name: Not_A_Name", "nodes: [{role: worker}]"):
        config = tmp_path / "kind.yaml"
        config.write_text(f"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n{wrong}\n")
        assert subprocess.run([configcheck, config], capture_output=True, check=False).returncode == 1, wrong
