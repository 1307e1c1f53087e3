"""What the drivers share, and what tells them apart: commands, conditions, profilers, backends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.base import CONDITIONS
from sotad.frameworks.help import Help, parse_help

PYTHON = "/venv/bin/python"
MODEL = {"id": "m", "precision": "bfloat16", "max_context": 4096}


def test_the_kinds() -> None:
    """Every kind of the configuration has a driver under its name."""
    assert list(FRAMEWORKS) == ["reference", "sglang", "vllm", "tensorrt_llm", "tokenspeed", "openai"]


@pytest.mark.parametrize(
    ("kind", "given", "python", "command"),
    [
        ("reference", None, "", "python3 -m refengine"),
        ("reference", None, PYTHON, f"{PYTHON} -m refengine"),
        ("sglang", None, "", "python -m sglang.launch_server"),
        ("sglang", ["python", "-m", "x"], PYTHON, f"{PYTHON} -m x"),
        ("sglang", "env A=1 python -m x", PYTHON, "env A=1 python -m x"),
        ("vllm", None, "", "vllm serve"),
        ("vllm", None, PYTHON, f"{PYTHON} -m vllm.entrypoints.cli.main serve"),
        ("vllm", "'/a b/vllm' serve", PYTHON, "/a b/vllm serve"),
        ("tensorrt_llm", None, "", "trtllm-serve serve"),
        ("tokenspeed", None, PYTHON, f"{PYTHON} -m tokenspeed.cli serve"),
    ],
)
def test_command_prefix(kind: str, given: Any, python: str, command: str) -> None:
    """As configured, with the interpreter for a leading python; else the module; else the program."""
    assert " ".join(FRAMEWORKS[kind].command(given, python)) == command


@pytest.mark.parametrize(
    ("kind", "server", "benchmark", "version"),
    [
        ("vllm", "vllm serve --help=all", "vllm bench serve --help=all", "vllm --version"),
        ("sglang", "python -m sglang.launch_server --help", "python -m sglang.bench_serving --help", None),
        ("tensorrt_llm", "trtllm-serve serve --help", None, None),
        ("tokenspeed", "tokenspeed serve --help", None, "tokenspeed version"),
        ("reference", "python3 -m refengine --help", None, "python3 -m refengine --version"),
    ],
)
def test_help_and_version_commands(kind: str, server: str, benchmark: str | None, version: str | None) -> None:
    """The server's help, the benchmark client's where there is one, and the version."""
    driver = FRAMEWORKS[kind]
    command = driver.command()
    asked = {name: " ".join(argv) for name, argv in driver.help_commands(command).items()}
    assert asked == {"server": server} | ({"benchmark": benchmark} if benchmark else {})
    if version:
        assert " ".join(driver.version_command(command)) == version
    else:
        assert repr(driver.packages[0]) in driver.version_command(command)[-1]


def test_openai_asks_nothing() -> None:
    """A command of which nothing is known is not asked for help or version."""
    driver = FRAMEWORKS["openai"]
    assert driver.help_commands(["x"]) == {} and driver.version_command(["x"]) == []
    assert driver.ready_path == "/v1/models"


@pytest.mark.parametrize(("backend", "fine"), [(None, True), ("pytorch", True), ("tensorrt", False), ("trt", False)])
def test_tensorrt_llm_only_with_pytorch(backend: str | None, fine: bool) -> None:
    """Any other backend is unsupported, with the reason."""
    reason = FRAMEWORKS["tensorrt_llm"].unsupported({} if backend is None else {"backend": backend})
    assert (reason == "") == fine and (fine or repr(backend) in reason)


EQUAL: dict[str, list[dict[str, Any]]] = {
    "sglang": [
        {"tp-size": 2, "disable_radix_cache": True, "kv_cache_dtype": "fp8_e4m3", "dtype": "half"},
        {"speculative_algorithm": "EAGLE", "speculative_num_draft_tokens": 4},
    ],
    "vllm": [
        {"tensor_parallel_size": 2, "enable-prefix-caching": False, "kv_cache_dtype": "fp8", "dtype": "float16"},
        {"speculative_config": {"method": "eagle", "num_speculative_tokens": 4}},
    ],
    "tokenspeed": [
        {"tensor_parallel_size": 2, "enable_prefix_caching": False, "kv_cache_dtype": "fp8", "dtype": "fp16"},
        {"speculative_config": json.dumps({"method": "eagle", "num_speculative_tokens": 4})},
    ],
}


def test_conditions_are_the_same_words_everywhere() -> None:
    """What is configured alike is equal, whatever each framework calls it; so are the known defaults."""
    for index in (0, 1):
        found = [FRAMEWORKS[kind].conditions(flags[index], MODEL) for kind, flags in EQUAL.items()]
        assert _told(found[0]) >= _told(found[2]) and found[0] == found[1]
    assert found[0]["speculative"] == {"method": "eagle", "draft_tokens": 4}
    plain = [FRAMEWORKS[kind].conditions({}, MODEL) for kind in (*EQUAL, "tensorrt_llm")]
    assert all(_told(entry) <= _told(plain[0]) for entry in plain)
    assert plain[0] == {
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "dtype": "bfloat16",
        "kv_cache_dtype": "auto",
        "quantization": "auto",
        "prefix_cache": True,
        "speculative": False,
        "max_context": 4096,
        "tokenizer": MODEL.get("tokenizer"),
        "cpu_offload": 0,
        "memory_fraction": None,
    }


def _told(conditions: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(name, repr(value)) for name, value in conditions.items() if value is not None}


@pytest.mark.parametrize("kind", FRAMEWORKS)
def test_conditions_have_all_their_names(kind: str) -> None:
    """Unknown is null, never absent."""
    assert tuple(FRAMEWORKS[kind].conditions({})) == CONDITIONS


def test_conditions_that_cannot_be_known() -> None:
    """An options file may say anything; any command may do anything; broken JSON is not off."""
    trt = FRAMEWORKS["tensorrt_llm"].conditions({"extra_llm_api_options": "x.yaml"}, MODEL)
    assert trt["prefix_cache"] is None and trt["speculative"] is None and trt["tensor_parallel"] == 1
    assert set(FRAMEWORKS["openai"].conditions({"tp": 1}, MODEL).values()) == {None}
    assert FRAMEWORKS["vllm"].conditions({"speculative_config": "{"})["speculative"] is None
    assert FRAMEWORKS["vllm"].conditions({"no_enable_prefix_caching": True})["prefix_cache"] is False


def test_sglang_profiler() -> None:
    """All steps until the stop, or one step more than asked for and a stop that may fail."""
    whole = FRAMEWORKS["sglang"].profiler("/t", Help({}))
    some = FRAMEWORKS["sglang"].profiler("/t", Help({}), steps=5)
    assert whole and some and whole.start and some.start and whole.stop and some.stop
    assert "num_steps" not in (whole.start.body or {}) and not whole.stop.may_fail
    assert (some.start.body or {})["num_steps"] == "6" and some.stop.may_fail
    assert (some.start.path, (some.start.body or {})["output_dir"], some.flags) == ("/start_profile", "/t", {})


def test_vllm_profiler() -> None:
    """A configuration where the server has that flag, the environment where it does not."""
    driver = FRAMEWORKS["vllm"]
    new = driver.profiler("/t", parse_help("options:\n  --port P\n  --profiler-config JSON\n"), steps=3)
    old = driver.profiler("/t", parse_help("options:\n  --port P\n"))
    assert new and old
    config: Any = new.flags["profiler_config"]
    assert (config["torch_profiler_dir"], config["max_iterations"], new.env) == ("/t", 3, {})
    assert old.env["VLLM_TORCH_PROFILER_DIR"] == "/t" and old.flags == {}
    rendered = driver.launch(
        ["vllm", "serve"], MODEL, new.flags, parse_help("options:\n  --port P\n  --profiler-config J\n")
    )
    assert json.loads(rendered.argv[-1])["profiler"] == "torch"


def test_other_profilers() -> None:
    """TensorRT-LLM traces a window of iterations, TokenSpeed and the reference engine answer calls, openai cannot."""
    trt = FRAMEWORKS["tensorrt_llm"]
    assert trt.profiler("/t", Help({})) is None
    window = trt.profiler("/t", Help({}), steps=5)
    assert window and window.start is None and window.env["TLLM_PROFILE_START_STOP"] == "11-15"
    speed = FRAMEWORKS["tokenspeed"].profiler("/t", Help({}), name="decode")
    assert speed and speed.start and (speed.start.body or {})["profile_id"] == "decode"
    reference = FRAMEWORKS["reference"].profiler("/t", Help({}))
    assert reference and reference.flags == {"profile-dir": "/t"} and reference.files == ""
    assert FRAMEWORKS["openai"].profiler("/t", Help({})) is None


def test_served_names() -> None:
    """The name in requests is the configured one, where the framework can serve under another."""
    model = {"id": "org/m", "served_name": "m"}
    names = {kind: driver.served_model(model) for kind, driver in FRAMEWORKS.items()}
    assert names.pop("tensorrt_llm") == "org/m" and set(names.values()) == {"m"}


def test_the_example_of_the_documentation_is_a_whole_driver() -> None:
    """One file is all that a framework needs."""
    text = (Path(__file__).parents[2] / "docs/frameworks.md").read_text()
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    acme = names["Acme"]()
    help = parse_help(
        "options:\n  --port P\n  --host H\n  --max-len N\n  --max-batch N\n  --enable-reuse, --no-enable-reuse\n"
    )
    rendered = acme.launch(acme.command(), MODEL, {"batch": 8, "enable_reuse": False, "odd": 1}, help)
    assert rendered.argv == (
        [
            "acme",
            "serve",
            "m",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
            "--max-len",
            "4096",
            "--max-batch",
            "8",
            "--no-enable-reuse",
        ]
    )
    assert (rendered.translated, rendered.dropped) == ({"batch": "--max-batch"}, ["dtype", "odd"])
    assert acme.launch(acme.command(), MODEL, {"tp": 2}, Help({})).flags_from == "static"
    assert acme.failure("x\nERROR pool exhausted\n").kind == "oom"
    assert acme.observe("acme_running 3\n")["running"] == 3
    assert acme.conditions({"tp": 2}, MODEL)["tensor_parallel"] == 2 and acme.conditions({})["quantization"] is None
