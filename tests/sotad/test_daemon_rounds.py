"""Interrupted in any phase of a round: it goes on where it was, or names what is not as it was left."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from rig.audit import audit
from rig.campaign import Rig, git
from rig.fixtures import At

from sotad.errors import SotadError
from statemachine.state import Campaign
from statemachine.table import HALTED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
]  # the first to ask for the session's campaign waits for all of it

JSON = dict[str, Any]
Undo = Callable[[], object]
Tamper = Callable[[Rig], Undo]  # changes the world; what mends an artifact that the ledger must find whole again
OF_A_ROUND = ("patch.", "tests.", "equivalence.", "gate.", "review.", "verdict.", "heldout.", "gap.", "finalize.")
HALF_WAY = {  # where the campaign stood, and the next that is written when it goes on
    "gap": "aa.checked",
    "profiling": "profile.captured",
    "selecting": "human.question",
    "asking": "campaign.blocked",
    "patching": "patch.applied",
    "revalidating": "tests.finished",
    "recording": "checkpoint.written",
    "reviewing": "verdict.recorded",
    "heldout": "heldout.checked",
    "finalizing": "finalize.opened",
}


def cancelled(rig: Rig) -> None:
    """End the campaign, unless it has ended by now, and hold it to what a finished one owes."""
    with suppress(SotadError):
        rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


def halted(rig: Rig, end: Callable[[Rig], object] = Rig.kill) -> None:
    """The campaign is paused before it has moved, unless it waits for a person already; no daemon runs."""
    rig.start("--wedge", "driver")
    if rig.c.phase not in HALTED:
        rig.client.post("/v1/campaigns/small/pause", {"reason": "let me look"})
    end(rig)


def test_a_check_that_told_nothing_is_made_again(rig: Rig) -> None:
    """A person who resumes the campaign that it blocked gets new launches; what the first ones said counts no more."""
    rig.start()
    rig.submit(decision__cap=4, decision__noise_limit_pct=1e-6)
    first = rig.seen("aa.checked")
    assert not first.payload["passed"] and "A/A check failed" in rig.seen("campaign.blocked").payload["reason"]
    rig.client.post("/v1/campaigns/small/resume")
    second = rig.seen("aa.checked", count=2).payload["decisions"]["chat"]
    assert second["blocks"] == 4 and second["g_pct"] != first.payload["decisions"]["chat"]["g_pct"]
    measured = [e.payload["launch"] for e in rig.events("benchmark.finished") if e.payload["launch"].startswith("aa/")]
    assert len(measured) == 16 and len(set(measured)) == 8
    cancelled(rig)


# --- nothing changed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", HALF_WAY)
def test_paused_in_a_round_it_goes_on_where_it_was(at: At, place: str) -> None:
    """Everything is verified and on record, whether the paused daemon was stopped or killed; nothing is done twice."""
    rig, following = at(place), HALF_WAY[place]
    phase, before, resumes = rig.c.phase, len(rig.events(following)), len(rig.events("campaign.resumed"))
    attempts = {job.job: job.attempt for job in rig.c.jobs.values()}
    halted(rig, Rig.stop if list(HALF_WAY).index(place) % 2 else Rig.kill)
    rig.start()
    rig.client.post("/v1/campaigns/small/resume")
    resumed = rig.seen("campaign.resumed", count=resumes + 1)
    assert [check for check in resumed.payload["checks"] if not check["ok"]] == []
    assert expected_checks(rig, phase) <= {check["what"] for check in resumed.payload["checks"]}
    assert rig.seen(following, count=before + 1).seq > resumed.seq
    assert rig.events("resume.mismatch", "job.lost") == []
    assert {name: rig.c.jobs[name].attempt for name in attempts} == attempts
    cancelled(rig)


def expected_checks(rig: Rig, phase: str) -> set[str]:
    """What has to be verified, at least."""
    known = {"plan", "plan of the loop", "plan document", "workload", "harness", "checkout fork", "champion commit"}
    known |= {f"transcript of {job}" for job in rig.c.transcripts}
    if phase in ("round.revalidating", "round.recording", "round.reviewing"):
        known |= {"commit of a1", "branch of a1", "files of a1", "diff of a1"}
    return known


# --- something did -----------------------------------------------------------------------------------------


def cut(name: Callable[[Rig], JSON]) -> Tamper:
    """Half of an artifact is gone."""

    def tamper(rig: Rig) -> Undo:
        digest = name(rig)["sha256"]
        path = rig.paths.artifacts / digest[:2] / digest
        path.chmod(0o644)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] or b"never said")
        return lambda: path.write_bytes(content)

    return tamper


def said_in(job: str) -> Callable[[Rig], JSON]:
    return lambda rig: dict(rig.c.transcripts[job])


def in_git(*argv: str) -> Tamper:
    def tamper(rig: Rig) -> Undo:
        git(rig.target, *argv)
        return list

    return tamper


def plan_document(rig: Rig) -> JSON:
    return dict(rig.c.plan["document"])


def diff(rig: Rig) -> JSON:
    return dict(rig.c.attempts["a1"].diff)


def new_release(rig: Rig) -> Undo:
    git(rig.leader, "commit", "--quiet", "--allow-empty", "-m", "A new release")
    return list


def same_artifact(c: Campaign, what: str) -> set[str]:
    """Other transcripts of the same words: they are one file."""
    said = {f"transcript of {job}": reference["sha256"] for job, reference in c.transcripts.items()}
    return {name for name, digest in said.items() if digest == said.get(what)}


TAMPERED: dict[str, tuple[Tamper, str, str]] = {
    "gap": (new_release, "checkout upstream", ""),
    "profiling": (cut(plan_document), "plan document", "artifact_altered"),
    "selecting": (cut(lambda rig: dict(rig.c.profiles["target"]["trace"])), "trace of the target", "artifact_altered"),
    "asking": (cut(said_in("propose/r0/0")), "transcript of propose/r0/0", "artifact_altered"),
    "patching": (cut(said_in("propose/r0/0")), "transcript of propose/r0/0", "artifact_altered"),
    "revalidating": (in_git("branch", "-D", "sotad/small-a1"), "branch of a1", "is gone"),
    "quarantined": (in_git("branch", "-f", "sotad/small-a1", "main"), "branch of a1", "is gone"),
    "recording": (cut(diff), "diff of a1", "artifact_altered"),
    "reviewing": (in_git("branch", "-f", "sotad/small", "main"), "branch sotad/small", ""),
    "heldout": (in_git("branch", "-D", "sotad/small"), "branch sotad/small", "not in the checkout"),
    "finalizing": (cut(said_in("review/r0/a1/0")), "transcript of review/r0/a1/0", "artifact_altered"),
}


@pytest.mark.parametrize("place", TAMPERED)
def test_what_changed_while_it_was_halted_is_named_and_nothing_of_the_lost_round_counts(at: At, place: str) -> None:
    """It goes back to intake by the resume, or by the answer that would have let it go on."""
    rig = at(place)
    tamper, what, found = TAMPERED[place]
    before = rig.c
    halted(rig)
    undo = tamper(rig)
    rig.start()
    for subject in before.waits:
        rig.say(subject)
    if rig.c.phase in HALTED:
        rig.client.post("/v1/campaigns/small/resume")
    mismatch = rig.seen("resume.mismatch")
    rig.seen("preflight.passed", count=2)
    named = {event.payload["what"]: event.payload for event in rig.events("resume.mismatch")}
    assert named[what]["found"] == (found or named[what]["found"]) != named[what]["expected"]
    assert set(named) <= {what} | same_artifact(before, what)
    assert (rig.c.champion, rig.c.round, rig.c.current_attempt) == (before.champion, before.round + 1, "")
    assert (rig.c.profiles, rig.c.rootcause, rig.c.heldout_check, rig.c.transcripts) == ({}, {}, {}, {})
    assert [launch.launch for launch in rig.c.launches.values() if launch.rows] == []
    undo()
    cancelled(rig)
    assert [e.type for e in rig.events() if e.seq > mismatch.seq and e.type.startswith(OF_A_ROUND)] == []


def test_everything_that_changed_while_no_daemon_ran_is_named_before_anything_goes_on(at: At) -> None:
    """After a kill -9 as well: the campaign waits; with the world put right it goes on as if nothing had been."""
    rig = at("revalidating")
    commit = rig.c.attempts["a1"].commit
    earlier = len(rig.events("campaign.blocked"))  # for the implementer's question
    in_git("branch", "-D", "sotad/small-a1")(rig)
    moved = rig.home / "artifacts-moved"
    missing = rig.paths.artifacts / (name := said_in("propose/r0/0")(rig)["sha256"])[:2] / name
    missing.rename(moved)
    rig.start()
    blocked = rig.seen("campaign.blocked", count=earlier + 1)
    assert blocked.payload["kind"] == "evidence"
    assert "branch of a1: expected holds its commit, found is gone" in blocked.payload["reason"]
    assert "transcript of propose/r0/0: expected intact, found artifact_missing" in blocked.payload["reason"]
    assert rig.events("tests.finished") == []
    moved.rename(missing)
    git(rig.target, "branch", "sotad/small-a1", commit)
    rig.until(lambda: not rig.c.lease, "the host is free")
    rig.client.post("/v1/campaigns/small/resume")
    rig.seen("tests.finished")
    assert rig.events("resume.mismatch") == []
    assert rig.c.attempts["a1"].commit == commit
    cancelled(rig)


@pytest.mark.parametrize(
    ("kill", "ends"),
    [
        ("before:patch.applied", "patch.applied"),
        ("after:gate.evaluated", "patch.reverted"),
    ],
)
def test_a_workspace_that_was_changed_after_it_was_judged_does_not_count(at: At, kill: str, ends: str) -> None:
    """What the gates saw is what is applied; gates that have not seen it yet refuse what lies there now."""
    rig = at("patching")
    rig.start("--kill", kill)
    rig.ended()
    space = rig.paths.root / "workspaces" / "small" / "a1"
    judged = git(space / "seen.git", "rev-parse", "sotad/small-a1")
    (space / "tree" / "refengine" / "work.py").write_text("raise SystemExit('planted')\n")
    git(space / "tree", "commit", "--quiet", "--all", "-m", "Nobody looked at this")
    planted = git(space / "tree", "rev-parse", "HEAD")
    rig.start()
    ended = rig.seen(ends)
    if ends == "patch.applied":
        assert ended.payload["commit"] == judged
    else:
        assert ended.payload["gate"] == "clean_tree"
        assert git(rig.target, "rev-parse", "sotad/small-a1") == judged
    assert planted not in git(rig.target, "rev-list", "--all").splitlines()
    cancelled(rig)


def test_a_dataset_that_changed_while_it_was_halted_is_named(rig: Rig) -> None:
    """The requests are made anew and frozen anew; nothing that was measured with the old ones counts."""
    rows = rig.home / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"row {n}", "output_len": 8}) + "\n" for n in range(40)))
    shape = {"name": "chat", "num_prompts": 5, "max_concurrency": 2}
    rig.start("--kill", "after:workload.frozen")
    rig.submit(workload__kind="jsonl", workload__dataset=str(rows), workload__scenarios=[shape])
    rig.ended()
    old = rig.c.workload_digest
    halted(rig)
    rows.write_text(rows.read_text().replace("row ", "other "))
    rig.start()
    rig.client.post("/v1/campaigns/small/resume")
    mismatch = rig.seen("resume.mismatch").payload
    assert (mismatch["what"], mismatch["expected"]) == ("workload", old)
    rig.seen("workload.frozen", count=2)
    assert rig.c.workload_digest == mismatch["found"]
    cancelled(rig)


def test_stopped_while_the_implementer_works_its_one_call_is_found_again(at: At) -> None:
    """The process lives on without a daemon; the next one takes its answer, and pays for it once."""
    rig = at("patching")
    rig.behave("implementer", "wait")
    rig.start()
    run = rig.paths.runs / "small" / "implement" / "a1" / "1" / "implementer"
    rig.until((run / "pid.json").exists, "the implementer works")
    assert rig.stop() == 0
    (rig.desk / "go").touch()
    rig.until((run / "exit.json").exists, "it has answered")
    rig.start()
    rig.seen("patch.applied")
    assert rig.c.jobs["implement/a1"].attempt == 1
    assert [e.payload["attempt"] for e in rig.events("agent.finished") if e.payload["job"] == "implement/a1"] == [1]
    cancelled(rig)


def test_a_step_waits_while_the_campaign_is_paused(selecting: Rig) -> None:
    """The implementer may finish, and its gates are facts; applying the patch is a step, and held."""
    selecting.behave("implementer", "patch\nwait")
    selecting.start()
    selecting.seen("patch.proposed")
    space = str(selecting.paths.root / "workspaces" / "small" / "a1" / "tree")
    selecting.until(lambda: space in selecting.cwds(), "the implementer works")
    selecting.client.post("/v1/campaigns/small/pause", {"reason": "let me look"})
    (selecting.desk / "go").touch()
    selecting.seen("gate.evaluated", count=5)
    selecting.kill()
    selecting.start()
    selecting.until(lambda: not selecting.c.lease, "the host is free")
    assert (selecting.c.phase, selecting.events("patch.applied")) == ("paused", [])
    selecting.client.post("/v1/campaigns/small/resume")
    selecting.seen("patch.applied")
    assert selecting.c.jobs["implement/a1"].attempt == 1
    cancelled(selecting)
