"""All attacks, and the classes that must be there; floods need a server, and have a test of their own."""

from __future__ import annotations

from collections.abc import Iterator

from tests.unit.redteam import answers, control, fields, files, network, pages, people
from tests.unit.redteam.attack import Attack

CLASSES = (
    fields.PODSPEC, fields.HOST, fields.OTHERS, fields.IMAGES, fields.LARGE, fields.NAMES, fields.URIS,
    people.WHO, people.ACCOUNTS, people.RESTORE,
    network.SSRF, network.REBINDING, network.REDIRECTS,
    files.TRAVERSAL, files.LINKS, files.PICKLE, files.ARCHIVES,
    answers.NUMBERS, answers.XSS, answers.MANAGEMENT,
    control.GARBAGE, control.ANNOTATIONS,
)  # fmt: skip


def every() -> Iterator[Attack]:
    """Class by class."""
    for room in (fields, people, network, files, answers, pages, control):
        yield from room.attacks()
