"""What a team writes in an afternoon: FastAPI, pydantic, pandas and `predict_proba`. Run by uvicorn."""

import os
from typing import Any

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

pipeline = joblib.load(os.environ["PEER_MODEL"])
app = FastAPI()


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Request(BaseModel):
    id: str | None = None
    inputs: list[Tensor]


@app.post("/v2/models/bench/infer")
def infer(request: Request) -> dict[str, Any]:
    """Probabilities of class 1 and decisions."""
    frame = pd.DataFrame({tensor.name: tensor.data for tensor in request.inputs})
    probability = pipeline.predict_proba(frame)[:, 1]
    shape = [len(frame)]
    return {
        "model_name": "bench",
        "model_version": "1",
        "id": request.id,
        "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": shape, "data": probability.tolist()},
            {
                "name": "prediction",
                "datatype": "INT64",
                "shape": shape,
                "data": (probability >= 0.5).astype(int).tolist(),
            },
        ],
    }
