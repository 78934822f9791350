"""The chapters, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.story import loop, opening
from tests.story.stage import Stage


@dataclass(frozen=True)
class Step:
    """One chapter: it does something, waits for what must follow, and shows the proof."""

    name: str
    title: str
    act: Callable[[Stage], None]


STEPS = (
    Step("prepare", "A fresh namespace, and the past in its object store", opening.prepare),
    Step("ask", "A model is asked for", opening.ask),
    Step("train", "Data validated, revision 1 trained, gates judged", opening.train),
    Step("serve", "It serves, and a prediction is answered", opening.serve),
    Step("replay", "Traffic is replayed, answered and captured", opening.replay),
    Step("drift", "The world changes, and drift is detected", loop.drift),
    Step("retrain", "A run by the DriftPolicy: challenger against champion", loop.retrain),
    Step("promote", "Revision 2 is promoted while traffic runs", loop.promote),
    Step("bad", "A bad revision is pushed on purpose, and rolled back", loop.push_bad),
    Step("look", "How it stands", loop.look_around),
    Step("record", "Where the record is", loop.record),
    Step("end", "The timeline, and what to try next", loop.end),
)
