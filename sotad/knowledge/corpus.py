"""Reading a folder of dossiers: whatever lies in it, what can be read is read and the rest is told in one line each."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sotad.knowledge.document import Document

SUFFIXES = (".md", ".markdown")
READ_BYTES = 4 << 20
ALL_BYTES = 512 << 20
MOST_FILES = 5_000
BLOCK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """The documents of a folder by path, and a line for everything in it that could not be read as it is."""

    folder: Path
    documents: list[Document]
    remarks: list[str]

    @property
    def digest(self) -> str:
        """SHA-256 over the paths and contents of all documents."""
        entries = sorted(f"{document.digest} {document.path}\n" for document in self.documents)
        return sha256("".join(entries).encode("utf-8", "surrogateescape")).hexdigest()


class _Odd(Exception):
    """Why a file is left out."""


def read(folder: Path) -> Corpus:
    """Every Markdown file below a folder, by path.

    Links are followed to files of the same folder only. Of a file beyond 4 MiB its beginning is read; binary, empty
    and unreadable ones are left out. Never raises for what it finds.
    """
    documents: list[Document] = []
    remarks: list[str] = []
    size = 0
    for count, path in enumerate(_markdown(folder, remarks)):
        name = path.relative_to(folder).as_posix()
        if count == MOST_FILES or size > ALL_BYTES:
            remarks.append(f"{name}: not read, nor what comes after it: more than a corpus of dossiers holds")
            break
        try:
            document, remark, length = _document(folder, path, name)
        except _Odd as odd:
            remarks.append(f"{_printable(name)}: left out: {odd}")
            continue
        documents.append(document)
        remarks += [f"{_printable(name)}: {remark}"] if remark else []
        size += length
    return Corpus(folder, documents, remarks)


def _markdown(folder: Path, remarks: list[str]) -> Iterator[Path]:
    def told(error: OSError) -> None:
        remarks.append(f"{_printable(str(error.filename))}: folder left out: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=told):
        linked = sorted(name for name in folders if (Path(root) / name).is_symlink())
        remarks += [f"{_printable(name)}: folder left out: a link" for name in linked]
        folders[:] = sorted(set(folders) - {*linked, ".git"})
        yield from (Path(root) / name for name in sorted(names) if name.lower().endswith(SUFFIXES))


def _document(folder: Path, path: Path, name: str) -> tuple[Document, str, int]:
    """The document, a remark about it, and the bytes that were read."""
    try:
        if path.is_symlink() and not _within(folder, path):
            raise _Odd("a link that leads nowhere, in a circle or out of the folder")
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Odd("not a file")
        data, digest, whole = _content(path)
    except OSError as error:
        raise _Odd(error.strerror or str(error)) from None
    if not data.strip():
        raise _Odd("empty")
    if b"\0" in data[:8192]:
        raise _Odd("binary, not text")
    text, remark = _text(data, whole)
    if not whole:
        remark = "; ".join([f"only its first {READ_BYTES >> 20} MiB were read", *([remark] if remark else [])])
    return Document(_printable(name), text, digest), remark, len(data)


def _within(folder: Path, path: Path) -> bool:
    real = Path(os.path.realpath(path))
    return real.is_file() and real.is_relative_to(os.path.realpath(folder))


def _content(path: Path) -> tuple[bytes, str, bool]:
    """The beginning of a file, the SHA-256 of all of it, and whether the beginning is all."""
    kept, digest, length = bytearray(), sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            length += len(block)
            kept += block[: max(0, READ_BYTES - len(kept))]
    return bytes(kept), digest.hexdigest(), length == len(kept)


def _text(data: bytes, whole: bool) -> tuple[str, str]:
    decoder, remark = codecs.getincrementaldecoder("utf-8-sig"), ""
    try:
        text = decoder("strict").decode(data, whole)
    except UnicodeDecodeError:
        text, remark = (
            decoder("replace").decode(data, whole),
            "not UTF-8: other bytes read as \N{REPLACEMENT CHARACTER}",
        )
    return text.replace("\r\n", "\n"), remark


def _printable(name: str) -> str:
    """A file's name as one line of valid text."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)
