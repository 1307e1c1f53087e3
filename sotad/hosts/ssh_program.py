"""What a host is sent to work with: one zip file that its Python executes, and the source that puts it there."""

import base64
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sotad import shim
from sotad.hosts import onhost, onhost_boot, runs

NAME = "host.pyz"
_MAIN = "import sys\nfrom sotad.hosts.onhost import main\nsys.exit(main(sys.argv[1:]))\n"
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the digest follows from the content alone


@dataclass(frozen=True)
class Program:
    """A file to be executed by `python -I -S`, and its SHA-256."""

    data: bytes
    sha256: str

    def boot_source(self, root: str, *, send: bool) -> bytes:
        """Python source that says whether `root` holds the program, after putting it there when asked to `send`."""
        data = base64.b64encode(self.data).decode() if send else ""
        arguments = [onhost.MARK.decode(), root, NAME, self.sha256, data]
        call = f"\nboot(*json.loads({json.dumps(arguments)!r}))\n"
        return (Path(onhost_boot.__file__).read_text() + call).encode()


@cache
def program() -> Program:
    """The shim and what asks for it."""
    files = {
        "__main__.py": _MAIN,
        "sotad/__init__.py": "",
        "sotad/shim.py": Path(shim.__file__).read_text(),
        "sotad/hosts/__init__.py": "",
        "sotad/hosts/onhost.py": Path(onhost.__file__).read_text(),
        "sotad/hosts/runs.py": Path(runs.__file__).read_text(),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, _BEGINNING), text)
    return Program(out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest())
