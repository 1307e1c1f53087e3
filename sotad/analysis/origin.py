"""Which engine, model and parallel size a trace is of, as far as its file and what lies beside it tell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from sotad.trace.columns import Trace

BESIDE = "server_args.json"  # SGLang's profiler leaves the server's arguments there
DIALECTS = (  # annotations that only one engine writes
    ("vllm", re.compile(r"^execute_(context|new|\d+)_")),
    ("trtllm", re.compile(r"\[Executor\] _forward_step|\d+ ctx reqs, \d+ gen reqs")),
    ("sglang", re.compile(r"^scheduler\.(run_batch|get_next_batch_to_run)")),
)
SOURCES = (  # files that only one engine has, in the names of Python frames and kernels
    ("reference", re.compile(r"sotad/refengine/")),
    ("tokenspeed", re.compile(r"python/tokenspeed/|^tokenspeed/")),
    ("trtllm", re.compile(r"tensorrt_llm/")),
    ("vllm", re.compile(r"(^|/)vllm/(v1|model_executor|worker)/")),
    ("sglang", re.compile(r"sglang/srt/|sgl_kernel/")),
)
WORDS = ("tokenspeed", "tensorrt_llm", "trtllm", "vllm", "sglang", "refengine")
NAMED = {"tensorrt_llm": "trtllm", "refengine": "reference"}


@dataclass(frozen=True, slots=True)
class Origin:
    """None where it is not told."""

    framework: str | None
    model: str | None
    tp_size: int | None


def origin(trace: Trace, path: Path) -> Origin:
    """What a trace and the server's arguments beside it tell."""
    args = _beside(path)
    model = args.get("model_path") or args.get("model")
    tp_size = args.get("tp_size") or args.get("tensor_parallel_size") or _world(trace)
    return Origin(
        _by_text(trace) or _by_path(path),
        model if isinstance(model, str) else None,
        tp_size if isinstance(tp_size, int) and tp_size > 0 else None,
    )


def _by_text(trace: Trace) -> str | None:
    marks = {trace.names[name] for name in {*trace.marks.name.tolist(), *trace.gpu_marks.name.tolist()}}
    found = (name for name, pattern in DIALECTS if any(pattern.search(mark) for mark in marks))
    frames = (name for name, pattern in SOURCES if any(pattern.search(text) for text in trace.names))
    return next(found, None) or next(frames, None)


def _by_path(path: Path) -> str | None:
    """The innermost folder or the file that names an engine."""
    for part in reversed(path.absolute().parts):
        for word in WORDS:
            if word in part.lower().replace("-", "_"):
                return NAMED.get(word, word)
    return None


def _beside(path: Path) -> dict[str, Any]:
    for folder in (path.absolute().parent, path.absolute().parent.parent):
        try:
            found = orjson.loads((folder / BESIDE).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _world(trace: Trace) -> int | None:
    told = trace.facts.get("distributedInfo")
    size = told.get("world_size") if isinstance(told, dict) else None
    return size if isinstance(size, int) else None
