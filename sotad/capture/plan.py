"""What a capture does: its stages, the traffic of each, and how the server's profiler is driven. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

WARMUP = 10  # requests before a prefill capture, output tokens of every stream before a decode capture
ACTIVE = 5  # requests of a prefill capture, output tokens of every stream in a decode capture
DECODE_TOKENS = 2048  # asked of every decode stream, so that it lives through the start of the profiler
MOST_STREAMS = 256


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(_Strict):
    """One POST to the server; ``body`` None is an empty one."""

    path: str
    body: dict[str, Any] | None = None
    may_fail: bool = False


class Stage(_Strict):
    """The traffic of one capture.

    ``prefill``: ``warmup`` requests of one output token one after the other, then ``active`` more under the profiler.
    ``decode``: ``streams`` at once; the profiler is armed when each has ``warmup`` tokens, and stopped when each has
    ``active`` more.
    """

    stage: Literal["prefill", "decode"]
    input_len: int = Field(ge=1)
    output_len: int = Field(ge=1)
    streams: int = Field(ge=1, le=MOST_STREAMS)
    warmup: int = Field(default=WARMUP, ge=1)
    active: int = Field(default=ACTIVE, ge=1)


class Expected(_Strict):
    """What the traces have to show: kernels of a GPU, replayed CUDA graphs in decode."""

    gpu: bool = True
    graphs: bool = True


class CaptureSpec(_Strict):
    """One server's capture. ``files`` is a glob below ``folder``; empty when the answer to ``stop`` lists the files."""

    base_url: str
    model: str
    endpoint: str = "/v1/completions"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    folder: str
    start: Call | None
    stop: Call | None
    files: str = "**/*.trace.json*"
    settle_s: float = Field(default=60.0, gt=0)
    timeout_s: float = Field(default=300.0, gt=0)
    stages: list[Stage] = Field(min_length=1)
    expected: Expected = Field(default_factory=Expected)
    seed: int = 0
    first_token: int = 300
    last_token: int = 30000
    tokenizer: str | None = None


def stages_of(shape: Mapping[str, Any], max_context: int | None) -> list[Stage]:
    """Prefill and decode at a scenario's own lengths and concurrency.

    ``max_context`` bounds prompt and output together; without it the scenario's own output length does.
    """
    length, output = int(shape["input_len"]), int(shape["output_len"])
    room = max_context - length if max_context else output
    streams = min(int(shape.get("max_concurrency") or shape["num_prompts"]), int(shape["num_prompts"]), MOST_STREAMS)
    return [
        Stage(stage="prefill", input_len=length, output_len=1, streams=1),
        Stage(stage="decode", input_len=length, output_len=max(output, min(room, DECODE_TOKENS)), streams=streams),
    ]
