"""``kill -9`` anywhere: the campaign goes on, ends as it would have, and nothing is counted twice or lost."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from contextlib import suppress

import pytest
from rig.audit import audit
from rig.campaign import Rig
from rig.fixtures import DOUBTED, KILLS, Rigs

from sotad.errors import SotadError

VERDICT = "success"  # by how much the patch wins is measured anew: a busy machine makes a tie of it
NOT_BEHIND = {"par_or_better": "not behind", "ahead": "not behind"}
pytestmark = pytest.mark.timeout(300)  # the first to ask for the session's campaign waits for all of it


EVENTS = (  # some of the kinds: that they were met at all
    *("plan.recorded", "summary.recorded", "gate.evaluated timed_outputs", "gate.evaluated nothing_left_running"),
    *("agent.finished propose", "agent.finished implement", "agent.finished review", "human.question"),
    *("human.answered", "patch.quarantined", "human.approved", "heldout.checked", "finalize.opened"),
    *("finalize.unchanged", "job.finished timed", "candidate.stopped", "cleanup.finished"),
)
CALLS = (
    *("put gap/server port", "start gap/server", "start gap/bench-chat-N", "stop gap/server"),
    *("start profile/traced", "stop profile/server", "start profile/digest-N", "put profile/note traces.json"),
    *("start implement/implementer", "start tests/tests", "start equivalence/ask-challenger"),
    *("start review/reviewer", "stop heldout/server", "start clean_up/after"),
)


def asked(job: str) -> bool:
    """Whether the implementer had a question before it went about this job."""
    return job.startswith("propose/")


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


@pytest.mark.slow
def test_killed_at_sampled_boundaries_the_campaign_ends_as_if_nothing_had_happened(killed: Rig) -> None:
    """The verdict is the undisturbed one; no measurement is lost or doubled, no process is left."""
    killed.back_to("end")
    assert outcome(killed)["terminal"] == VERDICT
    assert len(killed.events("daemon.started")) == len(KILLS) + 1
    audit(killed)
    assert [job.job for job in killed.c.jobs.values() if job.attempt != 1 and not asked(job.job)] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("option", "must"), [("--kill-each", EVENTS), ("--kill-each-call", CALLS)])
def test_killed_around_every_kind(rigs: Rigs, killed: Rig, option: str, must: Sequence[str]) -> None:
    """One campaign through a kill right before and right after the first event, or call on the host, of each kind."""
    killed.back_to("end")
    rig = rigs()
    rig.behave("implementer", "ask\npatch")
    rig.start()
    rig.submit(**DOUBTED, budget__job_s=900, implementer__timeout_s=60)  # a job's time runs on through 32 restarts
    rig.kill()
    while rig.c.phase != "closed":
        process = rig.launch(option, str(rig.home / "kills"))
        rig.until(lambda process=process: process.poll() is not None or rig.tended().phase == "closed", "a kill", 300)
        if rig.c.phase != "closed":
            assert rig.ended() == -signal.SIGKILL, rig.said()
    rig.kill()
    rig.start()
    rig.stop()
    assert {f"{when} {kind}" for when in ("before", "after") for kind in must} <= set(kills(rig))
    assert outcome(rig) == outcome(killed)
    audit(rig)
    assert [job.job for job in rig.c.jobs.values() if job.attempt != 1 and not asked(job.job)] == []


def kills(rig: Rig) -> list[str]:
    """``before KIND`` and ``after KIND`` for each kill."""
    return (rig.home / "kills").read_text().splitlines()


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


@pytest.mark.slow
def test_killed_at_random_moments(rigs: Rigs) -> None:
    """Inside activities too: what was interrupted is found again or voided, never guessed."""
    rig = rigs(target_work=None)
    killed_at_random(rig, seed=20261121, kills=4, longest_s=2.5)
    with suppress(SotadError):  # a quick machine has brought it to its end by now
        rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_many_random_moments(rigs: Rigs) -> None:
    """The same, all the way through a patch and its review."""
    rig = rigs()
    killed_at_random(rig, seed=0, kills=40, longest_s=3.0)
    assert rig.finished(600).startswith(VERDICT)
    audit(rig)
