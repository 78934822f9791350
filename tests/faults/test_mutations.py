"""Every property mutated: a bad value is refused or reported, nothing is ever stuck, and undoing it recovers.

A seeded sample here; `-m full` tries all of them."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Iterator

import pytest

from tests.cluster.plane import Plane
from tests.faults.mutated import Admission, Json, Life
from tests.faults.mutations import Mutation, minimal, mutations, schema_of
from tests.unit.controller.world import POLICY, SPEC

SEED = 7
CLOCK = ".retraining.schedule"  # with it there is always a next run: it comes to no rest that could be compared
REFUSED_SAMPLE = 100
TRIED_SAMPLE = 3
RUN = {"modelRef": {"name": "m"}, "trigger": {"type": "Manual", "message": "somebody asked"}}
APPROVAL = {
    "modelRef": {"name": "m"},
    "artifactDigest": "sha256:" + "0" * 64,
    "decision": "Approve",
    "approver": "somebody",
    "reason": "it is better",
}
BASES: dict[str, Json] = {
    "models": SPEC,
    "driftpolicies": POLICY,
    "trainingruns": RUN,
    "modelapprovals": APPROVAL,
}


@functools.cache
def everything() -> tuple[Mutation, ...]:
    found: list[Mutation] = []
    for plural, base in BASES.items():
        found += mutations(plural, schema_of(plural), base)
    return tuple(found)


def sampled(of: list[Mutation], count: int) -> list[Mutation]:
    return random.Random(SEED).sample(of, min(count, len(of)))


@pytest.fixture(scope="module")
def admission() -> Iterator[Admission]:
    with Plane(controllers=False) as plane:
        yield Admission(plane)


def test_every_property_of_every_kind_is_mutated() -> None:
    found = everything()
    assert len(found) > 1500
    for plural in BASES:
        mine = [each for each in found if each.kind == plural]
        for name in schema_of(plural)["properties"]:
            assert any(each.path.split(".")[1] == name for each in mine), f"{plural}.{name}"
    assert len({each.name for each in found}) == len(found)
    assert {each.allowed for each in found} == {True, False}


def test_the_bases_are_good(admission: Admission) -> None:
    for plural, base in BASES.items():
        code, body = admission.asked(plural, base)
        assert code == 201, (plural, body.get("message"))


def check_admission(admission: Admission, tried: list[Mutation]) -> None:
    """What the schema forbids is refused with the property's name; what it allows is stored, or a rule says why not."""
    wrong = []
    for each in tried:
        code, body = admission.asked(each.kind, each.spec)
        message = str(body.get("message", ""))
        last = [part for part in each.path.split(".") if part != "0"][-1]
        if each.allowed and code == 201:
            continue
        if code not in (400, 422):
            wrong.append(f"{each.name}: {code} {message[:200]}")
        elif last not in message and not each.allowed and each.what != "left out":
            wrong.append(f"{each.name}: the message does not name {last}: {message[:300]}")
        elif len(message) < 20:
            wrong.append(f"{each.name}: nothing is said: {message}")
    assert not wrong, f"{len(wrong)} of {len(tried)}:\n" + "\n".join(wrong[:20])


async def check_lives(admission: Admission, tried: list[Mutation]) -> None:
    """With each that is admitted the operator comes to rest and reports; the same from any start; undone, as before."""
    base = {plural: admission.asked(plural, BASES[plural])[1]["spec"] for plural in ("models", "driftpolicies")}
    plain = Life(base["models"], base["driftpolicies"])
    await plain.begin(8)
    await plain.settle()
    wrong = []
    for each in tried:
        code, body = admission.asked(each.kind, each.spec)
        if code != 201 or each.kind not in base:
            continue
        try:
            await check_life(base, plain.state(), each, body["spec"])
        except AssertionError as error:
            wrong.append(f"{each.name}: {str(error)[:600]}")
    assert not wrong, f"{len(wrong)} of {len(tried)}:\n" + "\n".join(wrong[:12])


async def check_life(base: dict[str, Json], before: Json, each: Mutation, spec: Json) -> None:
    fresh = Life(**{"model": base["models"], "policy": base["driftpolicies"]})
    await fresh.apply("models", spec if each.kind == "models" else None)
    await fresh.apply("driftpolicies", spec if each.kind == "driftpolicies" else None)
    await fresh.settle()
    assert not fresh.crashes(), f"new, a reconciler crashed: {fresh.crashes()}"
    assert fresh.is_told(each.kind), f"new, nothing is said: {fresh.conditions(each.kind)}"

    late = Life(base["models"], base["driftpolicies"])
    await late.begin(8)
    await late.apply(each.kind, spec)
    await late.settle()
    assert not late.crashes(), f"as a change, a reconciler crashed: {late.crashes()}"
    assert late.is_told(each.kind), f"as a change, nothing is said: {late.conditions(each.kind)}"
    ready = [life.conditions("models").get("Ready", ("", ""))[0] for life in (fresh, late)]
    # What an autoscaler decided before is there still, and none runs here.
    if ready == ["True", "True"] and "autoscaling" not in spec.get("serving", {}):
        difference(fresh.state(), late.state(), "new, and as a change")

    await late.apply(each.kind, base[each.kind])
    await late.settle()
    difference(before, late.state(), "undone")

    amid = Life(base["models"], base["driftpolicies"])
    await amid.begin(8)
    await amid.apply(each.kind, spec)
    await amid.world.rounds(3, 1.0)  # in the middle of what the change leads to
    await amid.apply(each.kind, base[each.kind])
    await amid.settle()
    assert not amid.crashes(), f"undone in the middle, a reconciler crashed: {amid.crashes()}"
    difference(before, amid.state(), "undone in the middle of a rollout")


def difference(one: Json, other: Json, what: str) -> None:
    for name in one:
        assert one[name] == other[name], f"{what}: {name} differs: {one[name]} against {other[name]}"


def of_lives() -> list[Mutation]:
    found = [each for each in everything() if each.allowed and each.kind in ("models", "driftpolicies")]
    return [each for each in found if not each.path.startswith(CLOCK)]


def test_a_bad_value_is_refused_and_the_property_named(admission: Admission) -> None:
    check_admission(admission, sampled(list(everything()), REFUSED_SAMPLE))


async def test_a_change_ends_the_same_from_any_start_and_undone_as_before(admission: Admission) -> None:
    await check_lives(admission, sampled(of_lives(), TRIED_SAMPLE))


@pytest.mark.full
def test_every_bad_value_is_refused_and_the_property_named(admission: Admission) -> None:
    check_admission(admission, list(everything()))


@pytest.mark.full
@pytest.mark.parametrize("part", range(8))
async def test_every_change_ends_the_same_from_any_start_and_undone_as_before(admission: Admission, part: int) -> None:
    await check_lives(admission, of_lives()[part::8])


def test_the_simplest_value_of_a_schema_has_what_is_required() -> None:
    node = {
        "type": "object",
        "required": ["name", "count"],
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]{3}$"},
            "count": {"type": "integer", "minimum": 4},
            "more": {"type": "string"},
        },
    }
    found = minimal(copy.deepcopy(node))
    assert set(found) == {"name", "count"}
    assert found["count"] == 4
    assert len(found["name"]) == 3
