"""Profiles in a campaign, through the driver of an engine whose stages are captured apart."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import pytest
from rig.audit import audit
from rig.campaign import Rig, git
from rig.fixtures import At

from ledger.artifacts import Artifacts
from ledger.events import Event

SGLANG: dict[str, Any] = {  # the stand-in, driven as SGLang is: its flags, its profiler, its folder of traces
    f"frameworks__{name}__{key}": value
    for name in ("fork", "upstream")
    for key, value in {"kind": "sglang", "command": [sys.executable, "-m", "refengine"]}.items()
}


def as_sglang(rig: Rig) -> None:
    """Let the checkouts say which version of SGLang they would be."""
    for checkout in (rig.target, rig.leader):
        known = checkout / "sglang-0.0.dist-info" / "METADATA"
        known.parent.mkdir()
        known.write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 0.0\n")
        git(checkout, "add", "--all")
        git(checkout, "commit", "--quiet", "-m", "A version")


def captured(rig: Rig, side: str) -> Event:
    found = [event for event in rig.events("profile.captured") if event.payload["side"] == side]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
def test_prefill_and_decode_are_captured_apart_and_explained(rig: Rig) -> None:
    """Each side has one trace for each stage, made by a process that the daemon's death does not end."""
    as_sglang(rig)
    rig.start("--kill", "before:profile.captured")
    rig.submit(**SGLANG)
    rig.ended()
    rig.start()
    cause = rig.seen("rootcause.written").payload
    for side in ("target", "leader"):
        payload = captured(rig, side).payload
        assert [trace["stage"] for trace in payload["traces"]] == ["prefill", "decode"]
        assert payload["trace"]["sha256"] == payload["traces"][0]["sha256"]
        stored = Artifacts(rig.paths.artifacts)
        assert all(b"traceEvents" in stored.read(trace["sha256"]) for trace in payload["traces"])
    tables = rig.events("tables.produced")[-1].payload
    steps = {row["stage"]: row["extra_ms"] for row in tables["rows"] if row["name"] == "step"}
    assert set(steps) == {"prefill", "decode"} and cause["stage"] == max(steps, key=lambda stage: steps[stage])
    assert "ms a request more" in cause["statement"] and f"{cause['stage']}/standin::token_work" in cause["rows"]
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["traced", "digest-*"])
def test_a_capture_goes_on_after_the_daemons_death(at: At, moment: str) -> None:
    """Begun and not yet seen by a request, or finished and its server ended: no attempt is lost."""
    rig = at("profiling")
    rig.launch("--kill-at-run", moment)
    assert rig.ended() == -signal.SIGKILL
    rig.start()
    rig.seen("profile.captured", count=2)
    assert [job.attempt for job in rig.c.jobs.values() if job.activity == "profile"] == [1, 1]
    assert rig.events("profile.rejected") == []


@pytest.mark.slow
def test_a_dataset_is_captured_at_the_lengths_that_were_measured(rig: Rig) -> None:
    """Its scenario names no lengths: prompts of one token would be another workload."""
    as_sglang(rig)
    rows = [{"prompt": [300 + n] * (9 + n % 3), "output_len": 8} for n in range(30)]
    dataset = rig.home / "rows.jsonl"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = {"name": "chat", "num_prompts": 5, "max_concurrency": 2}
    rig.start()
    rig.submit(**SGLANG, workload__kind="jsonl", workload__dataset=str(dataset), workload__scenarios=[shape])
    captured_ = rig.seen("profile.captured")
    spec = next(rig.paths.runs.rglob("capture-*/spec.json.in"))
    stages = json.loads(spec.read_text())["stages"]
    assert {stage["input_len"] for stage in stages} <= {9, 10, 11} and stages[1]["output_len"] >= 8, captured_
    assert rig.seen("rootcause.written").payload["statement"]


@pytest.mark.slow
def test_a_server_that_fell_back_is_not_explained(rig: Rig) -> None:
    """What its log admits refuses the profile; after three of them a person is asked."""
    as_sglang(rig)
    work = rig.leader / "refengine" / "__main__.py"
    said = "    print('Cuda graph is disabled because of a test', file=sys.stderr, flush=True)\n    with Server(flags)"
    work.write_text(work.read_text().replace("    with Server(flags)", said))
    git(rig.leader, "commit", "--quiet", "--all", "-m", "Say so")
    rig.start()
    rig.submit(**SGLANG)
    rejected = rig.seen("profile.rejected").payload
    assert rejected["side"] == "leader" and "Cuda graph is disabled" in rejected["reason"]
    blocked = rig.seen("campaign.blocked").payload
    assert blocked["kind"] == "evidence" and rig.events("tables.produced") == []
