"""Nothing that is in Git is a secret: keys and tokens by the rules of detect-secrets, and what manifests hold."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

from tests.story.kube import ROOT

# Made up, each for the test or the demo that it is in.
MADE_UP = {"secret", "pass", "made-up-for-the-demo"}
PLAIN = (".png", ".parquet", ".sum", ".lock")
# Rules for what has a form of its own. Those that guess by the words around a value find every name of a variable here.
SKIPPED = {"Public IP (ipv4)", "Secret Keyword", "Base64 High Entropy String", "Hex High Entropy String"}


def rules() -> list[RegexBasedDetector]:
    found = [
        each()
        for name, each in get_mapping_from_secret_type_to_class().items()
        if name not in SKIPPED and issubclass(each, RegexBasedDetector)
    ]
    assert len(found) > 15
    return found


def committed() -> Iterator[Path]:
    """The files that Git knows, with what is about to be committed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if not name.endswith(PLAIN) and (ROOT / name).is_file():
            yield ROOT / name


def secrets(text: str, detectors: list[RegexBasedDetector]) -> list[str]:
    """What looks like one: the kind of each. Values are not shown, lest a log has them."""
    return [
        detector.secret_type
        for detector in detectors
        for value in detector.analyze_string(text)
        if value not in MADE_UP and "\n" not in value.strip()
    ]


def test_no_file_holds_a_key_or_a_token() -> None:
    detectors = rules()
    found = {}
    for path in committed():
        if kinds := secrets(path.read_text(errors="replace"), detectors):
            found[str(path.relative_to(ROOT))] = kinds
    assert not found, "take it out, and make it invalid where it was issued: Git keeps what was committed once"


@pytest.mark.parametrize(
    "parts",
    [
        ("AKIA", "IOSFODNN7EXAMPLQ"),
        ("ghp_", "0123456789abcdefghijABCDEFGHIJ012345"),
        ("-----BEGIN RSA ", "PRIVATE KEY-----"),
        ("xoxb-", "123456789012-1234567890123-abcdefghijklmnopqrstuvwx"),
        ("https://deploy:", "hunter2hunter2@registry.example"),
    ],
)
def test_a_planted_one_is_found(parts: tuple[str, str]) -> None:
    assert secrets(f"a line\nTOKEN = '{''.join(parts)}'\n", rules())


def test_no_manifest_holds_a_secret_but_the_demos() -> None:
    held = []
    for path in sorted((ROOT / "manifests").rglob("*.yaml")):
        if "helm" not in path.parts:
            held += [
                path.relative_to(ROOT / "manifests").as_posix()
                for each in yaml.safe_load_all(path.read_text())
                if isinstance(each, dict) and each.get("kind") == "Secret"
            ]
    assert held == ["examples/s3/secret.yaml"]
