"""The daemon's own file, ``sotad.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from sotad.config.hosts import HERE, HostConfig
from sotad.config.section import Section, Slug


class DaemonConfig(Section):
    """Read at start and again whenever it changes."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    checkpoint_interval_s: float = Field(default=60, gt=0)
    checkpoint_copy: Path | None = None
    inbox: bool = True
    hosts: dict[str, HostConfig] = Field(default={})

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: dict[str, HostConfig]) -> dict[str, HostConfig]:
        odd = [name for name in hosts if not re.match(Slug, name) or name == HERE]
        if odd:
            raise ValueError(
                f"{', '.join(odd)}: names are lower-case words of letters, digits, '.', '_' and '-'; {HERE} is taken"
            )
        return hosts
