"""Artifacts: large output by content. Events name them as ``{"sha256": hex, "bytes": n}``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from ledger.durable import sync_folder
from ledger.errors import LedgerError

_HEX = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


class NoArtifact(LedgerError):
    """The artifact is not there, or is not what its name says."""

    code = "no_artifact"


class Artifacts:
    """A folder of files named by their SHA-256: ``ab/abcdef…``. ``redact`` runs on bytes before they are stored."""

    def __init__(self, folder: Path, redact: Callable[[bytes], bytes] | None = None) -> None:
        self.folder = folder
        self._redact = redact

    def put_bytes(self, data: bytes) -> dict[str, Any]:
        """Store the bytes durably; return their name. Storing the same again is free."""
        return self._put(BytesIO(self._redact(data) if self._redact else data))

    def put_file(self, path: Path) -> dict[str, Any]:
        """Store a copy of the file durably, as it is; return its name."""
        with path.open("rb") as source:
            return self._put(source)

    def open(self, digest: str) -> IO[bytes]:
        """Open an artifact for reading. The content is not checked: ``check`` does that.

        Raises:
            NoArtifact: there is none of that name.
        """
        try:
            return self._path(digest).open("rb")
        except OSError as error:
            raise NoArtifact(f"{self._path(digest)}: {error.strerror}; it was removed or never stored") from None

    def read(self, digest: str) -> bytes:
        """Return an artifact's content, checked against its name.

        Raises:
            NoArtifact: there is none, or it was altered.
        """
        with self.open(digest) as file:
            data = file.read()
        if sha256(data).hexdigest() != digest:
            raise NoArtifact(f"{self._path(digest)}: altered since it was stored; restore it from a copy")
        return data

    def check(self, digest: str, size: int) -> str | None:
        """Return None if the artifact is whole, else ``artifact_missing`` or ``artifact_altered``."""
        try:
            with self.open(digest) as file:
                found, length = _digest(file)
        except NoArtifact:
            return "artifact_missing"
        return None if (found, length) == (digest, size) else "artifact_altered"

    def path(self, digest: str) -> Path:
        """Where an artifact of that name lies, if there is one."""
        return self._path(digest)

    def _path(self, digest: str) -> Path:
        if not _HEX.fullmatch(digest):
            raise NoArtifact(f"{digest!r} is not the name of an artifact; it must be 64 lower-case hex digits")
        return self.folder / digest[:2] / digest

    def _put(self, source: IO[bytes]) -> dict[str, Any]:
        """Written under a temporary name, synced, then renamed: a name never stands for half a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file, temporary = tempfile.mkstemp(prefix=".new-", dir=self.folder)
        try:
            with os.fdopen(file, "wb") as target:
                digest, size = _digest(source, target)
                target.flush()
                os.fsync(target.fileno())
            self._keep(Path(temporary), digest, size)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return {"sha256": digest, "bytes": size}

    def _keep(self, temporary: Path, digest: str, size: int) -> None:
        path = self._path(digest)
        if self.check(digest, size) is None:
            return
        new_folder = not path.parent.exists()
        path.parent.mkdir(exist_ok=True)
        temporary.chmod(0o444)
        temporary.rename(path)
        sync_folder(path.parent)
        if new_folder:
            sync_folder(self.folder)


def references(value: Any) -> Iterator[tuple[str, int]]:
    """Yield the name and size of every artifact that a payload mentions, however deep."""
    if isinstance(value, dict):
        digest, size = value.get("sha256"), value.get("bytes")
        if isinstance(digest, str) and isinstance(size, int) and _HEX.fullmatch(digest):
            yield digest, size
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def _digest(source: IO[bytes], copy_to: IO[bytes] | None = None) -> tuple[str, int]:
    """Hash a file to its end, copying it on the way if asked."""
    hasher, size = sha256(), 0
    while chunk := source.read(_CHUNK):
        hasher.update(chunk)
        size += len(chunk)
        if copy_to:
            copy_to.write(chunk)
    return hasher.hexdigest(), size
