"""What people ask of a Model by annotation, because its spec belongs to Git: a pause, and a rollback. Pure.

A rollback is a pin that holds until the spec changes, as a fix in Git does, or the annotation goes. A pause lasts as
long as its annotation. What was handled is kept in the status; an annotation is never written here."""

from __future__ import annotations

import re
from collections.abc import Iterable

from truekeep.api.model import ManualRollback
from truekeep.api.names import ANNOTATION_PAUSED, ANNOTATION_ROLLBACK
from truekeep.domain.conditions import Finding
from truekeep.domain.observed import ModelView
from truekeep.domain.pods import Trouble

KIND = "Paused"
PREVIOUS = "previous"
# A revision's number or `previous`; what follows a slash is there to make the value a new one.
VALUE = re.compile(r"^(previous|[1-9][0-9]{0,8})(/.*)?$")
TEXT_LIMIT = 128


def paused(model: ModelView) -> bool:
    """Whether a person wants that nothing is trained and nothing promoted."""
    return model.meta.annotations.get(ANNOTATION_PAUSED, "").lower() not in ("", "false")


def pin(model: ModelView) -> int | None:
    """The revision that ought to answer whatever else there is: the spec's, else that of a rollback by hand."""
    pinned = model.spec.serving.pinned_revision
    if pinned is not None:
        return pinned
    asked = rollback(model)
    return asked.revision if asked else None


def rollback(model: ModelView) -> ManualRollback | None:
    """The rollback that is in force: as it was handled, or, where the annotation is new, as it is understood now."""
    asked, generation = _asked(model), model.meta.generation
    known = model.status.rollback
    if asked is None:
        return None
    if known is not None and known.value == asked:
        return known if known.generation == generation else None
    return ManualRollback(value=asked, revision=_revision(model, asked), generation=generation)


def handled(model: ModelView) -> ManualRollback | None:
    """What status remembers: the annotation's present value, also where a change of the spec ended the rollback."""
    known = model.status.rollback
    if known is not None and known.value == _asked(model):
        return known
    return rollback(model)


def trouble(model: ModelView, known: Iterable[int]) -> Trouble | None:
    """Why a rollback by hand leads nowhere; the live revision goes on then."""
    asked = rollback(model)
    if asked is None or model.spec.serving.pinned_revision is not None:
        return None
    words = f"annotation {ANNOTATION_ROLLBACK} is {asked.value!r}"
    if not VALUE.match(asked.value):
        remedy = f"write {PREVIOUS}, or a revision's number; the live revision goes on"
        return Trouble("RollbackUnclear", f"{words}, which says no revision: {remedy}")
    if asked.revision is None:
        return Trouble("NothingToRollBackTo", f"{words}, but no other revision has answered; the live one goes on")
    if asked.revision not in set(known):
        numbers = ", ".join(str(number) for number in sorted(known)) or "none"
        there = f"{words}, but there are revisions {numbers}; the live one goes on"
        return Trouble("NothingToRollBackTo", there + no_run_any_more(model, asked.revision))
    return None


def no_run_any_more(model: ModelView, number: int) -> str:
    """What to do where a revision was there once."""
    if number > model.status.latest_revision:
        return ""
    store = model.spec.store.s3.uri
    return f". Its run is gone; truekeep restore {model.meta.name} --revision {number} --store {store} brings it back"


def finding(model: ModelView) -> Finding:
    """Whether it is paused."""
    if not paused(model):
        return Finding(KIND, "False", "NotPaused")
    remedy = "remove the annotation, or say truekeep resume"
    words = f"annotation {ANNOTATION_PAUSED}: nothing is trained and nothing promoted, serving goes on; {remedy}"
    return Finding(KIND, "True", "PausedByHand", words)


def _asked(model: ModelView) -> str | None:
    value = model.meta.annotations.get(ANNOTATION_ROLLBACK, "").strip()
    return value[:TEXT_LIMIT] or None


def _revision(model: ModelView, value: str) -> int | None:
    """The number that a value means now; `previous`: that which answered last besides the live one."""
    found = VALUE.match(value)
    if found is None:
        return None
    if found[1] != PREVIOUS:
        return int(found[1])
    status = model.status
    active = status.active.revision if status.active else None
    before = [status.former.revision] if status.former else []
    before += [one.revision for one in status.history]
    return next((number for number in before if number != active), None)
