"""What a plan is: one fault, at one place of the story, under one number.

number = (chapter * 1000 + index) * 100 + kind. The index counts, from the chapter's start, the writes that the operator
sends (its Lease's left out), the events that its watches are told, or its reads, as the kind of fault needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Of = Literal["write", "event", "read"]


@dataclass(frozen=True)
class Kind:
    """A way in which something goes wrong."""

    code: int
    name: str
    of: Of
    words: str


KINDS = (
    Kind(0, "kill-before", "write", "the operator is killed; the write never reaches the API server"),
    Kind(1, "kill-after", "write", "the write is done; the operator is killed before it hears of it"),
    Kind(2, "conflict", "write", "409: the object was changed meanwhile"),
    Kind(3, "invalid", "write", "422: an admission says no, this once"),
    Kind(4, "throttled", "write", "429: come back later"),
    Kind(5, "error", "write", "500"),
    Kind(6, "unanswered", "write", "no answer, and the write is not done"),
    Kind(7, "answer-lost", "write", "no answer, though the write is done"),
    Kind(8, "usurped", "write", "the leader is stopped at the write, another one takes the Lease and goes on; at the "
         "chapter's end the write arrives after all, and the old leader wakes"),
    Kind(20, "drop", "event", "the event is never told"),
    Kind(21, "delay", "event", "the event and all after it on its watch come 2 s late"),
    Kind(22, "replay", "event", "the event is told again a second later, when others were told since"),
    Kind(23, "reorder", "event", "the event is told after the next one of its watch"),
    Kind(24, "silence", "event", "from this event on no watch tells anything till the chapter's end"),
    Kind(40, "stale", "read", "the read is answered as the same read was answered before"),
    Kind(41, "stale-second", "read", "for a second all reads are answered as they were answered before"),
    Kind(42, "read-error", "read", "500"),
)  # fmt: skip
BY_CODE = {kind.code: kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}
INDICES, CODES = 1000, 100


@dataclass(frozen=True, order=True)
class Plan:
    """One fault."""

    chapter: int
    index: int
    code: int

    @property
    def number(self) -> int:
        """By which it is replayed."""
        return (self.chapter * INDICES + self.index) * CODES + self.code

    @property
    def kind(self) -> Kind:
        """What goes wrong."""
        return BY_CODE[self.code]

    @classmethod
    def of(cls, number: int) -> Plan:
        """The plan of this number. ValueError where there is none."""
        rest, code = divmod(number, CODES)
        chapter, index = divmod(rest, INDICES)
        if code not in BY_CODE or number < 0:
            raise ValueError(f"no plan has the number {number}: its last two digits are to be one of {sorted(BY_CODE)}")
        return cls(chapter, index, code)

    def __str__(self) -> str:
        return f"plan {self.number}: chapter {self.chapter}, {self.kind.of} {self.index}, {self.kind.name}"
