"""The tiny model is sound: what engines would only notice late, or never."""

from __future__ import annotations

import json
from pathlib import Path

import make_model


def test_every_merge_has_its_token() -> None:
    """Ids are 0 to n-1, as many as the config says; each merge joins two tokens into a third."""
    model = make_model.tokenizer()["model"]
    vocab, merges = model["vocab"], [merge.split(" ") for merge in model["merges"]]
    assert sorted(vocab.values()) == list(range(make_model.config()["vocab_size"]))
    assert all(left in vocab and right in vocab and left + right in vocab for left, right in merges)


def test_every_byte_has_a_character_of_its_own() -> None:
    """No text is unknown to the tokenizer, and none is confused with another."""
    alphabet = make_model.alphabet()
    assert len(set(alphabet)) == 256
    assert all(character.isprintable() and not character.isspace() for character in alphabet)
    assert (alphabet[ord("a")], alphabet[ord(" ")]) == ("a", "\u0120")  # as every byte-level tokenizer has them


def test_what_is_written_is_the_same_every_time(tmp_path: Path) -> None:
    """Two runs give the same bytes, and the special tokens of the files agree."""
    first, second = make_model.make(tmp_path / "first"), make_model.make(tmp_path / "second")
    files = sorted(path.name for path in first.iterdir())
    assert files == ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    end = json.loads((first / "tokenizer_config.json").read_text())["eos_token"]
    vocab = json.loads((first / "tokenizer.json").read_text())["model"]["vocab"]
    assert json.loads((first / "config.json").read_text())["eos_token_id"] == vocab[end]
