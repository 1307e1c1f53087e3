"""``python -m sotad.cookbook.generate FACTS.json DIR``: a campaign file for every model of a table of facts.

The table is a JSON list; each entry has slug, model{name, tokenizer, precision, quantization}, hardware{gpu_count,
multi_node}, dataset{scenario_names, input_len, output_len, num_prompts}, max_concurrency, qps, sla,
max_candidates_per_framework, and frameworks{name: {base_server_flags, search_space}}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

JSON: TypeAlias = dict[str, Any]
FRAMEWORKS = ("sglang", "vllm", "tensorrt_llm", "tokenspeed")
TARGET = "sglang"
OF_THE_MODEL = ("model_path", "trust_remote_code")  # said once, in the model section
LARGE_MODEL_BUDGET = {"wall_clock_s": 259_200, "job_s": 14_400, "ready_s": 1_800}
HEADER = """\
# {name}: every framework tuned within the same bounds on the same GPUs, then compared.
# Made from a table of facts by sotad.cookbook.generate: copy it to change it. The keys are explained in
# docs/campaigns.md. Before a run, add hardware.gpu_ids, and `enabled: false` to a framework that is not installed.
"""


class _Dumper(yaml.SafeDumper):
    """Lists of plain values on one line."""


def _sequence(dumper: yaml.SafeDumper, found: list[Any]) -> yaml.SequenceNode:
    flat = not any(isinstance(value, list | dict) for value in found)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", found, flow_style=flat)


_Dumper.add_representer(list, _sequence)


def campaign(facts: Mapping[str, Any]) -> JSON:
    """The campaign file of one model, as data."""
    return {
        "campaign": facts["slug"],
        "description": f"{facts['model']['name']} on {', '.join(FRAMEWORKS)}",
        "goal": "compare",
        "model": _model(facts),
        "hardware": {"gpu_count": facts["hardware"]["gpu_count"], "nodes": 1 + facts["hardware"]["multi_node"]},
        "frameworks": {name: _framework(name, facts["frameworks"][name]) for name in FRAMEWORKS},
        "workload": {
            "kind": facts["dataset"]["kind"],
            "endpoint": "/v1/completions",
            "extra_request_body": {"temperature": 0.0},
            "request_timeout_s": 600,
            "scenarios": _scenarios(facts["dataset"], facts["max_concurrency"]),
        },
        "sla": dict(facts["sla"]),
        "search": {
            "tier": 2,
            "max_candidates": facts["max_candidates_per_framework"],
            "generation": "one_factor_first",
            "qps": {**facts["qps"], "max_rounds": facts["qps"].get("max_rounds", 5)},
        },
        "budget": dict(LARGE_MODEL_BUDGET),
    }


def render(facts: Mapping[str, Any]) -> str:
    """The campaign file of one model, as text."""
    body = yaml.dump(campaign(facts), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return HEADER.format(name=facts["model"]["name"]) + body


def write(table: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write every model's file; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{facts['slug']}.yaml" for facts in table]
    for path, facts in zip(paths, table, strict=True):
        path.write_text(render(facts), encoding="utf-8")
    return paths


def _model(facts: Mapping[str, Any]) -> JSON:
    """``max_context`` is the limit of the frameworks that state one, so that it holds for those that do not."""
    model, flags = facts["model"], [facts["frameworks"][name]["base_server_flags"] for name in FRAMEWORKS]
    return {
        "id": model["name"],
        "tokenizer": model["tokenizer"],
        "precision": model["precision"],
        "quantization": model["quantization"],
        "max_context": max(base["max_model_len"] for base in flags if "max_model_len" in base),
        "trust_remote_code": all(base.get("trust_remote_code", False) for base in flags),
    }


def _framework(name: str, facts: Mapping[str, Any]) -> JSON:
    fixed = {"backend_policy": "fixed_pytorch"} if name == "tensorrt_llm" else {}
    options = {flag: value for flag, value in facts["base_server_flags"].items() if flag not in OF_THE_MODEL}
    role = "target" if name == TARGET else "competitor"
    return {"kind": name, "role": role, **fixed, "options": options, "search_space": dict(facts["search_space"])}


def _scenarios(dataset: Mapping[str, Any], concurrencies: Sequence[int | None]) -> list[JSON]:
    shapes = zip(dataset["scenario_names"], dataset["input_len"], dataset["output_len"], strict=True)
    return [
        {
            "name": name,
            "num_prompts": dataset["num_prompts"],
            "input_len": input_len,
            "output_len": output_len,
            "max_concurrency": list(concurrencies),
        }
        for name, input_len, output_len in shapes
    ]


def main(argv: Sequence[str]) -> int:
    """Write the files; exit status 2 when the arguments or the table are wrong."""
    if len(argv) != 2:
        print("usage: python -m sotad.cookbook.generate FACTS.json DIR", file=sys.stderr)
        return 2
    try:
        written = write(json.loads(Path(argv[0]).read_text(encoding="utf-8")), Path(argv[1]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{argv[0]}: no table of facts: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} files in {argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
