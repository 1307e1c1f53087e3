"""Rules about a whole campaign."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sotad.config.expand import longest
from sotad.config.rules.finding import JSON, Finding, warning
from sotad.redact import NAMES, redactor
from sotad.search.candidates import canonical
from statemachine.fairness import SAME_IN_ALL

_BEARER = re.compile(r"\bBearer\s+[\w.~+/=-]{16,}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_API = re.compile(r"(https://|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$))(?!.*@)")
GPU_CHOICE = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")
FULL_PROMPTS = 80  # what a result needs; fewer check the flow


def campaign_rules(spec: JSON) -> Iterator[Finding]:
    """Lengths, checkouts, amount of work, secrets."""
    yield from _context(spec)
    yield from _checkouts(spec)
    yield from _amount(spec)
    yield from _unequal(spec["frameworks"])
    yield from _secrets(spec, "")
    yield from _pulls(spec["knowledge"])
    yield from _gpus(spec)
    for name, framework in spec["frameworks"].items():
        for variable, value in framework["env"].items():
            if NAMES.search(variable) and value:
                advice = "looks like a secret: name it in env_from, which passes it without recording it"
                yield Finding(f"frameworks.{name}.env.{variable}", advice)


def _context(spec: JSON) -> Iterator[Finding]:
    limit, needed = spec["model"]["max_context"], longest(spec)
    if needed and limit < needed:
        for shape in spec["workload"]["scenarios"]:
            if shape["input_len"] + shape["output_len"] > limit:
                needs = f"scenario {shape['name']} needs {shape['input_len'] + shape['output_len']} tokens"
                yield Finding("model.max_context", f"{needs}, model.max_context is {limit}")
    kinds = {framework["kind"] for framework in spec["frameworks"].values()}
    if limit is None and "reference" in kinds:
        yield Finding("model.max_context", "the reference engine needs it when a dataset decides the lengths")


def _checkouts(spec: JSON) -> Iterator[Finding]:
    for name, framework in spec["frameworks"].items():
        patched = spec["goal"] == "sota" and framework["role"] == "target"
        if framework["checkout"] is None and (patched or framework["kind"] == "reference"):
            why = "the target of goal sota is patched there" if patched else "the reference engine runs from it"
            yield Finding(f"frameworks.{name}.checkout", f"is missing: {why}")
        if patched and not framework["tests"]:
            yield warning(f"frameworks.{name}.tests", "is empty: without tests every patch is refused")


def _gpus(spec: JSON) -> Iterator[Finding]:
    """The lease alone says which GPUs a server sees."""
    for name, framework in spec["frameworks"].items() if spec["hardware"]["gpu_ids"] else ():
        for variable in GPU_CHOICE:
            if variable in framework["env"] or variable in framework["env_from"]:
                yield Finding(f"frameworks.{name}.env", f"{variable} is set by the lease: leave it to hardware.gpu_ids")


def _pulls(knowledge: JSON) -> Iterator[Finding]:
    """What the question for open pull requests needs."""
    if knowledge["pulls"] == "off":
        return
    if not knowledge["repositories"]:
        yield Finding("knowledge.repositories", f"pulls: {knowledge['pulls']} needs at least one owner/name")
    for name in knowledge["repositories"]:
        if not _REPOSITORY.fullmatch(name):
            yield Finding("knowledge.repositories", f"{name!r} is no owner/name")
    if not _API.match(knowledge["api_url"]):
        yield Finding(
            "knowledge.api_url", "must begin with https://, or be http:// on this machine; no user name in it"
        )


def _amount(spec: JSON) -> Iterator[Finding]:
    nodes = spec["hardware"]["nodes"]
    if nodes > 1:
        yield warning("hardware.nodes", f"{nodes} nodes are recorded, but servers are started on one host only")
    if spec["search"]["tier"] == 1:
        return
    for shape in spec["workload"]["scenarios"]:
        if shape["num_prompts"] < FULL_PROMPTS:
            few = f"{shape['num_prompts']} prompts of scenario {shape['name']} are a check of the flow, not a result"
            yield warning("workload.scenarios", f"{few}: use {FULL_PROMPTS}, or search.tier 1")


def _unequal(frameworks: JSON) -> Iterator[Finding]:
    """What the fairness check will compare: between kinds the conditions, within one kind the options."""
    if len({framework["kind"] for framework in frameworks.values()}) == 1:
        if len({canonical(framework["options"]) for framework in frameworks.values()}) > 1:
            yield warning(
                "frameworks", "options differ between frameworks of one kind: the fairness check refuses that"
            )
        return
    for condition in SAME_IN_ALL:
        found = {name: _values(framework, condition) for name, framework in frameworks.items()}
        if len({value for values in found.values() for value in values}) > 1:
            told = "; ".join(f"{name} {' or '.join(values)}" for name, values in found.items() if values)
            yield warning("frameworks", f"{condition} is not the same in all candidates, as fairness demands: {told}")


def _values(framework: JSON, condition: str) -> list[str]:
    """The values of a condition in a framework's candidates, as far as its driver can tell."""
    known = [candidate["conditions"].get(condition) for candidate in framework["candidates"]]
    return list(dict.fromkeys(canonical(value) for value in known if value is not None))


def _secrets(value: Any, key: str) -> Iterator[Finding]:
    """Every text in which something has the shape of a token."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _secrets(name, key)
            yield from _secrets(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _secrets(below, f"{key}.{index}")
    elif isinstance(value, str) and (redactor({})(value) != value or _BEARER.search(value)):
        yield Finding(redactor({})(key), "holds what looks like a token: name its variable in env_from instead")
