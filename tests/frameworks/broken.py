"""Runtimes that are not what they seem, for the rollout to find out."""

from __future__ import annotations

from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse
from runtime import Artifact

PROBED = 12.5  # the amount in the requests of the end-to-end tests' probe


class Liar(Artifact):
    """Answers something else than training did."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        response = await super().predict(payload)
        response.outputs[0].data.root = [value / 2 for value in response.outputs[0].data.root]
        return response


class Moody(Artifact):
    """Answers the self-test, and fails the requests that people send."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {tensor.name: tensor.data.root for tensor in payload.inputs}
        if PROBED in columns["amount"]:
            raise InferenceError("not today")
        return await super().predict(payload)
