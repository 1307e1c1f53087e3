"""A folder that holds the files of a commit and nothing else: ``tree.py MANIFEST FOLDER [ARCHIVE ...]``.

MANIFEST is JSON, ``{"format": "sha1", "entries": [[mode, object, path], ...]}`` as ``git ls-tree`` lists them.
Archives are zip files whose members are named by the object that they hold. Every file is hashed as git does
(gitformat-pack(5), "blob SIZE\\0" and the content), so that no git is needed here. Exit status 0 when FOLDER holds it.

``tree.py --remove FOLDER`` leaves nothing of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

LINK, SUBMODULE, PROGRAM, PLAIN = "120000", "160000", "100755", "100644"
Entries = dict[str, tuple[str, str]]  # path -> mode and object


class Incomplete(Exception):
    """An archive lacks an object, or holds something else under its name."""


def object_of(data: bytes, form: str) -> str:
    """The name that git gives to a file's content."""
    return hashlib.new(form, b"blob %d\0" % len(data) + data).hexdigest()


def holds(folder: Path, entries: Entries, form: str) -> bool:
    """Whether the folder has the entries, unchanged, and nothing beside them: what is ignored may run, too."""
    try:
        found = {path: _entry(place, entries.get(path, ("", "")), form) for path, place in _files(folder)}
    except OSError:
        return False
    wanted = {path: entry for path, entry in entries.items() if entry[0] != SUBMODULE}
    return found == wanted and _folders(folder) <= _expected_folders(entries)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, files in os.walk(folder):
        for name in (*files, *(name for name in folders if (Path(root) / name).is_symlink())):
            place = Path(root) / name
            yield place.relative_to(folder).as_posix(), place


def _entry(place: Path, wanted: tuple[str, str], form: str) -> tuple[str, str]:
    if place.is_symlink():
        return LINK, object_of(os.fsencode(os.readlink(place)), form)  # noqa: PTH115 (bytes as they are)
    status = place.lstat()
    if not stat.S_ISREG(status.st_mode) or not wanted[0]:
        return "", ""
    mode = PROGRAM if status.st_mode & stat.S_IXUSR else PLAIN
    return mode, object_of(place.read_bytes(), form)


def _folders(folder: Path) -> set[str]:
    walked = ((Path(root), names) for root, names, _ in os.walk(folder))
    places = (root / name for root, names in walked for name in names)
    return {place.relative_to(folder).as_posix() for place in places if not place.is_symlink()}


def _expected_folders(entries: Entries) -> set[str]:
    parents = {parent.as_posix() for path in entries for parent in Path(path).parents}
    return parents | {path for path, (mode, _) in entries.items() if mode == SUBMODULE}


def make(folder: Path, entries: Entries, archives: Sequence[Path], form: str) -> None:
    """Lay it out anew from the archives, beside the place, and put it there whole.

    Raises:
        Incomplete: an object is in none of them.
    """
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with ExitStack() as opened:
        packs = [opened.enter_context(zipfile.ZipFile(archive)) for archive in archives]
        where = {name: pack for pack in reversed(packs) for name in pack.namelist()}
        for path, (mode, name) in entries.items():
            _lay(draft / path, mode, name, where, form)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _lay(place: Path, mode: str, name: str, where: dict[str, zipfile.ZipFile], form: str) -> None:
    if mode == SUBMODULE:  # an empty folder, as in a worktree
        place.mkdir(parents=True, exist_ok=True)
        return
    if name not in where:
        raise Incomplete(f"{place.name}: object {name} is in no archive")
    data = where[name].read(name)
    if object_of(data, form) != name:
        raise Incomplete(f"{place.name}: object {name} did not arrive as it was sent")
    place.parent.mkdir(parents=True, exist_ok=True)
    if mode == LINK:
        place.symlink_to(os.fsdecode(data))
    else:
        place.write_bytes(data)
        place.chmod(0o755 if mode == PROGRAM else 0o644)


def main(argv: Sequence[str]) -> int:
    if len(argv) < 2:
        print("usage: tree.py MANIFEST FOLDER [ARCHIVE ...] | --remove FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[1])
    if argv[0] == "--remove":
        shutil.rmtree(folder, ignore_errors=True)
        return 1 if folder.exists() else 0
    asked = json.loads(Path(argv[0]).read_bytes())
    entries = {path: (mode, name) for mode, name, path in asked["entries"]}
    made = not holds(folder, entries, asked["format"])
    try:
        if made:
            make(folder, entries, [Path(archive) for archive in argv[2:]], asked["format"])
    except (Incomplete, OSError, zipfile.BadZipFile) as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"made": made}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
