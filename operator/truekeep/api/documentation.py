"""What people wrote about a model elsewhere: it goes into the record of each run. Nothing is decided by it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from truekeep.api.common import Schema

Reference = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class Documentation(Schema):
    """What people wrote about the model elsewhere. All of it goes into the record of each run, and nothing is decided
    by it; the articles are those of Regulation (EU) 2024/1689."""

    purpose: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = Field(
        default=None, description="What it is for, and what not. Example: ranks flights for the desk that rebooks."
    )
    risk_assessment: Reference | None = Field(
        default=None, description="Where its risks are assessed (Article 9). Example: https://wiki.example/risk/4711."
    )
    technical: Reference | None = Field(
        default=None, description="Where its technical documentation is (Article 11). Example: https://git.example/doc."
    )
    instructions: Reference | None = Field(
        default=None, description="Where its instructions for use are (Article 13). Example: https://wiki.example/use."
    )
    oversight: Reference | None = Field(
        default=None,
        description="Who oversees it, and how to reach them (Article 14). Example: fraud-desk@example.com.",
    )
    monitoring_plan: Reference | None = Field(
        default=None, description="Where the plan to monitor it is (Article 72). Example: https://wiki.example/plan."
    )
