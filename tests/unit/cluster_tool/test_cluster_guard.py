"""Another cluster is refused, whatever it calls itself."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import pki
from tests.cluster.errors import ClusterError
from tests.cluster.guard import require_own_context
from tests.cluster.kind import server_and_authority
from tests.cluster.layout import Layout, Record
from tests.cluster.manager import engine


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("TRUEKEEP_CLUSTER_DIR", str(tmp_path / "cluster"))
    return Layout(tmp_path / "cluster")


@pytest.fixture
def own(layout: Layout) -> Path:
    authority = pki.make(layout.pki, layout.config, layout.kubeconfig)
    Record("one-node", pki.SERVER, authority, "boot", "tool", {}).write(layout)
    return layout.kubeconfig


def changed(own: Path, tmp_path: Path, **change: Any) -> Path:
    document = yaml.safe_load(own.read_text())
    if "context" in change:
        document["contexts"][0]["name"] = document["current-context"] = change.pop("context")
    document["clusters"][0]["cluster"].update({key.replace("_", "-"): value for key, value in change.items()})
    other = tmp_path / "other"
    other.write_text(yaml.safe_dump(document))
    return other


def test_the_cluster_made_here_is_let_through(own: Path) -> None:
    require_own_context(own)
    assert engine() == "one-node"


def test_no_cluster_made_here_is_said(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no cluster was made here"):
        require_own_context(tmp_path / "kubeconfig")
    with pytest.raises(ClusterError, match="no cluster was made here"):
        engine()


def test_another_context_server_or_authority_is_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="its context is 'production', not 'truekeep'"):
        require_own_context(changed(own, tmp_path, context="production"))
    with pytest.raises(ClusterError, match=r"its server is https://prod\.example"):
        require_own_context(changed(own, tmp_path, server="https://prod.example"))
    forged = base64.b64encode(b"another authority").decode()
    with pytest.raises(ClusterError, match="certificate authority is not that of the cluster made here"):
        require_own_context(changed(own, tmp_path, certificate_authority_data=forged))


@pytest.mark.parametrize("content", ["", "not: a kubeconfig", "current-context: truekeep", "[", "{}"])
def test_what_is_no_kubeconfig_is_refused(own: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    with pytest.raises(ClusterError, match="is no kubeconfig with a current context"):
        require_own_context(file)


def test_kinds_own_kubeconfig_is_recognised_the_same_way(own: Path, layout: Layout) -> None:
    record = Record.read(layout)
    assert record is not None
    assert server_and_authority(own) == (record.server, record.ca_sha256)


def test_keys_are_for_their_owner_alone(own: Path, layout: Layout) -> None:
    private = [own, *layout.pki.glob("*.key"), *layout.config.glob("*.kubeconfig")]
    assert len(private) > 10
    assert {os.stat(file).st_mode & 0o777 for file in private} == {0o600}
