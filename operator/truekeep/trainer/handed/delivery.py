"""What passes between Truekeep and a team's image, as it lies in the store: read back, and checked.

`handed_prepare` writes the rows, the image fits, `handed_upload` takes what it made, `handed_judge` judges it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from truekeep.api.image import TrainingImage
from truekeep.contract import layout
from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.canonical import sha256
from truekeep.contract.handed import Delivered, Prepared
from truekeep.contract.requests import TrainRequest
from truekeep.features import encode
from truekeep.storage import ObjectMissing, ObjectTooLarge
from truekeep.storage.artifacts import Store
from truekeep.trainer.faults import DeliveryInvalid, ParametersInvalid

AGAIN = "start another run"


def image_of(request: TrainRequest) -> TrainingImage:
    """spec.training.image. ParametersInvalid where there is none."""
    if request.training.image is None:
        raise ParametersInvalid("spec.training has no image; give it one, or ask for another stage")
    return request.training.image


def prepared(request: TrainRequest, store: Store) -> Prepared | None:
    """What the image was given, where that was written already. DeliveryInvalid where it can't be read."""
    key = layout.fit_prepared(request.namespace, request.model, request.run_uid)
    try:
        return Prepared.model_validate_json(store.get(key))
    except ObjectMissing:
        return None
    except ValidationError as error:
        raise DeliveryInvalid(f"{store.uri(key)} is not what was written there; {AGAIN}") from error


def delivered(request: TrainRequest, store: Store) -> Delivered | None:
    """What the image made, where that was written already. DeliveryInvalid where it can't be read."""
    key = layout.fit_delivered(request.namespace, request.model, request.run_uid)
    try:
        return Delivered.model_validate_json(store.get(key))
    except ObjectMissing:
        return None
    except ValidationError as error:
        raise DeliveryInvalid(f"{store.uri(key)} is not what was written there; {AGAIN}") from error


def files(request: TrainRequest, store: Store, what: Delivered) -> dict[str, bytes]:
    """The files, each checked. DeliveryInvalid where one is not what was delivered, StoreError where the store is at
    fault."""
    found = {}
    for file in what.files:
        key = layout.fit_file(request.namespace, request.model, request.run_uid, file.sha256)
        try:
            content = store.fetch(key, limit=file.size).data
        except (ObjectMissing, ObjectTooLarge) as error:
            raise DeliveryInvalid(f"{file.path} of spec.training.image: {error}; {AGAIN}") from error
        if sha256(content) != file.sha256:
            raise DeliveryInvalid(
                f"{file.path} of spec.training.image: {store.uri(key)} was altered after it was delivered; {AGAIN}"
            )
        found[file.path] = content
    return found


def column(feature: SignatureFeature, values: Any) -> pa.Array[Any]:
    """A feature as an image gets it: a Category as text, everything else as float64, as a served model gets it too;
    nulls are null. Shape (rows,)."""
    if feature.type == "Category":
        return encode.texts(feature.name, values)
    return pa.array(encode.matrix({feature.name: values}, [feature])[:, 0], pa.float64(), from_pandas=True)
