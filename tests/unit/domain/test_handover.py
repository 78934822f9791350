"""What a run keeps of the pod that judged it."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.domain.world import World
from truekeep.domain.decisions import decisions

IMAGE = "registry.example/trainer@sha256:" + "12" * 32


def test_a_run_and_what_is_kept_of_its_revision_name_the_image_as_the_node_does() -> None:
    world = World()
    world.reconcile()
    world.reconcile()
    (name,) = world.jobs
    world.end_job(name)
    job = world.jobs[name]
    world.jobs[name] = replace(job, pods=tuple(replace(pod, image_id=IMAGE) for pod in job.pods))
    world.calm()
    (run,) = world.runs.values()
    assert run.status.image_id == IMAGE
    (made,) = [one for one in decisions(world.observed()) if one.kind == "Revision"]
    assert made.image_id == IMAGE
