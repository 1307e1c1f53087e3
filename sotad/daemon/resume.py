"""Before a campaign goes on that nobody watched: is the world still the one that its ledger describes?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from ledger.artifacts import Artifacts
from ledger.keys import PublicKey
from ledger.verify import verify
from sotad import git
from sotad.activities.traffic import Files, files_here, scenario_of
from sotad.benchmark.workload import Scenario, WorkloadError
from sotad.benchmark.workload import digest as workload_digest
from sotad.hosts.base import Host
from sotad.paths import StateDir
from statemachine.evidence import digest
from statemachine.state import JSON, Attempt, Campaign

Check = dict[str, Any]
IDENTITY = ("cpu", "cores")  # what must be the same for results to be comparable, beside the GPUs
MISSING = "not in the checkout"
MEANT = {"harness": "the code of sotad, which was upgraded or changed (harness)"}
WRITTEN = "as it was written"
SHOWN = 5
STANDING = ("applied", "accepted")  # attempts whose commit somebody still needs


async def resume_checks(c: Campaign, host: Host, artifacts: Artifacts) -> list[Check]:
    """Each check with what was expected and found; ``ok`` says whether the campaign can go on with it.

    A worktree that does not hold its commit is no mismatch: it is made anew before anything runs in it, and the
    check says so.
    """
    of_git = {name for name, framework in c.spec["frameworks"].items() if framework.get("checkout")}
    checks = [await _head(name, found) for name, found in c.workspaces.items() if name in of_git]
    if c.champion and c.target in of_git:
        checks += [check async for check in _versions(c, Path(c.spec["frameworks"][c.target]["checkout"]))]
    if c.host:
        facts = await host.probe()
        checks += [_check(f"host {key}", _text(c.host.get(key)), _text(facts.get(key))) for key in IDENTITY]
        checks.append(_gpus(c, facts))
    checks += _plan(c)
    if c.workload_digest:
        checks.append(
            _check(
                "workload", c.workload_digest, await asyncio.to_thread(_requests_of, c.spec, files_here(c, artifacts))
            )
        )
    if c.harness:
        checks.append(_check("harness", c.harness, await asyncio.to_thread(_harness)))
    return checks + await asyncio.to_thread(lambda: list(_kept(c, artifacts)))


def ledger_check(paths: StateDir) -> Check:
    """The whole ledger is as it was written: its chain, and what this daemon's key has signed of it.

    A start looks only at what came after the last snapshot, and cannot see that the end was cut off.
    """
    public = paths.keys / "ledger.pub"
    key = PublicKey.load(public) if public.exists() else None
    report = verify(paths.ledger, public_key=key, artifacts=paths.root / "looked at by name")
    found = [f"event {p.seq} {p.kind}" for p in report.problems if not p.kind.startswith("artifact_")]
    return _check("ledger", WRITTEN, ", ".join(found[:SHOWN]) or WRITTEN)


def moved(checks: Sequence[Check], campaign: str) -> JSON | None:
    """The ``campaign.blocked`` of a campaign that must not go on in the world that the checks found; None if it may."""
    found = [check for check in checks if not check["ok"]]
    wrong = [
        f"{MEANT.get(each['what'], each['what'])}: expected {each['expected']}, found {each['found']}" for each in found
    ]
    if not wrong:
        return None
    then = f"put it right, or start over in the world as it is; either way: sotactl resume {campaign}"
    return {"kind": "evidence", "reason": f"changed while no daemon ran: {'; '.join(wrong)}", "next": then}


def _gpus(c: Campaign, facts: JSON) -> Check:
    """The GPUs of the lease by index and uuid, whatever becomes of others; all of the host where none were leased."""
    if not c.gpus:
        return _check("host gpus", _text(c.host.get("gpus")), _text(facts.get("gpus")))
    expected = {gpu["index"]: uuid for uuid, gpu in c.gpus.items()}
    here = {gpu["index"]: gpu["uuid"] for gpu in facts.get("gpus") or ()}
    found = {index: here.get(index, "missing: the next lease waits for it") for index in expected}
    same = all(here.get(index, uuid) == uuid for index, uuid in expected.items())
    return {**_check("leased GPUs", _listed(expected), _listed(found)), "ok": same}


def _listed(gpus: dict[int, str]) -> str:
    return ", ".join(f"{index}: {uuid}" for index, uuid in sorted(gpus.items()))


# --- git ---------------------------------------------------------------------------------------------------


async def _head(name: str, found: JSON) -> Check:
    try:
        return _check(f"checkout {name}", found["commit"], await git.head(Path(found["repo"])))
    except git.GitError as error:
        return _check(f"checkout {name}", found["commit"], str(error))


async def _versions(c: Campaign, repo: Path) -> AsyncIterator[Check]:
    """The champion, the campaign's branch at it, the attempt under way, and the worktrees."""
    try:
        yield _check("champion commit", c.champion, await _commit(repo, c.champion))
        attempt = c.attempts.get(c.current_attempt)
        under_way = attempt is not None and attempt.status == "applied"
        moving = under_way or (c.back or c.phase) == "round.recording"  # the branch is about to be
        if c.checkpoints and not moving:
            yield _check(f"branch {c.branch}", c.champion, await _commit(repo, f"refs/heads/{c.branch}"))
        if attempt is not None and attempt.status in STANDING:
            for check in await _attempt(repo, attempt):
                yield check
        for check in await _worktrees(c, repo):
            yield check
    except git.GitError as error:
        yield _check(f"repository of {c.target}", "answers", str(error))


async def _commit(repo: Path, name: str) -> str:
    """The commit that a name stands for, or that there is none."""
    return await git.tip(repo, f"{name}^{{commit}}") or MISSING


async def _attempt(repo: Path, attempt: Attempt) -> list[Check]:
    """Its commit is there, on a branch, and changes the files that were applied: a commit's name is its content."""
    name = attempt.attempt_id
    found = await _commit(repo, attempt.commit)
    checks = [_check(f"commit of {name}", attempt.commit, found)]
    if found == attempt.commit:
        holding = (await git.git(repo, "for-each-ref", "--contains", found, "refs/heads/", "--count=1")).strip()
        checks.append(_check(f"branch of {name}", "holds its commit", "holds its commit" if holding else "is gone"))
        files = await git.changed_files(repo, attempt.base, found)
        checks.append(_check(f"files of {name}", ", ".join(sorted(attempt.files)), ", ".join(sorted(files))))
    return checks


async def _worktrees(c: Campaign, repo: Path) -> list[Check]:
    """The worktrees of the campaign's commits that git knows."""
    checks = []
    marker, known = f"/worktrees/{c.id}/", {c.champion, *(a.commit for a in c.attempts.values() if a.commit)}
    for line in (await git.git(repo, "worktree", "list", "--porcelain")).splitlines():
        folder = Path(line.removeprefix("worktree "))
        commit = next((commit for commit in known if folder.name == f"{c.target}-{commit[:12]}"), None)
        if line.startswith("worktree ") and marker in line and commit:
            found = commit if await _holds(folder, commit) else "something else: made anew before it is used"
            checks.append({"what": f"worktree {folder.name}", "expected": commit, "found": found, "ok": True})
    return checks


async def _holds(folder: Path, commit: str) -> bool:
    try:
        return folder.exists() and await git.head(folder) == commit and await git.is_clean(folder)
    except git.GitError:
        return False


# --- plan, workload, harness, artifacts -----------------------------------------------------------------------


def _plan(c: Campaign) -> Iterator[Check]:
    """The plan in force is the one that its digest names; ledgers of an earlier release keep the digest alone."""
    if c.plan:
        yield _check("plan", c.plan["digest"], digest(c.plan["plan"]))
    if c.plan and c.plan_digest:
        yield _check("plan of the loop", c.plan_digest, c.plan["digest"])


def _requests_of(spec: JSON, files: Files) -> str:
    """Digest of the workload's rule and of the requests that it makes now, as they were frozen."""
    workload = spec["workload"]
    try:
        scenarios = {
            each["name"]: Scenario(**scenario_of(spec, each, workload["seed"], files)) for each in workload["scenarios"]
        }
        requests = {name: workload_digest(scenario) for name, scenario in scenarios.items()}
    except (WorkloadError, OSError) as error:
        return str(error)
    return digest({"rule": workload, "requests": requests})


def _harness() -> str:
    """Digest of the code that measures and judges, as it is now."""
    from sotad.harness import harness_digest  # reads every file of three packages: only where it is asked for

    return harness_digest()


def _kept(c: Campaign, artifacts: Artifacts) -> Iterator[Check]:
    """The artifacts that the campaign goes on with: traces, plan, the patch under way, and what agents said."""
    named = {f"trace of the {side}": profile["trace"] for side, profile in c.profiles.items()}
    named |= {"plan document": c.plan["document"]} if c.plan.get("document") else {}
    attempt = c.attempts.get(c.current_attempt)
    named |= {f"diff of {attempt.attempt_id}": attempt.diff} if attempt and attempt.diff else {}
    named |= {f"transcript of {job}": reference for job, reference in c.transcripts.items()}
    for what, reference in named.items():
        problem = artifacts.check(reference["sha256"], reference["bytes"])
        yield _check(what, "intact", problem or "intact")


def _check(what: str, expected: str, found: str) -> Check:
    return {"what": what, "expected": expected, "found": found, "ok": expected == found}


def _text(fact: Any) -> str:
    """One text for one fact: what comes back from the ledger has its keys sorted."""
    return fact if isinstance(fact, str) else json.dumps(fact, sort_keys=True)
