"""What the end of a container means, of ours and of a team's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from truekeep.domain.observed import PodView
from truekeep.domain.pods import crash, storeless

POD = PodView("p", datetime(2026, 1, 1, tzinfo=UTC), phase="Running", exit_message="words")


@pytest.mark.parametrize(
    ("code", "restarts", "theirs", "reason"),
    [
        (3, 0, False, "ServerRefused"),
        (3, 0, True, None),
        (3, 2, True, "ServerCrashed"),
        (4, 5, False, None),
        (4, 2, True, "ServerCrashed"),
        (0, 5, False, None),
        (0, 1, True, None),
        (0, 2, True, "ServerCrashed"),
        (1, 1, False, None),
        (1, 2, False, "ServerCrashed"),
        (None, 0, True, None),
    ],
)
def test_exit_codes_mean_something_only_of_our_own(
    code: int | None, restarts: int, theirs: bool, reason: str | None
) -> None:
    pod = replace(POD, exit_code=code, restarts=restarts, theirs=theirs)
    trouble = crash([pod])
    assert (trouble.reason if trouble else None) == reason
    if trouble and theirs:
        assert "spec.serving.image in pod p" in trouble.message
    assert (storeless([pod]) is not None) == (code == 4 and not theirs)
    assert crash([replace(pod, ready=True)]) is None
    assert crash([replace(pod, deleting=True)]) is None
