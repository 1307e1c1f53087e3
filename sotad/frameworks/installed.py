"""Print what is installed under a name, as JSON: ``python installed.py NAME [NAME ...]``.

Run by the *target's* interpreter, so it is one file, needs only the standard library, and runs on Python 3.8. Of
several names the distribution with the most recorded files counts: a distribution may be a mere alias of another.
``modified_files`` differ from the hashes in RECORD (PEP 376) or, for an editable install, from its git commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

LISTED = 50  # names in each list; the counts beside them are exact
CODE = (".py", ".so", ".pyd", ".cu", ".cuh")


def describe(names: list[str]) -> dict[str, Any]:
    """Package, version, location, hash of RECORD, differences from it, and the commit it was built from."""
    found = [dist for dist in map(_distribution, names) if dist is not None]
    if not found:
        return {"package": None, "error": "not installed: " + ", ".join(names)}
    dist = max(found, key=lambda entry: len(_record(entry)))
    direct = json.loads(dist.read_text("direct_url.json") or "{}")
    source = _editable(direct)
    text = dist.read_text("RECORD") or ""
    modified, added = _git_changes(source) if source else _record_changes(dist)
    return {
        "package": dist.metadata["Name"],
        "version": dist.version,
        "location": str(source or dist.locate_file("")),
        "imported_from": _imported_from(dist),
        "record_sha256": hashlib.sha256(text.encode()).hexdigest() if text else None,
        "modified_files": modified[:LISTED],
        "modified_count": len(modified),
        "added_files": added[:LISTED],
        "added_count": len(added),
        "editable": source is not None,
        "vcs_commit": _commit(source) if source else direct.get("vcs_info", {}).get("commit_id"),
        "python": sys.version.split()[0],
    }


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _record(dist: metadata.Distribution) -> list[tuple[str, str]]:
    """Each recorded file with its sha256 in hex; those without a hash (RECORD itself, bytecode) are left out."""
    rows = []
    for file in dist.files or []:
        if file.hash is not None and file.hash.mode == "sha256":
            digest = base64.urlsafe_b64decode(file.hash.value + "=" * (-len(file.hash.value) % 4))
            rows.append((str(file), digest.hex()))
    return rows


def _record_changes(dist: metadata.Distribution) -> tuple[list[str], list[str]]:
    """Recorded files that are different or gone, and code files beside them that nobody recorded."""
    rows = _record(dist)
    modified = [name for name, digest in rows if _digest(Path(str(dist.locate_file(name)))) != digest]
    return sorted(modified), _added(dist, {name for name, _ in rows})


def _added(dist: metadata.Distribution, recorded: set[str]) -> list[str]:
    """Unrecorded code in the packages that are this distribution's own."""
    root = Path(str(dist.locate_file("")))
    own = {name.split("/")[0] for name in recorded if name.count("/") == 1 and name.endswith("/__init__.py")}
    files = (path for top in sorted(own) for path in (root / top).rglob("*") if path.suffix in CODE)
    return sorted(name for name in (path.relative_to(root).as_posix() for path in files) if name not in recorded)


def _digest(path: Path) -> str | None:
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                sha.update(block)
    except OSError:
        return None
    return sha.hexdigest()


def _editable(direct: dict[str, Any]) -> Path | None:
    """The source folder of an editable install (PEP 610)."""
    if direct.get("dir_info", {}).get("editable"):
        return Path(unquote(urlparse(direct["url"]).path))
    return None


def _git_changes(source: Path) -> tuple[list[str], list[str]]:
    lines = (_git(source, "status", "--porcelain") or "").splitlines()
    changed = [line[3:] for line in lines if not line.startswith("??")]
    return changed, [line[3:] for line in lines if line.startswith("??")]


def _commit(source: Path) -> str | None:
    return (_git(source, "rev-parse", "HEAD") or "").strip() or None


def _git(source: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _imported_from(dist: metadata.Distribution) -> str | None:
    """Where ``import`` would find it: another place than ``location`` means that something else shadows it."""
    for name in [dist.metadata["Name"].replace("-", "_"), *(dist.read_text("top_level.txt") or "").split()]:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin:
            return spec.origin
    return None


if __name__ == "__main__":
    here = Path(__file__).resolve().parent  # has modules that are named like the frameworks
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != here]
    print(json.dumps(describe(sys.argv[1:]), sort_keys=True))
