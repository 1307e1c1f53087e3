"""What a campaign meets in the world: each failure has one clear message, and nothing is lost by it."""

from __future__ import annotations

import json
import os
import signal

import pytest
from rig.audit import audit
from rig.campaign import Rig, git

ONLY = {"id": "only", "flags": {}}


def cancelled(rig: Rig) -> None:
    """End the campaign and hold it to what a finished one owes."""
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


def test_a_target_that_cannot_be_asked_for_its_help_fails_the_preflight(rig: Rig) -> None:
    """The reason names the framework, the command and the error; corrected, a resume goes on."""
    rig.start()
    rig.submit(frameworks__fork__python=str(rig.home / "venv" / "python"))
    reason = rig.seen("preflight.failed").payload["reason"]
    assert "framework.probed for fork" in reason
    assert f"cannot execute {rig.home}/venv/python" in reason
    rig.until(lambda: rig.c.phase == "blocked" and not rig.c.lease, "the lease is back")
    (rig.home / "venv").mkdir()
    (rig.home / "venv" / "python").symlink_to(os.path.realpath("/proc/self/exe"))
    rig.client.post("/v1/campaigns/small/resume")
    rig.seen("preflight.passed")
    cancelled(rig)


def test_a_dirty_checkout_is_refused_and_checkouts_are_left_as_they_are(rig: Rig) -> None:
    """The preflight names the checkout and what to do; sotad itself never cleans up, switches or commits there."""
    (rig.target / "refengine" / "work.py").write_text("TOKEN_WORK = 1\n")
    rig.start()
    rig.submit()
    failed = rig.seen("preflight.failed").payload
    assert failed["check"] == "workspace fork"
    assert "has uncommitted changes: commit or stash them" in failed["reason"]
    assert (rig.target / "refengine" / "work.py").read_text() == "TOKEN_WORK = 1\n"
    git(rig.target, "checkout", "--", ".")
    before = {repo: (git(repo, "rev-parse", "HEAD"), git(repo, "branch")) for repo in (rig.target, rig.leader)}
    rig.until(lambda: not rig.c.lease, "the lease is back")
    rig.client.post("/v1/campaigns/small/resume")
    rig.seen("candidate.ready")
    cancelled(rig)
    for repo, state in before.items():
        assert (git(repo, "rev-parse", "HEAD"), git(repo, "branch")) == state
        assert git(repo, "status", "--porcelain") == ""
        assert len(git(repo, "worktree", "list").splitlines()) == 1


@pytest.mark.slow
def test_a_checkout_that_vanished_blocks_the_campaign(rig: Rig) -> None:
    """Before the preflight it is the preflight that says so; later it is the launch, after its retries."""
    rig.start()
    rig.submit()
    rig.seen("workload.frozen")
    rig.leader.rename(rig.home / "moved")
    blocked = rig.seen("campaign.blocked").payload
    assert blocked["kind"] == "evidence"
    assert str(rig.leader) in blocked["reason"] or "upstream" in blocked["reason"]
    rig.client.post("/v1/campaigns/small/resume")
    assert rig.seen("resume.mismatch").payload["what"] == "checkout upstream"
    assert f"{rig.leader} is no git checkout" in rig.seen("preflight.failed").payload["reason"]
    cancelled(rig)


def test_servers_that_fail_in_every_way_are_results_of_the_search(rig: Rig) -> None:
    """Deaf, broken and killed candidates are on record with their reason; a stolen port is nobody's fault.

    A competitor that is not installed is left out, with its reason.
    """
    deaf = {"id": "deaf", "flags": {"deaf": 1}}
    broken = {"id": "broken", "flags": {"broken": 3}}
    rig.start("--take-ports", "1")
    missing = {**rig.spec()["frameworks"]["upstream"], "python": "/nowhere/python"}
    rig.submit(
        frameworks__other=missing,
        frameworks__fork__candidates=[ONLY, deaf, broken],
        frameworks__upstream__candidates=[ONLY, {"id": "dies", "flags": {"slow": 4.0}}],
        budget__ready_s=3,
        budget__grace_s=2,
    )
    rig.until(lambda: _measuring(rig, "search/upstream/dies"), "the server is being measured")
    server = rig.paths.runs / "small/search/upstream/dies/1/server/pid.json"
    os.kill(json.loads(server.read_text())["pid"], signal.SIGKILL)
    rig.seen("baseline.frozen")
    launches = rig.c.launches
    assert launches["search/fork/only"].attempt == 2
    assert "port" in rig.events("candidate.lost")[0].payload["reason"]
    assert launches["search/fork/deaf"].status == "timeout"
    assert "not ready after 3 s" in launches["search/fork/deaf"].reason
    asked = rig.paths.runs / "small/search/fork/deaf/1/server/spec.json"
    assert json.loads(asked.read_text())["grace_s"] == 2
    assert (launches["search/fork/broken"].status, launches["search/upstream/dies"].status) == ("failed", "failed")
    assert "exit code 3" in launches["search/fork/broken"].reason
    assert "signal 9" in launches["search/upstream/dies"].reason
    assert "cannot execute /nowhere/python" in rig.c.unsupported["other"]
    assert {pair.split("/")[0] for pair in rig.c.winners} == {"fork", "upstream"}
    cancelled(rig)


def _measuring(rig: Rig, launch: str) -> bool:
    return any(event.payload["launch"] == launch for event in rig.events("benchmark.started"))


@pytest.mark.slow
def test_a_load_generator_that_hangs_voids_its_launch(rig: Rig) -> None:
    """Its time is bounded; what it measured does not count, the launch is tried again."""
    rig.start()
    rig.submit(budget__job_s=8)
    claim = rig.paths.runs / "small/search/fork/only/1/bench-chat-0/pid.json"
    rig.until(claim.exists, "the load generator runs")
    os.kill(json.loads(claim.read_text())["pid"], signal.SIGSTOP)
    lost = rig.seen("candidate.lost").payload
    assert (lost["launch"], lost["attempt"]) == ("search/fork/only", 1)
    rig.until(lambda: rig.c.launches["search/fork/only"].status == "stopped", "it is measured again")
    assert rig.c.launches["search/fork/only"].attempt == 2
    cancelled(rig)


def test_a_worktree_that_was_left_half_made_is_made_anew(rig: Rig) -> None:
    """What is launched is what the commit holds, whatever a killed git or a curious agent left there."""
    commit = git(rig.target, "rev-parse", "HEAD")
    folder = rig.paths.root / "worktrees" / "small" / f"fork-{commit[:12]}"
    git(rig.target, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(folder), commit)
    (folder / "sitecustomize.py").write_text("raise SystemExit('not of this commit')\n")
    rig.start()
    rig.submit()
    rig.seen("candidate.stopped")
    assert rig.events("candidate.failed") == []
    assert git(folder, "status", "--porcelain") == ""
    cancelled(rig)
