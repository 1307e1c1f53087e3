"""An implementer's workspace and the facts about its commit, with real git, real processes and the real machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from ledger.artifacts import Artifacts
from ledger.store import Ledger
from ledger.writer import Writer
from sotad import sandbox
from sotad.activities.context import ActivityFailed, Context
from sotad.activities.patch import implement
from sotad.activities.workspace import attempt_workspace, head_of, take_over
from sotad.config import parse_campaign
from sotad.config.sections import Agent
from sotad.daemon.journal import Journal
from sotad.hosts.local import LocalHost
from statemachine.evidence import digest
from statemachine.state import Attempt, Campaign, Job, World

JSON = dict[str, Any]
SECRET = "a-rather-long-secret-value"
PRELUDE = """
import json, os, subprocess, sys
from pathlib import Path
request, result = (Path(name) for name in sys.argv[1:])
asked = json.loads(request.read_text())
def git(*argv):
    subprocess.run(["git", *argv], check=True, timeout=30)
def commit(subject="Do less", **files):
    for name, text in files.items():
        path = Path("engine", name.replace("_py", ".py"))
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    git("add", "--all")
    git("commit", "--quiet", "-m", subject)
def answer(*files, **more):
    result.write_text(json.dumps({"summary": "less", "files": list(files), **more}))
"""
GOOD = 'commit(work_py="WORK = 1\\n")\nanswer("engine/work.py")\n'


def git(folder: Path, *argv: str) -> str:
    """Run git under an identity of the tests'."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@sotad.invalid")
    command = ["git", *identity, "-C", str(folder), *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


@dataclass
class Bench:
    """A campaign in the middle of an attempt, a checkout, and an implementer that does as it is told."""

    home: Path
    journal: Journal
    c: Campaign
    host: LocalHost
    repo: Path
    base: str
    artifacts: Artifacts = field(init=False)

    def __post_init__(self) -> None:
        self.artifacts = Artifacts(self.home / "state" / "artifacts")

    def context(self, attempt: int = 1) -> Context:
        parts = (self.journal, self.host, self.artifacts, self.home / "state")
        self.c.jobs["implement/a1"] = Job("implement/a1", "implement", attempt, "running", 2**62, 1)
        return Context("a", "implement/a1", attempt, {}, 2**62, *parts)

    async def implement(self, does: str = GOOD, attempt: int = 1, **agent: Any) -> str:
        """Have the attempt implemented by an agent that does this, and judged."""
        script = self.home / f"agent{attempt}.py"
        script.write_text(PRELUDE + textwrap.dedent(does))
        told = {"driver": "command", "argv": [sys.executable, str(script)], "timeout_s": 30, **agent}
        self.c.spec["implementer"] = Agent(**told).model_dump(mode="json")
        return await implement(self.context(attempt))

    def gates(self, attempt: int = 1) -> dict[str, str]:
        """Details of the gates that refused."""
        context = self.context(attempt)
        events = [event for name in GATE_NAMES if (event := context.recorded(f"gate-{name}"))]
        assert [event.payload["gate"] for event in events] == list(GATE_NAMES)
        return {e.payload["gate"]: e.payload["detail"] for e in events if not e.payload["passed"]}

    def branch(self, name: str = "sotad/a-a1") -> str:
        """Where a branch of the checkout is; empty without it."""
        return git(self.repo, "for-each-ref", "--format=%(objectname)", f"refs/heads/{name}")

    @property
    def tree(self) -> Path:
        return self.home / "state" / "workspaces" / "a" / "a1" / "tree"


GATE_NAMES = (
    *("commit_exists", "clean_tree", "campaign_branch", "path_boundary", "harness_untouched", "refs_untouched"),
    *("files_as_claimed", "no_secrets", "large_files", "provenance", "nothing_left_running", "inside_worktree"),
)


@pytest.fixture
async def bench(tmp_path: Path, example: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("GIVEN_PASSWORD", SECRET)
    repo, state = tmp_path / "target", tmp_path / "state"
    state.mkdir()
    (repo / "engine").mkdir(parents=True)
    (repo / "engine" / "work.py").write_text("# SPDX-License-Identifier: Apache-2.0\nWORK = 9\n")
    (repo / ".gitignore").write_text("__pycache__/\n")
    git(repo, "init", "--quiet", "--initial-branch=main")
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "-m", "Begin")
    base = git(repo, "rev-parse", "HEAD")
    ledger = Ledger.open(state / "ledger.db")
    ledger.claim_epoch()
    writer = Writer(ledger)
    journal = Journal(ledger, writer, World())
    spec = parse_campaign(example, "test.yaml", Path("/"))
    await journal.record("a", "campaign.created", {"spec": spec, "spec_digest": digest(spec), "source": "test"})
    c = journal.world.campaigns["a"]
    for framework in c.spec["frameworks"].values():
        framework["checkout"] = None
    c.spec["frameworks"][c.target] |= {"checkout": str(repo), "paths": ["engine/*"], "tests": ["-m", "engine.own"]}
    c.workspaces[c.target] = {"repo": str(repo), "commit": base}
    c.phase, c.champion, c.base, c.branch, c.harness = "round.patching", base, base, "sotad/a", ""
    c.tables = {"rows": [{"row_id": "k1", "name": "gemm"}]}
    c.attempts["a1"] = Attempt("a1", 0, ["k1"], "too much work", "proposed", base, 1)
    c.current_attempt = "a1"
    yield Bench(tmp_path, journal, c, LocalHost(state / "runs"), repo, base)
    journal.close()
    await writer.close()


async def test_a_checkout_in_the_state_directory_lends_its_objects(bench: Bench) -> None:
    """As the demo's does: the implementer, who sees nothing else of that folder, can commit on top of them."""
    inside = bench.home / "state" / "demo" / "target"
    inside.parent.mkdir()
    bench.repo = bench.repo.rename(inside)
    bench.c.spec["frameworks"][bench.c.target]["checkout"] = str(inside)
    bench.c.workspaces[bench.c.target]["repo"] = str(inside)
    look = f"""
try:
    sys.exit(Path({str(inside / "engine" / "work.py")!r}).read_text())
except PermissionError:
    pass
"""
    await bench.implement(look + GOOD)
    assert (bench.gates(), bench.branch() != bench.base) == ({}, True)


async def test_a_good_commit_is_applied_and_gets_its_branch_in_the_checkout(bench: Bench) -> None:
    """Summary, twelve gates and the patch are on record; the checkout itself stays as it was."""
    assert await bench.implement() == "applied"
    attempt = bench.c.attempt
    assert (bench.gates(), attempt.status, attempt.files) == ({}, "applied", ["engine/work.py"])
    assert bench.branch() == attempt.commit != bench.base
    assert git(bench.repo, "log", "-1", "--format=%s %an", attempt.commit) == "Do less sotad implementer"
    assert (git(bench.repo, "status", "--porcelain"), git(bench.repo, "rev-parse", "HEAD")) == ("", bench.base)
    assert b"+WORK = 1" in bench.artifacts.read(attempt.diff["sha256"])
    assert attempt.summary["files"] == ["engine/work.py"]
    confined = bench.context().recorded("gate-inside_worktree")
    assert confined is not None
    expected = "not enforced" if sandbox.available() else "refused by the kernel"
    assert expected in confined.payload["detail"]


async def test_an_entry_after_a_crash_repeats_nothing(bench: Bench) -> None:
    """Entered again, the attempt ends as it did: same commit, same gates, one run, one branch."""
    await bench.implement()
    before = (bench.journal.world.seq, bench.branch())
    assert await implement(bench.context()) == "done"
    assert (bench.journal.world.seq, bench.branch()) == before


async def test_an_entry_between_the_branch_and_the_record_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the branch was set, the next entry finds it and records the patch."""

    async def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sotad.activities.patch._apply", killed)
    with pytest.raises(KeyboardInterrupt):
        await bench.implement()
    monkeypatch.undo()
    assert await implement(bench.context()) == "applied"
    assert bench.branch() == bench.c.attempt.commit


@pytest.mark.parametrize(
    ("does", "gate", "says"),
    [
        ("answer()", "commit_exists", "no commit on top"),
        pytest.param(
            'Path("engine/new.py").write_text("x")\n' + GOOD + 'Path("left").write_text("x")',
            "clean_tree",
            "left",
            marks=pytest.mark.slow,
        ),
        (
            GOOD
            + 'git("update-index", "--assume-unchanged", "engine/work.py")\nPath("engine/work.py").write_text("2")',
            "clean_tree",
            "engine/work.py",
        ),
        ('git("checkout", "--quiet", "-b", "mine")\n' + GOOD, "campaign_branch", "on mine"),
        pytest.param(
            GOOD + 'git("checkout", "--quiet", "--detach")', "campaign_branch", "on no branch", marks=pytest.mark.slow
        ),
        pytest.param('Path("README").write_text("x")\n' + GOOD, "path_boundary", "README", marks=pytest.mark.slow),
        ('commit(own_py="x = 1\\n")\nanswer("engine/own.py")', "path_boundary", "engine/own.py"),
        (
            'Path("engine/way").symlink_to("/tmp")\ncommit()\nanswer("engine/way")',
            "path_boundary",
            "engine/way, a link",
        ),
        (
            'git("mv", "engine/work.py", "moved.py")\ncommit()\nanswer("engine/work.py", "moved.py")',
            "path_boundary",
            "moved.py",
        ),
        pytest.param(
            GOOD + 'answer("engine/work.py", "engine/other.py")',
            "files_as_claimed",
            "named but not changed: engine/other.py",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            GOOD + "answer()", "files_as_claimed", "changed but not named: engine/work.py", marks=pytest.mark.slow
        ),
        (
            f"commit(work_py=\"KEY = '{SECRET}'\\n\")\n" + GOOD,
            "no_secrets",
            "engine/work.py: the value of GIVEN_PASSWORD",
        ),
        pytest.param(
            f'commit(work_py="x = 1", subject="use {SECRET}")\n' + GOOD,
            "no_secrets",
            "a commit's message",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'commit(work_py="-----BEGIN RSA PRIVATE " + "KEY-----")\n' + GOOD,
            "no_secrets",
            "a private key",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'commit(big_py="x = 1\\n" * 2001)\nanswer("engine/big.py")',
            "large_files",
            "engine/big.py: 2001 added lines",
            marks=pytest.mark.slow,
        ),
        (
            'commit(big_py="x" * (1 << 20) + "x")\ngit("rm", "-q", "engine/big.py")\n' + GOOD,
            "large_files",
            "engine/big.py",
        ),
        pytest.param(
            'Path("engine/lib.so").write_bytes(bytes(range(256)))\ncommit()\nanswer("engine/lib.so")',
            "large_files",
            "binary",
            marks=pytest.mark.slow,
        ),
        (
            'commit(new_py="# Copyright (c) 2024 Some Corp\\nx = 1\\n")\nanswer("engine/new.py")',
            "provenance",
            "engine/new.py",
        ),
        pytest.param(
            'commit(new_py="# adapted from vllm\\nx = 1\\n")\nanswer("engine/new.py")',
            "provenance",
            "engine/new.py",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            GOOD + 'answer("engine/work.py", provenance=[{"path": "engine/work.py", "source": "x", "licence": ""}])',
            "provenance",
            "without source or licence: engine/work.py",
            marks=pytest.mark.slow,
        ),
    ],
)
async def test_each_gate_refuses_what_it_is_for(bench: Bench, does: str, gate: str, says: str) -> None:
    """A commit with one fault is refused by that gate, which names the fault; the attempt gets its branch."""
    said = await bench.implement(does)
    refused = bench.gates()
    assert says in refused[gate], refused
    assert said == f"refused by {next(iter(refused))}"
    assert bench.c.attempt.status == "proposed"
    withheld = gate in ("commit_exists", "no_secrets", "large_files")
    assert (bench.branch() == bench.base) == (withheld or bench.branch() == "")
    assert bench.branch() != ""


@pytest.mark.parametrize("header", ["# SPDX-License-Identifier: Apache-2.0", "# Copyright (c) 2024 Some Corp"])
async def test_the_projects_own_header_and_declared_sources_pass(bench: Bench, header: str) -> None:
    """A header that the base has already is no mark; a foreign one is fine with source and licence."""
    declared = '[{"path": "engine/new.py", "source": "somewhere@1", "licence": "MIT"}]'
    sources = "[]" if "SPDX" in header else declared
    does = f'commit(new_py="{header}\\nx = 1\\n")\nanswer("engine/new.py", provenance={sources})'
    assert (await bench.implement(does), bench.gates()) == ("applied", {})


async def test_no_secret_and_no_giant_gets_into_the_checkout(bench: Bench) -> None:
    """What those gates refuse stays out of the user's objects: the branch is at the base."""
    await bench.implement(f'commit(work_py="KEY = \'{SECRET}\'\\n")\nanswer("engine/work.py")')
    commit = git(bench.tree, "rev-parse", "HEAD")
    objects = git(bench.repo, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
    assert (commit in objects, bench.branch()) == (False, bench.base)
    assert SECRET not in json.dumps([event.payload for event in bench.journal._reader.events()])


@pytest.mark.skipif(bool(sandbox.available()), reason="no Landlock here")
async def test_an_agent_cannot_write_to_the_checkout_or_read_the_ledger(bench: Bench) -> None:
    """What it tries outside of its workspace fails in its own hands, and nothing of it is there afterwards."""
    does = f"""
        refused = []
        for attempt in (
            lambda: Path({str(bench.repo)!r}, "engine", "work.py").write_text("mine"),
            lambda: Path({str(bench.repo)!r}, ".git", "hooks", "post-checkout").write_text("mine"),
            lambda: git("-C", {str(bench.repo)!r}, "branch", "mine"),
            lambda: git("push", "--quiet", {str(bench.repo)!r}, "HEAD:refs/heads/mine"),
            lambda: Path({str(bench.home)!r}, "state", "ledger.db").read_bytes(),
            lambda: Path("../before.json").write_text("[]"),
            lambda: Path("../seen.git/config").write_text("mine"),
        ):
            try:
                attempt()
            except (PermissionError, subprocess.CalledProcessError):
                refused.append(True)
        assert len(refused) == 7, refused
        """
    assert await bench.implement(textwrap.dedent(does) + GOOD) == "applied"
    assert git(bench.repo, "for-each-ref", "--format=%(refname)").split() == [
        "refs/heads/main",
        "refs/heads/sotad/a-a1",
    ]


@pytest.mark.parametrize(
    ("place", "does", "gate"),
    [
        ("checkout", 'git("-C", REPO, "branch", "mine")', "refs_untouched"),
        ("checkout", 'git("-C", REPO, "tag", "v1")', "refs_untouched"),
        ("checkout", 'git("push", "--quiet", REMOTE, "HEAD:refs/heads/mine")', "refs_untouched"),
        ("checkout", 'Path(REPO, "engine", "work.py").write_text("mine")', "harness_untouched"),
        ("checkout", 'Path(DATASET).write_text("easier")', "harness_untouched"),
    ],
)
async def test_without_a_sandbox_the_gates_see_it(bench: Bench, place: str, does: str, gate: str) -> None:
    """Where nothing keeps an agent inside, what it moved outside refuses its commit, and the gate says which."""
    remote, dataset = bench.home / "remote.git", bench.home / "dataset.jsonl"
    git(bench.home, "init", "--quiet", "--bare", str(remote))
    git(bench.repo, "remote", "add", "origin", str(remote))
    dataset.write_text("hard")
    bench.c.spec["workload"]["dataset"] = str(dataset)
    names = f"REPO, REMOTE, DATASET = {str(bench.repo)!r}, {str(remote)!r}, {str(dataset)!r}\n"
    await bench.implement(names + GOOD + does, sandbox="off")
    assert list(bench.gates()) == [gate]
    inside = bench.context().recorded("gate-inside_worktree")
    assert inside is not None
    assert inside.payload["detail"] == "not enforced: the campaign switched the sandbox off"


async def test_what_a_fetch_and_other_campaigns_do_meanwhile_is_no_fault(bench: Bench) -> None:
    """Remote-tracking refs and branches of other campaigns may move; our own campaign's may not."""
    bench.journal.world.campaigns["b"] = Campaign("b", branch="sotad/a-b")
    refs = ("refs/remotes/origin/main", "refs/heads/sotad/a-b", "refs/heads/sotad/a-b-a1")
    does = "".join(f'git("-C", {str(bench.repo)!r}, "update-ref", "{ref}", "{bench.base}")\n' for ref in refs)
    await bench.implement(does + GOOD, sandbox="off")
    assert bench.gates() == {}


async def test_what_the_agent_leaves_running_is_ended(bench: Bench) -> None:
    """A server that it forgot, in a session of its own, is gone before anything is judged or measured."""
    does = 'subprocess.Popen(["sleep", "300"], start_new_session=True, env={})\n'
    assert (await bench.implement(does + GOOD), bench.gates()) == ("applied", {})
    left = [process.info["cwd"] for process in psutil.process_iter(["cwd"])]
    assert str(bench.tree) not in left


async def test_a_changed_harness_is_refused(bench: Bench) -> None:
    """A commit is judged by the code that measured what it is compared with, or not at all."""
    bench.c.harness = "0" * 64
    await bench.implement()
    assert bench.gates() == {"harness_untouched": "changed: the code of sotad"}


TRICKS = {
    "fsmonitor": 'git("config", "core.fsmonitor", PROGRAM)',
    "filter": 'git("config", "filter.x.clean", PROGRAM)\ngit("config", "filter.x.smudge", PROGRAM)\n'
    'git("config", "filter.x.required", "false")\nPath(".git/info").mkdir(exist_ok=True)\n'
    'Path(".git/info/attributes").write_text("* filter=x diff=x\\n")',
    "textconv": 'git("config", "diff.x.textconv", PROGRAM)\ngit("config", "diff.external", PROGRAM)\n'
    'Path(".git/info").mkdir(exist_ok=True)\nPath(".git/info/attributes").write_text("* diff=x\\n")',
    "hooks": 'git("config", "core.hooksPath", os.path.dirname(PROGRAM))',
    "upload pack": 'git("config", "uploadpack.packObjectsHook", PROGRAM)',
    "include": 'git("config", "-f", ".git/more", "core.fsmonitor", PROGRAM)\ngit("config", "include.path", "more")',
    "submodule": 'git("init", "-q", "engine/sub")\ngit("-C", "engine/sub", "config", "core.fsmonitor", PROGRAM)',
}


QUICK = ("include", "filter", "hooks")


@pytest.mark.parametrize(
    "trick", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in TRICKS]
)
async def test_nothing_that_the_agent_configured_runs_in_the_daemons_hands(bench: Bench, trick: str) -> None:
    """Its repository's configuration can name any program; none of them is run when its commit is judged."""
    hooks = bench.home / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "program", "post-index-change"):
        (hooks / name).write_text(f'#!/bin/sh\n[ "$SOTAD_RUN" ] || touch {bench.home}/ran\ncat\n')
        (hooks / name).chmod(0o755)
    names = f"PROGRAM = {str(hooks / 'program')!r}\n"
    await bench.implement(names + GOOD + TRICKS[trick])
    assert not (bench.home / "ran").exists()
    assert set(bench.gates()) <= {"clean_tree"}
    assert bench.branch() == git(bench.tree, "-c", "core.fsmonitor=", "rev-parse", "HEAD")
    if trick in ("fsmonitor", "include"):  # with a git that believes the workspace it is run
        git(bench.tree, "status")
        assert (bench.home / "ran").exists()


@pytest.mark.parametrize(
    "does",
    [
        'import shutil\nshutil.rmtree(".git")',
        'Path(".git/HEAD").unlink()\nos.mkfifo(".git/HEAD")',
        'Path(".git/HEAD").write_text("ref: refs/heads/../../config")',
        'import shutil\nshutil.rmtree(".git/objects")',
        'Path(".git/HEAD").write_text("0" * 40)',
    ],
)
async def test_a_broken_workspace_is_refused(bench: Bench, does: str) -> None:
    """Whatever is left of its repository, the gates say that there is no commit to take; nothing hangs or fails."""
    await bench.implement(GOOD + does)
    assert "cannot be taken over" in bench.gates()["commit_exists"]
    assert bench.branch() == bench.base


async def test_a_forged_object_is_refused(bench: Bench) -> None:
    """A file under another object's name does not get past: every object is hashed when it is taken over."""
    forge = """
        import zlib
        blob = subprocess.check_output(["git", "rev-parse", "HEAD:engine/work.py"], text=True).strip()
        path = Path(".git/objects", blob[:2], blob[2:])
        path.chmod(0o644)
        path.write_bytes(zlib.compress(b"blob 9\\0WORK = 7\\n"))
        """
    await bench.implement(GOOD + textwrap.dedent(forge))
    assert "cannot be taken over" in bench.gates()["commit_exists"] or "clean_tree" in bench.gates()
    assert bench.c.attempt.status == "proposed"


async def test_rewritten_history_is_refused(bench: Bench) -> None:
    """An amended champion is not built upon."""
    await bench.implement('git("commit", "--quiet", "--amend", "-m", "Begin anew")\n' + GOOD)
    assert "history was rewritten" in bench.gates()["commit_exists"]


FIX = 'assert asked["findings"]\nPath("engine/work.py").write_text("WORK = 2\\n")\n'
FIXES = {
    "honest": (FIX + 'git("commit", "--quiet", "--all", "-m", "As the review asks")\n', "applied"),
    "amends": (FIX + 'git("commit", "--quiet", "--all", "--amend", "-m", "Do less")\n', "refused by commit_exists"),
    "squashes": (
        FIX + 'git("reset", "--quiet", "--soft", "HEAD~1")\ngit("commit", "--quiet", "--all", "-m", "Do less")\n',
        "refused by commit_exists",
    ),
}


@pytest.mark.parametrize("how", FIXES)
async def test_a_fix_builds_on_the_commit_that_was_reviewed(bench: Bench, how: str) -> None:
    """After a review's findings: a commit on top passes every gate, one in place of what was reviewed is refused."""
    await bench.implement()
    reviewed = bench.c.attempt.commit
    bench.c.attempt.status, bench.c.champion, bench.c.phase = "accepted", reviewed, "round.patching"
    fix = Attempt("a1-fix1", 0, ["k1"], "too much work", "proposed", reviewed, 9)
    fix.kind, fix.parent, fix.findings = "fix", "a1", [{"severity": "P0", "text": "a step is left out"}]
    bench.c.attempts["a1-fix1"], bench.c.current_attempt = fix, "a1-fix1"
    does, came = FIXES[how]
    assert await bench.implement(does + 'answer("engine/work.py")\n', attempt=2) == came
    assert bench.branch() == reviewed
    refused = bench.gates(2)
    assert refused == {} if how == "honest" else "history was rewritten" in refused["commit_exists"]


async def test_a_question_waits_for_a_person(bench: Bench) -> None:
    """It is on record under a subject of its own, no gate was asked, and the next try is told the answer."""
    assert await bench.implement('answer(question="which of the two?")') == "asked"
    assert await implement(bench.context()) == "asked"
    (subject,) = bench.c.waits
    assert (subject, bench.c.waits[subject]["text"]) == ("question:implement-a1-1", "which of the two?")
    assert not bench.c.attempt.gates
    said = {"subject": subject, "answer": "the first"}
    await bench.journal.record("a", "human.answered", said, actor="operator:test")
    told = 'assert asked["answers"]["question:implement-a1-1"]["answer"] == "the first"\n'
    assert await bench.implement(told + GOOD, attempt=2) == "applied"
    assert bench.branch("sotad/a-a1-try2") == bench.c.attempt.commit


async def test_finalizing_without_a_change_is_said(bench: Bench) -> None:
    """Nothing to simplify is on record as the commit that is not there, without a branch; the machine goes on."""
    bench.c.attempt.kind = "finalize"
    said = await bench.implement("""assert asked["action"] == "finalize"\nanswer()""")
    assert said == "nothing to simplify", bench.gates()
    assert (bench.c.attempt.gates, bench.branch()) == ({"commit_exists": False}, "")


async def test_a_failed_try_leaves_nothing_for_the_next(bench: Bench) -> None:
    """A crash is a failure of the try; the next one starts from the champion in a workspace of its own."""
    with pytest.raises(ActivityFailed):
        await bench.implement('commit(work_py="half\\n")\nsys.exit(4)')
    assert (
        await bench.implement('assert "half" not in Path("engine/work.py").read_text()\n' + GOOD, attempt=2)
        == "applied"
    )
    assert git(bench.repo, "rev-list", "--count", f"{bench.base}..{bench.c.attempt.commit}") == "1"


async def test_a_branch_of_somebody_else_is_left_alone(bench: Bench) -> None:
    """The name is taken: the try fails before an agent is asked, and says what to do."""
    git(bench.repo, "commit", "--quiet", "--allow-empty", "-m", "Another")
    git(bench.repo, "branch", "sotad/a-a1")
    git(bench.repo, "reset", "--quiet", "--hard", bench.base)
    theirs = bench.branch()
    with pytest.raises(ActivityFailed, match="is of another campaign"):
        await bench.implement()
    assert bench.branch() == theirs != bench.base
    assert not await bench.context().begun()


async def test_a_workspace_has_no_way_to_the_outside(bench: Bench) -> None:
    """No remote, no other branch, no tag, no hook; the commit and its history are there."""
    git(bench.repo, "tag", "v1")
    space = await attempt_workspace(bench.context(), "a1", bench.base)
    assert git(space.folder, "remote") == ""
    assert git(space.folder, "for-each-ref", "--format=%(refname)") == "refs/heads/sotad/a-a1"
    assert git(space.folder, "log", "--format=%s") == "Begin"
    assert not list(space.folder.glob(".git/hooks/*"))
    assert (await take_over(space)).commit == bench.base


async def test_a_shallow_checkout_will_do(bench: Bench, tmp_path: Path) -> None:
    """A checkout without its whole history is worked on like any other."""
    git(bench.repo, "commit", "--quiet", "--allow-empty", "-m", "Another")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{bench.repo}", str(shallow))
    head = git(shallow, "rev-parse", "HEAD")
    bench.c.spec["frameworks"][bench.c.target]["checkout"] = str(shallow)
    bench.c.workspaces[bench.c.target] = {"repo": str(shallow), "commit": head}
    bench.c.champion = bench.c.attempt.base = head
    assert (await bench.implement(), bench.gates()) == ("applied", {})
    assert git(shallow, "rev-parse", "sotad/a-a1") == bench.c.attempt.commit


def test_a_head_that_is_no_head_is_read_as_none(tmp_path: Path) -> None:
    """Links, pipes and paths that lead out are not followed."""
    place = tmp_path / "git"
    (place / "refs" / "heads").mkdir(parents=True)
    (place / "HEAD").write_text("ref: refs/heads/main\n")
    (place / "packed-refs").write_text("# pack-refs with: peeled\n" + "a" * 40 + " refs/heads/main\n")
    assert head_of(place) == ("main", "a" * 40)
    (place / "refs" / "heads" / "main").write_text("b" * 40 + "\n")
    assert head_of(place) == ("main", "b" * 40)
    (tmp_path / "link").symlink_to(place)
    assert head_of(tmp_path / "link") == ("", "")
    (place / "HEAD").unlink()
    os.mkfifo(place / "HEAD")
    assert head_of(place) == ("", "")
