"""ONNX beside skops: translate, load as a server loads it, compare, and keep it only where the two agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.contract.artifact import Compiled
from truekeep.features.compiled import load
from truekeep.features.trust import UntrustedModelError
from truekeep.trainer.onnx.graph import NotConvertibleError, convert
from truekeep.trainer.recipe.boosters import Translated
from truekeep.trainer.recipe.pipeline import probabilities

# Largest difference of a probability. Both compute in double precision, so they differ by how sums are rounded.
TOLERANCE = 1e-9
MOST_ROWS = 20_000  # that the two are compared on; a translation that errs on 1 row in 5,000 is found 49 times of 50
LARGEST_FILE = 64 << 20  # bytes; a server of 1 GiB must hold it parsed, too
_AT_ONCE = 10_000  # rows


def compile_model(
    pipeline: Any, cut_off: float, matrix: npt.NDArray[np.float64], tolerance: float = TOLERANCE
) -> tuple[bytes, Compiled]:
    """The model as ONNX, and how it agrees on `matrix`, shape (rows, features). The bytes are empty where it must not
    serve; `Compiled.reason` says why. Of a `Translated` the tolerance is its own, and no row crosses: its cut-off is
    that of what serves."""
    alone = isinstance(pipeline, Translated)
    tolerance = pipeline.tolerance if isinstance(pipeline, Translated) else tolerance
    try:
        content = pipeline.content if isinstance(pipeline, Translated) else convert(pipeline, matrix.shape[1])
        if len(content) > LARGEST_FILE:
            raise NotConvertibleError(f"as ONNX it has {len(content):,} bytes, more than {LARGEST_FILE:,}")
        predict, _ = load(content)
        parts = [predict(matrix[start : start + _AT_ONCE]) for start in range(0, len(matrix), _AT_ONCE)]
    except (NotConvertibleError, UntrustedModelError) as error:
        return b"", Compiled(reason=str(error), tolerance=tolerance)
    except Exception as error:  # a translation of ours that onnxruntime can't run must not end a good training
        return b"", Compiled(reason=f"onnxruntime: {type(error).__name__}: {error!s:.300}", tolerance=tolerance)
    expected = probabilities(pipeline.original if isinstance(pipeline, Translated) else pipeline, matrix)
    got = np.concatenate(parts)
    difference = np.abs(expected - got)
    largest = float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))
    crossed = 0 if alone else int(((expected >= cut_off) != (got >= cut_off)).sum())
    found = Compiled(rows=len(matrix), largest_difference=_at_most(largest), crossed=crossed, tolerance=tolerance)
    if largest <= tolerance and not crossed:
        return content, found
    return b"", found.model_copy(update={"reason": "it does not agree with the pipeline"})


def _at_most(difference: float) -> float:
    """The next power of ten: the last bits are the processor's, and the artifact's digest must not be."""
    return 0.0 if difference == 0 else min(10.0 ** math.ceil(math.log10(difference)), 1.0)


def sentence(compiled: Compiled) -> str:
    """What was found, in words."""
    if compiled.reason and not compiled.rows:
        return f"served by scikit-learn, not as ONNX: {compiled.reason}"
    measured = (
        f"on {compiled.rows:,} rows a probability differs by at most {compiled.largest_difference:.0e} "
        f"(tolerance {compiled.tolerance:.0e}), and {compiled.crossed:,} fall on the other side of the cut-off"
    )
    if compiled.reason:
        return f"served by scikit-learn, not as ONNX: {measured}"
    return f"served as ONNX: {measured}"
