"""A scikit-learn model from elsewhere as ONNX: first its encoders learn the server's numbers instead of texts.

`features.encode` makes a category a number before any model sees it; a model from elsewhere wants the text. Where only
encoders and imputers look at a text column, their categories can be replaced by those numbers, and what comes out is
the same: then the model takes the matrix itself, and `onnx_graph` may have a translation. The caller's rows decide:
unless the recoded model, and then its translation, answer them alike, the skops file serves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.contract.artifact import Compiled, Signature, SignatureFeature
from truekeep.features.encode import category_text
from truekeep.features.imported import parts
from truekeep.trainer.onnx.graph import NotConvertibleError
from truekeep.trainer.onnx.model import TOLERANCE, compile_model
from truekeep.trainer.recipe.pipeline import probabilities

Floats = npt.NDArray[np.float64]


def as_onnx(
    model: Any, draft: Signature, predict: Callable[[Floats], Floats], matrix: Floats
) -> tuple[bytes, Compiled]:
    """The model as ONNX and how it agrees on `matrix`, shape (rows, features), with `predict`; no bytes, and the
    reason, where there is no translation that does."""
    assert draft.imported is not None
    try:
        if draft.imported.positive != 1:
            raise NotConvertibleError("the class of interest is not the second")
        numeric = recoded(model, draft.imported.inputs[0].features, draft.features)
        got = probabilities(numeric, matrix)
    except NotConvertibleError as error:
        return b"", Compiled(reason=str(error), tolerance=TOLERANCE)
    except Exception as error:  # scikit-learn's own checks of what was recoded
        said = str(error).partition("\n")[0]
        reason = f"its encoders can't be recoded ({type(error).__name__}: {said:.200})"
        return b"", Compiled(reason=reason, tolerance=TOLERANCE)
    if not (np.abs(got - predict(matrix)) <= TOLERANCE).all():
        return b"", Compiled(reason="recoded to numbers it answers otherwise", tolerance=TOLERANCE)
    return compile_model(numeric, draft.cut_off, matrix)


def recoded(model: Any, names: Sequence[str], features: Sequence[SignatureFeature]) -> Any:
    """The same pipeline, for the matrix of `features.encode`. `names`: its columns in order, empty where unused.
    NotConvertibleError where a text column goes into something else than encoders and imputers."""
    from sklearn.pipeline import Pipeline

    made = copy.deepcopy(model)
    pipeline = made if isinstance(made, Pipeline) else Pipeline([("estimator", made)])
    codes = {one.name: _codes(one) for one in features if one.type == "Category"}
    _recode(pipeline, [codes.get(name) for name in names])
    for part in parts(pipeline):
        if type(part).__name__ == "ColumnTransformer":
            _plain(part)
    if "" in names:
        _renumber(pipeline, names, [one.name for one in features])
    return pipeline


def _codes(feature: SignatureFeature) -> Mapping[str, float]:
    return {text: float(position) for position, text in enumerate(feature.categories or [])}


def _recode(part: Any, columns: Sequence[Mapping[str, float] | None]) -> None:
    """Replace the texts that this part knows. `columns`: of what it sees, the codes of each column that holds texts."""
    if all(codes is None for codes in columns):
        return
    kind = type(part).__name__
    if hasattr(part, "steps"):
        for _, step in part.steps:
            _recode(step, columns)
            if type(step).__name__ not in ("SimpleImputer", "str"):
                return
    elif kind == "ColumnTransformer":
        for name, inner, _ in part.transformers_:
            if not isinstance(inner, str):
                seen = [columns[int(place)] for place in part._transformer_to_input_indices[name]]
                _recode(inner, seen)
    elif kind in ("OneHotEncoder", "OrdinalEncoder"):
        part.categories_ = [_numbers(of, codes) for of, codes in zip(part.categories_, columns, strict=True)]
        if kind == "OneHotEncoder" and part.handle_unknown == "error":
            part.handle_unknown = "ignore"  # the signature refuses them: no unknown value comes here
    elif kind == "SimpleImputer" and not part.add_indicator:
        found = [value if codes is None else _number(value, codes)
                 for value, codes in zip(part.statistics_, columns, strict=True)]  # fmt: skip
        part.statistics_ = np.array(found, dtype=np.float64)
        part._fit_dtype = part._fill_dtype = np.dtype(np.float64)
        part.missing_values = np.nan
    elif getattr(part, "_preprocessor", None) is not None:
        _recode(part._preprocessor, columns)
    elif not isinstance(part, str):
        raise NotConvertibleError(f"{kind} takes categories")


def _numbers(categories: npt.NDArray[Any], codes: Mapping[str, float] | None) -> npt.NDArray[Any]:
    if codes is None:
        return categories
    found = np.array([_number(value, codes) for value in categories], dtype=np.float64)
    if (np.diff(found[~np.isnan(found)]) <= 0).any():  # scikit-learn looks numbers up in ascending order
        raise NotConvertibleError("an encoder has its categories in an order of its own")
    return found


def _number(value: Any, codes: Mapping[str, float]) -> float:
    text = category_text(value)
    return np.nan if text is None else codes[text]


def _plain(transformer: Any) -> None:
    """What passes columns through becomes a scaler that does nothing to them, and the rest of the columns a part like
    any other: for these there is a translation."""
    fitted = []
    for label, part, columns in transformer.transformers_:
        made, name = part, label
        if type(part).__name__ == "FunctionTransformer" and part.func is None:
            made = _identity(len(columns))
        if label == "remainder" and not isinstance(part, str):
            name = "the remainder"
            for places in (transformer.output_indices_, transformer._transformer_to_input_indices):
                places[name] = places[label]
        fitted.append((name, made, columns))
    transformer.transformers_ = fitted


def _identity(columns: int) -> Any:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.n_features_in_ = columns
    scaler.mean_, scaler.scale_, scaler.var_ = np.zeros(columns), np.ones(columns), np.ones(columns)
    return scaler


def _renumber(pipeline: Any, names: Sequence[str], features: Sequence[str]) -> None:
    """Let the first step count the features only, not the columns that nothing looks at."""
    first = pipeline.steps[0][1]
    if type(first).__name__ != "ColumnTransformer":
        raise NotConvertibleError("it takes columns that it does not look at")
    positions = {place: features.index(name) for place, name in enumerate(names) if name}

    def of(columns: Any) -> Any:
        return positions[columns] if isinstance(columns, int) else [positions[one] for one in columns]

    kept = [one for one in first.transformers_ if not (isinstance(one[1], str) and one[1] == "drop")]
    first.transformers_ = [(name, part, of(columns)) for name, part, columns in kept]
    first.n_features_in_ = first._n_features = len(features)
