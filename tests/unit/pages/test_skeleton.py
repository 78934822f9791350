"""Every HTML page of ours has a policy by which nothing runs and nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

import truekeep
from tests.unit.monitor.test_page import Tags
from truekeep.pages.skeleton import document, facts, table, text
from truekeep.server import openapi

HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x00"
PACKAGE = Path(truekeep.__file__).parent


def test_a_page_allows_its_own_style_and_nothing_else() -> None:
    page = document(
        HOSTILE, ".mine{color:red}", [*table([HOSTILE], [[HOSTILE]], [HOSTILE]), *facts([(HOSTILE, HOSTILE)])]
    )
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(each.split(" ", 1) for each in policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert page.index("Content-Security-Policy") < page.index("<title>"), "before anything that comes from data"
    tags = Tags(page).tags
    assert not {"script", "img"} & {tag for tag, _ in tags}
    assert not [name for _, given in tags for name in given if name.startswith("on")]
    assert not {"\u202e", "\x00"} & set(page)


@pytest.mark.parametrize("plain", ["<b>", "a & b", "\"'", "x" * 100])
def test_text_is_text(plain: str) -> None:
    assert not re.search(r"[<>\"']", text(plain))
    assert len(text("y" * 100, 10)) == 10


def test_no_page_is_made_beside_the_skeleton() -> None:
    """But one: the server's own, which says its policy in a header."""
    makers = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if re.search(r"<!doctype|<html", file.read_text(), re.I)
    }
    assert makers == {"pages/skeleton.py", "server/openapi.py"}
    name, policy = openapi.POLICY
    assert name.lower() == b"content-security-policy"
    assert b"default-src 'none'" in policy
