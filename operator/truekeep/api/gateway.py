"""How a model is reached from outside of its namespace: through a Gateway (Gateway API)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from truekeep.api.common import Schema

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Name = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}(\.{_LABEL})*$", min_length=1, max_length=253)]
Namespace = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}$", min_length=1, max_length=63)]
Hostname = Annotated[str, StringConstraints(pattern=rf"^(\*\.)?{_LABEL}(\.{_LABEL})*$", min_length=1, max_length=253)]
PathPrefix = Annotated[str, StringConstraints(pattern=r"^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$", max_length=256)]


class Gateway(Schema):
    """A Gateway whose HTTP traffic for the model is split by exact weights while a new revision takes over.

    This is the one reference that may cross a namespace: the Gateway decides by its allowedRoutes whom it serves."""

    name: Name = Field(description="Name of the Gateway. Example: public.")
    namespace: Namespace | None = Field(
        default=None, description="Namespace of the Gateway. Default: the Model's. Example: gateways."
    )
    section_name: Name | None = Field(
        default=None, description="Listener of the Gateway. Default: all that take the route. Example: https."
    )
    hostnames: list[Hostname] = Field(
        default=[],
        max_length=16,
        description="Hosts for which the model answers. Default: all of the listener's. Example: models.example.com.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    path_prefix: PathPrefix | None = Field(
        default=None,
        description="Beginning of the paths that are the model's; it is cut off before the model sees the request. "
        "Default: unset, the model answers at /v2/models/NAME, and nothing is cut off. Example: /flights.",
    )
