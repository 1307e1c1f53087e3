"""How numbers are stored: bytes per element, scales included, and the arithmetic they are multiplied in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sotad.simulate.errors import SimulateError

PARTS = ("attention", "mlp", "experts", "lm_head")


@dataclass(frozen=True, slots=True)
class Format:
    """A storage format; ``math`` names the peak of the GPU that multiplications in it can reach at best."""

    name: str
    bytes: float
    math: str


FORMATS = {
    "fp32": Format("fp32", 4, "tf32"),
    "bf16": Format("bf16", 2, "bf16"),
    "fp16": Format("fp16", 2, "bf16"),
    "fp8": Format("fp8", 1, "fp8"),
    "fp8_block": Format("fp8_block", 1 + 4 / (128 * 128), "fp8"),  # one float32 scale for 128 x 128
    "int8": Format("int8", 1, "int8"),
    "int4": Format("int4", 0.5 + 2.5 / 128, "bf16"),  # weights only: an fp16 scale and a 4-bit zero point for 128
    "mxfp4": Format("mxfp4", 0.5 + 1 / 32, "bf16"),  # weights only: an 8-bit exponent for 32
    "nvfp4": Format("nvfp4", 0.5 + 1 / 16, "fp4"),  # an fp8 scale for 16
}
ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "fp4": "nvfp4",
    "float8_e4m3fn": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}


@dataclass(frozen=True, slots=True)
class Formats:
    """The format of each part of the model; ``base`` is that of everything else and of activations."""

    base: Format
    attention: Format
    mlp: Format
    experts: Format
    lm_head: Format

    def names(self) -> dict[str, str]:
        """Part to name of its format."""
        return {"base": self.base.name, **{part: getattr(self, part).name for part in PARTS}}


def format_of(name: str) -> Format:
    """The format of that name.

    Raises:
        SimulateError: there is no such format.
    """
    key = name.lower().removeprefix("torch.")
    found = FORMATS.get(ALIASES.get(key, key))
    if found is None:
        raise SimulateError(f"dtype {name!r} is not known: use one of {', '.join([*FORMATS, *ALIASES])}")
    return found


def formats_of(config: Mapping[str, Any], override: str | None = None) -> Formats:
    """Formats: ``override`` for all linear layers, else the config's ``quantization_config``, else its dtype.

    Raises:
        SimulateError: the dtype or the quantisation is not known.
    """
    base = format_of(str(config.get("torch_dtype") or config.get("dtype") or "bf16"))
    if override:
        asked = format_of(override)
        plain = asked.math in ("bf16", "tf32")
        base = asked if plain and asked.bytes >= 2 else FORMATS["bf16"]
        return Formats(base, asked, asked, asked, base)
    quantised = config.get("quantization_config") or config.get("compression_config")
    if not quantised:
        return Formats(base, base, base, base, base)
    if not isinstance(quantised, Mapping):
        raise SimulateError(f"quantization_config is {quantised!r}, not an object: correct the config.json")
    return _quantised(base, quantised)


def _quantised(base: Format, found: Mapping[str, Any]) -> Formats:
    form = _method(found)
    kept = _strings(found, "modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")
    parts = {"attention": "self_attn", "mlp": "mlp.down_proj", "experts": "mlp.experts", "lm_head": "lm_head"}
    chosen = {part: base if _left(kept, word) or part == "lm_head" else form for part, word in parts.items()}
    return Formats(base, **chosen)


def _method(found: Mapping[str, Any]) -> Format:
    """The format that a ``quantization_config`` names, by its method."""
    method = str(found.get("quant_method", "")).lower()
    if method in ("awq", "gptq", "auto-round", "awq_marlin", "gptq_marlin"):
        return _integer(int(found.get("bits") or found.get("w_bit") or 4), int(found.get("group_size") or 128))
    if method == "compressed-tensors":
        return _compressed(found)
    if method in ("modelopt", "modelopt_fp4", "modelopt_fp8"):
        return _modelopt(str(found.get("quant_algo") or method.rpartition("_")[2]).upper())
    if method == "bitsandbytes":
        return _bitsandbytes(found)
    if method in ("fp8", "fbgemm_fp8"):
        block = found.get("weight_block_size")
        return Format("fp8_block", 1 + 4 / (block[0] * block[1]), "fp8") if block else FORMATS["fp8"]
    if method in FORMATS:
        return FORMATS[method]
    known = "awq, gptq, bitsandbytes, compressed-tensors, modelopt, fp8, mxfp4"
    raise SimulateError(f"quantization_config.quant_method {method!r} is not known ({known}): give --dtype")


def _modelopt(algorithm: str) -> Format:
    """Source: `quant_algo` of TensorRT Model Optimizer; what mixes formats has no template."""
    if "FP4" in algorithm:
        return FORMATS["nvfp4"]
    if algorithm.startswith("FP8") or algorithm == "MODELOPT":  # old checkpoints of fp8 name no algorithm
        return FORMATS["fp8"]
    raise SimulateError(f"quantization_config.quant_algo {algorithm!r} is not known: give --dtype")


def _bitsandbytes(found: Mapping[str, Any]) -> Format:
    """Two 4-bit formats with a float32 scale for 64 weights, quantised to 8 bits for 256 of them if so asked; else
    8 bits (https://huggingface.co/docs/transformers/quantization/bitsandbytes)."""
    if found.get("load_in_4bit") or found.get("_load_in_4bit"):
        nested = found.get("bnb_4bit_use_double_quant")
        scale = (1 + 4 / 256) / 64 if nested else 4 / 64
        return Format(str(found.get("bnb_4bit_quant_type") or "fp4"), 0.5 + scale, "bf16")
    if found.get("load_in_8bit") or found.get("_load_in_8bit"):
        return FORMATS["int8"]
    raise SimulateError("quantization_config of bitsandbytes loads neither in 4 nor in 8 bits: give --dtype")


def _compressed(found: Mapping[str, Any]) -> Format:
    groups = list((found.get("config_groups") or {}).values())
    weights = (groups[0].get("weights") if groups else None) or {}
    bits, kind = int(weights.get("num_bits") or 0), weights.get("type")
    if bits == 8:
        weight_only = not groups[0].get("input_activations")
        name = "fp8" if kind == "float" else "int8"
        return Format(name, 1, "bf16") if weight_only else FORMATS[name]
    if bits == 4:
        group = int(weights.get("group_size") or 128)
        return FORMATS["nvfp4"] if kind == "float" and group == 16 else _integer(4, group)
    raise SimulateError("quantization_config.config_groups does not say 4 or 8 bits for weights: give --dtype")


def _integer(bits: int, group: int) -> Format:
    """Weights only, with an fp16 scale and a zero point of ``bits`` for each group."""
    if not 1 <= bits <= 8:
        raise SimulateError(f"quantization_config says {bits} bits per weight: give --dtype")
    scales = (2 + bits / 8) / group if group > 0 else 0.0
    return Format(f"int{bits}", bits / 8 + scales, "bf16")


def _strings(found: Mapping[str, Any], *keys: str) -> list[str]:
    lists = (found.get(key) or [] for key in keys)
    return [str(item) for values in lists if isinstance(values, Iterable) for item in values]


def _left(kept: list[str], word: str) -> bool:
    """Whether the patterns leave all such modules as they are; those that name single layers by number do not."""
    last = word.split(".")[-1]
    names = [each.removeprefix("re:") for each in kept if not re.search(r"layers\.\d", each)]
    return any(last in re.split(r"[^a-z_]+", name) for name in names)
