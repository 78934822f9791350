"""The pages of decisions in a store (contract.decisions), each checked against the one before."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import ValidationError

from truekeep.contract import layout
from truekeep.contract.canonical import sha256
from truekeep.contract.decisions import Decision, Page
from truekeep.storage.artifacts import Store

THREADS = 8
_NUMBER = re.compile(r"/decisions/([0-9]{8})\.json$")


@dataclass(frozen=True)
class Pages:
    """All decisions in the order in which they were written. `digests`: of the pages, the oldest first; `faults`: why
    they can't be trusted, in words."""

    decisions: tuple[Decision, ...]
    digests: tuple[str, ...]
    newest: int  # number of the newest page; 0 where there is none
    faults: tuple[str, ...]


def read(store: Store, namespace: str, model: str) -> Pages:
    """All pages of a Model. StoreError where the store does not answer."""
    prefix = layout.decisions(namespace, model)
    keys = [(int(found[1]), info.key) for info in store.list(prefix) if (found := _NUMBER.search(info.key))]
    decisions: list[Decision] = []
    faults: list[str] = []
    digests: list[str] = []
    head: str | None = None  # of the page before
    expected = 1
    with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as pool:
        contents = pool.map(lambda item: store.get(item[1]), keys)
        for (number, key), content in zip(keys, contents, strict=True):
            if number != expected:
                gone = f"page {expected}" if number == expected + 1 else f"pages {expected} to {number - 1}"
                faults.append(f"{gone} of {store.uri(prefix)}: taken away or lost")
                head = None
            try:
                page = Page.model_validate_json(content)
                faults += _faults(page, store.uri(key), number, head)
                decisions += page.decisions
            except ValidationError as error:
                faults.append(f"{store.uri(key)} is no page of decisions: {error.errors(include_url=False)[0]['msg']}")
            head, expected = sha256(content), number + 1
            digests.append(head)
    return Pages(tuple(decisions), tuple(digests), expected - 1, tuple(faults))


def _faults(page: Page, uri: str, number: int, head: str | None) -> list[str]:
    """Why a page is not what it ought to be; `head`: digest of the one before, where there is one."""
    if page.number != number:
        return [f"{uri} says that it is page {page.number}: it was moved or altered"]
    if (head is not None or number == 1) and page.previous != head:
        return [f"{uri} does not follow the page before it: one of the two was altered"]
    return []
