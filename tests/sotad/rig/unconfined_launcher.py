"""``launcher.py`` on a kernel without Landlock: agents run unconfined, and the gates have to do."""

from __future__ import annotations

import runpy
from pathlib import Path

from sotad import sandbox

LAUNCHER = Path(__file__).with_name("launcher.py")

if __name__ == "__main__":
    sandbox.available = lambda: "this kernel has no Landlock"
    runpy.run_path(str(LAUNCHER), run_name="__main__")
