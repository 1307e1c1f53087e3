"""The explanation of a gap: two sides' traces in, the slow stage and the rows that say why out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sotad.activities.profile import layer_report
from sotad.analysis.statement import root_cause_text, statement
from sotad.report.analysis import capacity_document

Event = dict[str, Any]


def step(at_us: float, name: str, parts: dict[str, float]) -> list[Event]:
    """One annotated step of the CPU with operators one after the other, each of so many microseconds."""
    on = {"ph": "X", "pid": 1, "tid": 1}
    events: list[Event] = []
    now = at_us
    for part, us in parts.items():
        events.append({**on, "cat": "cpu_op", "name": part, "ts": now, "dur": us})
        now += us
    return [{**on, "cat": "user_annotation", "name": name, "ts": at_us, "dur": now - at_us}, *events]


def capture(path: Path, prefill_us: float, decode_us: float, host: float = 1.0) -> str:
    """Ten steps of each stage, on a host that is slower by a factor; the path."""
    events: list[Event] = []
    for number in range(10):
        at = 1e6 + 1e5 * number
        events += step(at, "step[PREFILL bs=1 toks=10]", {"aten::mm": prefill_us * host})
        events += step(at + 5e4, "step[DECODE bs=4 toks=4]", {"aten::bmm": decode_us * host, "aten::add": 10 * host})
    path.write_text(json.dumps({"traceEvents": events}))
    return str(path)


def explained(folder: Path, target: str, leader: str, logs: dict[str, str] | None = None, **more: Any) -> Any:
    """What the process writes."""
    sides: dict[str, Any] = {"target": {"files": {"": [target]}}, "leader": {"files": {"": [leader]}}}
    for side, text in (logs or {}).items():
        sides[side]["log"] = str(folder / f"{side}.log")
        Path(sides[side]["log"]).write_text(text)
    (folder / "asked.json").write_text(json.dumps({**sides, **more}))
    command = [sys.executable, "-m", "sotad.analysis.explain", str(folder / "asked.json"), str(folder / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out.json").read_text())


SGLANG_LOG = """\
[2026-11-21 21:08:48] server_args=ServerArgs(model_path='m', mem_fraction_static=0.85, tp_size=1, dtype='bfloat16')
[2026-11-21 21:09:03] Load weight begin. avail mem=139.13 GB
[2026-11-21 21:09:04] Load weight end. elapsed=0.11 s, type=Q, avail mem=123.85 GB, mem usage=15.28 GB.
[2026-11-21 21:09:07] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 7000, K size: 51.48 GB, V size: 51.48 GB
[2026-11-21 21:09:07] Memory pool end. avail mem=20.62 GB
[2026-11-21 21:10:20] max_total_num_tokens=7000, chunked_prefill_size=8192, max_running_requests=40, context_len=8192
"""


def test_memory_is_told_from_the_logs_of_the_servers(tmp_path: Path) -> None:
    """Each side's own, at the workload's lengths; a log that says nothing of memory is a note, not a failure."""
    trace = capture(tmp_path / "a.json", 1000, 5000)
    logs = {"target": SGLANG_LOG, "leader": "a server that tells nothing\n"}
    found = explained(tmp_path, trace, trace, logs, lengths="100+40")
    told = found["capacity"]["target"]
    assert (told["kv_cache_tokens"], told["concurrency"][0]["max_concurrent"]) == (7000, 40)
    assert told["concurrency"][0]["request_tokens"] == 140
    event = SimpleNamespace(seq=9, payload={"round": 0, "tables": {}})
    facts: Any = SimpleNamespace(c=SimpleNamespace(id="c"), all=lambda _: [event], text_of=lambda _: json.dumps(found))
    (section,) = capacity_document(facts).sections
    assert section.title == "Round 0, target [#9]" and "KV cache: 7000 tokens" in section.blocks[0].text
    assert "leader" not in found["capacity"] and any("no capacity of the leader" in note for note in found["notes"])


def test_the_stage_that_lost_most_is_the_slow_one(tmp_path: Path) -> None:
    """Its rows are cited, each with what it costs beyond the leader; tables and layer report come with it."""
    slow, fast = capture(tmp_path / "a.json", 1000, 5000), capture(tmp_path / "b.json", 1000, 3000)
    found = explained(tmp_path, slow, fast)
    assert (found["stage"], found["cited"]) == ("decode", ["decode/aten::bmm", "decode/step"])
    assert found["extra_ms"] == {"prefill": 0.0, "decode": 20.0}
    assert found["limit"] is None and found["layers"] is None and set(found["tables"]) == {"target", "leader"}
    sentence = statement(found, "ours", "theirs")
    assert "decode is the slow stage: ours spends 20.0 ms more than theirs" in sentence
    assert "`decode/aten::bmm` | 20.00 | 50.00 | 30.00" in root_cause_text(found, sentence)
    assert layer_report(found)["parts"]["(no annotation)"]["time_ms"] == 50.0  # what is below 1% is left out


def test_a_busy_host_during_one_capture_does_not_move_the_blame(tmp_path: Path) -> None:
    """A slowdown that all stages share is taken out before stages are compared."""
    slow, fast = capture(tmp_path / "a.json", 3000, 5000, host=1.3), capture(tmp_path / "b.json", 1000, 5000)
    found = explained(tmp_path, slow, fast)
    assert (found["stage"], round(found["common_factor"], 3)) == ("prefill", 1.3)


def test_stages_that_were_captured_apart_count_as_a_request_needs_them(tmp_path: Path) -> None:
    """A token of prefill costs more here, but a request of many output tokens waits for decode."""
    slow, fast = capture(tmp_path / "a.json", 3000, 1100), capture(tmp_path / "b.json", 1000, 1000)
    assert explained(tmp_path, slow, fast)["stage"] == "prefill"
    found = explained(tmp_path, slow, fast, request={"prefill": 1, "decode": 1000})
    assert found["stage"] == "decode" and found["per_request"]
    assert found["extra_ms"]["decode"] == pytest.approx(1000 * 0.1 / 4, rel=1e-3)
    assert "ms a request more" in statement(found, "ours", "theirs")


def test_what_requests_waited_for_says_which_stage_is_slow(tmp_path: Path) -> None:
    """A prompt alone may cost more than its share of many at once; a stage that takes no longer is not blamed."""
    slow, fast = capture(tmp_path / "a.json", 3000, 1100), capture(tmp_path / "b.json", 1000, 1000)
    more = {"request": {"prefill": 100, "decode": 10}, "waited_ms": {"prefill": -6.6, "decode": 85.6}}
    found = explained(tmp_path, slow, fast, **more)
    assert found["extra_ms"]["prefill"] > found["extra_ms"]["decode"] > 0
    assert found["stage"] == "decode" and found["cited"] == ["decode/aten::bmm", "decode/step"]
    assert "waits +85.6 ms in it against theirs" in statement(found, "ours", "theirs")
    found = explained(tmp_path, slow, capture(tmp_path / "c.json", 1000, 1200), **more)
    assert found["stage"] == "prefill" and "waits -6.6 ms in it" in statement(found, "ours", "theirs")


def test_a_gap_that_is_not_in_the_steps_is_said_so(tmp_path: Path) -> None:
    """Who is behind with faster steps loses the time elsewhere."""
    slow, fast = capture(tmp_path / "a.json", 1000, 1000), capture(tmp_path / "b.json", 2000, 3000)
    found = explained(tmp_path, slow, fast, request={"prefill": 10, "decode": 4})
    assert "outside of the steps" in statement(found, "ours", "theirs")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"traceEvents": [{"ph": "X"', "a.json"),
        ("", "a.json"),
        (json.dumps({"traceEvents": step(0, "x", {"aten::mm": 5})}), "nothing to compare by"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    """No table is made of half a trace, or of one without steps."""
    (tmp_path / "a.json").write_text(content)
    good = capture(tmp_path / "b.json", 1000, 1000)
    asked = {"target": {"files": {"": [str(tmp_path / "a.json")]}}, "leader": {"files": {"": [good]}}}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "sotad.analysis.explain", str(tmp_path / "asked.json"), str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1) and said in done.stderr
    assert not (tmp_path / "out.json").exists()
