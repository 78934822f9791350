"""Types that several kinds share: bounded strings, decimals, S3 locations, resources, conditions.

Kubernetes wants no floats in a spec (they do not survive every JSON parser unchanged), so a fraction is a
decimal string with a pattern. Every string and list has a bound, which is also what keeps the cost of the
CEL rules within the API server's budget.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

GROUP = "truekeep.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class Schema(BaseModel):
    """Base of every type of the API: camelCase outside, immutable inside; unknown fields are ignored,
    so that an older operator can read what a newer one stored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    # (rule, message) pairs that the API server checks; the message names the field and the remedy.
    CEL: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        if cls.CEL:
            rules = [{"rule": rule, "message": message} for rule, message in cls.CEL]
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = rules
        return schema

    def dump(self) -> dict[str, Any]:
        """As the API server stores it: camelCase, JSON types, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def keyed(*keys: str) -> dict[str, Any]:
    """A list whose items are identified by these fields: unique, and merged item by item by server-side apply."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}

DNS1035 = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
ObjectName = Annotated[str, StringConstraints(pattern=DNS1035, min_length=1, max_length=40)]
RunName = Annotated[str, StringConstraints(pattern=DNS1035, min_length=1, max_length=63)]
SecretName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)
]
# A key of a Secret or a ConfigMap becomes the name of a file: not one that is made of dots.
ObjectKey = Annotated[str, StringConstraints(pattern=r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$", max_length=253)]
ItemName = Annotated[str, StringConstraints(pattern=DNS1035, min_length=1, max_length=63)]
Column = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]*$", min_length=1, max_length=63)]
Number = Annotated[
    str, StringConstraints(pattern=r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,12})?$", min_length=1, max_length=30)
]
Fraction = Annotated[str, StringConstraints(pattern=r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$", min_length=1, max_length=11)]
Quantity = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,3})?(m|k|Ki|M|Mi|G|Gi)?$", min_length=1, max_length=16),
]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Message = Annotated[str, StringConstraints(max_length=4096)]
Text = Annotated[str, StringConstraints(max_length=512)]


class LocalObjectReference(Schema):
    """The name of an object in the same namespace; no reference ever crosses a namespace."""

    name: SecretName = Field(description="Name of the object, in the same namespace. Example: lake.")


class ModelReference(Schema):
    """The name of a Model in the same namespace."""

    name: ObjectName = Field(description="Name of the Model, in the same namespace. Example: flight-delay.")


class KeyReference(Schema):
    """One key of a ConfigMap in the same namespace."""

    name: SecretName = Field(description="Name of the ConfigMap, in the same namespace. Example: store-ca.")
    key: ObjectKey = Field(default="ca.crt", description="Key in the ConfigMap that holds the value. Default: ca.crt.")


# No part of a key or path is made of dots alone: some stores keep keys as paths of files.
_PART = r"\.*[A-Za-z0-9!_*'()=\-][A-Za-z0-9!_.*'()=\-]*"


class S3Location(Schema):
    """A prefix in an S3 object store."""

    uri: Annotated[
        str,
        StringConstraints(
            pattern=rf"^s3://[a-z0-9][a-z0-9.\-]{{1,61}}[a-z0-9]/({_PART}/)*$",
            max_length=512,
        ),
    ] = Field(description="Bucket and prefix, ending in a slash. Example: s3://lake/flights/.")
    endpoint: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^https?://[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?(:[0-9]{1,5})?/?$", max_length=255
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="URL of the S3 service. Default: that of spec.store; for spec.store itself, AWS's own for the "
        "region. Example: http://s3.truekeep-demo:7070.",
    )
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9\-]+$", max_length=32)] | None = Field(
        default=None, description="Region of the bucket. Default: that of spec.store, else us-east-1."
    )
    credentials_secret_ref: LocalObjectReference | None = Field(
        default=None,
        description="Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Default: that of "
        "spec.store; where that names none, the cloud's workload identity.",
    )
    ca_bundle_ref: KeyReference | None = Field(
        default=None,
        description="ConfigMap key with the PEM certificates that sign the endpoint's. Default: that of "
        "spec.store, else the image's own authorities.",
    )


class VolumeLocation(Schema):
    """A folder of a PersistentVolumeClaim. Pods mount it read-only."""

    claim_name: SecretName = Field(
        description="PersistentVolumeClaim in the same namespace; its files must be readable for user 65532. "
        "Example: flights."
    )
    path: Annotated[str, StringConstraints(pattern=rf"^({_PART}(/|$))*$", max_length=512)] = Field(
        default="", description="Folder in the volume. Default: the whole volume. Example: lake/flights."
    )

    @property
    def uri(self) -> str:
        """Example: pvc://flights/lake/flights/."""
        path = self.path.strip("/")
        return f"pvc://{self.claim_name}/{path}{'/' if path else ''}"


class DvcOutput(Schema):
    """What a .dvc file points to: copy md5 and path of its outs, and the remote's url."""

    remote: S3Location = Field(
        description="The DVC remote that `dvc push` writes to, in the layout of DVC 3 or before. "
        "Example: uri s3://dvc-store/."
    )
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}(\.dir)?$", max_length=36)] = Field(
        description="outs[].md5 of the .dvc file, a folder's with .dir. Example: 22a1a2931c8370d3aeedd7183606fd7f.dir."
    )
    path: Annotated[str, StringConstraints(pattern=rf"^({_PART}(/|$))+$", max_length=512)] = Field(
        description="outs[].path of the .dvc file; a file's suffix says what it is. Example: data/flights."
    )

    @property
    def uri(self) -> str:
        """Of the folder that the files lie in. Example: dvc+s3://dvc-store/data/flights/."""
        path = self.path.strip("/")
        folder = path if self.md5.endswith(".dir") else path.rpartition("/")[0]
        return f"dvc+{self.remote.uri}{folder}{'/' if folder else ''}"


Place: TypeAlias = S3Location | VolumeLocation | DvcOutput


class Source(Schema):
    """Where tabular data lies: Parquet, CSV, or CSV with gzip or zstd."""

    CEL = (
        (
            "[has(self.s3), has(self.pvc), has(self.dvc)].filter(x, x).size() == 1",
            "a source has exactly one of s3, pvc and dvc; keep the one where the rows lie",
        ),
    )

    s3: S3Location | None = Field(default=None, description="A prefix of files in an S3 object store.")
    pvc: VolumeLocation | None = Field(default=None, description="A folder of a PersistentVolumeClaim.")
    dvc: DvcOutput | None = Field(default=None, description="A file or folder that DVC keeps in an S3 remote.")

    @property
    def place(self) -> Place:
        """The one that is declared. ValueError where there is none: admission refuses that."""
        for place in (self.s3, self.pvc, self.dvc):
            if place is not None:
                return place
        raise ValueError("a source has none of s3, pvc and dvc")


class ResourceAmounts(Schema):
    """Amounts of CPU and memory as Kubernetes writes them."""

    cpu: Quantity | None = Field(default=None, description="CPUs, in cores or millicores. Example: 500m.")
    memory: Quantity | None = Field(default=None, description="Memory in bytes, with suffix. Example: 1Gi.")


class Resources(Schema):
    """What a container asks for and may use at most. What is left out takes the kind's default,
    so that a namespace with a ResourceQuota admits the pod."""

    requests: ResourceAmounts | None = Field(
        default=None,
        description="What the scheduler sets aside. Default: depends on the pod, see the reference.",
    )
    limits: ResourceAmounts | None = Field(
        default=None,
        description="What the container may use at most. Default: depends on the pod, see the reference.",
    )


class Toleration(Schema):
    """A taint that the pods tolerate, as in a PodSpec."""

    key: Annotated[str, StringConstraints(max_length=317)] | None = Field(
        default=None,
        description="Key of the taint. Left out, with operator Exists: every taint. Example: gpu.",
    )
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Exists or Equal. Default when read: Equal."
    )
    value: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="Value of the taint, for operator Equal. Example: true."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Default: every effect."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = Field(
        default=None,
        description="Seconds that a NoExecute taint is tolerated. Default: for ever. Example: 300.",
    )


NodeLabels = Annotated[dict[str, Annotated[str, StringConstraints(max_length=63)]], Field(max_length=16)]


class Pods(Schema):
    """What every pod of this object gets: where it may run, and how images are pulled."""

    image_pull_secrets: list[LocalObjectReference] = Field(
        default=[],
        max_length=8,
        description="Secrets with registry credentials, in this namespace. Default: none.",
        json_schema_extra=keyed("name"),
    )
    node_selector: NodeLabels = Field(
        default={}, description="Labels that a node must carry. Default: none. Example: {disk: ssd}."
    )
    tolerations: list[Toleration] = Field(
        default=[], max_length=16, description="Taints to tolerate. Default: none.", json_schema_extra=ATOMIC
    )
    service_account_name: SecretName | None = Field(
        default=None,
        description="ServiceAccount whose cloud identity the pods take, where locations name no Secret. It must carry "
        "the label truekeep.dev/pods=Allowed; its Kubernetes token is not mounted. Default: default. "
        "Example: lake-reader.",
    )
    priority_class_name: SecretName | None = Field(
        default=None,
        description="PriorityClass of the pods. Default: the cluster's default. Example: batch-low.",
    )


class Condition(Schema):
    """A `metav1.Condition`."""

    type: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z]*$", max_length=63)] = Field(
        description="What the condition speaks of. Example: Ready."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: int = Field(default=0, ge=0, description="The metadata.generation that this speaks of.")
    last_transition_time: datetime = Field(description="When status last changed (not reason or message).")
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=128)] = Field(
        description="One CamelCase word for programs. Example: GatesFailed."
    )
    message: Annotated[str, StringConstraints(max_length=2048)] = Field(
        default="", description="A sentence for people: what is, and what to do."
    )


def conditions_field() -> Any:
    """The `conditions` list that every status has."""
    return Field(
        default=[],
        max_length=16,
        description="Conditions by type; all of the kind's are there after the first visit.",
        json_schema_extra=keyed("type"),
    )


def quantity(value: str) -> Decimal:
    """A Kubernetes quantity as a plain number (bytes or cores). ValueError where it is none."""
    suffixes = {"m": Decimal("0.001"), "k": Decimal(10) ** 3, "Ki": Decimal(2) ** 10, "M": Decimal(10) ** 6}
    suffixes |= {"Mi": Decimal(2) ** 20, "G": Decimal(10) ** 9, "Gi": Decimal(2) ** 30}
    for suffix in sorted(suffixes, key=len, reverse=True):
        if value.endswith(suffix):
            return Decimal(value[: -len(suffix)]) * suffixes[suffix]
    return Decimal(value)
