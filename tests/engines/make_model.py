"""Write a tiny Qwen3-shaped model without weights: `python tests/engines/make_model.py FOLDER`.

Config and tokenizer only, about 100 kB and the same to the byte everywhere; engines fill in random weights themselves
(`--load-format dummy`). The vocabulary is all bytes and short runs of ASCII letters: what random weights
say is nearly always text that a server can stream at once, token by token. Standard library only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import string
from pathlib import Path
from typing import Any

VOCABULARY = 4096
CONTEXT = 2048
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make(folder: Path) -> Path:
    """Write the model's four files and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(SPECIAL)}
    ends = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    files = {
        "config.json": {**config(), **ends},
        "generation_config.json": {**ends, "do_sample": False},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    return folder


def config() -> dict[str, Any]:
    """Qwen3 with four small layers: about 5 million parameters."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "intermediate_size": 768,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "max_position_embeddings": CONTEXT,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "dtype": "bfloat16",
        "use_cache": True,
    }


def tokenizer() -> dict[str, Any]:
    """Byte-level BPE in the file format of the Hugging Face tokenizers library; ids follow from the order alone."""
    pairs = merges()
    words = [*SPECIAL, *alphabet(), *("".join(pair) for pair in pairs)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [special(number, token) for number, token in enumerate(SPECIAL)],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {word: number for number, word in enumerate(words)},
            "merges": [" ".join(pair) for pair in pairs],
        },
    }


def special(number: int, token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, "special": True, **flags}


def alphabet() -> list[str]:
    """One printable character per byte: itself where it is one, else the next from U+0100 on (as GPT-2 does)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = map(chr, itertools.count(0x100))
    return [chr(byte) if byte in printable else next(substitutes) for byte in range(256)]


def merges() -> list[tuple[str, str]]:
    """Pairs of letters, a space with a letter, then a pair with a letter, until the vocabulary is full."""
    letters, space = string.ascii_lowercase, alphabet()[0x20]
    pairs = list(itertools.product(letters, letters))
    spaced = [(space, letter) for letter in letters]
    triples = (("".join(pair), letter) for pair, letter in itertools.product(pairs, letters))
    return list(itertools.islice(itertools.chain(pairs, spaced, triples), VOCABULARY - len(SPECIAL) - 256))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny model folder for serving with random weights.")
    parser.add_argument("folder", type=Path)
    print(make(parser.parse_args().folder.absolute()))


if __name__ == "__main__":
    main()
