"""How a model answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from truekeep.api.capture import Capture
from truekeep.api.common import Resources, Schema
from truekeep.api.gateway import Gateway
from truekeep.api.image import ServingImage
from truekeep.api.rollout import Rollout


class Autoscaling(Schema):
    """As many pods as the load asks for, between two bounds."""

    CEL = (
        (
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be above autoscaling.maxReplicas; lower it, or raise maxReplicas",
        ),
    )

    min_replicas: Annotated[int, Field(ge=1, le=100)] = Field(
        description="Fewest pods of the live revision. With 1, nothing stands in for a pod that fails. Example: 2."
    )
    max_replicas: Annotated[int, Field(ge=1, le=100)] = Field(description="Most pods of the live revision. Example: 6.")
    cpu_percent: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=80,
        description="CPU that the pods are to use on the average, in percent of what they request "
        "(spec.serving.resources.requests.cpu). Default: 80.",
    )
    scale_down_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=300,
        description="Seconds for which fewer pods must have been enough before pods go. Default: 300.",
    )


class Serving(Schema):
    """How the model answers."""

    CEL = (
        (
            "!has(self.autoscaling) || !has(oldSelf.autoscaling) || self.replicas == oldSelf.replicas || "
            "self.replicas == 0 || oldSelf.replicas == 0",
            "serving.autoscaling decides about the number of pods, so a change of serving.replicas would do nothing; "
            "change autoscaling.minReplicas or maxReplicas, or set replicas to 0 to stop serving",
        ),
        (
            "!has(self.rollout) || self.rollout.strategy != 'Shadow' || has(self.gateway)",
            "rollout.strategy Shadow needs serving.gateway, because a Gateway copies the requests; name one, or "
            "choose Canary or BlueGreen",
        ),
    )

    replicas: Annotated[int, Field(ge=0, le=100)] = Field(
        default=2,
        description="Pods of the live revision. 0: it does not serve. With autoscaling any other number means nothing. "
        "Default: 2.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None,
        description="Lets a HorizontalPodAutoscaler decide about the pods of the live revision; it needs "
        "metrics-server. Default: unset, replicas decides.",
    )
    gateway: Gateway | None = Field(
        default=None,
        description="Gateway that takes the model's HTTP traffic from outside and splits it by exact weights. Default: "
        "unset, the Service of the Model's name splits it by pods.",
    )
    image: ServingImage | None = Field(
        default=None,
        description="The team's own server for the model, of any framework. Default: unset, Truekeep's own server "
        "answers.",
    )
    server_image: Literal["Frozen", "Follow"] = Field(
        default="Frozen",
        description="What becomes of the pods when the operator comes with another server image, as after a patch of "
        "its base: Frozen leaves a revision the image that it was first served with, until the spec changes; Follow "
        "rolls the revision out anew with it, through the same steps, without training. Default: Frozen.",
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU and memory of a serving pod; with serving.image, of that image's container. Default: requests "
        "100m and 256Mi, limits 1 CPU and 1Gi.",
    )
    rollout: Rollout = Field(default=Rollout(), description="How a new revision takes over.")
    rollback_window_seconds: Annotated[int, Field(ge=0, le=604800)] = Field(
        default=600,
        description="Seconds that the revision before stays warm after a promotion, for an instant way back. "
        "Default: 600.",
    )
    kept_revisions: Annotated[int, Field(ge=2, le=20)] = Field(
        default=3, description="Serving Deployments to keep, those scaled to 0 included. Default: 3."
    )
    connection_max_age_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30,
        description="Seconds after which the server closes a connection, between two requests, so that clients "
        "follow a switch; at most 3 for one of gRPC. Default: 30.",
    )
    pinned_revision: Annotated[int, Field(ge=1, le=1000000)] | None = Field(
        default=None,
        description="Serve this revision and no other until the field is removed: the rollback for those whose truth "
        "is Git. Default: unset, the newest accepted revision serves. Example: 3.",
    )
    capture: Capture | None = Field(
        default=None, description="Where to keep predictions for monitoring. Default: they are not kept."
    )
