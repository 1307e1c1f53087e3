"""The bytes of a trace file, whichever way it is packed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from isal import igzip_lib

from sotad.trace.errors import TraceError

GZIP = b"\x1f\x8b"
_DAMAGED: Any = igzip_lib.error  # its type hints call it an instance
PACKED = 1 << 16  # bytes of gzip data read at a time


class Source:
    """Unpacks what it reads; gzip is known by its first bytes, not by the file's name.

    ``failure`` says what is wrong with the gzip data, once reading came to that place: there the bytes end.
    """

    def __init__(self, file: IO[bytes], packed: bool) -> None:
        self._file = file
        self._some = self._unpacked if packed else file.read
        self._member = _member()
        self.failure = ""

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end. (Decompressors give small blocks, and cutting costs by the block.)"""
        parts: list[bytes] = []
        held = 0
        while held < size and (part := self._some(size - held)):
            parts.append(part)
            held += len(part)
        return b"".join(parts)

    def _unpacked(self, size: int) -> bytes:
        """Some bytes. Not `gzip`'s own reading: that costs more, and loses what comes before the place of a cut."""
        while not self.failure:
            packed = self._file.read(PACKED) if self._member.needs_input else b""
            if self._member.eof:
                packed = self._member.unused_data or self._file.read(PACKED)
                if not packed.startswith(GZIP[:1]):
                    return b""  # the end, or the zeros that some tools fill up with
                self._member = _member()
            elif self._member.needs_input and not packed:
                self.failure = "the gzip data is cut short"
                return b""
            try:
                if part := self._member.decompress(packed, size):
                    return bytes(part)
            except _DAMAGED as error:
                self.failure = f"the gzip data is damaged ({error})"
        return b""


def _member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file's bytes.

    Raises:
        TraceError: it cannot be read or is empty.
    """
    try:
        with path.open("rb", buffering=0) as file:
            magic = file.read(len(GZIP))
            if not magic:
                raise TraceError(f"{path}: the file is empty; wait until the profiler has written it, or capture again")
            file.seek(0)
            yield Source(file, magic == GZIP)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TraceError(f"{path}: {reason}; give the path of a trace file that you may read") from error
