"""A model's tokenizer, where one is needed: to count what a server does not, and to write prompts as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class TokenizerError(ValueError):
    """There is no such tokenizer, or it cannot do what is asked; the text says what to do."""


class Tokenizer(Protocol):
    """Text to token ids and back, without special tokens."""

    def ids(self, text: str) -> list[int]:
        """The tokens of a text."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        ...


class _FromFile:
    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Loaded

        self._loaded = Loaded.from_file(str(path))

    def ids(self, text: str) -> list[int]:
        return list(self._loaded.encode(text, add_special_tokens=False).ids)

    def text(self, ids: Sequence[int]) -> str:
        return str(self._loaded.decode(list(ids)))


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, or in the folder that has one.

    Raises:
        TokenizerError: the file or the package that reads it is missing, or it is no tokenizer.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise TokenizerError(f"{file}: no such file; name the model's tokenizer.json")
    try:
        return _FromFile(file)
    except ImportError:
        raise TokenizerError("reading a tokenizer needs the package tokenizers; pip install tokenizers") from None
    except Exception as error:  # the package raises bare exceptions
        raise TokenizerError(f"{file}: not a tokenizer: {error}") from None


def text_of_length(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """A text of exactly as many tokens as `ids`, from them where the round trip allows.

    Raises:
        TokenizerError: a few corrections did not reach the length.
    """
    wanted, kept = len(ids), list(ids)
    for turn in range(16):
        text = tokenizer.text(kept)
        again = tokenizer.ids(text)
        if len(again) == wanted:
            return text
        missing = wanted - len(again)
        kept = again[:wanted] if missing < 0 else [*again, *(ids[(turn + i) % wanted] for i in range(missing))]
    raise TokenizerError(f"no text of exactly {wanted} tokens was found; choose another seed or tokenizer")
