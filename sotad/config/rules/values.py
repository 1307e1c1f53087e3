"""Rules about what flags ask of the hardware and of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod

from sotad.config.rules.families import ATTENTION, PARALLEL, snake, snaked
from sotad.config.rules.finding import JSON, Finding, warning
from sotad.config.rules.written import written

_BEFORE_HOPPER = re.compile(
    r"\b(cpu|a100|a800|a10g?|a16|a2|a30|a40|a[2456]000|l4|l40s?|t4|v100|p100|p4|rtx ?[2345]\d\d\d)\b", re.IGNORECASE
)


def value_rules(spec: JSON, framework: JSON) -> Iterator[Finding]:
    """GPUs suffice for the parallelism, fa3 has its hardware, and what only some models can do is told."""
    yield from _parallel(spec["hardware"], framework)
    yield from _hopper(spec["hardware"]["gpu_type"], framework)
    yield from _gated(framework)


def _parallel(hardware: JSON, framework: JSON) -> Iterator[Finding]:
    """Tensor times pipeline times data parallelism fits the GPUs, and expert ranks divide them."""
    gpus = hardware["gpu_count"] * hardware["nodes"]
    told: set[int] = set()
    for key, flags in _flag_sets(framework):
        factors = _factors(framework, flags)
        if gpus and prod(factors) > gpus and prod(factors) not in told:
            told.add(prod(factors))
            needs = f"parallelism {' x '.join(map(str, factors))} needs {prod(factors)} GPUs"
            yield Finding(key, f"{needs}, hardware has {gpus}")
    for key, _, value in written(framework, "ep_size", "ep"):
        if gpus and type(value) is int and value > 0 and gpus % value:
            yield warning(key, f"{value} expert ranks do not divide {gpus} GPUs")


def _flag_sets(framework: JSON) -> Iterator[tuple[str, JSON]]:
    """The options alone, every searched value alone, and every candidate."""
    yield "options", framework["options"]
    for key, flag, value in written(framework):
        if key.startswith("search_space."):
            yield key, {**framework["options"], flag: value}
    for candidate in framework["candidates"]:
        yield f"candidates.{candidate['id']}", {**framework["options"], **candidate["flags"]}


def _factors(framework: JSON, flags: JSON) -> list[int]:
    given = snaked(flags)
    factors = [_factor(given, names) for names in PARALLEL.get(framework["kind"], ())]
    if framework["kind"] == "sglang" and not given.get("enable_dp_attention"):
        factors.append(_factor(given, ("dp_size", "dp", "data_parallel_size")))
    return factors


def _factor(flags: JSON, names: tuple[str, ...]) -> int:
    found = next((flags[name] for name in names if name in flags), 1)
    return found if type(found) is int and found > 0 else 1


def _hopper(gpu_type: str, framework: JSON) -> Iterator[Finding]:
    if not _BEFORE_HOPPER.search(gpu_type):
        return
    for key, _, value in written(framework, *ATTENTION):
        if value == "fa3":
            yield Finding(key, f"fa3 needs a Hopper GPU or a newer one, hardware.gpu_type is {gpu_type}")


def _gated(framework: JSON) -> Iterator[Finding]:
    for key, _, value in written(framework, "max_num_partial_prefills"):
        if isinstance(value, int) and value > 1:
            yield warning(key, "more than 1 works with some models only: the launch may fail")
    for key, _, value in written(framework, "enable_dbo"):
        if value is True:
            yield warning(key, "dual batch overlap needs an all2all backend: the launch may fail")
    for flag in framework["options"]:
        if snake(flag).startswith("speculative_"):
            yield warning(f"options.{flag}", "speculation in the baseline: compare with a plain baseline first")
