"""``kill -9`` anywhere: the campaign goes on, ends as it would have, and nothing is counted twice or lost."""

from __future__ import annotations

import random
import signal

import pytest
from rig.audit import audit
from rig.campaign import Rig
from rig.fixtures import KILLS, Rigs

VERDICT = "success"  # by how much the patch wins is measured anew: a busy machine makes a tie of it
NOT_BEHIND = {"par_or_better": "not behind", "ahead": "not behind"}
pytestmark = pytest.mark.timeout(300)  # the first to ask for the session's campaign waits for all of it


def outcome(rig: Rig) -> dict[str, object]:
    """What a campaign came to, apart from numbers that are measured anew each time."""
    c = rig.c
    return {
        "terminal": rig.events("campaign.closed")[0].payload["terminal"].partition("_")[0],
        "gaps": [(gap["round"], NOT_BEHIND.get(gap["verdict"], gap["verdict"]), gap["leader"]) for gap in c.gaps],
        "winners": {pair: found["candidate"] for pair, found in c.winners.items()},
        "attempts": {name: (a.status, a.hypothesis, a.files, a.gates) for name, a in c.attempts.items()},
        "workload": c.workload_digest,
        "review": [event.payload["mainline"] for event in rig.events("verdict.recorded")],
    }


def test_killed_at_sampled_boundaries_the_campaign_ends_as_if_nothing_had_happened(killed: Rig) -> None:
    """The verdict is the undisturbed one; no measurement is lost or doubled, no process is left."""
    killed.back_to("end")
    assert outcome(killed)["terminal"] == VERDICT
    assert len(killed.events("daemon.started")) == len(KILLS) + 1
    audit(killed)
    assert [job.job for job in killed.c.jobs.values() if job.attempt != 1] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_around_every_event(rigs: Rigs) -> None:
    """One campaign through a kill right before and right after the commit of each of its events."""
    rig, calm = rigs("rig"), rigs("calm")
    calm.start()
    calm.submit()
    calm.finished(300)
    calm.stop()
    rig.start()
    rig.submit()
    rig.kill()
    lives = 0
    while not rig.events("campaign.closed"):
        when = "before" if lives % 2 == 0 else "after"
        rig.launch("--kill", f"{when}:{rig.events()[-1].seq + 2}")
        assert rig.ended() == -signal.SIGKILL, rig.said()
        lives += 1
    rig.start()
    rig.stop()
    assert lives > 300
    assert outcome(rig) == outcome(calm)
    audit(rig)
    assert [job.job for job in rig.c.jobs.values() if job.attempt != 1] == []


def killed_at_random(rig: Rig, seed: int, kills: int, longest_s: float) -> None:
    """A campaign whose daemon is killed ``kills`` times, each after a random time."""
    source = random.Random(seed)
    rig.start()
    rig.submit()
    rig.kill()
    for _ in range(kills):
        rig.launch("--kill-in", f"{source.uniform(0.9, longest_s):.3f}")
        assert rig.ended() == -signal.SIGKILL, rig.said()
    rig.start()


def test_killed_at_random_moments(rigs: Rigs) -> None:
    """Inside activities too: what was interrupted is found again or voided, never guessed."""
    rig = rigs(target_work=None)
    killed_at_random(rig, seed=20261121, kills=4, longest_s=2.5)
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_many_random_moments(rigs: Rigs, seed: int) -> None:
    """The same, all the way through a patch and its review."""
    rig = rigs()
    killed_at_random(rig, seed=seed, kills=40, longest_s=3.0)
    assert rig.finished(600).startswith(VERDICT)
    audit(rig)
