"""The story that `make demo` tells, step by step, as assertions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scraped import asked, names, scrapes
from tests.prometheus import running, until
from tests.story.kube import Kube
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from tests.story.steps import STEPS, Step
from tests.story.timeline import GOAL_SECONDS
from tests.story.trouble import tell_trouble
from tests.unit.manifests.test_monitoring import expressions, groups, plain

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


# What is shown of an object that gets nowhere, and of windows of the live revision that have findings or were measured;
# the newest revision may have none yet. tests/e2e/test_performance.py has all three.
NOT_ALWAYS = {
    "truekeep_operator_unsettled_seconds",
    "truekeep_policy_column_effect",
    "truekeep_policy_performance",
}


def test_a_real_prometheus_fed_by_it_answers_every_alert_and_panel(
    stage: Stage, failed: list[str], tmp_path: Path
) -> None:
    if failed:
        pytest.skip(f"the story stopped in step {failed[0]}")
    with running(tmp_path, scrapes(stage.kube, NAMESPACE, tmp_path), groups()) as prometheus:
        wanted = asked() - NOT_ALWAYS
        until(lambda: wanted <= names(prometheus), 60, lambda: {"missing": wanted - names(prometheus)})
        for expression in expressions():
            if not expression.startswith("label_values("):
                prometheus.query(plain(expression))
        promoted = prometheus.query(f'count(truekeep_server_ready{{namespace="{NAMESPACE}"}})')
        assert int(promoted[0]["value"][1]) >= 1


def test_the_loop_itself_costs_at_most_its_goal(stage: Stage, failed: list[str]) -> None:
    if stage.spent is None:
        pytest.skip(f"the story stopped in step {failed[0] if failed else '?'}")
    assert stage.spent.loop <= GOAL_SECONDS, stage.spent.words()
