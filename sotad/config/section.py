"""What every section of a configuration file has in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

Slug = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class Section(BaseModel):
    """Base of all sections: no unknown keys, no NaN or infinity; ``replaced`` says what to write instead of a key."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    replaced: ClassVar[dict[str, str]] = {}


def one_line(text: str) -> str:
    """A problem as one line, whatever keys and values it quotes."""
    return " ".join(text.splitlines())
