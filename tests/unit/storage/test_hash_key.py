"""The key of the hashes, as it is mounted; and the hashes, as anybody may compute them."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.contract.hashing import hashed, number_text
from truekeep.contract.requests import SECRETS_DIR_ENV
from truekeep.storage.hash_key import HashKeyError, read_hash_key

KEY = b"0123456789abcdef"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(SECRETS_DIR_ENV, str(tmp_path))
    (tmp_path / "salt").mkdir()
    return tmp_path / "salt" / "HASH_KEY"


def test_white_space_around_the_key_is_no_part_of_it(secret: Path) -> None:
    secret.write_bytes(b"  " + KEY + b"\n")
    assert read_hash_key("salt") == KEY


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"short\n", "Secret salt, key HASH_KEY: has 5 bytes, at least 16 are needed"), (None, "can't be read")],
)
def test_a_key_that_can_not_be_used_is_refused(secret: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(HashKeyError, match=message):
        read_hash_key("salt")


def test_openssl_makes_the_same_hash() -> None:
    command = ["openssl", "dgst", "-sha256", "-hmac", KEY.decode(), "-r"]
    said = subprocess.run(command, input=b"flight_id=4711", capture_output=True, check=True).stdout.decode()
    assert hashed(KEY, "flight_id", "4711") == said[:32]


def test_column_and_key_are_part_of_the_hash() -> None:
    hashes = {hashed(key, column, "x") for key in (KEY, b"another key 16 b") for column in ("a", "b")}
    assert len(hashes) == 4


@given(st.floats(allow_nan=True))
def test_the_text_of_a_number_reads_the_same(value: float) -> None:
    text = number_text(value)
    assert math.isnan(value) if text is None else float(text) == value


def test_whole_numbers_have_plain_digits() -> None:
    assert [number_text(value) for value in (7.0, -0.0, 7.5, 1e22)] == ["7", "0", "7.5", "1e+22"]
