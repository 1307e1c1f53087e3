"""The rendering rules, one by one, and what each framework makes of a configuration."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.help import Help, parse_help
from sotad.frameworks.render import BadFlag, Rename, render, text

HELP = parse_help("""\
usage: server [options]

options:
  --port PORT           Port.
  --rate RATE, --pace RATE
  --cache, --no-cache   Negatable.
  --eager               Switch.
  --sizes N [N ...]     Several.
  --ids IDS             Comma list.
  --dtype {auto,half,float16}
  --flag {True,False}   Needs a word.
  --extra JSON          Config.
  --digest [DIGEST]     Optional value.
""")


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ({"rate": None}, []),
        ({"cache": True}, ["--cache"]),
        ({"cache": False}, ["--no-cache"]),
        ({"eager": True}, ["--eager"]),
        ({"eager": False}, []),
        ({"no_cache": True}, ["--no-cache"]),
        ({"flag": True}, ["--flag", "True"]),
        ({"flag": False}, ["--flag", "False"]),
        ({"extra": True}, ["--extra", "true"]),
        ({"extra": False}, []),
        ({"digest": True}, ["--digest"]),
        ({"digest": "x"}, ["--digest", "x"]),
        ({"rate": 0.00001}, ["--rate", "0.00001"]),
        ({"rate": 1e22}, ["--rate", "10000000000000000000000"]),
        ({"rate": 0.82}, ["--rate", "0.82"]),
        ({"rate": 7}, ["--rate", "7"]),
        ({"pace": 7}, ["--pace", "7"]),
        ({"rate": ""}, ["--rate", ""]),
        ({"sizes": [1, 2, 4]}, ["--sizes", "1", "2", "4"]),
        ({"sizes": 8}, ["--sizes", "8"]),
        ({"ids": [1, 2]}, ["--ids", "1,2"]),
        ({"ids": [{"a": 1}]}, ["--ids", '[{"a":1}]']),
        ({"extra": {"b": 1, "a": [True, None, "é"]}}, ["--extra", '{"b":1,"a":[true,null,"é"]}']),
        ({"dtype": "half", "eager": True, "rate": 1}, ["--dtype", "half", "--eager", "--rate", "1"]),
    ],
)
def test_values(flags: dict[str, Any], argv: list[str]) -> None:
    """Null, true, false, numbers, lists and mappings, each as this server takes them; the order is kept."""
    rendered = render(flags, HELP)
    assert rendered.argv == argv and not rendered.dropped and not rendered.translated


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"dtype": "hlaf"},
            "--dtype cannot be 'hlaf': this server takes one of auto, half, float16; did you mean half",
        ),
        ({"eager": 3}, "--eager is a switch and takes no value, not 3"),
        ({"sizes": []}, "--sizes has an empty list"),
        ({"rate": float("nan")}, "nan is no value"),
        ({"rate": 1, "pace": 1}, "pace and rate are the same flag"),
        ({"dtype": ["auto", "int3"]}, "cannot be 'int3'"),
    ],
)
def test_what_the_server_would_refuse_is_refused_before_it_starts(flags: dict[str, Any], said: str) -> None:
    """One error that names the flag, the value and what is possible."""
    with pytest.raises(BadFlag) as error:
        render(flags, HELP)
    assert said in str(error.value) and error.value.next


def test_unknown_flags_are_translated_or_dropped_and_never_passed() -> None:
    """A known rename goes either way, with its values; the rest is left out; both are recorded."""
    renames = (
        Rename("old_rate", "rate"),
        Rename("eager", "eager_mode"),
        Rename("quiet", "cache", {"true": False, "false": None}),
    )
    rendered = render({"old-rate": 2, "eager_mode": True, "quiet": True, "nonsense": 1}, HELP, renames)
    assert rendered.argv == ["--rate", "2", "--eager", "--no-cache"]
    assert rendered.translated == {"old-rate": "--rate", "eager_mode": "--eager", "quiet": "--cache"}
    assert rendered.dropped == ["nonsense"]
    assert rendered.passed == {"rate": 2, "eager": True, "cache": False}
    assert render({"quiet": False, "cache": True}, HELP, renames).argv == ["--cache"]
    assert render({"quiet": "loud"}, HELP, renames).dropped == ["quiet"]


def test_without_any_help_every_flag_passes() -> None:
    """What nobody can check is passed as it is written, and the source says so."""
    rendered = render({"any_thing": 3, "on": True, "off": False, "l": [1, 2]}, Help({}, "none"))
    assert rendered.argv == ["--any-thing", "3", "--on", "--l", "1", "2"] and rendered.flags_from == "none"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_have_no_exponent_and_keep_their_value(value: float) -> None:
    """The argument reads back as the same number."""
    shown = text(value)
    assert "e" not in shown.lower() and float(shown) == value and Decimal(shown) == Decimal(repr(value))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_mappings_are_one_argument_of_json(value: dict[str, Any]) -> None:
    """What the server parses is what was configured."""
    flag, shown = render({"extra": value}, HELP).argv
    assert flag == "--extra" and json.loads(shown) == value


MODEL: dict[str, Any] = {"id": "acme/Acme-9B", "precision": "auto", "tokenizer": "", "max_context": 6656}
NOTHING = Help({}, "none", "not found")


@pytest.mark.parametrize(
    ("kind", "flags", "command"),
    [
        (
            "sglang",
            {"model_path": "acme/Acme-9B", "tp_size": 2, "mem_fraction_static": 0.84, "context_length": 6700},
            "python -m sglang.launch_server --model-path acme/Acme-9B --host 127.0.0.1 --port {port} "
            "--enable-metrics --tp-size 2 --mem-fraction-static 0.84 --context-length 6700",
        ),
        (
            "vllm",
            {"tensor_parallel_size": 2, "max_model_len": 6656, "enable_prefix_caching": False},
            "vllm serve acme/Acme-9B --host 127.0.0.1 --port {port} "
            "--tensor-parallel-size 2 --max-model-len 6656 --no-enable-prefix-caching",
        ),
        (
            "tensorrt_llm",
            {"tp_size": 2},
            "trtllm-serve serve acme/Acme-9B --host 127.0.0.1 --port {port} "
            "--backend pytorch --max_seq_len 6656 --tp_size 2",
        ),
        (
            "tokenspeed",
            {"tensor_parallel_size": 2, "max_num_seqs": 48, "enable_prefix_caching": False},
            "tokenspeed serve acme/Acme-9B --host 127.0.0.1 --port {port} "
            "--max-model-len 6656 --tensor-parallel-size 2 --max-num-seqs 48 --no-enable-prefix-caching",
        ),
        ("openai", {"x_y": 1}, "serve --listen {port} --m acme/Acme-9B --x-y 1"),
    ],
)
def test_commands_without_a_captured_help(kind: str, flags: dict[str, Any], command: str) -> None:
    """The static list stands in, each framework with its own spelling, and the record says so."""
    driver = FRAMEWORKS[kind]
    prefix = driver.command("serve --listen {port} --m {model}" if kind == "openai" else None)
    rendered = driver.launch(prefix, MODEL, flags, NOTHING)
    assert " ".join(rendered.argv) == command
    assert rendered.flags_from == ("none" if kind == "openai" else "static")
    if kind != "openai":
        unknown = driver.launch(prefix, MODEL, {**flags, "not_on_the_list": 1}, NOTHING)
        assert unknown.dropped[0] == "not_on_the_list" and unknown.argv == rendered.argv


VLLM = parse_help("""\
options:
  --port PORT
  --host HOST
  --max-model-len N
  --dtype {auto,bfloat16,float16}
  --tokenizer TOKENIZER
  --trust-remote-code, --no-trust-remote-code
  --enable-log-requests, --no-enable-log-requests
  --profiler-config JSON
""")


def test_the_model_gives_the_defaults_that_a_candidate_does_not_set() -> None:
    """Length, dtype, tokenizer, trust and served name are the campaign's; a candidate's own length wins."""
    model = {**MODEL, "precision": "bfloat16", "tokenizer": "acme/tok", "trust_remote_code": True, "served_name": "m"}
    vllm = FRAMEWORKS["vllm"]
    argv = vllm.launch(["vllm", "serve"], model, {"max-model-len": 9000, "disable_log_requests": True}, VLLM).argv
    assert argv[:9] == [
        "vllm",
        "serve",
        "acme/Acme-9B",
        "--served-model-name",
        "m",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    ]
    rest = "--dtype bfloat16 --tokenizer acme/tok --trust-remote-code --max-model-len 9000 --no-enable-log-requests"
    assert argv[9:] == rest.split()


def test_flags_of_sotad_are_not_the_candidates() -> None:
    """Host and port are left out and recorded, the same model is not said twice, another one is refused."""
    vllm = FRAMEWORKS["vllm"]
    rendered = vllm.launch(["vllm", "serve"], MODEL, {"port": 1, "host": "x", "model": MODEL["id"]}, VLLM)
    assert rendered.dropped == ["port", "host"] and "1" not in rendered.argv and rendered.argv.count(MODEL["id"]) == 1
    with pytest.raises(BadFlag, match=r"model is 'other', but the campaign's model\.id is 'acme/Acme-9B'"):
        vllm.launch(["vllm", "serve"], MODEL, {"model": "other"}, VLLM)


def test_the_reference_engine_command_is_what_it_was() -> None:
    """The demo's recorded command line does not change."""
    help = parse_help(
        "options:\n  --port P\n  --threads N\n  --prefix-cache, --no-prefix-cache\n  --max-batch-size N\n"
    )
    flags: dict[str, Any] = {"threads": 1, "prefix-cache": False, "max-batch-size": 8, "gone": 1}
    driver = FRAMEWORKS["reference"]
    model = {"id": "reference-tiny", "max_context": 256, "tokenizer": "byte-level", "precision": "float32"}
    rendered = driver.launch(driver.command(None, "/venv/python"), model, flags, help)
    assert rendered.argv == [
        "/venv/python",
        "-m",
        "refengine",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--model-name",
        "reference-tiny",
        "--max-model-len",
        "256",
        "--threads",
        "1",
        "--no-prefix-cache",
        "--max-batch-size",
        "8",
    ]
    assert rendered.dropped == ["gone"]


def test_an_openai_command_needs_a_port() -> None:
    """Without one the server could not be reached."""
    with pytest.raises(BadFlag, match="port"):
        FRAMEWORKS["openai"].launch(["serve", "--model", "{model}"], MODEL, {}, NOTHING)


DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[3] / "shared/data"))
COOKBOOK = DATA / "cookbook-facts.json"
CAPTURED = {
    "sglang": ("cpu/help/sglang_launch_server_help.txt", "h200/sgl/help/sglang-launch_server-help.txt"),
    "vllm": ("cpu/help/vllm_serve___help_all.txt", "h200/vllm/help/vllm-serve-help-all.txt"),
    "tensorrt_llm": ("",),
    "tokenspeed": ("cpu/help/tokenspeed_serve___help.txt",),
}


@pytest.mark.skipif(not COOKBOOK.is_file(), reason="no folder with real help texts")
@pytest.mark.parametrize("kind", CAPTURED)
@pytest.mark.parametrize("index", [0, 1])
def test_every_cookbook_command_is_accepted(kind: str, index: int) -> None:
    """Every base and searched value renders against the real help; only what that version lacks is dropped."""
    name = CAPTURED[kind][min(index, len(CAPTURED[kind]) - 1)]
    help, driver = parse_help((DATA / name).read_text()) if name else NOTHING, FRAMEWORKS[kind]
    dropped: set[str] = set()
    for entry in json.loads(COOKBOOK.read_text()):
        facts, model = entry["frameworks"][kind], {"id": entry["model"]["name"], "precision": "auto"}
        variants = [{key: value} for key, values in facts["search_space"].items() for value in values]
        for variant in ({}, *variants):
            rendered = driver.launch(driver.command(), model, {**facts["base_server_flags"], **variant}, help)
            dropped |= set(rendered.dropped)
            known = {"--help", *help.flags} if help.complete else {"--host", "--port", *driver.fallback().flags}
            assert {word for word in rendered.argv if word.startswith("--")} <= known
    gone = {"max_num_partial_prefills", "max_long_partial_prefills"}  # vLLM 0.26 has them, 0.32 does not
    assert dropped == (gone if (kind, index) == ("vllm", 0) else set())
