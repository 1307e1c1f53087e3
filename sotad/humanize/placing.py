"""A mirror's files on disk: each written whole or not at all, and nothing else of the mirror's names beside them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

NEW = ".new-"
"""How a file begins that is being written; one that is left over is swept away."""


def claim(root: Path, files: Mapping[str, str], owner: str, is_owned: Callable[[str], bool]) -> None:
    """Make sure that the folders of these files are nobody else's: new, or with the same text in the file ``owner``.

    Raises:
        OSError: a folder is a link, holds somebody else's files, or cannot be made.
    """
    for name, text in files.items():
        folder = (root / name).parent
        if Path(name).name == owner and not _is_ours(folder, owner, text.encode(), is_owned):
            raise FileExistsError(errno.EEXIST, "holds another loop; name another humanize.folder", str(folder))


def _is_ours(folder: Path, owner: str, text: bytes, is_owned: Callable[[str], bool]) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / owner).exists():
        return _content(folder / owner) == text
    return not any(is_owned(path.name) for path in folder.iterdir())


def place_files(root: Path, files: Mapping[str, str], is_owned: Callable[[str], bool]) -> None:
    """Make the files below ``root`` say exactly this, in order; what says it already is not touched.

    Of the files beside them, those with a name that ``is_owned`` are removed and all others stay. What cannot be
    written does not keep the rest from being written.

    Raises:
        OSError: the first thing that could not be written or removed.
    """
    failures: list[OSError] = []
    for name, text in files.items():
        try:
            _put(root / name, text.encode())
        except OSError as error:
            failures.append(error)
    for folder in dict.fromkeys(str(Path(name).parent) for name in files):
        try:
            _sweep(root / folder, {Path(name).name for name in files}, is_owned)
        except OSError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _put(path: Path, data: bytes) -> None:
    """No sync: after a crash the mirror is made anew."""
    if _content(path) == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "is a link; remove it", str(path.parent))
    file, name = tempfile.mkstemp(prefix=NEW, dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(file, "wb") as target:
            target.write(data)
        new.chmod(0o644)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    """What a plain file holds; None for anything else."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        return path.read_bytes()
    except OSError:
        return None


def _sweep(folder: Path, kept: set[str], is_owned: Callable[[str], bool]) -> None:
    for path in folder.iterdir():
        stale = path.name not in kept and (is_owned(path.name) or path.name.startswith(NEW))
        if stale and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)
