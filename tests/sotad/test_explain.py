"""The explanation of a gap: two sides' traces in, the slow stage and the rows that say why out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sotad.activities.profile import layer_report
from sotad.analysis.statement import root_cause_text, statement

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


def explained(folder: Path, target: str, leader: str, **more: Any) -> Any:
    """What the process writes."""
    (folder / "asked.json").write_text(
        json.dumps({"target": {"files": {"": [target]}}, "leader": {"files": {"": [leader]}}, **more})
    )
    command = [sys.executable, "-m", "sotad.analysis.explain", str(folder / "asked.json"), str(folder / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out.json").read_text())


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
