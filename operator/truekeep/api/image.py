"""A team's own images: one that answers for a model, and one that trains it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from truekeep.api.common import ATOMIC, Fraction, Schema, keyed

ImageReference = Annotated[
    str,
    StringConstraints(
        # Registry and port, path, then a tag, a digest, or both: what has neither would mean another image each day.
        pattern=r"^([A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?(:[0-9]{1,5})?/)?[a-z0-9]+([._/\-]+[a-z0-9]+)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}|(:[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127})?@sha256:[0-9a-f]{64})$",
        max_length=512,
    ),
]


class EnvironmentVariable(Schema):
    """One environment variable with a plain value."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", min_length=1, max_length=128)] = Field(
        description="Name of the variable. Example: MLSERVER_HTTP_PORT."
    )
    value: Annotated[str, StringConstraints(max_length=1024)] = Field(
        description="Value; $(NAME) stands for a variable that comes before. Example: $(PORT)."
    )


class ServingImage(Schema):
    """A team's own server, which speaks the Open Inference Protocol; docs/any-framework.md has its contract."""

    CEL = (
        (
            "!self.reference.endsWith(':latest')",
            "serving.image.reference must not be of the tag latest, because its pods would differ; give a digest "
            "(NAME@sha256:...), or a tag that stays what it is",
        ),
        (
            "!(self.port in [8080, 8081])",
            "serving.image.port must not be 8080 or 8081, which are those of the model itself; choose another",
        ),
        (
            "!has(self.env) || self.env.all(e, !(e.name in ['TRUEKEEP_MODEL_DIR', 'MODEL_NAME', 'PORT']))",
            "serving.image.env must not hold TRUEKEEP_MODEL_DIR, MODEL_NAME or PORT, which are set already; a value "
            "may refer to them, as in $(PORT)",
        ),
    )

    reference: ImageReference = Field(
        description="The image, by digest where its registry has one, else by a tag that stays what it is. Example: "
        "registry.example/team/mlserver@sha256:0b9c3f6c1d7d4b0f8a55c8e1f4a1c5d2e6b7a8990c1d2e3f405162738495a6b7."
    )
    port: Annotated[int, Field(ge=1024, le=65535)] = Field(
        default=9000, description="Port on which it answers, at least on 127.0.0.1. Default: 9000."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=20)] = Field(
        default=5, description="Seconds that one of its answers may take. Default: 5."
    )
    tolerance: Fraction | None = Field(
        default=None,
        description="Largest difference of a probability from training's, in the self-test. Default: the artifact's "
        "own, 0.000000001. Example, for a server that computes in 32 bits: 0.00001.",
    )
    env: list[EnvironmentVariable] = Field(
        default=[],
        max_length=30,
        description="Further environment variables. Default: none.",
        json_schema_extra=keyed("name"),
    )


Argument = Annotated[str, StringConstraints(max_length=1024)]


class TrainingImage(Schema):
    """A team's own trainer, of any framework; docs/training-image.md has its contract. It never judges itself."""

    CEL = (
        (
            "!self.reference.endsWith(':latest')",
            "training.image.reference must not be of the tag latest, because nobody could say later what trained; "
            "give a digest (NAME@sha256:...), or a tag that stays what it is",
        ),
        (
            "!has(self.env) || self.env.all(e, !e.name.startsWith('TRUEKEEP_') && !(e.name in ['MODEL_NAME', 'HOME']))",
            "training.image.env must not hold MODEL_NAME, HOME or names that begin with TRUEKEEP_, which are set "
            "already; a value may refer to them, as in $(TRUEKEEP_SEED)",
        ),
    )

    reference: ImageReference = Field(
        description="The image, by digest where its registry has one, else by a tag that stays what it is. Example: "
        "registry.example/team/fraud-fit@sha256:0b9c3f6c1d7d4b0f8a55c8e1f4a1c5d2e6b7a8990c1d2e3f405162738495a6b7."
    )
    format: Literal["ONNX", "Skops", "Opaque"] = Field(
        description="What it leaves in /out. ONNX: model.onnx. Skops: model.skops. Opaque: files that serving.image "
        "knows; that image then answers for them, also when they are judged. Example: ONNX."
    )
    command: list[Argument] = Field(
        default=[],
        max_length=20,
        description="Instead of the image's entry point. Default: the image's own. Example: [python, /fit.py].",
        json_schema_extra=ATOMIC,
    )
    args: list[Argument] = Field(
        default=[],
        max_length=40,
        description='Arguments. Default: the image\'s own, unless command is given. Example: [--rounds, "200"].',
        json_schema_extra=ATOMIC,
    )
    env: list[EnvironmentVariable] = Field(
        default=[],
        max_length=30,
        description="Further environment variables. Default: none.",
        json_schema_extra=keyed("name"),
    )
    seed: Annotated[int, Field(ge=0, le=2147483647)] = Field(
        default=0, description="Seed that the image is given as TRUEKEEP_SEED. Default: 0. Example: 7."
    )
