"""Rows of the data that judged a model, for whoever asks later what a feature did: beside the record, never part of it
or of the artifact, so that they can be taken away without breaking either."""

from __future__ import annotations

from typing import Literal

from truekeep.api.common import Schema

ROWS = 100


class Background(Schema):
    """The rows as a request gives them, spread evenly over the holdout. No keys, no labels."""

    schema_: Literal["truekeep.dev/background/v1"] = "truekeep.dev/background/v1"
    rows: list[dict[str, float | str | None]]
