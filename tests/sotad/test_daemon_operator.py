"""Pausing, resuming, cancelling, budgets, and campaigns that share the host: nothing runs on, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig.audit import audit
from rig.campaign import Rig, git

from sotad.errors import SotadError


def test_pause_drains_the_job_in_hand_and_lets_go_of_the_host(rig: Rig) -> None:
    """The running launch ends as it should, then the lease goes back; resume checks the world and goes on."""
    rig.start()
    rig.submit()
    rig.seen("benchmark.started")
    rig.client.post("/v1/campaigns/small/pause", {"reason": "maintenance"})
    released = rig.seen("lease.released")
    assert [event.type for event in rig.events("candidate.stopped", "candidate.lost")] == ["candidate.stopped"]
    assert (rig.c.phase, rig.events("search.exhausted"), rig.processes()) == ("paused", [], [])
    rig.client.post("/v1/campaigns/small/resume")
    checks = rig.seen("campaign.resumed").payload["checks"]
    assert all(check["ok"] for check in checks)
    assert {"checkout fork", "checkout upstream", "host cpu"} <= {check["what"] for check in checks}
    rig.until(lambda: rig.events("candidate.launched")[-1].seq > released.seq, "the search goes on")
    assert len(rig.events("lease.granted")) == 2
    with pytest.raises(SotadError, match="illegal"):
        rig.client.post("/v1/campaigns/small/resume")
    assert rig.events("resume.mismatch") == []
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


def test_resume_with_a_checkout_that_moved_on_goes_back_to_intake(rig: Rig) -> None:
    """The mismatch is on record with both commits; the preflight looks at everything again."""
    rig.start("--kill", "after:openpr.scanned")
    rig.submit()
    rig.ended()
    rig.start("--kill", "after:campaign.resumed")
    rig.client.post("/v1/campaigns/small/pause", {"reason": "a new release"})
    rig.until(lambda: rig.events("lease.released"), "the host is free")
    old = git(rig.leader, "rev-parse", "HEAD")
    git(rig.leader, "commit", "--quiet", "--allow-empty", "-m", "A new release")
    with pytest.raises(SotadError):
        rig.client.post("/v1/campaigns/small/resume")  # the daemon dies right after the commit
    rig.ended()
    rig.start()
    mismatch = rig.seen("resume.mismatch").payload
    new = git(rig.leader, "rev-parse", "HEAD")
    assert (mismatch["what"], mismatch["expected"], mismatch["found"]) == ("checkout upstream", old, new)
    rig.seen("preflight.passed", count=2)
    assert rig.c.probes["upstream"]["commit"] == new
    rig.until(lambda: rig.events("candidate.launched"), "the search begins")
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


def test_campaigns_share_the_host_one_after_the_other(rig: Rig) -> None:
    """Submitted at the same moment, one gets the lease and the other waits until it is free."""
    rig.start()
    with ThreadPoolExecutor(3) as pool:
        names = list(pool.map(lambda _: rig.submit(), range(3)))
    assert sorted(names) == ["small", "small-2", "small-3"]
    rig.until(lambda: len(rig.events("resource.wait_started")) == 2, "two wait")
    (first,) = {event.campaign for event in rig.events("lease.granted")}
    waiting = sorted(set(names) - {first})
    rig.client.post(f"/v1/campaigns/{waiting[0]}/cancel")
    rig.seen("campaign.closed", campaign=waiting[0])
    rig.seen("benchmark.started", campaign=first)
    rig.client.post(f"/v1/campaigns/{first}/pause", {"reason": "the other is urgent"})
    rig.seen("lease.granted", campaign=waiting[1])
    rig.seen("preflight.passed", campaign=waiting[1])
    for name in (first, waiting[1]):
        rig.client.post(f"/v1/campaigns/{name}/cancel")
        rig.seen("campaign.closed", campaign=name)
    audit(rig)


def test_cancelled_while_measuring_it_ends_everything_it_started(rig: Rig) -> None:
    """Server and load generator end, the launch is void, the report is written; a second cancel does no harm."""
    rig.start()
    rig.submit(frameworks__fork__candidates=[{"id": "only", "flags": {"slow": 200.0}}])
    rig.seen("benchmark.started")
    assert rig.processes() != []
    rig.client.post("/v1/campaigns/small/cancel")
    with pytest.raises(SotadError):
        rig.client.post("/v1/campaigns/small/cancel")  # it is stopping already
    closed = rig.seen("campaign.closed").payload
    assert closed["terminal"] == "cancelled"
    assert "aborted" in rig.events("candidate.lost")[0].payload["reason"]
    assert rig.events("cleanup.finished")[0].payload["after"] == []
    assert (rig.paths.root / "reports" / "small" / "final_report.md").exists()
    audit(rig)


def test_a_budget_that_is_used_up_ends_the_campaign(rig: Rig) -> None:
    """The wall clock counts from the submission, whatever is running."""
    rig.start()
    rig.submit(budget__wall_clock_s=2.5, frameworks__fork__candidates=[{"id": "only", "flags": {"slow": 200.0}}])
    exhausted = rig.seen("budget.exhausted").payload
    assert exhausted["used"] >= 2.5
    assert rig.seen("campaign.closed").payload["terminal"] == "budget_exhausted"
    rig.until(lambda: rig.anchored() == rig.events()[-1].seq, "the end of the campaign is signed at once")
    audit(rig)


def test_sigterm_is_graceful_and_what_runs_lives_on(rig: Rig) -> None:
    """Stopped on record, signed and snapshotted; the next daemon finds the same processes and waits for them."""
    rig.start()
    rig.submit()
    rig.seen("benchmark.started")
    server = json.loads((rig.paths.runs / "small/search/fork/only/1/server/pid.json").read_text())
    assert rig.stop() == 0
    os.kill(server["pid"], 0)
    assert rig.events()[-1].type == "daemon.stopped"
    assert rig.anchored() == rig.snapshotted() == rig.events()[-1].seq
    rig.start()
    rig.seen("candidate.stopped")
    assert rig.c.launches["search/fork/only"].attempt == 1
    assert len(rig.events("benchmark.started", "benchmark.finished")) == 2
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    assert rig.process is not None
    rig.process.send_signal(signal.SIGINT)
    assert rig.ended() == 0
    audit(rig)


@pytest.mark.slow
def test_paused_before_a_step_the_host_is_free_and_the_time_stands_still(rig: Rig) -> None:
    """A job that only waits to write its step neither keeps the lease nor runs out of time."""
    rig.start("--kill", "before:preflight.passed")
    rig.submit(budget__job_s=8)
    rig.ended()
    rig.start()
    rig.client.post("/v1/campaigns/small/pause", {"reason": "right now"})
    rig.seen("lease.released")
    deadline_ns = rig.events("job.dispatched")[-1].payload["deadline_ns"]
    rig.until(lambda: time.time_ns() > deadline_ns, "its time would be over")
    rig.client.post("/v1/campaigns/small/resume")
    rig.seen("preflight.passed")
    rig.seen("candidate.ready")
    assert rig.events("job.timed_out", "preflight.failed", "campaign.blocked") == []
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)
