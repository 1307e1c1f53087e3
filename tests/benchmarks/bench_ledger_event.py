"""The event that every contender stores: 387 bytes of JSON, the size of a benchmark's outcome."""

from __future__ import annotations

from typing import Any

PAYLOAD: dict[str, Any] = {
    "launch": "c-000123/r02/sglang/tp4-chunked-8192/launch-3",
    "attempt": 1,
    "scenario": "chat-1k-256",
    "run": 2,
    "seed": 20261121,
    "row": {
        "request_rate": 12.5,
        "completed": 1500,
        "ttft_ms_p50": 181.42,
        "ttft_ms_p99": 412.07,
        "itl_ms_p50": 11.318,
        "itl_ms_p99": 38.902,
        "goodput_rps": 12.31,
        "output_tps": 3151.77,
    },
    "raw": {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "bytes": 1048576},
}
TYPE = "benchmark.finished"
