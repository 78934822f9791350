"""MLServer's runtime for an artifact of Truekeep: `model.onnx`, fed as `signature.json` says.

All that is Truekeep's about it is TRUEKEEP_MODEL_DIR, and the one output, `probability`.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

UNKNOWN = -1.0


class Artifact(MLModel):
    """One revision."""

    async def load(self) -> bool:
        folder = Path(os.environ["TRUEKEEP_MODEL_DIR"])
        self._features = json.loads((folder / "signature.json").read_text())["features"]
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {tensor.name: tensor.data.root for tensor in payload.inputs}
        matrix = np.array([_encoded(each, columns[each["name"]]) for each in self._features], dtype=np.float64).T
        (probability,) = self._session.run(["probability"], {"X": np.ascontiguousarray(matrix)})
        output = ResponseOutput(
            name="probability", shape=[len(probability)], datatype="FP64", data=probability.tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output])


def _encoded(feature: dict, values: list) -> list[float]:
    """A number as it is, a category as its position; null is NaN, and what training never saw is -1."""
    if feature["type"] == "Number":
        return [math.nan if value is None else value for value in values]
    codes = {text: float(code) for code, text in enumerate(feature["categories"])}
    return [math.nan if value is None else codes.get(value, UNKNOWN) for value in values]
