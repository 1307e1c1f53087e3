"""Before a halted campaign goes on: what is verified, and what does not match is named."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from ledger.artifacts import Artifacts
from sotad.activities.freeze import freeze_workload
from sotad.daemon.resume import moved, resume_checks
from sotad.harness import harness_digest
from sotad.hosts.local import LocalHost
from statemachine.evidence import digest
from statemachine.state import Attempt, Campaign

JSON = dict[str, Any]
SHAPE = {"name": "chat", "num_prompts": 2, "input_len": 8, "output_len": 4, "shared_prefix_len": 0}
PLAN = {"goal": "faster"}


def git(repo: Path, *argv: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", "-C", str(repo), *who, *argv], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def commit(repo: Path, name: str, text: str) -> str:
    (repo / name).write_text(text)
    git(repo, "add", name)
    git(repo, "commit", "--quiet", "-m", text)
    return git(repo, "rev-parse", "HEAD")


class Halted:
    """A campaign that was paused while its patch was measured: a real repository, real artifacts, this machine."""

    def __init__(self, folder: Path, facts: JSON) -> None:
        self.repo, self.artifacts = folder / "target", Artifacts(folder / "artifacts")
        self.host = LocalHost(folder / "runs")
        self.repo.mkdir()
        git(self.repo, "init", "--quiet", "-b", "main")
        base = commit(self.repo, "engine.py", "slow")
        git(self.repo, "checkout", "--quiet", "-b", "sotad/c-a1")
        patched = commit(self.repo, "engine.py", "fast")
        git(self.repo, "checkout", "--quiet", "main")
        git(self.repo, "branch", "sotad/c", base)
        workload = {"kind": "random", "seed": 7, "scenarios": [SHAPE]}
        frameworks = {"ours": {"role": "target", "checkout": str(self.repo)}}
        spec = {"frameworks": frameworks, "workload": workload, "model": {"id": "tiny"}, "sla": {}}
        self.c = c = Campaign("c", phase="paused", back="round.revalidating", spec=spec)
        c.workspaces = {"ours": {"repo": str(self.repo), "commit": base}}
        c.champion, c.branch, c.checkpoints, c.host, c.harness = base, "sotad/c", 1, facts, harness_digest()
        c.plan = {"version": 1, "plan": PLAN, "digest": digest(PLAN), "document": self.keep("plan"), "seq": 9}
        c.plan_digest = digest(PLAN)
        c.attempts["a1"] = Attempt("a1", 0, [], "", "applied", base, 20, commit=patched, files=["engine.py"])
        c.attempts["a1"].diff, c.current_attempt = self.keep("diff"), "a1"
        c.transcripts = {"implement/a1": self.keep("said")}
        c.profiles = {"target": {"trace": self.keep("trace")}}

    def keep(self, text: str) -> JSON:
        return self.artifacts.put_bytes(text.encode())

    def lose(self, reference: JSON) -> None:
        (self.artifacts.folder / reference["sha256"][:2] / reference["sha256"]).unlink()

    async def checks(self) -> dict[str, JSON]:
        return {check["what"]: check for check in await resume_checks(self.c, self.host, self.artifacts)}

    async def wrong(self) -> dict[str, str]:
        return {what: check["found"] for what, check in (await self.checks()).items() if not check["ok"]}


@pytest.fixture
async def halted(tmp_path: Path) -> Halted:
    found = Halted(tmp_path, await LocalHost(tmp_path / "probe").probe())
    found.c.workload_digest = await frozen(found.c.spec)
    return found


async def frozen(spec: JSON) -> str:
    """The digest that the activity records."""
    recorded: list[JSON] = []

    async def once(type_: str, payload: JSON) -> None:
        recorded.append(payload)

    world = SimpleNamespace(spec=spec, c=Campaign("c", spec=spec), once=once, artifacts=None)
    await freeze_workload(world)  # type: ignore[arg-type]
    return str(recorded[0]["digest"])


async def test_an_untouched_world_passes_every_check(halted: Halted) -> None:
    """Commits, branches, plan, workload, harness, host and artifacts are all looked at, and all agree."""
    checks = await halted.checks()
    assert await halted.wrong() == {}
    expected = """checkout ours|champion commit|commit of a1|branch of a1|files of a1|plan|plan of the loop|workload
        |harness|trace of the target|plan document|diff of a1|transcript of implement/a1|host cpu"""
    assert {what.strip() for what in expected.split("|")} <= checks.keys()


class WithGpus(LocalHost):
    """This machine, as if it had the GPUs that the test says."""

    gpus: ClassVar[list[JSON]] = []

    async def probe(self) -> JSON:
        return {**await super().probe(), "gpus": self.gpus}


async def test_the_same_gpus_are_known_again_and_others_are_not(halted: Halted) -> None:
    """By what they are, not by how it is written down: a ledger sorts its keys."""
    gpu = {"index": 0, "uuid": "GPU-37290f20", "name": "NVIDIA H200", "memory_total_mib": 143_771}
    halted.c.host["gpus"] = [dict(sorted(gpu.items()))]
    halted.host = WithGpus(halted.repo.parent / "runs")
    WithGpus.gpus = [gpu]
    assert await halted.wrong() == {}
    WithGpus.gpus = [{**gpu, "uuid": "GPU-99999999"}]
    assert "GPU-99999999" in (await halted.wrong())["host gpus"]


@pytest.mark.parametrize(
    ("phase", "status", "branch_follows"),
    [
        *(("gap", "", True), ("profiling", "", True), ("selecting", "", True), ("finalizing", "", True)),
        *(("patching", "proposed", True), ("revalidating", "applied", True)),
        *(("recording", "accepted", False), ("recording", "reverted", True), ("reviewing", "accepted", True)),
    ],
)
async def test_every_phase_of_a_round_goes_on_in_an_untouched_world(
    halted: Halted, phase: str, status: str, branch_follows: bool
) -> None:
    """Wherever it was interrupted: a branch that the next step is about to move is no mismatch."""
    c = halted.c
    c.back = f"round.{phase}"
    c.attempts["a1"].status, c.current_attempt = status, "a1" if status else ""
    if status == "accepted":
        c.champion = c.attempts["a1"].commit
    if status == "accepted" and branch_follows:
        git(halted.repo, "branch", "-f", c.branch, c.champion)
    if status == "proposed":
        c.attempts["a1"].commit, c.attempts["a1"].diff = "", {}
    assert await halted.wrong() == {}
    assert "transcript of implement/a1" in await halted.checks()


async def test_a_daemon_that_starts_in_another_world_halts_the_campaign_with_all_that_is_wrong(halted: Halted) -> None:
    """One reason for everything, and the one command that goes on from there."""
    assert moved(await resume_checks(halted.c, halted.host, halted.artifacts), "c") is None
    halted.lose(halted.c.plan["document"])
    git(halted.repo, "branch", "-D", "sotad/c-a1")
    blocked = moved(await resume_checks(halted.c, halted.host, halted.artifacts), "c")
    assert blocked is not None
    assert "plan document: expected intact, found artifact_missing" in blocked["reason"]
    assert "branch of a1: expected holds its commit, found is gone" in blocked["reason"]
    assert (blocked["kind"], "sotactl resume c" in blocked["next"]) == ("evidence", True)


async def test_a_transcript_a_plan_or_a_diff_that_is_gone_is_named(halted: Halted) -> None:
    """Each lost artifact is said by what it was."""
    for reference in (halted.c.transcripts["implement/a1"], halted.c.plan["document"], halted.c.attempts["a1"].diff):
        halted.lose(reference)
    gone = "artifact_missing"
    expected = {"transcript of implement/a1": gone, "plan document": gone, "diff of a1": gone}
    assert await halted.wrong() == expected


async def test_an_altered_transcript_is_named(halted: Halted) -> None:
    """Same name, other content."""
    reference = halted.c.transcripts["implement/a1"]
    path = halted.artifacts.folder / reference["sha256"][:2] / reference["sha256"]
    path.chmod(0o644)
    path.write_text("never said")
    assert await halted.wrong() == {"transcript of implement/a1": "artifact_altered"}


async def test_a_branch_of_the_attempt_that_is_gone_is_named(halted: Halted) -> None:
    """The commit may be collected any day."""
    git(halted.repo, "branch", "-D", "sotad/c-a1")
    assert await halted.wrong() == {"branch of a1": "is gone"}


async def test_a_commit_that_is_gone_is_named(halted: Halted) -> None:
    """A rewritten repository does not hold what was measured."""
    halted.c.attempts["a1"].commit = "f" * 40
    assert await halted.wrong() == {"commit of a1": "not in the checkout"}


async def test_a_commit_with_other_files_is_named(halted: Halted) -> None:
    """What was applied is what the event says."""
    halted.c.attempts["a1"].files = ["other.py"]
    assert await halted.wrong() == {"files of a1": "engine.py"}


async def test_the_campaign_branch_has_to_be_at_the_champion_once_it_is_there(halted: Halted) -> None:
    """Between rounds only: while a patch is accepted or measured the branch is about to move."""
    git(halted.repo, "branch", "-f", "sotad/c", "sotad/c-a1")
    moved = git(halted.repo, "rev-parse", "sotad/c-a1")
    assert await halted.wrong() == {}
    halted.c.current_attempt, halted.c.back = "", "round.gap"
    assert await halted.wrong() == {"branch sotad/c": moved}
    halted.c.checkpoints = 0
    assert await halted.wrong() == {}


async def test_a_changed_plan_is_named(halted: Halted) -> None:
    """The plan in force is what its digest names."""
    halted.c.plan["plan"] = {"goal": "slower"}
    assert await halted.wrong() == {"plan": digest({"goal": "slower"})}


async def test_another_dataset_is_named(halted: Halted, tmp_path: Path) -> None:
    """The requests are made again: what came out then has to come out now."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "one", "output_len": 4}\n{"prompt": "two", "output_len": 4}\n')
    shape = {**SHAPE, "input_len": None}
    halted.c.spec["workload"] = {"kind": "jsonl", "seed": 7, "dataset": str(rows), "scenarios": [shape]}
    halted.c.workload_digest = await frozen(halted.c.spec)
    assert await halted.wrong() == {}
    rows.write_text('{"prompt": "one", "output_len": 4}\n{"prompt": "three", "output_len": 4}\n')
    assert (await halted.wrong()).keys() == {"workload"}
    rows.unlink()
    assert "rows.jsonl" in (await halted.wrong())["workload"]


async def test_another_harness_is_named(halted: Halted) -> None:
    """Code that measures otherwise must not go on with numbers of the old one."""
    halted.c.harness = "0" * 64
    assert (await halted.wrong()).keys() == {"harness"}


async def test_a_worktree_that_holds_something_else_is_said_and_no_mismatch(halted: Halted, tmp_path: Path) -> None:
    """It is made anew before anything runs in it."""
    base = halted.c.champion
    folder = tmp_path / "worktrees" / "c" / f"ours-{base[:12]}"
    git(halted.repo, "worktree", "add", "--quiet", "--detach", str(folder), base)
    assert (await halted.checks())[f"worktree {folder.name}"]["found"] == base
    (folder / "engine.py").write_text("planted")
    check = (await halted.checks())[f"worktree {folder.name}"]
    assert "made anew" in check["found"]
    assert check["ok"]


async def test_a_campaign_of_an_earlier_release_is_checked_as_far_as_it_recorded(halted: Halted) -> None:
    """No plan, harness or transcript on record: nothing to compare, nothing wrong."""
    halted.c.plan, halted.c.harness, halted.c.transcripts = {}, "", {}
    checks = await halted.checks()
    assert await halted.wrong() == {}
    assert not {"plan", "harness", "plan document"} & checks.keys()
