"""The rules behind the schema: what refuses a campaign, what is only warned of, and `sotad validate`."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sotad.config import parse_campaign
from sotad.config.validation import Report, validate
from sotad.errors import BadConfig

DAEMON = "sotad.cli.daemon"
TOKEN = "hf_" + "A1b2C3d4E5f6G7h8I9j0"
VALID: dict[str, Any] = {
    "campaign": "two",
    "goal": "compare",
    "model": {"id": "acme/Acme-9B", "max_context": 8192},
    "hardware": {"gpu_type": "NVIDIA H200", "gpu_ids": [0, 1]},
    "frameworks": {
        "sglang": {"kind": "sglang", "role": "target", "options": {"tp_size": 2}},
        "vllm": {"kind": "vllm", "role": "competitor", "options": {"tensor_parallel_size": 2}},
    },
    "workload": {"scenarios": [{"name": "long", "num_prompts": 80, "input_len": 6000, "output_len": 400}]},
    "sla": {"max_p50_ttft_ms": 900, "max_p50_tpot_ms": 25},
}
TRT = {"kind": "tensorrt_llm", "role": "competitor", "options": {"backend": "pytorch", "tp_size": 2}}
VLLM_HELP = """usage: vllm serve [options]

options:
  -h, --help            show this help
  --port PORT           the port
  --host HOST           the host
  --max-model-len N     tokens
  --tensor-parallel-size N
  --enable-prefix-caching, --no-enable-prefix-caching
                        caching
  --kv-cache-dtype {auto,fp8}
                        dtype
"""


def changed(**changes: Any) -> dict[str, Any]:
    data = copy.deepcopy(VALID)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = data
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})  # type: ignore[call-overload]
        place[last] = value
    return data


def report(tmp_path: Path, help_dir: Path | None = None, **changes: Any) -> Report:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(changed(**changes), sort_keys=False))
    found = validate(path, help_dir)
    prefix = f"{path}: "
    assert all(line.startswith(prefix) and "\n" not in line for line in [*found.errors, *found.warnings])
    strip = [[line.removeprefix(prefix) for line in lines] for lines in (found.errors, found.warnings)]
    return Report(strip[0], strip[1], found.commands)


def test_a_good_campaign_has_no_findings(tmp_path: Path) -> None:
    """Neither error nor warning, and a command for every candidate."""
    found = report(tmp_path)
    assert (found.errors, found.warnings) == ([], [])
    assert [(launch.framework, launch.candidate) for launch in found.commands] == [
        ("sglang", "baseline"),
        ("vllm", "baseline"),
    ]


SPACE = "frameworks__vllm__search_space"
OPTIONS = "frameworks__vllm__options"
ERRORS: list[tuple[dict[str, Any], str, str]] = [
    ({"model__max_context": 6144}, "model.max_context", "scenario long needs 6400 tokens, model.max_context is 6144"),
    ({OPTIONS: {"max_model_len": 6144}}, "frameworks.vllm.options.max_model_len", "is 6144, but .* needs 6400"),
    ({SPACE: {"max-model-len": [8192, 4096]}}, "frameworks.vllm.search_space.max-model-len", "is 4096, but .* 6400"),
    ({SPACE: {"max_model_len": ["8k"]}}, "frameworks.vllm.search_space.max_model_len", "whole number"),
    ({SPACE: {"max_num_seqs": []}}, "frameworks.vllm.search_space.max_num_seqs", "empty list"),
    ({SPACE: {"max_num_seqs": [8, 8]}}, "frameworks.vllm.search_space.max_num_seqs", "twice"),
    ({SPACE: {"gpu_memory_utilization": [0.8, 0.9]}}, "frameworks.vllm.search_space.gpu_memory_utilization", "pinned"),
    ({SPACE: {"pipeline_parallel_size": [1, 2]}}, "frameworks.vllm.search_space.pipeline_parallel_size", "2 x 2 x 1"),
    ({OPTIONS: {"tensor_parallel_size": 8}}, "frameworks.vllm.options", "needs 8 GPUs, hardware has 2"),
    ({OPTIONS: {"port": 1}}, "frameworks.vllm.options.port", "set by sotad itself"),
    ({OPTIONS: {"--dtype": "x"}}, "frameworks.vllm.options.--dtype", "without leading dashes"),
    (
        {OPTIONS: {"block-size": 16}, SPACE: {"block_size": [32]}},
        "frameworks.vllm.search_space.block_size",
        "one spelling",
    ),
    ({"frameworks__vllm__env": {"HF_TOKEN": "x"}}, "frameworks.vllm.env.HF_TOKEN", "env_from"),
    ({"frameworks__vllm__env": {"CUDA_VISIBLE_DEVICES": "3"}}, "frameworks.vllm.env", "is set by the lease"),
    ({"frameworks__vllm__env_from": ["CUDA_VISIBLE_DEVICES"]}, "frameworks.vllm.env", "leave it to hardware.gpu_ids"),
    ({"frameworks__vllm__env_from": ["A B"]}, "frameworks.vllm.env", "no name of an environment variable"),
    ({"frameworks__vllm__backend_policy": "fixed_pytorch"}, "frameworks.vllm.backend_policy", "tensorrt_llm"),
    ({"description": f"uses {TOKEN}"}, "description", "looks like a token"),
    ({OPTIONS: {"header": ["Bearer abcdef0123456789"]}}, "frameworks.vllm.options.header.0", "looks like a token"),
    ({"frameworks__trt": {**TRT, "options": {"backend": "trt"}}}, "frameworks.trt.options.backend", "must be pytorch"),
    (
        {"frameworks__trt": {**TRT, "search_space": {"backend": ["pytorch"]}}},
        "frameworks.trt.search_space.backend",
        "fixed",
    ),
    ({"frameworks__x": {"kind": "openai", "role": "competitor"}}, "frameworks.x.command", r"\{port\}"),
    ({"goal": "sota"}, "frameworks.sglang.checkout", "is missing: the target of goal sota"),
    ({"frameworks__r": {"kind": "reference", "role": "competitor"}}, "frameworks.r.checkout", "reference engine"),
    (
        {"hardware__gpu_type": "NVIDIA A100-SXM4", "frameworks__sglang__options": {"attention_backend": "fa3"}},
        "frameworks.sglang.options.attention_backend",
        "fa3 needs a Hopper GPU",
    ),
    (
        {"frameworks__vllm__candidates": [{"id": "a"}, {"id": "b"}]},
        "frameworks.vllm.candidates.b",
        "has the same flags as a",
    ),
    (
        {"frameworks__vllm__candidates": [{"id": "baseline", "flags": {"x": 1}}], SPACE: {"max_num_seqs": [8]}},
        "frameworks.vllm.candidates.baseline",
        "is the id of two candidates",
    ),
]


@pytest.mark.parametrize(("change", "key", "message"), ERRORS, ids=[f"{key} {says}"[:60] for _, key, says in ERRORS])
def test_what_refuses_a_campaign(tmp_path: Path, change: dict[str, Any], key: str, message: str) -> None:
    """One line with the key; the daemon refuses what validate calls an error."""
    found = report(tmp_path, **change)
    (line,) = found.errors
    assert line.startswith(f"{key}: ")
    assert re.search(message, line)
    with pytest.raises(BadConfig) as refused:
        parse_campaign(yaml.safe_dump(changed(**change)), "c.yaml", tmp_path)
    assert refused.value.problems == [f"c.yaml: {line}"]


def test_a_token_is_not_repeated(tmp_path: Path) -> None:
    """The line that reports a secret does not hold it, even when it is a key."""
    found = report(tmp_path, excluded={TOKEN: TOKEN}, **{OPTIONS: {"note": [TOKEN]}})
    assert len(found.errors) == 3
    assert TOKEN not in str(found.errors)


WARNINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"workload__scenarios__0__num_prompts": 20}, "workload.scenarios", "20 prompts"),
    ({"hardware__nodes": 2}, "hardware.nodes", "one host only"),
    (
        {SPACE: {"max_num_seqs": [1, 2, 3]}, "search": {"max_candidates": 2}},
        "frameworks.vllm.search_space",
        r"3 combinations, .* never tried: max_num_seqs \[2,3\]",
    ),
    (
        {OPTIONS: {"max_num_partial_prefills": 2}},
        "frameworks.vllm.options.max_num_partial_prefills",
        "some models only",
    ),
    ({OPTIONS: {"dtype": "float16"}}, "frameworks", 'dtype is not the same .* sglang "auto"; vllm "float16"'),
    ({OPTIONS: {"dtyp": "auto"}}, "frameworks.vllm.options.dtyp", "not in the list of known flags"),
    ({"frameworks__sglang__options": {"ep_size": 3}}, "frameworks.sglang.options.ep_size", "do not divide 2 GPUs"),
]


@pytest.mark.parametrize(("change", "key", "message"), WARNINGS, ids=[key for _, key, _ in WARNINGS])
def test_what_is_only_warned_of(tmp_path: Path, change: dict[str, Any], key: str, message: str) -> None:
    """The campaign is accepted."""
    found = report(tmp_path, **change)
    (line,) = found.warnings
    assert found.errors == []
    assert line.startswith(f"{key}: ")
    assert re.search(message, line)


@pytest.mark.parametrize("search", [{"tier": 3}, {"capacity_study": True}])
def test_pinned_knobs_may_be_searched_when_that_is_the_study(tmp_path: Path, search: dict[str, Any]) -> None:
    """Tier 3, or a capacity study."""
    assert report(tmp_path, search=search, **{SPACE: {"gpu_memory_utilization": [0.8, 0.9]}}).errors == []


def test_a_missing_dataset_is_an_error_of_validate(tmp_path: Path) -> None:
    """The file is looked for where the campaign file is."""
    workload = {"kind": "jsonl", "dataset": "p.jsonl", "scenarios": [{"name": "real", "num_prompts": 80}]}
    (line,) = report(tmp_path, workload=workload).errors
    assert line == f"workload.dataset: there is no file {tmp_path / 'p.jsonl'}"
    (tmp_path / "p.jsonl").touch()
    assert report(tmp_path, workload=workload).errors == []


# --- against a help text -------------------------------------------------------------------------------------


@pytest.fixture
def helps(tmp_path: Path) -> Path:
    folder = tmp_path / "help" / "deep"
    folder.mkdir(parents=True)
    (folder / "vllm_serve.txt").write_text(VLLM_HELP)
    (folder / "vllm_bench_serve.txt").write_text("  --port P\n  --request-rate R\n")
    (folder / "sglang_launch.txt").write_text("sglang: command not found\n")
    return folder.parent


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"enable_prefix_caching": False}, ""),
        ({"request_rate": 1}, "options.request_rate: the server's help does not have this flag"),
        ({"kv_cache_dtype": "fp4"}, "candidates.baseline: --kv-cache-dtype cannot be 'fp4'"),
    ],
)
def test_flags_and_choices_are_checked_against_the_help(
    tmp_path: Path, helps: Path, options: dict[str, Any], error: str
) -> None:
    """The server's help counts, not the benchmark client's; a help without flags restricts nothing."""
    found = report(tmp_path, helps, **{OPTIONS: options})
    assert bool(found.errors) == bool(error)
    assert error in "".join(found.errors)
    (warned,) = [line for line in found.warnings if "no help text" in line]
    assert warned.startswith("frameworks.sglang: ")


def test_a_flag_that_this_version_lacks_is_left_out_and_told(tmp_path: Path, helps: Path) -> None:
    """A known flag that the help does not have is a warning, and not in the command."""
    found = report(tmp_path, helps, **{OPTIONS: {"block_size": 16, "enable_prefix_caching": False}})
    assert any("block_size" in line and "left out" in line for line in found.warnings)
    (launch,) = [launch for launch in found.commands if launch.framework == "vllm"]
    assert "--block-size" not in launch.argv
    assert "--no-enable-prefix-caching" in launch.argv
    assert launch.dropped == ["block_size"]


# --- the command ---------------------------------------------------------------------------------------------


async def test_validate_prints_commands_and_keeps_warnings_apart(run: Any, tmp_path: Path) -> None:
    """Warnings go to stderr and leave the status at 0; commands go to stdout, or into the JSON."""
    path = tmp_path / "deep" / "c.yml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(changed(hardware__nodes=2)))
    found = await run("validate", "--print-commands", str(tmp_path), module=DAEMON)
    assert found.status == 0
    first, *forecast, sglang, vllm = found.out.splitlines()
    assert forecast[0].startswith("  search: 2 launches, 2 runs, ")
    assert first == f"{path}: fine, 1 warning"
    assert sglang.startswith("sglang baseline: python -m sglang.launch_server --model-path acme/Acme-9B")
    assert vllm.startswith("vllm baseline: vllm serve acme/Acme-9B")
    assert found.err.startswith(f"warning: {path}: hardware.nodes: ")
    shown = json.loads((await run("validate", "--json", "--print-commands", str(path), module=DAEMON)).out)
    assert (shown["ok"], shown["problems"], len(shown["warnings"][str(path)])) == (True, {str(path): []}, 1)
    assert shown["commands"][str(path)][1]["argv"][:2] == ["vllm", "serve"]


async def test_validate_of_a_folder_without_campaigns_says_so(run: Any, tmp_path: Path) -> None:
    """A mistyped folder is not fine."""
    found = await run("validate", str(tmp_path), module=DAEMON)
    assert (found.status, "no *.yaml" in found.err) == (2, True)
