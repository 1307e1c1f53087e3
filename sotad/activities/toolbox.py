"""How programs of ours run on a campaign's host: the interpreter, the environment, and our code in one file.

On the daemon's own machine that is this interpreter and the packages as they are installed. To another host they travel
as a zip file by digest, the very files of :func:`sotad.harness.harness_digest`, so that what measures there is known.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath

from sotad.config.container import Container
from sotad.harness import files
from sotad.hosts.base import Host, allowed_environment

NAME = "sotad.zip"
MEASURING = "a Python of 3.11 or later with pydantic, orjson and aiohttp (a framework's environment has them)"
"""What ``tools`` of a host has to be."""
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can name: equal code is an equal file
MAIN = b"""import runpy, sys
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a host's definition says of how our programs run there; see ``sotad.config.hosts``."""

    tools: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    max_clock_offset_s: float = 60.0
    container: Container | None = None


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a job needs to run things on its host; as it is made here, the host is this machine.

    ``python`` runs what measures, ``plain`` what needs only the standard library. ``environment`` are the everyday
    variables there. ``code`` is the zip file, empty where our packages can be imported; ``files`` the folder that holds
    what was placed there. ``container``: what frameworks' commands run in.
    """

    python: str = sys.executable
    plain: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=allowed_environment)
    code: str = ""
    files: str = ""
    max_clock_offset_s: float = 60.0
    container: Container | None = None

    def measuring(self, argv: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
        """The argv of a Python program that may import what we depend on, and the variables for it."""
        if not self.code:
            return (self.python, *argv), {}
        paths = filter(None, (self.code, self.environment.get("PYTHONPATH")))
        return (self.python, *argv), {"PYTHONPATH": os.pathsep.join(paths)}

    def program(self, module: str, *argv: str) -> tuple[str, ...]:
        """The argv of one of the programs in :mod:`sotad.there`."""
        return (self.plain, "-I", "-S", self.code, module, *argv) if self.code else (self.plain, "-m", module, *argv)


async def equip(host: Host, settings: Settings) -> Toolbox:
    """What a job has on a host; our code is there afterwards.

    Raises:
        HostError: it cannot be sent.
    """
    if host.here:
        return Toolbox(container=settings.container)
    code = await host.place(NAME, await asyncio.to_thread(packed))
    return Toolbox(
        settings.tools or host.python,
        host.python,
        {**await host.environment(), **settings.env},
        code,
        str(PurePosixPath(code).parents[1]),
        settings.max_clock_offset_s,
        settings.container,
    )


@cache
def packed() -> bytes:
    """Our packages as one file that Python imports from and runs: the same bytes for the same code."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("__main__.py", EPOCH), MAIN)
    return made.getvalue()
