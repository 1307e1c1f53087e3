"""A checked campaign as the spec that the ledger records: plain JSON in which nothing is left to be derived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sotad.config.campaign import CampaignConfig
from sotad.config.framework import Framework
from sotad.config.sections import Search
from sotad.frameworks import FRAMEWORKS
from sotad.search.candidates import BASELINE, GENERATIONS, candidate_id, canonical, overrides, untried
from statemachine import fairness, leases, loop

JSON = dict[str, Any]


def expand(config: CampaignConfig, base: Path) -> JSON:
    """The spec; relative paths are taken from ``base``."""
    spec = config.model_dump(mode="json")
    spec["workload"]["scenarios"] = [shape for scenario in config.workload.scenarios for shape in scenario.each()]
    spec["workload"]["dataset"] = _path(base, config.workload.dataset)
    spec["knowledge"]["folder"] = _path(base, config.knowledge.folder)
    spec["sla"] = {key: limit for key, limit in spec["sla"].items() if limit is not None}
    spec["model"] |= _model(spec)
    if config.hardware.gpu_count is None:
        spec["hardware"]["gpu_count"] = len(config.hardware.gpu_ids)
    enabled = {name: framework for name, framework in config.frameworks.items() if framework.enabled}
    spec["frameworks"] = {
        name: _framework(framework, config.search, spec["model"], base) for name, framework in enabled.items()
    }
    disabled = [name for name in config.frameworks if name not in enabled]
    spec["excluded"] = dict.fromkeys(disabled, "disabled in the campaign file") | config.excluded
    spec["plan"]["draft"] = _path(base, config.plan.draft)
    spec["humanize"]["folder"] = _path(base, config.humanize.folder)
    for role in ("implementer", "reviewer"):
        agent = getattr(config, role)
        spec[role] |= {"home": _path(base, agent.home), "writable": [_path(base, path) for path in agent.writable]}
    spec["fairness"], spec["loop"], spec["leases"] = fairness.VERSION, loop.VERSION, leases.VERSION
    return spec


def longest(spec: JSON) -> int | None:
    """Tokens of the longest request, prompt and output together; None when a dataset decides it."""
    lengths = [
        shape["input_len"] + shape["output_len"] for shape in spec["workload"]["scenarios"] if shape["input_len"]
    ]
    return max(lengths, default=None)


def _model(spec: JSON) -> JSON:
    model = spec["model"]
    return {
        "tokenizer": model["tokenizer"] or model["id"],
        "served_name": model["served_name"] or model["id"],
        "max_context": model["max_context"] or longest(spec),
    }


def _path(base: Path, written: Path | None) -> str | None:
    return None if written is None else str((base / written).resolve())


def _framework(framework: Framework, search: Search, model: JSON, base: Path) -> JSON:
    spec, driver = framework.model_dump(mode="json"), FRAMEWORKS[framework.kind]
    spec["checkout"] = _path(base, framework.checkout)
    spec["command"] = driver.command(framework.command, framework.python)
    if framework.kind == "tensorrt_llm":
        spec["backend_policy"] = "fixed_pytorch"
    spec["candidates"] = _candidates(framework, search)
    whole = [{**framework.options, **candidate["flags"]} for candidate in spec["candidates"]]
    for candidate, flags in zip(spec["candidates"], whole, strict=True):
        candidate["conditions"] = driver.conditions(flags, model)
    spec["untried"] = untried(framework.search_space, whole)
    return spec


def _candidates(framework: Framework, search: Search) -> list[JSON]:
    """The listed ones; with a search space the baseline without flags first, and further ones behind the listed."""
    listed = [candidate.model_dump(mode="json") for candidate in framework.candidates]
    if listed and not framework.search_space:
        return listed
    plain: JSON = next((found for found in listed if not found["flags"]), {"id": BASELINE, "flags": {}})
    planned = [plain, *(found for found in listed if found is not plain)]
    options, limit = framework.options, search.max_candidates
    made = GENERATIONS[search.generation](options, framework.search_space, limit + len(listed))
    changes = {canonical(changed): changed for changed in (overrides(options, flags) for flags in made)}
    for known in planned:
        changes.pop(canonical(overrides(options, known["flags"])), None)
    planned += [{"id": candidate_id(changed), "flags": changed} for changed in changes.values()]
    return planned[: max(limit, len(listed) + (plain not in listed))]
