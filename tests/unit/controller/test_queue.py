from __future__ import annotations

import asyncio

import pytest

from truekeep.controller.queue import ECHO_SECONDS, FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, Cause, Key, WorkQueue


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def key(name: str, model: str | None = None, kind: str = "Model") -> Key:
    return Key(kind, "demo", name, model or name)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def queue(time: Time) -> WorkQueue:
    return WorkQueue(time)


def test_a_key_is_kept_once(queue: WorkQueue) -> None:
    queue.add(key("a"))
    queue.add(key("a"))
    assert queue.pop() == key("a")
    queue.done(key("a"))
    assert queue.pop() is None


def test_the_key_that_is_due_longest_goes_first(queue: WorkQueue, time: Time) -> None:
    queue.add(key("later"), after=1)
    queue.add(key("sooner"), after=0.5)
    time.now += 2
    assert queue.pop() == key("sooner")


def test_what_is_added_while_it_is_worked_on_is_worked_on_again(queue: WorkQueue) -> None:
    queue.add(key("a"))
    assert queue.pop() == key("a")
    queue.add(key("a"))
    assert queue.pop() is None  # never twice at the same time
    queue.done(key("a"))
    assert queue.pop() == key("a")


def test_keys_of_one_model_are_never_worked_on_together(queue: WorkQueue) -> None:
    queue.add(key("m"))
    queue.add(key("m-1", "m", "TrainingRun"))
    queue.add(key("n"))
    first, second = queue.pop(), queue.pop()
    assert first is not None
    assert second is not None
    assert {first.model, second.model} == {"m", "n"}
    assert queue.pop() is None
    queue.done(first)
    third = queue.pop()
    assert third is not None
    assert third.model == first.model


def test_an_event_is_not_held_up_by_a_later_look(queue: WorkQueue) -> None:
    queue.add(key("a"), after=30)
    queue.add(key("a"))
    assert queue.pop() == key("a")


def test_a_later_look_does_not_put_off_an_earlier_one(queue: WorkQueue) -> None:
    queue.add(key("a"))
    queue.add(key("a"), after=30)
    assert queue.pop() == key("a")


def test_failures_wait_twice_as_long_each_time(queue: WorkQueue, time: Time) -> None:
    waits = []
    queue.add(key("a"))
    for _ in range(12):
        assert queue.pop() == key("a")
        waits.append(queue.failed(key("a")))
        assert queue.pop() is None
        time.now += waits[-1]
    assert waits[:3] == [FIRST_BACKOFF_SECONDS, 2 * FIRST_BACKOFF_SECONDS, 4 * FIRST_BACKOFF_SECONDS]
    assert waits[-1] == MAX_BACKOFF_SECONDS
    assert queue.pop() == key("a")
    queue.done(key("a"))
    queue.add(key("a"))
    queue.pop()
    assert queue.failed(key("a")) == FIRST_BACKOFF_SECONDS  # success forgets


def test_what_fails_does_not_spin_on_its_own_events_nor_sleep_through_its_remedy(queue: WorkQueue, time: Time) -> None:
    queue.add(key("a"))
    for _ in range(8):
        queue.pop()
        wait = queue.failed(key("a"))
        time.now += wait
    assert wait > ECHO_SECONDS
    queue.pop()
    queue.add(key("a"))  # while it is worked on
    assert queue.failed(key("a")) == ECHO_SECONDS
    assert queue.pop() is None
    queue.add(key("a"))  # afterwards: somebody mended it
    assert queue.pop() == key("a")


def test_progress_can_be_measured(queue: WorkQueue, time: Time) -> None:
    queue.add(key("a"))
    queue.add(key("b"), after=10)
    assert (queue.ready, len(queue)) == (1, 2)
    queue.pop()
    time.now += 7
    assert queue.longest_work() == 7
    queue.failed(key("a"))
    assert queue.longest_work() == 0
    assert queue.retrying == 1


async def test_a_waiting_worker_is_woken_by_a_key(queue: WorkQueue) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(key("a"))
    assert await waiting == key("a")


async def test_a_waiting_worker_is_woken_when_its_model_is_free(queue: WorkQueue) -> None:
    queue.add(key("m"))
    assert await queue.get() == key("m")
    queue.add(key("m-1", "m", "TrainingRun"))
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(key("m"))
    assert await waiting == key("m-1", "m", "TrainingRun")


async def test_two_workers_that_wait_get_a_key_each(queue: WorkQueue) -> None:
    waiting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add_all([key("a"), key("b")])
    assert {found.name for found in await asyncio.gather(*waiting)} == {"a", "b"}


def test_what_happened_goes_before_what_is_only_looked_at_again(queue: WorkQueue, time: Time) -> None:
    queue.add_all([key(f"old-{number:03d}") for number in range(100)], cause=Cause.ROUTINE)
    time.now += 5
    queue.add(key("changed"))
    assert queue.pop() == key("changed")


def test_what_is_only_looked_at_again_does_not_wait_for_ever(queue: WorkQueue, time: Time) -> None:
    queue.add(key("old"), cause=Cause.ROUTINE)
    seen = []
    for number in range(100):
        time.now += 1
        queue.add(key(f"changed-{number:03d}"))
        queue.add(key(f"changed-too-{number:03d}"))
        found = queue.pop()
        assert found is not None
        queue.done(found)
        seen.append(found)
    assert key("old") in seen


def test_a_key_that_waits_without_a_cause_hurries_once_it_has_one(queue: WorkQueue, time: Time) -> None:
    queue.add(key("a"), cause=Cause.ROUTINE)
    queue.add(key("b"), cause=Cause.ROUTINE)
    time.now += 5
    queue.add(key("b"))
    queue.add(key("b"), cause=Cause.ROUTINE)  # the lack of a cause takes none away
    assert queue.pop() == key("b")
    assert queue.pop() == key("a")
    assert queue.pop() is None


def test_a_time_that_was_set_stays_though_everything_is_looked_at(queue: WorkQueue, time: Time) -> None:
    queue.add(key("a"), after=10)
    queue.add(key("a"), after=5, cause=Cause.ROUTINE)
    queue.add(key("a"), after=60)
    queue.add_all([key(f"old-{number}") for number in range(20)], cause=Cause.ROUTINE)
    time.now += 10
    assert queue.pop() == key("a")


def test_a_key_of_a_busy_group_comes_back_when_the_group_is_free(queue: WorkQueue, time: Time) -> None:
    first, second = key("m-1", "m", "TrainingRun"), key("m-2", "m", "TrainingRun")
    queue.add(first)
    queue.add(second)
    assert queue.pop() == first
    assert queue.pop() is None
    assert queue.wait_seconds() is None
    queue.done(first)
    assert queue.wait_seconds() == 0.0
    assert queue.pop() == second


def test_thousands_of_keys_are_taken_in_no_time(queue: WorkQueue, time: Time) -> None:
    """Each once, whatever was added how often."""
    keys = [key(f"m-{number:05d}") for number in range(5000)]
    for each in keys:
        queue.add(each, after=60)
        queue.add(each, cause=Cause.ROUTINE)
        queue.add(each)
    taken = []
    while (found := queue.pop()) is not None:
        taken.append(found)
        queue.done(found)
    assert taken == keys
    assert len(queue) == 0


def test_others_wait_where_somebody_asked_for_something_of_both(queue: WorkQueue, time: Time) -> None:
    for name in ("a", "b"):
        queue.add(key(name), cause=Cause.WANTED)
    assert queue.pop() == key("a")
    assert queue.others_wait(key("a"))
    assert queue.pop() == key("b")
    assert not queue.others_wait(key("b"))
    queue.add(key("c"), after=1, cause=Cause.WANTED)
    queue.add(key("d"))
    assert not queue.others_wait(key("b")), "one is not due, and of the other nobody asked for anything"
    time.now += 1
    assert queue.others_wait(key("b"))


def test_for_what_only_happened_nobody_waits(queue: WorkQueue) -> None:
    queue.add(key("a"))
    assert queue.pop() == key("a")
    queue.add(key("b"), cause=Cause.WANTED)
    assert not queue.others_wait(key("a")), "it was looked at before: now it is told to its end"
