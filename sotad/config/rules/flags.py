"""Rules about the flags and the command of one framework."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sotad.config.rules.families import snake
from sotad.config.rules.finding import JSON, Finding, warning
from sotad.config.rules.written import written
from sotad.frameworks import FRAMEWORKS
from sotad.search.candidates import canonical

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def flag_rules(spec: JSON, framework: JSON) -> Iterator[Finding]:
    """Names, spelling, what sotad sets itself, TensorRT-LLM's backend, equal candidates."""
    yield from _names(framework)
    yield from _backend(framework)
    yield from _candidates(spec, framework)
    if framework["kind"] == "openai" and not any("{port}" in word for word in framework["command"]):
        yield Finding("command", "must be given, with {port} in it: kind openai has no command of its own")
    for variable in (*framework["env"], *framework["env_from"]):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
            yield Finding("env", f"{variable!r} is no name of an environment variable")


def _names(framework: JSON) -> Iterator[Finding]:
    spelled: dict[str, str] = {}
    for key, flag in dict.fromkeys((found.key, found.flag) for found in written(framework)):
        if not _NAME.fullmatch(flag):
            yield Finding(key, "a flag is written as letters, digits, '-' and '_', without leading dashes")
            continue
        first = spelled.setdefault(snake(flag), flag)
        if flag != first:
            yield Finding(key, f"is the flag that is written {first} elsewhere: use one spelling")
        if snake(flag) in FRAMEWORKS[framework["kind"]].owned:
            yield Finding(key, "is set by sotad itself (model and served_name come from the model section)")


def _backend(framework: JSON) -> Iterator[Finding]:
    if framework["kind"] != "tensorrt_llm":
        if framework["backend_policy"] is not None:
            yield Finding("backend_policy", "belongs to kind tensorrt_llm")
        return
    if framework["options"].get("backend", "pytorch") != "pytorch":
        yield Finding("options.backend", f"must be pytorch, not {framework['options']['backend']}")
    for key in dict.fromkeys(found.key for found in written(framework, "backend")):
        if not key.startswith("options."):
            yield Finding(key, "the backend is fixed to pytorch: leave it out")


def _candidates(spec: JSON, framework: JSON) -> Iterator[Finding]:
    """Ids and flags differ: two candidates without flags would be two baselines."""
    ids: dict[str, str] = {}
    seen: dict[str, str] = {}
    for candidate in framework["candidates"]:
        flags = canonical({**framework["options"], **candidate["flags"]})
        if candidate["id"] in ids:
            yield Finding(f"candidates.{candidate['id']}", "is the id of two candidates")
        if flags in seen and candidate["id"] not in ids:
            yield Finding(f"candidates.{candidate['id']}", f"has the same flags as {seen[flags]}")
        ids[candidate["id"]] = seen.setdefault(flags, candidate["id"])
    limit = spec["search"]["max_candidates"]
    if len(framework["candidates"]) > limit:
        many = f"{len(framework['candidates'])} are listed, more than search.max_candidates ({limit})"
        yield warning("candidates", f"{many}: all of them are tried")
