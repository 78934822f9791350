"""What a person has to mend before a run can succeed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from truekeep.trainer.tuning.choice import Told

FaultReason = Literal[
    "DataInvalid",
    "DataTooLarge",
    "DataChanged",
    "ParametersInvalid",
    "ImportInvalid",
    "TuningFailed",
    "DeliveryInvalid",
]


class InputFault(Exception):  # noqa: N818  it is the user's fault, not the program's error
    """The input is at fault, and trying again can't help. The text names field, value, limit and remedy; `details`
    are for the record."""

    reason: FaultReason = "DataInvalid"

    def __init__(self, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.details = details or []


class DataInvalid(InputFault):
    """The data is not as the Model declares it."""

    reason: FaultReason = "DataInvalid"


class DataTooLarge(DataInvalid):
    """There is more data than can be read, or held."""

    reason: FaultReason = "DataTooLarge"


class DataChanged(InputFault):
    """What a run read before is not there any more, or another object now."""

    reason: FaultReason = "DataChanged"


class ParametersInvalid(InputFault):
    """The estimator can't be built or fitted with these hyperparameters."""

    reason: FaultReason = "ParametersInvalid"


class ImportInvalid(InputFault):
    """A model that was trained elsewhere can't be taken."""

    reason: FaultReason = "ImportInvalid"


class TuningFailed(InputFault):
    """Too few trials have a score. `told`: what is known of the trials, for record and status."""

    def __init__(self, message: str, told: Told | None = None, reason: FaultReason = "TuningFailed") -> None:
        super().__init__(message)
        self.told = told
        self.reason = reason


class DeliveryInvalid(InputFault):
    """What a team's image made can't be taken, or does not answer."""

    reason: FaultReason = "DeliveryInvalid"
