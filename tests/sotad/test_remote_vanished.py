"""A host that does not answer for a while: the campaign waits for it, and nothing is failed, lost or measured twice."""

from __future__ import annotations

import time

import pytest
import yaml
from rig.audit import audit
from rig.campaign import Rig

from sotad.errors import SotadError


class Away:
    """A rig whose campaign is served on a host that can be switched off."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.switch, self.root = rig, rig.home / "switch", rig.home / "host"
        rig.roots.append(self.root)
        rig.paths.root.mkdir(exist_ok=True)
        defined = {"gpu1": {"kind": "local", "root": str(self.root)}}
        rig.paths.config.write_text(yaml.safe_dump({"hosts": defined}))

    def start(self) -> None:
        self.rig.start("--away", str(self.switch))

    def submit(self) -> str:
        return self.rig.submit(hardware__host="gpu1", budget__job_s=120)

    def vanish(self) -> None:
        """The host is switched off while a load generator runs there, and the campaign waits for it."""
        self.rig.until(lambda: list(self.root.glob("small/search/*/*/1/bench-*/pid.json")), "a load generator")
        self.switch.touch()
        self.rig.seen("campaign.blocked")

    def cancelled(self) -> None:
        """The rest of the campaign is not waited for."""
        self.rig.client.post("/v1/campaigns/small/cancel", {"confirmed": True})
        assert self.rig.finished(90) == "cancelled"
        self.rig.stop()
        audit(self.rig)


@pytest.fixture
def away(rig: Rig) -> Away:
    return Away(rig)


def test_it_goes_on_by_itself_when_the_host_is_back(away: Away) -> None:
    """Blocked for want of the host with a deadline; the daemon may die meanwhile; then the same run is gone on with."""
    away.start()
    away.submit()
    away.vanish()
    blocked = away.rig.events("campaign.blocked")[0].payload
    assert (blocked["kind"], blocked["host"]) == ("resources", "gpu1") and "gpu1 does not answer" in blocked["reason"]
    assert blocked["deadline_ns"] > time.time_ns() and "sotactl resume small" in blocked["next"]
    (job,) = [job for job in away.rig.c.jobs.values() if job.activity == "launch"]
    assert job.status == "running"
    away.rig.kill()
    away.start()
    with pytest.raises(SotadError, match="gpu1 does not answer"):
        away.rig.client.post("/v1/campaigns/small/resume")
    assert away.rig.c.phase == "blocked"
    away.switch.unlink()
    resumed = away.rig.seen("campaign.resumed")
    assert resumed.actor == "daemon" and all(check["ok"] for check in resumed.payload["checks"])
    stopped = away.rig.seen("candidate.stopped")
    assert (stopped.payload["launch"], stopped.payload["attempt"]) == (job.job, 1)
    assert len([e for e in away.rig.events("benchmark.finished") if e.payload["launch"] == job.job]) == 1
    assert not away.rig.events("candidate.failed", "candidate.lost", "job.lost", "job.timed_out", "lease.released")
    away.cancelled()


def test_another_machine_under_its_name_is_for_a_person_to_see(away: Away) -> None:
    """What answers again is not what was measured on: nothing goes on by itself, and the ledger says why."""
    away.start()
    away.submit()
    away.vanish()
    away.switch.with_name("exchanged").touch()
    away.switch.unlink()
    noted = away.rig.seen("note.recorded").payload["text"]
    assert "gpu1 answers again, but" in noted and "host cores" in noted and "sotactl resume small" in noted
    assert away.rig.c.phase == "blocked" and not away.rig.events("campaign.resumed")
    away.switch.with_name("exchanged").unlink()
    away.rig.client.post("/v1/campaigns/small/resume")
    away.rig.seen("candidate.stopped")
    away.cancelled()


@pytest.mark.slow
def test_a_campaign_is_cancelled_once_its_host_is_back(away: Away) -> None:
    """What runs there cannot be ended before: it waits again, and leaves nothing behind."""
    away.start()
    away.submit()
    away.vanish()
    away.rig.client.post("/v1/campaigns/small/cancel", {"confirmed": True})
    away.rig.seen("campaign.blocked", count=2)
    away.switch.unlink()
    assert away.rig.finished(90) == "cancelled"
    away.rig.stop()
    cleaned = away.rig.events("cleanup.finished")[0].payload
    fates = {each["path"]: each["fate"] for each in cleaned["folders"]}
    assert fates[str(away.root / "files" / "trees" / "small")] == "removed"
    assert {fates[str(runs / "small")] for runs in away.rig.roots} == {"kept: the record of its runs"}
    assert cleaned["left"] == []
    audit(away.rig)


def test_a_host_that_refuses_everything_blocks_its_campaign_alone(away: Away) -> None:
    """Another host key, no Python there: one clear reason, nothing failed, and a daemon that goes on."""
    away.switch.write_text("refuse")
    away.start()
    away.submit()
    blocked = away.rig.seen("campaign.blocked").payload
    assert (blocked["kind"], blocked["host"]) == ("resources", "gpu1") and "does not answer" in blocked["reason"]
    assert away.rig.process is not None and away.rig.process.poll() is None
    assert not away.rig.events("job.finished", "job.lost", "campaign.resumed")


@pytest.mark.slow
def test_a_host_that_is_not_there_at_first_is_waited_for(away: Away) -> None:
    """The campaign is blocked once, before anything is known of the host, and goes on when it is there."""
    away.switch.touch()
    away.start()
    away.submit()
    away.rig.seen("campaign.blocked")
    tries = away.rig.paths.log
    away.rig.until(lambda: tries.read_text().count("host.still_away") > 1, "it is tried twice")
    assert len(away.rig.events("campaign.blocked")) == 1 and not away.rig.events("campaign.resumed", "job.finished")
    away.switch.unlink()
    away.rig.seen("lease.granted")
    away.cancelled()


def test_a_host_that_nobody_defined_is_refused_at_submit(away: Away) -> None:
    """One clear error, and no campaign; a definition that is added counts without a restart."""
    away.rig.paths.config.unlink()
    away.start()
    with pytest.raises(SotadError, match="defines no host 'gpu1', but local"):
        away.submit()
    assert not away.rig.events("campaign.created")
    Away(away.rig)
    away.rig.seen("config.reloaded")
    assert away.submit() == "small"
