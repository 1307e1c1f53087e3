"""The cookbook: every file is valid, says what the facts say, and renders commands that real servers accept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import sotad
from sotad.config import load_campaign
from sotad.config.validation import validate
from sotad.cookbook.generate import main, render
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.help import find_help

ROOT = Path(sotad.__file__).parents[1]
FOLDER = ROOT / "configs" / "cookbook"
FILES = sorted(FOLDER.glob("*.yaml"))
DATA = Path(os.environ.get("SOTAD_DATA", ROOT.parent / "shared" / "data"))
FACTS: list[dict[str, Any]] = (
    json.loads((DATA / "cookbook-facts.json").read_text()) if (DATA / "cookbook-facts.json").is_file() else []
)
with_data = pytest.mark.skipif(not FACTS, reason="the folder of captured data is not here")
PINNED = {
    "sglang": ("mem_fraction_static", "schedule_policy"),
    "vllm": ("gpu_memory_utilization",),
    "tensorrt_llm": ("kv_cache_free_gpu_memory_fraction",),
    "tokenspeed": ("gpu_memory_utilization",),
}


def test_all_models_are_there() -> None:
    """39 files, each named like its campaign."""
    assert len(FILES) == 39
    assert [load_campaign(path)["campaign"] for path in FILES] == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_valid(path: Path) -> None:
    """No error; four frameworks tuned within the same bound, capacity knobs pinned on every side."""
    assert validate(path).errors == []
    spec = load_campaign(path)
    assert (spec["goal"], spec["search"]["tier"]) == ("compare", 2)
    assert list(spec["frameworks"]) == ["sglang", "vllm", "tensorrt_llm", "tokenspeed"]
    assert [name for name, found in spec["frameworks"].items() if found["role"] == "target"] == ["sglang"]
    for name, framework in spec["frameworks"].items():
        assert 2 <= len(framework["candidates"]) <= spec["search"]["max_candidates"]
        assert framework["candidates"][0] == {**framework["candidates"][0], "id": "baseline", "flags": {}}
        for flag in PINNED[name]:
            assert flag in framework["options"]
            assert flag not in framework["search_space"]


@with_data
@pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts["slug"])
def test_every_fact_is_in_the_file(facts: dict[str, Any]) -> None:
    """The file is what the generator makes today, and the spec says every fact."""
    path = FOLDER / f"{facts['slug']}.yaml"
    assert path.read_text() == render(facts)
    spec = load_campaign(path)
    model, dataset = facts["model"], facts["dataset"]
    said = {"id": model["name"], "tokenizer": model["tokenizer"]}
    said |= {"precision": model["precision"], "quantization": model["quantization"]}
    assert spec["model"].items() >= said.items()
    assert spec["hardware"]["gpu_count"] == facts["hardware"]["gpu_count"]
    assert (spec["hardware"]["nodes"] > 1) == facts["hardware"]["multi_node"]
    assert spec["sla"] == facts["sla"]
    assert spec["search"]["qps"].items() >= facts["qps"].items()
    assert spec["search"]["max_candidates"] == facts["max_candidates_per_framework"]
    shapes = {
        (name, dataset["num_prompts"], inputs, outputs, limit)
        for name, inputs, outputs in zip(
            dataset["scenario_names"], dataset["input_len"], dataset["output_len"], strict=True
        )
        for limit in facts["max_concurrency"]
    }
    assert shapes == {
        (s["name"].removesuffix(f"-c{s['max_concurrency']}"), s["num_prompts"], s["input_len"], s["output_len"], limit)
        for s in spec["workload"]["scenarios"]
        for limit in [s["max_concurrency"]]
    }
    for name, framework in facts["frameworks"].items():
        recorded = spec["frameworks"][name]
        assert recorded["search_space"] == framework["search_space"]
        flags = dict(framework["base_server_flags"])
        assert flags.pop("model_path", model["name"]) == spec["model"]["id"]
        assert flags.pop("trust_remote_code", False) == spec["model"]["trust_remote_code"]
        assert recorded["options"] == flags


@with_data
@pytest.mark.parametrize("machine", ["cpu", "h200"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_commands_are_what_real_servers_accept(path: Path, machine: str) -> None:
    """Every flag of a command is in the captured help, with an allowed value; what is not in it is listed."""
    report = validate(path, DATA / machine)
    assert report.errors == []
    spec = load_campaign(path)
    assert len(report.commands) == sum(len(found["candidates"]) for found in spec["frameworks"].values())
    for kind in ("sglang", "vllm"):
        found = find_help(DATA / machine, FRAMEWORKS[kind].help_hints)
        assert found is not None
        for launch in (launch for launch in report.commands if launch.framework == kind):
            words = [word for word in launch.argv if word.startswith("--")]
            assert [word for word in words if word not in found[1].flags] == []
            for flag in launch.dropped:
                assert found[1].find(flag) is None
                assert any(f".{flag}: " in line for line in report.warnings)


@with_data
def test_the_generator_writes_the_shipped_files(tmp_path: Path) -> None:
    """``python -m sotad.cookbook.generate`` makes the folder, byte for byte."""
    assert main([str(DATA / "cookbook-facts.json"), str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in FILES}


def test_the_generator_refuses_what_it_cannot_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Wrong arguments and a file that is no table are status 2 and one line."""
    (tmp_path / "facts.json").write_text('[{"slug": "x"}]')
    for argv, says in (([], "usage"), ([str(tmp_path / "facts.json"), str(tmp_path)], "no table of facts")):
        assert main(argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
