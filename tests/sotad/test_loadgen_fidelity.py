"""When a run measured the load generator instead of the server; what chat and a tokenizer change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from sotad.benchmark.metrics import make_row
from sotad.benchmark.workload import Request, WorkloadError
from sotad.loadgen.exchange import Exchange
from sotad.loadgen.fidelity import fidelity
from sotad.loadgen.record import request_record
from sotad.loadgen.requests import bodies, on_the_wire
from sotad.loadgen.run import slots_of
from sotad.loadgen.spec import LoadSpec, SpecError, Target

MS = 1_000_000
CALM = {"wall_ns": 1000 * MS, "cpu_ns": 100 * MS, "idle_ns": 900 * MS, "spin_ns": 0, "lags_ms": [0.5] * 100}
CALM |= {"opened": 1, "retried": 0, "exhausted": 0}


def records(late_ms: float = 0.1) -> list[dict[str, Any]]:
    times = {"planned_ns": 0, "sent_ns": late_ms * MS, "written_ns": late_ms * MS}
    seen = {"first_token_ns": 20 * MS, "last_token_ns": 100 * MS, "ended_ns": 100 * MS}
    return [{**times, **seen, "error": None, "prompt_tokens": 3, "output_tokens": 4}] * 10


@pytest.mark.parametrize(
    ("change", "late_ms", "paced", "said"),
    [
        ({}, 0.1, True, None),
        ({"idle_ns": 50 * MS}, 0.1, True, "busy for 95%"),
        ({"idle_ns": 50 * MS, "spin_ns": 500 * MS}, 0.1, True, None),
        ({"lags_ms": [9.0] * 100}, 0.1, False, "8.0 ms late to its events"),
        ({"lags_ms": [0.5] * 80 + [30.0] * 4}, 0.1, False, None),
        ({"lags_ms": [0.5] * 60 + [280.0]}, 0.1, False, "kept from running for 28% of the time"),
        ({}, 15.0, True, "more than 15.0 ms late"),
        ({}, 15.0, False, None),
        ({"exhausted": 2}, 0.1, False, "refused 2 connections"),
        ({"wall_ns": 100 * MS, "idle_ns": 0}, 0.1, False, None),
    ],
)
def test_bottleneck_is_recognised(change: dict[str, Any], late_ms: float, paced: bool, said: str | None) -> None:
    """Busy, lagging, late or out of descriptors is invalid with the reason; spinning and single stalls are not."""
    found = fidelity(records(late_ms), [{**CALM, **change}], paced)
    assert found["valid"] == (said is None)
    assert said is None or said in found["reason"]


def test_row_of_an_invalid_run_is_no_result() -> None:
    """An invalid run has a failed row that says why, and never passes an SLA."""
    client = fidelity(records(), [{**CALM, "idle_ns": 0}], paced=False)
    scenario = {"name": "s", "input_len": 3, "output_len": 4, "num_prompts": 10}
    spec = {"scenario": scenario, "request_rate": None, "max_concurrency": 1, "endpoint": "/v1/completions"}
    report = {"spec": spec, "workload_digest": "d", "duration_s": 1.0, "interrupted": False, "client": client}
    sla = {"max_p50_ttft_ms": 1e6, "max_p50_tpot_ms": 1e6, "min_success_rate": 0.1}
    row = make_row({**report, "requests": records()}, {"sla": sla})
    assert row["status"] == "failed" and "busy for 100%" in row["failure_reason"] and not row["sla"]["passed"]


@pytest.mark.parametrize(("at_once", "count", "processes"), [(7, 100, 3), (None, 10, 4), (2, 100, 8), (5, 2, 4)])
def test_slots_are_shared_out_completely(at_once: int | None, count: int, processes: int) -> None:
    """Together the processes have exactly the concurrency that was asked for, and none of them has nothing to do."""
    slots = slots_of(at_once, count, processes)
    assert sum(slots) == min(at_once or count, count) and min(slots) >= 1 and len(slots) <= processes


def reply(*events: dict[str, Any]) -> Exchange:
    lines = b"".join(b"data: %b\n\n" % orjson.dumps(each) for each in events) + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(lines)
    return Exchange(0, 0, 0, 1, 2, 9, [(5, head + lines)])


class Letters:
    """A tokenizer for which every letter is a token."""

    def ids(self, text: str) -> list[int]:
        return list(text.encode())

    def text(self, ids: Any) -> str:
        return bytes(each % 26 + 97 for each in ids).decode()


def test_tokenizer_counts_where_the_server_does_not() -> None:
    """Without usage the tokenizer counts and the record says so; with usage the server has the word."""
    silent = reply({"choices": [{"text": "hello"}]})
    counted = request_record(silent, 0, 5, Letters())
    assert (counted["output_tokens"], counted["tokens_source"], counted["error"]) == (5, "tokenizer", None)
    assert request_record(silent, 0, 5)["error"]["kind"] == "no_usage"
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    told = request_record(reply({"choices": [{"text": "hello"}]}, usage), 0, 2, Letters())
    assert (told["output_tokens"], told["tokens_source"], told["error"]) == (2, "usage", None)


def test_chat_deltas_are_read_and_empty_ones_are_no_token() -> None:
    """A chat stream's role-only delta is not a first token; content and reasoning are."""
    deltas = [{"role": "assistant", "content": ""}, {"reasoning_content": "hm"}, {"content": "yes"}, {}]
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    read = request_record(reply(*({"choices": [{"delta": each}]} for each in deltas), usage), 0)
    assert (read["text"], len(read["chunk_ns"]), read["error"]) == ("hmyes", 2, None)


def test_prompts_take_the_shape_of_the_endpoint() -> None:
    """Text becomes a user's message for chat, token ids a text of as many tokens; messages need chat."""
    chat = Target(base_url="http://h:1", endpoint="/v1/chat/completions", model="m", extra_body={"top_k": 1})
    made = bodies(chat, [Request("hi", 3, {"seed": 5}), Request([1, 2, 3], 4)], Letters())
    assert made[0]["messages"] == [{"role": "user", "content": "hi"}] and made[0]["top_k"] == 1 and made[0]["seed"] == 5
    assert made[1]["messages"] == [{"role": "user", "content": "bcd"}] and made[1]["max_tokens"] == 4
    with pytest.raises(WorkloadError, match="name tokenizer"):
        bodies(chat, [Request([1, 2], 3)], None)
    plain = Target(base_url="http://h:1", model="m")
    with pytest.raises(WorkloadError, match="use /v1/chat/completions"):
        bodies(plain, [Request([{"role": "user", "content": "hi"}], 3)], None)


def test_key_goes_over_the_wire_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is read from the environment when a request is made, and is no part of the specification."""
    target = Target(base_url="http://u@h:1/base/", model="m", api_key_env="SOTAD_TEST_KEY")
    with pytest.raises(SpecError, match="SOTAD_TEST_KEY"):
        on_the_wire(target, [{}])
    monkeypatch.setenv("SOTAD_TEST_KEY", "s3cret")
    sent = on_the_wire(target, [{"a": 1}])[0]
    assert sent.startswith(b"POST /base/v1/completions HTTP/1.1\r\nHost: h:1\r\n")
    assert b"Authorization: Bearer s3cret\r\n" in sent and sent.endswith(b'Content-Length: 7\r\n\r\n{"a":1}')
    assert "s3cret" not in repr(target.model_dump())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arrival": "gamma"}, "gamma needs a request_rate"),
        ({"arrival": "closed", "request_rate": 1}, "closed takes no request_rate"),
        ({"arrival": "trace"}, "needs a scenario of kind trace"),
        ({"max_concurrency": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    """A pace that cannot be kept is refused before anything is sent."""
    scenario = {"name": "s", "num_prompts": 1, "input_len": 1, "output_len": 1}
    base: dict[str, Any] = {"base_url": "http://h", "model": "m", "scenario": scenario, "max_concurrency": None}
    with pytest.raises(ValueError, match=said):
        LoadSpec(**{**base, **options})
