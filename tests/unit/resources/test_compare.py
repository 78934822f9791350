"""A setting that was taken away is seen in what the operator applied before, and nobody else's is."""

from __future__ import annotations

from typing import Any

from truekeep.resources.compare import holds, left_over

OURS = "truekeep"


def live(fields: dict[str, Any], manager: str = OURS, operation: str = "Apply", **more: Any) -> dict[str, Any]:
    entry = {"manager": manager, "operation": operation, "fieldsV1": fields, **more}
    return {"metadata": {"managedFields": [entry]}, "spec": {"a": 1, "b": 2}}


def test_a_field_that_is_not_wanted_any_more_is_left_over() -> None:
    there = live({"f:spec": {"f:a": {}, "f:b": {}}})
    assert holds({"spec": {"a": 1}}, there), "the comparison alone does not see it"
    assert left_over({"spec": {"a": 1}}, there, OURS)
    assert not left_over({"spec": {"a": 1, "b": 2}}, there, OURS)
    assert not left_over({"spec": {"a": 1, "b": 3}}, there, OURS), "another value is not for it to see"


def test_what_others_own_and_what_is_a_status_is_left_alone() -> None:
    fields = {"f:spec": {"f:a": {}, "f:b": {}}}
    for there in (
        live(fields, manager="kubectl"),
        live(fields, operation="Update"),
        live(fields, subresource="status"),
        {"metadata": {}},
    ):
        assert not left_over({"spec": {"a": 1}}, there, OURS)


def test_items_of_a_list_are_found_by_their_keys() -> None:
    port = {"port": 8080, "name": "http"}
    fields = {"f:ports": {".": {}, 'k:{"port":8080,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}}}}
    there = live(fields)
    assert not left_over({"ports": [port]}, there, OURS), "the protocol is a default"
    assert left_over({"ports": [{"port": 9090, "name": "http"}]}, there, OURS)
    assert left_over({"ports": [{"port": 8080}]}, there, OURS), "its name was taken away"


def test_a_list_that_is_one_value_is_not_looked_into() -> None:
    assert not left_over({"command": ["a", "b"]}, live({"f:command": {}}), OURS)
