"""From a model file and a sample of its inputs to an artifact that a server serves, and a report of how they agree.

Nothing of the file is believed: the packaged model answers the sample, through the very code that a server runs, and
is compared with what the model itself says of the same rows.
"""

from __future__ import annotations

import math
import platform
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from truekeep.contract import layout
from truekeep.contract.artifact import Compiled, Example, Imported, Performance, Signature
from truekeep.contract.canonical import canonical_json, sha256
from truekeep.features import compiled, encode, imported
from truekeep.features.encode import Encoder
from truekeep.features.imported import Predict
from truekeep.features.trust import UntrustedModelError
from truekeep.profiling.build import profile
from truekeep.scores.metrics import Scored
from truekeep.scores.results import results
from truekeep.storage import artifacts
from truekeep.trainer.faults import ImportInvalid
from truekeep.trainer.imported import source as import_source
from truekeep.trainer.imported.features import Inputs, Wishes, inputs_of, probed
from truekeep.trainer.imported.recode import as_onnx, recoded
from truekeep.trainer.imported.source import Source
from truekeep.trainer.onnx.graph import NotConvertibleError, convert
from truekeep.trainer.recipe import boosters, bundle, canonical_skops

REPORT = "truekeep.dev/import/v1"
TOLERANCE = 1e-9  # of a model of scikit-learn: the same sums in the same order
ONNX_TOLERANCE = 1e-6  # of an ONNX file, whose sums of 32-bit floats another processor may order otherwise
_AT_ONCE = 10_000  # rows
_LIBRARIES = ("numpy", "scikit-learn", "skops", "onnx", "onnxruntime", "pyarrow", "pandas", "joblib")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What is said of the model besides its file and the sample."""

    wishes: Wishes = field(default_factory=Wishes)
    positive: str | None = None  # the class whose probability is answered; None: the second
    cut_off: float = 0.5
    trained_until: datetime | None = None
    trust_pickle: bool = False
    pipeline: Path | None = None  # what an ONNX file was made of, to compare with
    tolerance: float = ONNX_TOLERANCE  # largest difference of an ONNX file from it


@dataclass(frozen=True)
class Package:
    """An artifact's files; `agrees` is False where the packaged model does not answer as the model itself."""

    files: dict[str, bytes]
    digest: str
    signature: Signature
    report: dict[str, Any]
    agrees: bool


def package(file: Path, sample: Path, options: Options) -> Package:
    """Package a model. ImportInvalid, with file, field and remedy, where that is not possible."""
    source = import_source.read(file, options.trust_pickle)
    table = _read(sample)
    given = inputs_of(source, table, options.wishes)
    positive, class_of_interest = positive_of(source, options.positive)
    matrix = encode.matrix(given.columns, given.features)
    reference = import_source.read(options.pipeline, options.trust_pickle) if options.pipeline else source
    expected, by = _expected(reference, table, given, positive)
    draft = _draft(source, given, positive, options)
    packed = _packed(source, draft, matrix, expected)
    draft, predict = packed.draft, packed.predict
    scores = _scores(predict, matrix, file)
    features, refused = probed(draft.features, matrix, packed.original)
    draft = draft.model_copy(update={"features": features})
    tolerance = options.tolerance if source.graph else packed.tolerance
    agreement = _agreement(scores, expected, by, draft.cut_off, tolerance)
    inputs = bundle.examples(draft.features, given.columns)
    rows = Encoder(draft.features).encode({name: [row[name] for row in inputs] for name in inputs[0]}, len(inputs))
    answers = predict(rows)
    examples = [Example(inputs=row, probability=float(one)) for row, one in zip(inputs, answers, strict=True)]
    draft = draft.model_copy(update={"examples": examples})
    files, told = packed.files, packed.compiled
    if told is not None and agreement["rows"]:
        told = told.model_copy(update={"largest_difference": agreement["largestDifference"]})
    if packed.skops:
        onnx, told = as_onnx(source.model, draft, predict, np.concatenate([rows, matrix]))
        files = {layout.MODEL_FILE: packed.skops, **({layout.ONNX_FILE: onnx} if onnx else {})}
    signature = draft.model_copy(update={"compiled": told})
    files[layout.SIGNATURE] = canonical_json(signature.model_dump(mode="json", by_alias=True))
    files[layout.PROFILE] = canonical_json(profile(given.columns, signature.features, scores))
    performance, unlabelled = _performance(source, table, options, class_of_interest, scores)
    if performance is not None:
        files[layout.PERFORMANCE] = canonical_json(performance.dump())
    report = {
        "schema": REPORT,
        "source": {
            "file": source.name, "sha256": source.sha256, "sizeBytes": source.size, "format": source.kind,
            "warnings": list(source.warnings),
        },
        "sample": {"file": sample.name, "sha256": sha256(sample.read_bytes()), "rows": table.num_rows},
        "estimator": signature.estimator,
        "positiveClass": class_of_interest,
        "cutOff": signature.cut_off,
        "agreement": agreement,
        "onnx": signature.compiled.dump() if signature.compiled else None,
        "refused": refused,
        "metrics": {one.name: one.value for one in performance.metrics} if performance else None,
        "unlabelled": unlabelled,
        "libraries": {name: metadata.version(name) for name in _LIBRARIES if _installed(name)},
        "python": platform.python_version(),
    }  # fmt: skip
    files[layout.IMPORT_REPORT] = canonical_json(report)
    digest = artifacts.manifest_of(files).digest()
    agrees = agreement["reason"] == ""
    return Package(files, digest, signature, report, agrees)


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ImportInvalid(f"{path}: can't be read as Parquet ({str(error).partition(chr(10))[0]:.200})") from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise ImportInvalid(f"{path}: the column {twice[0]!r} occurs twice; give each column a name of its own")
    if not table.num_rows:
        raise ImportInvalid(f"{path}: has no rows; give some hundreds that look like what will be asked")
    return table


def positive_of(source: Source, wanted: str | None) -> tuple[int, str]:
    """Column and name of the class whose probability is answered."""
    classes = [str(one) for one in source.original.classes_] if source.original is not None else _classes(source)
    if wanted is None:
        if len(classes) > 2:
            raise ImportInvalid(
                f"the model knows {len(classes)} classes ({', '.join(classes[:12])}); choose with --positive"
            )
        wanted = classes[1] if len(classes) == 2 else classes[0]
    if wanted not in classes:
        raise ImportInvalid(f"--positive {wanted!r:.80} is none of the model's classes: {', '.join(classes[:12])}")
    return classes.index(wanted), wanted


def _classes(source: Source) -> list[str]:
    """Where an ONNX file names none, 0 and 1."""
    return list(source.graph.classes) if source.graph and source.graph.classes else ["0", "1"]


def _expected(source: Source, table: pa.Table, given: Inputs, positive: int) -> tuple[Floats | None, str]:
    """What the model itself says of the sample, and how it was asked; None where it can't be asked."""
    if source.original is None:
        return None, "nothing: give the pipeline that the ONNX file was made of with --pipeline"
    names = import_source.names(source.original)
    if names is None:
        columns = [name for one in given.inputs for name in one.features]
        raw: Any = np.column_stack([_raw(table, name) for name in columns])
        return _asked(source.original, raw, positive), "predict_proba of the sample as an array"
    try:
        import pandas  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        return None, "the model takes data frames, and pandas is not installed here: install it to compare"
    present = [name for name in names if name in table.column_names]
    frame = table.select(present).to_pandas()
    try:
        return _asked(source.original, frame, positive), "predict_proba of the sample as a data frame"
    except Exception as error:  # scikit-learn's, of any kind; one more try, as the columns may have been of that type
        texts = [one.name for one in given.features if one.type == "Category" and one.name in present]
        try:
            frame = frame.astype(dict.fromkeys(texts, "category"))
            return _asked(source.original, frame, positive), "predict_proba of a data frame with categories"
        except Exception:
            raise ImportInvalid(
                f"the model does not answer the sample itself ({type(error).__name__}: {error!s:.300}); give rows as "
                "those that it was trained on, with the same types"
            ) from error


def _raw(table: pa.Table, name: str) -> Any:
    if not name:
        return np.full(table.num_rows, np.nan)
    return table[name].to_pandas().to_numpy() if _installed("pandas") else np.array(table[name].to_pylist())


def _asked(model: Any, rows: Any, positive: int) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.ascontiguousarray(model.predict_proba(rows)[:, positive], dtype=np.float64)


def _draft(source: Source, given: Inputs, positive: int, options: Options) -> Signature:
    """The signature without examples."""
    made = Imported(
        format="onnx" if source.graph else "skops",
        source=source.name,
        source_sha256=source.sha256,
        inputs=given.inputs,
        numbers=given.numbers,
        output=source.graph.output if source.graph else "",
        positive=positive,
        trained_until=options.trained_until,
    )
    tolerance = ONNX_TOLERANCE if source.graph else TOLERANCE
    return Signature(
        estimator=estimator_of(source),
        features=given.features,
        cut_off=options.cut_off,
        examples=[],
        tolerance=tolerance,
        imported=made,
    )


@dataclass(frozen=True)
class _Packed:
    """The model as a server will load it."""

    draft: Signature
    predict: Predict
    original: Predict  # the model itself, fed with the matrix: what it refuses is to be refused
    skops: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)  # where there is no skops
    compiled: Compiled | None = None
    tolerance: float = TOLERANCE  # of the agreement


def _packed(source: Source, draft: Signature, matrix: Floats, expected: Floats | None) -> _Packed:
    """The model loaded as a server loads it. Whether a missing text is to be NaN or None in it is found out by asking
    the model. ImportInvalid where no server would load it."""
    made = draft.imported
    assert made is not None
    try:
        if source.graph is not None:
            predict = imported.onnx(source.graph.content, made, draft.features)
            return _Packed(draft, predict, predict, files={layout.ONNX_FILE: source.graph.content})
        if (booster := boosters.BOOSTERS.get(draft.estimator)) is not None:
            return _translated(source, draft, matrix, booster.tolerance)
        # Saved and loaded again: what is packaged is what was checked.
        content = canonical_skops.dumps(source.model)
        model = imported.load_skops(content)
    except UntrustedModelError as error:
        raise ImportInvalid(f"{source.name}: {error}") from error
    except NotConvertibleError as error:
        raise ImportInvalid(
            f"{source.name}: {error}, and of a model of {draft.estimator} only ONNX is published; encode categories "
            "before it (OneHotEncoder), or export it to ONNX and import that"
        ) from error
    predict = imported.scikit_learn(model, made, draft.features)
    if expected is not None and made.inputs[0].type == "Mixed" and not _close(predict, matrix, expected):
        other = made.model_copy(update={"missing_text": "None"})
        again = imported.scikit_learn(model, other, draft.features)
        if _close(again, matrix, expected):
            return _Packed(draft.model_copy(update={"imported": other}), again, again, skops=content)
    return _Packed(draft, predict, predict, skops=content)


def _translated(source: Source, draft: Signature, matrix: Floats, tolerance: float) -> _Packed:
    """A model of LightGBM or XGBoost, of which ONNX alone is published. NotConvertibleError where it has no
    translation."""
    made = draft.imported
    assert made is not None
    if made.positive != 1:
        raise NotConvertibleError("the class of interest must be the second: train it so")
    content = convert(recoded(source.model, made.inputs[0].features, draft.features), len(draft.features))
    predict, _ = compiled.load(content)
    told = Compiled(rows=len(matrix), tolerance=tolerance)
    translated = draft.model_copy(update={"imported": made.model_copy(update={"format": "translated"})})
    original = imported.scikit_learn(source.model, made, draft.features)
    return _Packed(translated, predict, original, files={layout.ONNX_FILE: content}, compiled=told, tolerance=tolerance)


def _close(predict: Predict, matrix: Floats, expected: Floats) -> bool:
    try:
        return bool((np.abs(predict(matrix) - expected) <= TOLERANCE).all())
    except Exception:  # a model that fails on it is not close
        return False


def estimator_of(source: Source) -> str:
    """The last step's public name. Example: sklearn.ensemble.RandomForestClassifier."""
    if source.model is None:
        return "onnx"
    final = source.model.steps[-1][1] if hasattr(source.model, "steps") else source.model
    parts = [part for part in type(final).__module__.split(".") if not part.startswith("_")]
    if parts[0] != "sklearn":  # lightgbm.sklearn, xgboost.sklearn
        parts = parts[:1]
    return ".".join([*parts, type(final).__name__])


def _scores(predict: Predict, matrix: Floats, file: Path) -> Floats:
    try:
        parts = [predict(matrix[start : start + _AT_ONCE]) for start in range(0, len(matrix), _AT_ONCE)]
    except Exception as error:  # whatever a model says of rows that do not fit it
        raise ImportInvalid(
            f"{file}: the packaged model does not answer the sample ({type(error).__name__}: {error!s:.300}); give "
            "rows as those that it was trained on, or name its columns in their order with --columns"
        ) from error
    scores = np.concatenate(parts)
    wrong = ~(np.isfinite(scores) & (scores >= 0) & (scores <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ImportInvalid(
            f"{file}: answers {scores[row]} for row {row} of the sample, which is no probability; export the "
            "probabilities, not the decision function"
        )
    return scores


def _agreement(scores: Floats, expected: Floats | None, by: str, cut_off: float, tolerance: float) -> dict[str, Any]:
    """The packaged model against the model itself. `reason` is empty where they agree, or nobody could compare."""
    found: dict[str, Any] = {"with": by, "rows": 0, "reason": "", "tolerance": tolerance}
    if expected is None:
        return found
    difference = np.abs(scores - expected)
    worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    found |= {
        "rows": len(scores),
        "largestDifference": float(difference[worst]),
        "differing": int((~(difference <= tolerance)).sum()),
        "crossed": int(((scores >= cut_off) != (expected >= cut_off)).sum()),
    }
    if not difference[worst] <= tolerance:
        found["reason"] = (
            f"{found['differing']:,} rows differ by more than {tolerance:g}, most of all row {worst} of the sample: "
            f"the model itself says {expected[worst]:.9g}, packaged it says {scores[worst]:.9g}"
        )
    return found


def _performance(
    source: Source, table: pa.Table, options: Options, positive: str, scores: Floats
) -> tuple[Performance | None, int]:
    """What the model is worth on the sample, where it has labels; and how many rows have none."""
    name = options.wishes.label
    if name is None:
        return None, 0
    if name not in table.column_names:
        raise ImportInvalid(f"--label {name!r}: the sample has no such column; it has {', '.join(table.column_names)}")
    values = [_class_text(value) for value in table[name].to_pylist()]
    known = np.array([value is not None for value in values], dtype=np.bool_)
    classes = _classes(source) if source.original is None else [str(one) for one in source.original.classes_]
    odd = sorted({value for value in values if value is not None} - {_class_text(one) for one in classes})
    if odd:
        raise ImportInvalid(
            f"--label {name!r} holds {odd[0]!r:.80}, which is none of the classes {', '.join(classes[:12])}"
        )
    labels = np.array([value == _class_text(positive) for value in values], dtype=np.int8)
    if len(set(labels[known].tolist())) < 2:
        raise ImportInvalid(f"--label {name!r}: all known labels of the sample are of one class; both are needed")
    return results(Scored(labels[known], scores[known], options.cut_off)), int((~known).sum())


def _class_text(value: Any) -> str | None:
    """The same text for what is the same class: 1, 1.0 and True; None for a null or NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value)
    return {"True": "1", "False": "0"}.get(text, text.removesuffix(".0"))


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
