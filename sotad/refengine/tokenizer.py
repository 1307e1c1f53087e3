"""Byte-level tokens: 256 bytes, three specials, then three-letter pieces that only the model emits.

Encoding never merges, so a text of n UTF-8 bytes is n tokens. Pieces give the output head the width of a real
vocabulary; each decodes to three characters of `ALPHABET`.
"""

import codecs
from collections.abc import Iterable

BOS, EOS, PAD = 256, 257, 258
FIRST_PIECE = 259
ALPHABET = b"abcdefghijklmnopqrstuvwxyz ,.-?!"
LARGEST_VOCAB = FIRST_PIECE + len(ALPHABET) ** 3


def encode(text: str) -> list[int]:
    """One token per UTF-8 byte."""
    return list(text.encode())


def token_bytes(token: int) -> bytes:
    """The bytes a token stands for; specials stand for none."""
    if token < BOS:
        return bytes((token,))
    if token < FIRST_PIECE:
        return b""
    rest, low = divmod(token - FIRST_PIECE, 32)
    high, mid = divmod(rest, 32)
    return bytes((ALPHABET[high], ALPHABET[mid], ALPHABET[low]))


def decode(tokens: Iterable[int]) -> str:
    """The text of a whole token sequence; bytes that are not UTF-8 become U+FFFD."""
    return b"".join(map(token_bytes, tokens)).decode(errors="replace")


class StreamDecoder:
    """Decodes token by token and holds back the bytes of an unfinished character."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int, last: bool) -> str:
        """The text that this token completes; everything held back when it is the last one."""
        return self._utf8.decode(token_bytes(token), final=last)
