"""What a run's data is compared with: the last run, the live revision's categories, and what that was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from truekeep.api.common import S3Location
from truekeep.api.data import Data
from truekeep.api.rules import Rule
from truekeep.contract import layout
from truekeep.contract.artifact import Signature
from truekeep.contract.requests import Captured, TrainRequest
from truekeep.sources.columns import Want
from truekeep.storage import ArtifactInvalid, StoreError, artifacts
from truekeep.storage.artifacts import Store
from truekeep.trainer.data import served, skew
from truekeep.trainer.data.rules import Known
from truekeep.trainer.data.violations import Rows, Violation
from truekeep.trainer.text import moment


def known(request: TrainRequest, store: Store, opened: Callable[[S3Location], Store]) -> Known:
    """All of it; nothing is read before a rule asks for it."""
    captured = request.captured
    compare = None if captured is None else _Skew(captured, opened)
    return Known(last=request.last_run, categories=lambda: categories(request, store), skew=compare)


@dataclass(frozen=True)
class _Skew:
    """The skew of rows against what the live revision was asked."""

    captured: Captured
    opened: Callable[[S3Location], Store]

    def __call__(self, rows: Rows, data: Data, rule: Rule, now: int) -> list[Violation] | str:
        wants = [Want(one.name, one.type) for one in data.features if one.name not in self.captured.left_out]
        try:
            store = self.opened(self.captured.location)
            found = served.sample(store, self.captured.prefix, wants, moment(now))
        except StoreError as error:  # a check must not need more than the run does
            return f"the captured requests can't be read: {error!s:.300}"
        return skew.judge(rows, data, rule, found, self.captured.left_out)


def categories(request: TrainRequest, store: Store) -> Mapping[str, Sequence[str]] | str:
    """By feature, those that the live revision was trained on. A text says why they are not known."""
    champion = request.champion
    if champion is None:
        return "there is no live revision yet"
    try:
        files = artifacts.read(store, champion.artifact_digest, {layout.SIGNATURE})
        signature = Signature.model_validate_json(files[layout.SIGNATURE])
    except (ArtifactInvalid, ValidationError) as error:
        return f"the live revision {champion.revision} can't be read: {error!s:.200}"
    return {one.name: one.categories for one in signature.features if one.categories is not None}
