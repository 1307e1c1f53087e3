"""A log as lines: gzip or not, colours and carriage returns gone, line numbers as ``sed -n`` counts them."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sotad.capacity.errors import CapacityError

LONGEST = 1 << 20  # bytes of a line that are looked at
_CUT_NUMBER = re.compile(rb"[\d.,]+\Z")  # where a file ends within a line, its last number may lack digits
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|\x08")


class Log:
    """The lines of one file; ``cut`` tells afterwards whether a compressed file ended too early."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = False

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Pairs of line number, from 1, and text; what a progress bar overwrote comes as texts of the same line.

        Raises:
            CapacityError: there is no such file, or it cannot be read.
        """
        try:
            with self._open() as stream:
                yield from self._read(stream)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.cut = True
        except OSError as error:
            raise CapacityError(f"{self.path}: {error.strerror or error}; name a server's log file") from None

    def _open(self) -> IO[bytes]:
        with self.path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        return gzip.open(self.path, "rb") if packed else self.path.open("rb")  # type: ignore[return-value]

    def _read(self, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
        number, fresh = 0, True
        while piece := stream.readline(LONGEST):
            number += fresh
            ended = piece.endswith(b"\n")
            if fresh:
                whole = piece if ended else _CUT_NUMBER.sub(b"", piece)
                yield from ((number, text) for text in pieces(whole))
            fresh = ended


def pieces(line: bytes) -> list[str]:
    """A line's texts in the order in which they were on the screen."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if "\x1b" in text or "\x08" in text:
        text = _ESCAPE.sub("", text)
    return [piece for piece in text.split("\r") if piece] if "\r" in text else [text]
