"""A status is ours as a whole, also where somebody else wrote into it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from truekeep.cluster import kinds
from truekeep.cluster.errors import Refused
from truekeep.cluster.write import Writer
from truekeep.domain.observed import Meta
from truekeep.domain.plan import Settings

ABOUT = Meta("demo", "m", "uid", datetime(2026, 1, 1, tzinfo=UTC), 1, "7")
OURS = {"manager": "truekeep", "operation": "Apply", "subresource": "status"}
THEIRS = {"manager": "kubectl-edit", "operation": "Update", "subresource": "status"}
OF_THE_SPEC = {"manager": "kubectl", "operation": "Update"}
WANTED = {"latestRevision": 1}


class OneObject:
    """An API server with one object; `left`: what an apply leaves of the former status; None: it refuses."""

    def __init__(self, owners: list[dict[str, str]], left: dict[str, Any] | None) -> None:
        self.metadata = {"resourceVersion": "8", "managedFields": owners}
        self.left = left
        self.set: list[tuple[Any, ...]] = []

    async def get(self, *_: Any) -> dict[str, Any]:
        return {"metadata": self.metadata}

    async def apply_status(self, kind: Any, namespace: str, name: str, version: str, status: Any) -> dict[str, Any]:
        if self.left is None:
            raise Refused("status.candidate in body must be of type object: null")
        return {"metadata": self.metadata, "status": {**status, **self.left}}

    async def set_status(self, *words: Any) -> None:
        self.set.append(words[1:])


def writer(api: OneObject) -> Writer:
    return Writer(api, Settings(), "operator-0")  # type: ignore[arg-type]


async def test_an_apply_is_enough_where_nobody_else_wrote() -> None:
    api = OneObject([OURS, OF_THE_SPEC], {})
    assert await writer(api).status(kinds.MODEL, ABOUT, {}, WANTED)
    assert api.set == []


@pytest.mark.parametrize(("left", "version"), [(None, "7"), ({"candidate": {"revision": 99}}, "8")])
async def test_what_somebody_else_wrote_is_replaced_and_owners_of_the_spec_stay(left: Any, version: str) -> None:
    api = OneObject([OURS, THEIRS, OF_THE_SPEC], left)
    assert await writer(api).status(kinds.MODEL, ABOUT, {}, WANTED)
    assert api.set == [("demo", "m", version, WANTED, [OF_THE_SPEC])]


async def test_a_refusal_that_is_nobody_elses_fault_stays_one() -> None:
    api = OneObject([OURS, OF_THE_SPEC], None)
    with pytest.raises(Refused):
        await writer(api).status(kinds.MODEL, ABOUT, {}, WANTED)
    assert api.set == []
