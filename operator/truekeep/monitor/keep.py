"""Takes what was decided on a Model's revisions to the store, each decision once, page after page (contract.decisions).

`python -m truekeep.monitor.keep`; request in TRUEKEEP_REQUEST, result as termination message. Pages are only ever
added: a page that another pod wrote meanwhile is read, and the next number is taken.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from truekeep.contract import layout
from truekeep.contract.canonical import sha256
from truekeep.contract.decisions import Page, told
from truekeep.contract.requests import KeepRequest
from truekeep.contract.results import EXIT_JUDGED, EXIT_OUTSIDE, KeepResult
from truekeep.monitor.errand import Done, run
from truekeep.storage import StoreError
from truekeep.storage import decisions as stored
from truekeep.storage.artifacts import Store
from truekeep.storage.s3 import Bucket

THREADS = 8
ATTEMPTS = 5  # others that write at the same time
_NUMBER = re.compile(r"/([0-9]{8})\.json$")


def keep(store: Store, request: KeepRequest, now: datetime) -> KeepResult:
    """Add what the store has not. StoreError where it does not take it."""
    for _ in range(ATTEMPTS):
        kept = stored.read(store, request.namespace, request.model)  # what was altered, whoever reads the chain is told
        known = {one.id for one in kept.decisions}
        pages, head = kept.newest, kept.digests[-1] if kept.digests else None
        new = tuple(one for one in request.decisions if one.id not in known)
        if new:
            page = Page(
                namespace=request.namespace, model=request.model, number=pages + 1, previous=head, written=now,
                decisions=new,
            )  # fmt: skip
            content = page.to_bytes()
            key = layout.decisions(request.namespace, request.model, pages + 1)
            if not store.put(key, content, only_if_absent=True):
                continue
            pages, head = pages + 1, sha256(content)
        words = f"{len(new)} of {len(request.decisions)} decisions were new" if new else "all of them were kept already"
        return KeepResult(told=told(request.decisions), reason="Kept", pages=pages, head=head, message=words)
    raise StoreError("others wrote decisions at the same time, again and again; it is tried again")


def main(clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """One page at most. The exit code is one of `contract.results`."""

    def work(request: KeepRequest) -> Done:
        try:
            result, code = keep(Bucket.open(request.store), request, clock().replace(microsecond=0)), EXIT_JUDGED
        except StoreError as error:
            words = f"decisions could not be kept, it is tried again: {error}"[:512]
            result = KeepResult(told=told(request.decisions), reason="StoreUnreachable", message=words)
            code = EXIT_OUTSIDE
        return Done(result.message, result.model_dump_json(by_alias=True, exclude_none=True), code)

    return run(KeepRequest, "keeping decisions", work)


if __name__ == "__main__":
    sys.exit(main())
