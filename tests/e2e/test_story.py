"""The story that `make demo` tells, step by step, as assertions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.story.kube import Kube
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from tests.story.steps import STEPS, Step
from tests.story.timeline import GOAL_SECONDS
from tests.story.trouble import tell_trouble

NAMESPACE = "truekeep-e2e-story"


@pytest.fixture(scope="module")
def stage(kube: Kube) -> Iterator[Stage]:
    """One telling for all steps. The namespace goes at the end: the cluster has other tests to run."""
    with Stage(kube, NAMESPACE, Narrator()) as stage:
        yield stage
    kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def failed() -> list[str]:
    """Steps that failed: what follows them can't be told."""
    return []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_step(stage: Stage, step: Step, failed: list[str]) -> None:
    if failed:
        pytest.skip(f"the story stopped in step {failed[0]}")
    stage.tell.chapter(STEPS.index(step) + 1, len(STEPS), step.title)
    try:
        step.act(stage)
    except BaseException:
        failed.append(step.name)
        tell_trouble(stage.kube, NAMESPACE, stage.tell)
        raise


def test_the_loop_itself_costs_at_most_its_goal(stage: Stage, failed: list[str]) -> None:
    if stage.spent is None:
        pytest.skip(f"the story stopped in step {failed[0] if failed else '?'}")
    assert stage.spent.loop <= GOAL_SECONDS, stage.spent.words()
