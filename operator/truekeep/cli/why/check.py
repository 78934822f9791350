"""Whether the artifact gives the answer that was captured, and what each feature added to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from truekeep.cli.why.behind import Behind
from truekeep.cli.why.find import Row
from truekeep.contract.artifact import UNKNOWN_TEXT, Signature
from truekeep.contract.hashing import hashed
from truekeep.features import models
from truekeep.features.encode import Encoder, FeatureError

if TYPE_CHECKING:
    from truekeep.explain.attribution import Attribution

EQUAL_WITHIN = 1e-9


@dataclass(frozen=True)
class Checked:
    """Differs is what an auditor must hear; NotChecked says why it could not be told."""

    state: Literal["Equal", "Differs", "NotChecked"]
    message: str
    recomputed: float | None = None
    attribution: Attribution | None = None
    unexplained: str = ""  # why there is no attribution


class _NotCheckedError(Exception):
    """The answer can't be computed again here; the text says why."""


def check(row: Row, behind: Behind, hash_keys: tuple[bytes, ...] = (), *, explain: bool = True) -> Checked:
    """Ask the artifact again, with the features as they were captured. `hash_keys`: of hashed columns, to tell which
    known category a hash stands for."""
    try:
        signature, predict = _opened(row, behind)
        matrix = _matrix(row, signature, hash_keys)
        answer = float(predict(matrix)[0])
    except _NotCheckedError as error:
        return Checked("NotChecked", str(error), unexplained=str(error))
    state, message = _compared(row, behind, signature, answer)
    if not explain:
        return Checked(state, message, answer)
    attribution, why_not = _explained(behind, signature, predict, matrix)
    return Checked(state, message, answer, attribution, why_not)


def _opened(row: Row, behind: Behind) -> tuple[Signature, Callable[[Any], Any]]:
    signature = behind.signature
    if signature is None:
        raise _NotCheckedError("there is no artifact to ask")
    if not behind.files:
        raise _NotCheckedError("only the team's own server knows this artifact's files")
    try:
        predict, _ = models.predictor(behind.files, signature)
    except ModuleNotFoundError as error:
        raise _NotCheckedError(f"the package {error.name} is missing; install truekeep[why]") from error
    except models.ArtifactFaultError as error:
        raise _NotCheckedError(f"the artifact can't be loaded: {error}") from error
    return signature, predict


def _matrix(row: Row, signature: Signature, hash_keys: tuple[bytes, ...]) -> Any:
    """The features as the model saw them, shape (1, features)."""
    columns: dict[str, list[Any]] = {}
    for feature in signature.features:
        if feature.name in row.dropped or feature.name not in row.features:
            raise _NotCheckedError(f"{feature.name} is not captured (spec.serving.capture.drop)")
        value = row.features[feature.name]
        if feature.name in row.hashed and value is not None:
            value = _unhashed(feature.name, feature.categories, value, hash_keys)
        columns[feature.name] = [value.isoformat() if isinstance(value, datetime) else value]
    try:
        return Encoder(signature.features).encode(columns, 1)
    except FeatureError as error:
        raise _NotCheckedError(f"what was captured does not fit the artifact's signature: {error}") from error


def _unhashed(name: str, categories: list[str] | None, value: str, hash_keys: tuple[bytes, ...]) -> str:
    if categories is None or not hash_keys:
        remedy = "a number can't be told from its hash" if categories is None else "give --hash-key-file"
        raise _NotCheckedError(f"{name} is captured as a keyed hash alone; {remedy}")
    known = {hashed(key, name, category): category for key in hash_keys for category in categories}
    return known.get(value, UNKNOWN_TEXT)


def _compared(
    row: Row, behind: Behind, signature: Signature, answer: float
) -> tuple[Literal["Equal", "Differs", "NotChecked"], str]:
    difference = abs(answer - row.probability)
    far = f"captured {row.probability!r}, recomputed {answer!r}, a difference of {difference:.3g}"
    if row.format == "image":
        return "NotChecked", f"the team's own server answered, which is not asked again; of our own artifact: {far}"
    if not difference <= EQUAL_WITHIN:
        return "Differs", f"THE ARTIFACT DOES NOT GIVE THIS ANSWER: {far}, more than {EQUAL_WITHIN:g}"
    if row.prediction != int(row.probability >= row.cut_off):
        return "Differs", (
            f"THE DECISION IS NOT WHAT SCORE AND CUT-OFF SAY: {row.prediction} at {row.probability!r}, cut-off "
            f"{row.cut_off!r}"
        )
    if signature.cut_off != row.cut_off:
        return "Differs", f"THE CUT-OFF IS NOT THE ARTIFACT'S: {row.cut_off!r} was used, it has {signature.cut_off!r}"
    return "Equal", "equal to the captured one" + (f", but for {difference:.2g}" if difference else "")


def _explained(
    behind: Behind, signature: Signature, predict: Callable[[Any], Any], matrix: Any
) -> tuple[Attribution | None, str]:
    from truekeep.explain.attribution import attribute

    encoder = Encoder(signature.features)
    rows = []
    for one in behind.background:
        try:
            columns = {feature.name: [one.get(feature.name)] for feature in signature.features}
            rows.append(encoder.encode(columns, 1))
        except FeatureError:  # of a holdout: a null or a category that this model refuses
            continue
    if not rows:
        return None, "there are no rows to compare with"
    return attribute(behind.files, signature, predict, matrix[0], np.concatenate(rows)), ""
