"""A real search: slow candidates are given up by the daemon, also when it is killed at that very moment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rig.campaign import Rig, git

from ledger.verify import verify
from statemachine.judge import Judge

CANDIDATES = [{"id": "only", "flags": {}}, {"id": "slow", "flags": {"slow": 12}}]
EARLY = {"runs": 3, "early_stop": {"noise_pct": 15, "launch_noise_pct": 10}}


@pytest.mark.slow
def test_a_hopeless_candidate_costs_one_run(rig: Rig) -> None:
    """One run of three a side, said by one event, checked by the verifier; kill -9 beside it repeats nothing."""
    rig.start()
    frameworks = {f"frameworks__{name}__candidates": CANDIDATES for name in ("fork", "upstream")}
    rig.submit(goal="compare", search=EARLY, **frameworks)
    rig.seen("candidate.curtailed", 180)
    rig.kill()
    rig.start()
    rig.seen("baseline.frozen", 180)
    told = [event.payload for event in rig.events("candidate.curtailed")]
    assert sorted((p["framework"], p["candidate"], p["runs_made"], p["rule"]) for p in told) == [
        ("fork", "slow", 1, "slower"),
        ("upstream", "slow", 1, "slower"),
    ]
    rows = [event.payload["launch"] for event in rig.events("benchmark.finished")]
    searched = {
        name: rows.count(f"search/{name}") for name in ("fork/only", "fork/slow", "upstream/only", "upstream/slow")
    }
    assert searched == {"fork/only": 3, "fork/slow": 1, "upstream/only": 3, "upstream/slow": 1}
    order = [event.payload["framework"] for event in rig.events("candidate.launched")]
    assert order[:4] == ["fork", "upstream", "upstream", "fork"]
    assert {found["candidate"] for found in rig.c.winners.values()} == {"only"}
    status = next(c for c in rig.client.get("/v1/status")["campaigns"])
    assert status["expected"]["done"]["launches"] >= 4 and status["expected"]["left_s"][1] > 0
    rig.kill()
    assert verify(rig.paths.ledger, judge=Judge()).problems == []


@pytest.mark.slow
def test_a_launch_compiles_where_it_was_told_to(rig: Rig) -> None:
    """SGLang's variables lead into the campaign's folder; event, row and process agree; the next launch finds it."""
    version = rig.leader / "sglang-0.0.dist-info" / "METADATA"
    version.parent.mkdir()
    version.write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 0.0\n")
    git(rig.leader, "add", "--all")
    git(rig.leader, "commit", "--quiet", "-m", "A version")
    rig.start()
    command = [sys.executable, "-m", "refengine"]
    two = [{"id": "only", "flags": {}}, {"id": "slow", "flags": {"slow": 2}}]
    engine = {"kind": "sglang", "command": command, "candidates": two}
    changes = {f"frameworks__upstream__{key}": value for key, value in engine.items()}
    rig.submit(goal="compare", **changes)
    rig.seen("baseline.frozen", 180)
    launched = [event.payload for event in rig.events("candidate.launched")]
    told = [p["caches"] for p in launched if p["framework"] == "upstream"]
    assert [found["state"] for found in told] == ["cold", "partly"] and told[0]["folder"] == told[1]["folder"]
    assert all("caches" not in p for p in launched if p["framework"] == "fork")
    rows = {p["launch"]: p["row"]["engine_caches"] for p in (e.payload for e in rig.events("benchmark.finished"))}
    assert rows["search/upstream/slow"] == told[1] and rows["search/fork/only"] is None
    run = rig.paths.runs / "small/search/upstream/only/1/server/spec.json"
    environment = json.loads(run.read_text())["env"]
    assert environment["TRITON_CACHE_DIR"] == f"{told[0]['folder']}/triton"
    assert Path(told[0]["folder"]).is_relative_to(rig.paths.runs / "files" / "caches" / "small")
