"""What every branch of the tree is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MIB = 1024 * 1024


class Section(BaseModel):
    """One branch of the tree: immutable, and a misspelt field is an error instead of a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
