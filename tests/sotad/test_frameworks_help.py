"""What a help text says is what the server's parser does: real texts, generated texts, and texts that are none."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.help import Flag, Help, find_help, parse_help, static_help
from sotad.frameworks.render import render

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[3] / "shared/data"))
TEXTS = sorted(path for path in DATA.rglob("*.txt") if path.parent.name == "help")
SPOTS: dict[str, dict[str, Any]] = {
    "cpu/help/sglang_launch_server_help.txt": {
        "count": 557,
        "tp-size": ("one", None, None),
        "tensor-parallel-size": ("one", None, None),
        "disable-radix-cache": ("none", None, None),
        "enable-tf32-matmul": ("none", "--no-enable-tf32-matmul", None),
        "dtype": ("one", None, ("auto", "half", "float16", "bfloat16", "float", "float32")),
        "cuda-graph-bs-decode": ("many", None, None),
        "lora-paths": ("many", None, None),
        "model-checksum": ("optional", None, None),
        "max-lora-chunk-size": ("one", None, ("16", "32", "64", "128")),
        "attn-dp-size": ("one", None, None),
    },
    "h200/sgl/help/sglang-launch_server-help.txt": {
        "count": 476,
        "enable-tf32-matmul": ("none", None, None),
        "cuda-graph-max-bs": ("one", None, None),
        "schedule-policy": ("one", None, ("lpm", "random", "fcfs", "dfs-weight", "lof", "priority", "routing-key")),
        "page-size": ("one", None, None),
    },
    "cpu/help/vllm_serve___help_all.txt": {
        "count": 405,
        "enable-prefix-caching": ("none", "--no-enable-prefix-caching", None),
        "no-enable-prefix-caching": ("none", None, None),
        "disable-log-stats": ("none", None, None),
        "api-key": ("many", None, None),
        "tensor-parallel-size": ("one", None, None),
        "data-parallel-external-lb": ("none", "--no-data-parallel-external-lb", None),
        "collect-detailed-traces": ("many", None, ("all", "model", "worker", "None")),
        "gdn-prefill-backend": ("one", None, ("flashinfer", "triton", "cutedsl", "aiter_flydsl")),
    },
    "h200/vllm/help/vllm-serve-help-all.txt": {
        "count": 347,
        "max-num-partial-prefills": ("one", None, None),
        "profiler-config": ("one", None, None),
        "mm-processor-cache-type": ("one", None, ("lru", "shm")),
        "compilation-config": ("one", None, None),
    },
    "cpu/help/transformers_serve_help.txt": {
        "count": 30,
        "continuous-batching": ("none", "--no-continuous-batching", None),
        "reasoning": ("one", None, ("on", "off", "auto")),
        "port": ("one", None, None),
        "cb-max-memory-percent": ("one", None, None),
    },
    "cpu/help/sglang_bench_serving_help.txt": {"count": 87, "num-prompts": ("one", None, None)},
    "h200/sgl/help/sglang-profiler-help.txt": {"count": 16, "cpu": ("none", "--no-cpu", None)},
    "h200/sgl/help/sglang-auto_benchmark-run-help.txt": {"count": 1, "config": ("one", None, None)},
    "cpu/help/tokenspeed_serve___help.txt": {"count": 1, "headless": ("none", None, None)},
    "h200/vllm/help/vllm-bench-sweep-serve-help-all.txt": {"count": 13, "experiment-name": ("one", None, None)},
}
EMPTY = ("vllm_serve___help.txt", "vllm_bench___help.txt", "tokenspeed___help.txt", "auto_benchmark-help.txt")


@pytest.mark.skipif(not TEXTS, reason="no folder with real help texts")
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DATA)))
def test_every_real_help_text_parses(path: Path) -> None:
    """Every flag that begins a line of a real text is found; a text without any says so."""
    text = path.read_text()
    help = parse_help(text)
    begun = {line.split()[0].strip(",") for line in text.splitlines() if line.startswith("  -")}
    longs = {name for name in begun if name.startswith("--")} - {"--help"}
    assert longs <= set(help.flags)
    assert bool(help.flags) == bool(begun - {"-h"}) or path.name.endswith(EMPTY)
    assert help.flags or "no flag" in help.note
    for name, flag in help.flags.items():
        assert name in flag.spellings
        assert flag.choices is None or (len(flag.choices) >= 1 and all(flag.choices))


@pytest.mark.skipif(not TEXTS, reason="no folder with real help texts")
@pytest.mark.parametrize("name", SPOTS)
def test_known_flags_of_real_texts(name: str) -> None:
    """Names, how many values, negations and choices are as the framework's documentation has them."""
    help = parse_help((DATA / name).read_text())
    spots = dict(SPOTS[name])
    assert len(help.flags) == spots.pop("count")
    for key, wanted in spots.items():
        flag = help.flags[f"--{key}"]
        assert (flag.takes, flag.negation, flag.choices) == wanted, key


@pytest.mark.skipif(not TEXTS, reason="no folder with real help texts")
def test_only_a_help_with_a_port_describes_a_server() -> None:
    """The short help of vLLM and TokenSpeed's list no server flags: they are not taken for the whole."""
    complete = {path.name for path in TEXTS if parse_help(path.read_text()).complete and "bench" not in path.name}
    assert complete == {
        "sglang_launch_server_help.txt",
        "sglang-launch_server-help.txt",
        "vllm_serve___help_all.txt",
        "vllm-serve-help-all.txt",
        "transformers_serve_help.txt",
    }


@pytest.mark.skipif(not TEXTS, reason="no folder with real help texts")
@pytest.mark.parametrize(("kind", "name"), [("sglang", "launch_server"), ("vllm", "help_all"), ("tokenspeed", "serve")])
def test_saved_texts_are_found_by_their_names(kind: str, name: str) -> None:
    """The server's text is found, a benchmark's or a shorter one is not."""
    found = find_help(DATA / "cpu/help", FRAMEWORKS[kind].help_hints)
    assert found and name in found[0].name and "bench" not in found[0].name


def test_no_saved_text(tmp_path: Path) -> None:
    """A folder whose only text has no flag has no help."""
    (tmp_path / "vllm-serve.txt").write_text("bash: vllm: command not found\n")
    assert find_help(tmp_path, ("vllm", "serve")) is None


@pytest.mark.parametrize("text", ["bash: line 1: vllm: command not found\n", "", "  -h, --help  show this\n"])
def test_a_text_without_flags_says_so(text: str) -> None:
    """It restricts nothing, and the note quotes how it begins."""
    help = parse_help(text)
    assert not help.flags and help.source == "none" and "no flag" in help.note
    assert (text.strip() or "nothing")[:20] in help.note


CLICK = """\
Usage: trtllm-serve serve [OPTIONS] MODEL

  Running an OpenAI API compatible server

Options:
  --host TEXT                     Hostname of the server.
  --port INTEGER                  Port of the server.
  --backend [pytorch|tensorrt|_autodeploy]
                                  The backend to use to serve the model, see
                                  --extra_llm_api_options.
  --tensor_parallel_size, --tp_size INTEGER
                                  Tensor parallelism size.
  --free_gpu_memory_fraction, --kv_cache_free_gpu_memory_fraction FLOAT
  --max_beams INTEGER RANGE       Bounded.  [1<=x<=8]
  --trust_remote_code             Flag for HF transformers.
  --cache / --no-cache            Reuse.  [default: cache]
  --fast / --slow                 Either.
  --help                          Show this message and exit.
"""


def test_click_layout() -> None:
    """Underscores, several names, bars, ranges and slashes; a flag in a description is none."""
    help = parse_help(CLICK)
    shown = {name: (flag.takes, flag.negation, flag.choices) for name, flag in help.flags.items()}
    assert shown == {
        "--host": ("one", None, None),
        "--port": ("one", None, None),
        "--backend": ("one", None, ("pytorch", "tensorrt", "_autodeploy")),
        "--tensor_parallel_size": ("one", None, None),
        "--tp_size": ("one", None, None),
        "--free_gpu_memory_fraction": ("one", None, None),
        "--kv_cache_free_gpu_memory_fraction": ("one", None, None),
        "--max_beams": ("one", None, None),
        "--trust_remote_code": ("none", None, None),
        "--cache": ("none", "--no-cache", None),
        "--no-cache": ("none", None, None),
        "--fast": ("none", "--slow", None),
        "--slow": ("none", None, None),
    }
    assert help.find("tp-size") == "--tp_size" and help.find("--host") == "--host" and help.find("tp") is None


def test_colours_are_no_part_of_a_name() -> None:
    """A help that was captured with colours reads like one without."""
    coloured = "options:\n  \x1b[1;36m--port\x1b[0m \x1b[1;33mPORT\x1b[0m  Where.\n"
    assert parse_help(coloured).flags["--port"].takes == "one"


def test_choices_wrapped_over_lines() -> None:
    """A list of choices that a formatter broke over lines is whole again, in an entry and in a usage block."""
    entry = "options:\n  --mode {one,two,\n          three,four}\n                   What.\n  --port PORT  Where.\n"
    assert parse_help(entry).flags["--mode"].choices == ("one", "two", "three", "four")
    usage = (
        "usage: x [-h] --model PATH [--mode {one,\n         two}] [--on | --no-on] [--n N [N ...]]\nx: error: bad\n\n"
    )
    flags = parse_help(usage).flags
    assert flags["--mode"].choices == ("one", "two") and flags["--model"].takes == "one"
    assert flags["--on"].negation == "--no-on" and flags["--n"].takes == "many"


def test_static_list_stands_in() -> None:
    """Names get the framework's separator; switches, negations and the source are known."""
    help = static_help(("tp_size", "enable_x", "enable_y"), "-", ("enable_y",))
    assert help.source == "static" and not help.complete
    assert help.flags["--tp-size"].takes == "one" and help.flags["--enable-x"] == Flag(
        "--enable-x", "none", None, None, ("--enable-x",)
    )
    assert help.flags["--enable-y"].negation == "--no-enable-y"
    assert "--tp_size" in static_help(("tp_size",), "_").flags


WORDS = st.lists(st.text("abxyz019", min_size=1, max_size=5), min_size=1, max_size=4).map(
    lambda parts: "f" + "-".join(parts)
)
OPTIONS = st.lists(
    st.tuples(
        WORDS,
        st.sampled_from(["one", "none", "negatable", "+", "*", "?", 2]),
        st.one_of(st.none(), st.lists(WORDS, min_size=1, max_size=12, unique=True)),
        st.booleans(),
        st.text("abc -{}[],.%", max_size=60),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda option: option[0],
)


def _add(parser: argparse.ArgumentParser, option: tuple[Any, ...]) -> None:
    name, takes, choices, short, text = option
    names = [f"--{name}", f"--{name}-alias"] if short else [f"--{name}"]
    about = {"help": text.replace("%", "")}
    if takes == "negatable":
        parser.add_argument(*names, action=argparse.BooleanOptionalAction, help=about["help"])
    elif takes == "none":
        parser.add_argument(*names, action="store_true", **about)
    else:
        parser.add_argument(*names, nargs=None if takes == "one" else takes, choices=choices, **about)


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, width=st.integers(50, 200))
def test_a_generated_argparse_help_comes_back(options: list[tuple[Any, ...]], width: int) -> None:
    """Names, aliases, values, choices and negations of any parser are read from the help that it prints."""
    names = {option[0] for option in options}
    if any(f"{name}-alias" in names for name in names):
        return
    parser = argparse.ArgumentParser("server", formatter_class=lambda prog: argparse.HelpFormatter(prog, width=width))
    for option in options:
        _add(parser, option)
    help = parse_help(parser.format_help())
    for name, takes, choices, short, _ in options:
        flag = help.flags[f"--{name}"]
        wanted = {"negatable": "none", "none": "none", "one": "one", "?": "optional"}.get(takes, "many")
        assert flag.takes == wanted
        assert flag.choices == (tuple(choices) if choices and takes not in ("none", "negatable") else None)
        assert flag.negation == (f"--no-{name}" if takes == "negatable" else None)
        assert (f"--{name}-alias" in help.flags) == short
    extra = {
        name for name in help.flags if name.removeprefix("--").removeprefix("no-").removesuffix("-alias") not in names
    }
    assert not extra


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, data=st.data())
def test_what_is_rendered_is_what_the_server_reads(options: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """Any parser, asked for its help, reads from the rendered arguments the very values that were configured."""
    names = {option[0] for option in options}
    if any(f"{name}-alias" in names for name in names):
        return
    parser = argparse.ArgumentParser("server", allow_abbrev=False)
    flags: dict[str, Any] = {}
    for option in options:
        _add(parser, option)
        name, takes, choices = option[:3]
        word = st.sampled_from(choices) if choices else WORDS
        few = st.lists(word, min_size=1 if takes != 2 else 2, max_size=2)
        values = {"none": st.booleans(), "negatable": st.booleans(), "one": word, "?": word}
        flags[name.replace("-", "_")] = data.draw(values.get(takes, few))
    rendered = render(flags, parse_help(parser.format_help()))
    read = vars(parser.parse_args(rendered.argv))
    assert {name.replace("-", "_"): read[name.replace("-", "_")] for name in names} == flags and not rendered.dropped


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    """Garbage is a help without flags, or with some, never an exception."""
    assert isinstance(parse_help(text), Help)
    assert isinstance(parse_help("options:\n  --a {" + text), Help)
