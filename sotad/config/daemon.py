"""The daemon's own file, ``sotad.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sotad.config.section import Section


class DaemonConfig(Section):
    """Read at start and again whenever it changes."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    checkpoint_interval_s: float = Field(default=60, gt=0)
    checkpoint_copy: Path | None = None
    inbox: bool = True
