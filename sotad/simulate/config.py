"""A Hugging Face config.json as a `Model`.

What the file does not say, families.yaml adds by `model_type`. An architecture that is not listed there is refused
with what could not be modelled, unless the caller asks to go by the keys alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sotad.simulate.architecture import Model
from sotad.simulate.errors import SimulateError
from sotad.simulate.formats import formats_of
from sotad.simulate.keys import Keys
from sotad.simulate.layers import layers_of

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
TOWERS = ("vision_config", "audio_config", "vision_tower_config")
# Keys that change the structure in ways that no template here covers: a config with one of them is not modelled.
BEYOND = {
    "compress_ratios": "compressed sparse attention (CSA/HCA)",
    "num_memory_blocks": "memory blocks",
    "altup_num_inputs": "AltUp and per-layer embeddings",
    "num_kv_shared_layers": "layers that share a KV cache",
    "hc_mult": "hyper-connections",
    "mamba_dt_rank": "Mamba1 layers",
    "rwkv_version": "RWKV layers",
    "zero_expert_num": "zero-computation experts",
    "encoder_layers": "an encoder",
}
STRUCTURE = ("expert", "lora_rank", "state", "conv", "layer", "head", "linear", "attention", "hidden", "chunk", "mamba")
HARMLESS = ("initializer", "dropout", "eps", "_loss", "router_aux", "hidden_act", "return", "output_hidden", "softcap")


def read(path: Path, dtype: str | None = None, assume: bool = False) -> Model:
    """The model of a config.json, or of the folder that holds one.

    Raises:
        SimulateError: the file cannot be read, or the architecture cannot be modelled.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        data = file.read_bytes()
        config = json.loads(data)
    except OSError as error:
        raise SimulateError(f"{file}: {error.strerror or error}: give a config.json or its folder") from None
    except (ValueError, RecursionError) as error:
        raise SimulateError(f"{file}: not JSON ({error}): give a Hugging Face config.json") from None
    if not isinstance(config, dict):
        raise SimulateError(f"{file}: holds no JSON object: give a Hugging Face config.json")
    try:
        model = parse(config, file.parent.name if file.name == "config.json" else file.stem, dtype, assume)
    except SimulateError as error:
        raise SimulateError(f"{file}: {error}") from None
    return replace(model, config_hash=hashlib.sha256(data).hexdigest())


def parse(config: Mapping[str, Any], name: str = "", dtype: str | None = None, assume: bool = False) -> Model:
    """The model of a config that was read. ``dtype`` overrides the format of the weights.

    Raises:
        SimulateError: a number is missing or impossible, or the architecture is not known and not ``assume``.
    """
    try:
        return _parse(config, name, dtype, assume)
    except SimulateError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise SimulateError(f"a value is of the wrong kind ({error}): correct the config.json") from None


@functools.cache
def families() -> dict[str, dict[str, Any]]:
    """Traits by model_type, from families.yaml."""
    text = resources.files("sotad.simulate").joinpath("families.yaml").read_text()
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return found


def _parse(config: Mapping[str, Any], name: str, dtype: str | None, assume: bool) -> Model:
    text = _text(config)
    family = str(text.get("model_type") or config.get("model_type") or "")
    traits = _traits(family, text, assume)
    keys = Keys(text, traits.get("defaults"))
    _within(keys)
    hidden, vocab = keys.width("hidden_size"), keys.width("vocab_size")
    layers = layers_of(keys, traits)
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", traits.get("tied", False))))
    quantised = {**text, "quantization_config": text.get("quantization_config") or config.get("quantization_config")}
    dtypes = {"torch_dtype": _first(text, config, "torch_dtype", "dtype")}
    formats = formats_of({**quantised, **dtypes}, dtype)
    left, warnings = _left_out(config, keys), _remarks(family, traits, keys, assume)
    if family not in families():
        left += [f"{key}: no template covers it" for key in _odd(text)]
    return Model(name, family or "by its keys", hidden, vocab, layers, tied, formats, "", warnings, left)


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model, however deep it is nested."""
    for key in NESTED:
        inner = config.get(key)
        if isinstance(inner, Mapping):
            return _text(inner)
    return config


def _first(text: Mapping[str, Any], config: Mapping[str, Any], *names: str) -> Any:
    return next((part[name] for name in names for part in (text, config) if part.get(name)), None)


def _traits(family: str, text: Mapping[str, Any], assume: bool) -> dict[str, Any]:
    if not family or family in families():
        return families().get(family, {})
    if assume:
        return {}
    odd = _odd(text)
    about = f"; keys that no template covers: {', '.join(odd)}" if odd else ""
    raise SimulateError(
        f"model_type {family!r} is not known, so norms, biases, gates and windows are not{about}: "
        "pass --assume to go by the keys that are known, with a warning"
    )


def _structural(key: str) -> bool:
    return any(word in key for word in STRUCTURE) and not any(word in key for word in HARMLESS)


def _odd(text: Mapping[str, Any]) -> list[str]:
    """Keys that look like structure and that no reader asked for."""
    keys = Keys(text)
    with contextlib.suppress(SimulateError):
        layers_of(keys, {})
    keys.get("vocab_size", "num_nextn_predict_layers", "mtp_num_hidden_layers", "max_window_layers")
    return sorted(key for key in text if _structural(key) and key not in keys.used)


def _within(keys: Keys) -> None:
    for key, what in BEYOND.items():
        if keys.get(key):
            raise SimulateError(f"{what} ({key}) cannot be modelled: no template covers it")


def _left_out(config: Mapping[str, Any], keys: Keys) -> list[str]:
    towers = [f"{key}: the encoder of images or audio is not in the step" for key in TOWERS if config.get(key)]
    if keys.get("num_nextn_predict_layers", "mtp_num_hidden_layers"):
        towers.append("the multi-token prediction layers (num_nextn_predict_layers) are not in the step")
    return towers


def _remarks(family: str, traits: Mapping[str, Any], keys: Keys, assume: bool) -> list[str]:
    told = []
    if not family:
        told.append("the config names no model_type: modelled by its keys; norms, biases and gates are assumed plain")
    elif assume and family not in families():
        told.append(f"model_type {family!r} is not known: modelled by the keys that are, as asked with --assume")
    if traits.get("defaults"):
        missing = [name for name in traits["defaults"] if name not in keys.explicit]
        if missing:
            told.append(f"not in the config, the class's defaults taken: {', '.join(missing)}")
    return told
