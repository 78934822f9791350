"""An artifact: a few files, named by the digest of their manifest, which is written last.

`performance.json` says how good the model was on its holdout: what the monitor measures it against.
`signature.json` is the contract between training and serving: the features in order, how a category becomes a number,
the cut-off, and examples with the answers that training gave, with which a server tests itself before it is ready.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from truekeep.api.common import Schema
from truekeep.contract.canonical import canonical_json, sha256

MISSING = float("nan")
UNKNOWN_CATEGORY = -1.0
UNKNOWN_TEXT = "\ufffd unknown"  # what a model that was trained elsewhere gets for it


class ArtifactFile(Schema):
    """One file of an artifact."""

    path: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")  # no folder, no dot-dot
    sha256: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(Schema):
    """The list of an artifact's files; its digest is the artifact's name."""

    schema_: Literal["truekeep.dev/artifact/v1"] = Field(default="truekeep.dev/artifact/v1", alias="schema")
    files: list[ArtifactFile]

    def to_bytes(self) -> bytes:
        """Canonical JSON, files by path."""
        files = sorted(self.files, key=lambda file: file.path)
        return canonical_json(self.model_copy(update={"files": files}).dump())

    def digest(self) -> str:
        """The artifact's name."""
        return sha256(self.to_bytes())


class SignatureFeature(Schema):
    """One input tensor. A category is the position of its value in `categories`; null is NaN, an unknown value -1. A
    time is microseconds since 1970 (UTC)."""

    name: str
    type: Literal["Number", "Category", "Time"]
    categories: list[str] | None = None  # for a Category: the values of the training data, sorted
    minimum: float | None = None
    maximum: float | None = None
    nulls: Literal["Allow", "Refuse"] = "Allow"
    unknown: Literal["Allow", "Refuse"] = "Allow"  # a Category's values that are not in `categories`


class Example(Schema):
    """A request and the answer that training gave to it."""

    inputs: dict[str, float | str | None]
    probability: float


class Compiled(Schema):
    """What became of the model as ONNX: how far it is from the pipeline itself, on the rows that it was judged on.

    `reason` is empty where the two agree: the artifact holds `model.onnx`, and that is what serves. Else it says why
    the skops file serves."""

    reason: str = ""
    rows: int = Field(default=0, ge=0)  # compared
    largest_difference: float = 0.0  # of a probability, as the next power of ten
    crossed: int = Field(default=0, ge=0)  # rows that are on the other side of the cut-off
    tolerance: float = 0.0  # of the probability; no row may cross


class ImportedInput(Schema):
    """One array that a model takes that was trained elsewhere, of shape (rows, features).

    Mixed: an array of objects, numbers and texts beside each other. Of an empty name in `features`, the model looks at
    nothing."""

    name: str = ""  # of ONNX: the graph's input
    type: Literal["Float64", "Float32", "Int64", "Boolean", "Text", "Mixed"]
    features: list[str]


class Imported(Schema):
    """How a model that was trained elsewhere is fed with the features, and where it came from.

    Null is NaN in its arrays, except that a missing text may be None. `translated`: there is ONNX alone, written by the
    import itself, and it takes the matrix of `features.encode`. `opaque`: files that only a team's own server knows."""

    format: Literal["skops", "onnx", "translated", "opaque"]
    source: str  # name of the file that was given
    source_sha256: str
    inputs: list[ImportedInput]
    numbers: tuple[str, ...] = ()  # features of type Category whose values the model takes as numbers, not as texts
    codes: tuple[str, ...] = ()  # others whose position in `categories` it takes, as the matrix has them
    missing_text: Literal["NaN", "None"] = "NaN"
    output: str = ""  # of ONNX: the graph's output that holds the probabilities
    positive: int = Field(default=1, ge=0)  # column of the probabilities that counts
    trained_until: datetime | None = None  # newest event that it was trained on, where somebody knows


class Signature(Schema):
    """The contract between training and serving."""

    task: Literal["BinaryClassification"] = "BinaryClassification"
    estimator: str
    features: list[SignatureFeature]
    cut_off: float
    examples: list[Example]
    tolerance: float = 1e-9  # largest difference from an example's probability with which a server may be ready
    compiled: Compiled | None = None  # None: nobody tried
    imported: Imported | None = None  # None: the trainer made it, and it takes the matrix of `features.encode` itself


class MetricResult(Schema):
    """A metric on the holdout; None where it is not defined there."""

    name: str
    value: float
    standard_error: float | None = None


class Calibration(Schema):
    """What the model's probabilities are worth (`scores.calibration`): at these probabilities, this share is positive.

    The first map is of the whole holdout, the others of resamples of it; straight lines between."""

    at: tuple[float, ...]  # ascending
    maps: tuple[tuple[float, ...], ...]  # each as long as `at`, never decreasing


class Performance(Schema):
    """The holdout's results, with which the gates were judged. `calibration`: None where the holdout is too small."""

    schema_: Literal["truekeep.dev/performance/v1"] = Field(default="truekeep.dev/performance/v1", alias="schema")
    rows: int
    positives: int
    cut_off: float
    metrics: tuple[MetricResult, ...]
    calibration: Calibration | None = None
