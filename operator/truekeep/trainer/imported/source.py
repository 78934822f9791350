"""A model file that was written elsewhere, read once: skops, ONNX, or, where somebody vouches for it, pickle.

A model of scikit-learn is made to go by position: a server has no data frames, so that the names of columns within it
become their places. What it computes stays the same; `trainer.import_package` sees to that.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from truekeep.contract.canonical import sha256
from truekeep.features import imported
from truekeep.features.trust import MAX_BYTES, UntrustedModelError
from truekeep.trainer.faults import ImportInvalid
from truekeep.trainer.imported.onnx import Graph, read_graph

PICKLE_RISK = "a pickle or joblib file can run any program with your rights when it is read; nothing can check it first"
_PICKLES = (b"\x80", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"x")  # plain, or compressed by joblib
_FOREIGN = {
    "lightgbm": "onnxmltools.convert_lightgbm", "xgboost": "onnxmltools.convert_xgboost",
    "catboost": "CatBoost's own save_model(format='onnx')", "torch": "torch.onnx.export",
    "keras": "tf2onnx", "tensorflow": "tf2onnx",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What was in the file. Either `model`, and `original` as it was trained, or `graph`."""

    name: str
    sha256: str
    size: int
    kind: Literal["skops", "onnx", "pickle"]
    original: Any = None
    model: Any = None
    graph: Graph | None = None
    warnings: tuple[str, ...] = ()


def read(path: Path, trust_pickle: bool) -> Source:
    """The model in a file. ImportInvalid, with file and remedy, where it can't be used."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ImportInvalid(f"{path}: has {size:,} bytes, at most {MAX_BYTES:,} are loaded; train a smaller model")
        content = path.read_bytes()
    except OSError as error:
        raise ImportInvalid(f"{path}: {error.strerror or error}; give a file that can be read") from error
    known: dict[str, Any] = {"name": path.name, "sha256": sha256(content), "size": size}
    try:
        if path.suffix.lower() == ".onnx":
            return Source(**known, kind="onnx", graph=read_graph(content))
        if content[:2] == b"PK":
            return _source(imported.load_skops(content), {**known, "kind": "skops"})
        if not _is_pickle(content, path):
            raise UntrustedModelError("is no skops, ONNX, joblib or pickle file; an ONNX file must be named .onnx")
        if not trust_pickle:
            raise ImportInvalid(
                f"{path}: {PICKLE_RISK}. Save the model as skops or ONNX where it is trained (skops.io.dump(model, "
                "'model.skops')); or give --trust-pickle, if you or your team made this very file"
            )
        return _pickled(path, known)
    except UntrustedModelError as error:
        raise ImportInvalid(f"{path}: {error}") from error


def _is_pickle(content: bytes, path: Path) -> bool:
    return path.suffix.lower() in (".joblib", ".pkl", ".pickle") or content.startswith(_PICKLES)


def _pickled(path: Path, known: dict[str, Any]) -> Source:
    import joblib  # type: ignore[import-untyped]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(path)
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            way = _FOREIGN.get(module)
            remedy = f"export it to ONNX ({way}) and import that" if way else f"install {module} beside truekeep"
            raise ImportInvalid(f"{path}: needs the package {module}, which is not installed here; {remedy}") from error
        except Exception as error:  # a pickle may raise whatever it likes
            raise ImportInvalid(
                f"{path}: can't be read ({type(error).__name__}: {error!s:.300}); write it with the scikit-learn that "
                "is installed here, or export it to ONNX"
            ) from error
    told = tuple(dict.fromkeys(str(one.message).partition("\n")[0][:300] for one in caught))
    return _source(model, {**known, "kind": "pickle", "warnings": told})


def _source(model: Any, known: dict[str, Any]) -> Source:
    if not hasattr(model, "predict_proba") or not hasattr(model, "classes_"):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise UntrustedModelError(
            f"holds a {kind:.120}, which answers no probabilities; give a fitted classifier, or a Pipeline that ends "
            "in one (wrap it in CalibratedClassifierCV, where it has no predict_proba)"
        )
    return Source(**known, original=model, model=positional(model))


def width(model: Any) -> int:
    """How many columns it takes."""
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    for step in steps:  # Pipeline's own n_features_in_ fails where its first step is "passthrough"
        if hasattr(step, "n_features_in_"):
            return int(step.n_features_in_)
    raise UntrustedModelError("does not say how many columns it takes; is it fitted?")


def names(model: Any) -> list[str] | None:
    """The columns that it was trained on, where it knows their names."""
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    found = next((step.feature_names_in_ for step in steps if hasattr(step, "feature_names_in_")), None)
    return None if found is None else [str(name) for name in found]


def used(model: Any, count: int) -> list[bool]:
    """Which of its columns it looks at."""
    first = (
        next((step for _, step in model.steps if step != "passthrough"), model) if hasattr(model, "steps") else model
    )
    if hasattr(first, "steps") and first is not model:
        return used(first, count)
    if type(first).__name__ != "ColumnTransformer":
        return [True] * count
    taken = {place for name, part, _ in first.transformers_ if not _drops(part)
             for place in first._transformer_to_input_indices[name]}  # fmt: skip
    return [place in taken for place in range(count)]


def known_categories(model: Any, count: int) -> list[list[Any]]:
    """The values of each column that its encoders were fitted on."""
    found: list[list[Any]] = [[] for _ in range(count)]
    _collect(model, list(range(count)), found)
    return found


def _collect(part: Any, places: Sequence[int], found: list[list[Any]]) -> None:
    """`places`: the columns of the whole that this part sees, as long as it sees those and nothing made of them."""
    if hasattr(part, "steps"):
        for _, step in part.steps:
            _collect(step, places, found)
            if type(step).__name__ not in ("SimpleImputer", "str"):
                return  # what comes after sees other columns
    elif type(part).__name__ == "ColumnTransformer":
        for name, inner, _ in part.transformers_:
            seen = [places[int(place)] for place in part._transformer_to_input_indices[name]]
            _collect(inner, seen, found)
    elif getattr(part, "_preprocessor", None) is not None:  # HistGradientBoosting with categories of its own
        _collect(part._preprocessor, places, found)
    elif hasattr(part, "categories_") and len(part.categories_) == len(places):
        for place, values in zip(places, part.categories_, strict=True):
            found[place] = [*found[place], *(value for value in values if value not in found[place])]


def _drops(part: Any) -> bool:
    return isinstance(part, str) and part == "drop"


def positional(model: Any) -> Any:
    """The same model, by places instead of names, that answers arrays with arrays and takes one thread.

    scikit-learn takes no names where no data frame is given; where columns were chosen by name, the places that fitting
    found are put instead."""
    made = copy.deepcopy(model)
    inside = list(imported.parts(made))
    for part in inside:
        if type(part).__name__ == "ColumnTransformer" and hasattr(part, "transformers_"):
            _place(part)
    for part in inside:
        for name in ("feature_names_in_", "_sklearn_output_config"):
            part.__dict__.pop(name, None) if hasattr(part, "__dict__") else None
        if getattr(part, "n_jobs", None) is not None and "n_jobs" in vars(part):
            part.n_jobs = None
    return made


def _place(transformer: Any) -> None:
    places = transformer._transformer_to_input_indices

    def of(name: str, columns: Any) -> Any:
        found = [int(place) for place in places[name]]
        return found[0] if isinstance(columns, str) else found  # one name alone means a column, not a table of one

    fitted = [(name, part, of(name, columns)) for name, part, columns in transformer.transformers_]
    transformer.transformers_ = fitted
    transformer.transformers = [one for one in fitted if one[0] != "remainder"]
    transformer._columns = [columns for _, _, columns in transformer.transformers]
    rest = [columns for name, _, columns in fitted if name == "remainder"]
    transformer._remainder = ("remainder", transformer.remainder, rest[0] if rest else [])
