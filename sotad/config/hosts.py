"""The hosts that campaigns may be served on: the section ``hosts`` of the daemon's file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sotad.config.container import Container
from sotad.config.section import Section

HERE = "local"
"""The daemon's own machine, which needs no definition."""


class HostConfig(Section):
    """A machine that serves: this one with another root (``local``), or one that is reached over ssh.

    ``address`` is a name of ``~/.ssh/config`` or an address; what is left out is as ``ssh`` would have it. ``root`` is
    a folder there of the daemon's own. ``python`` runs programs of the standard library, ``tools`` what measures
    (default: the same): a Python of 3.11 or later with pydantic, orjson and aiohttp, such as a framework's. ``env`` is
    added to the everyday variables there. ``max_clock_offset_s``: how far its clock may be off. ``container``: what
    frameworks' commands run in; the load generator runs beside it.
    """

    kind: Literal["local", "ssh"]
    address: str = ""
    port: int | None = Field(default=None, gt=0, lt=65536)
    user: str | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    config: Path | None = None
    jump: str | None = None
    root: str = Field(pattern=r"^/.")
    python: str = "python3"
    tools: str = ""
    env: dict[str, str] = Field(default={})
    keepalive_s: float = Field(default=5.0, gt=0)
    patience_s: float = Field(default=60.0, gt=0)
    max_clock_offset_s: float = Field(default=60.0, gt=0)
    container: Container | None = None

    @model_validator(mode="after")
    def _addressed(self) -> HostConfig:
        if self.kind == "ssh" and not self.address:
            raise ValueError("kind: ssh needs address")
        if self.kind == "local" and self.address:
            raise ValueError("kind: local takes no address")
        return self
