"""One patch attempt: proposal, implementation in a workspace of its own, gates, and the target's tests."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ledger.reader import Reader
from sotad import git
from sotad.activities import trees
from sotad.activities.agents import ask_agent
from sotad.activities.context import ActivityFailed, Context
from sotad.activities.gates import establish, remember
from sotad.activities.guard import guarded
from sotad.activities.knowledge import notes_for
from sotad.activities.workspace import Taken, Workspace, attempt_workspace, lent, publish, take_over, taken_before
from sotad.activities.worktrees import checkout
from sotad.gates import GATES, Gate, Outcome, commit_exists, evaluate, own_tests, passed_in
from sotad.redact import redactor
from sotad.shim import LOG_LIMIT_BYTES
from statemachine import evidence, loop, plan
from statemachine.state import JSON

ASKED = "asked"
WITHHELD = ("no_secrets", "large_files")  # what they refuse does not get into the user's repository
LONGEST_NOTES = 20_000
MOST_PULLS = 20
READ = ("history.noted", "openpr.scanned")
Said = TypeVar("Said", bound=BaseModel)


class Idea(BaseModel):
    """Where else an improvement may come from; ``licence`` of its source, ``applicability`` to these rows."""

    origin: str
    reference: str
    licence: str
    applicability: str


class Source(BaseModel):
    """Where something that was taken over into a file comes from."""

    path: str = ""
    source: str
    licence: str


class Proposal(BaseModel):
    """What an implementer answers when it is asked for an idea; more keys are its own affair."""

    decline: str = ""
    rows: list[str] = []
    hypothesis: str = ""
    contract: JSON | None = None
    ideas: list[Idea] = []
    question: str = ""


class Implementation(BaseModel):
    """What an implementer says of what it did; the gates compare it with what is there."""

    summary: str = ""
    files: list[str] = []
    tests: list[str] = []
    provenance: list[Source] = []
    complete: bool = False
    question: str = ""


def said(model: type[Said], answer: JSON) -> Said:
    """The answer in its form.

    Raises:
        ActivityFailed: it has not got it; the text names the field.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"])
        raise ActivityFailed(f"the implementer's {model.__name__.lower()}: {where}: {found['msg']}") from None


# --- proposing ------------------------------------------------------------------------------------------------


async def propose(ctx: Context) -> str:
    """Ask the implementer which of the open rows it can improve, and how; a refusal settles those rows."""
    if done := ctx.recorded("outcome"):
        return done.type
    if ctx.recorded("question"):
        return ASKED
    rows = evidence.plausible_rows(ctx.c)
    about_rows = await notes_for(ctx, _rows(ctx, rows))
    request = {**proposal_request(ctx, rows), **await asyncio.to_thread(_history, ctx), "row_notes": about_rows}
    folder = Path(await checkout(ctx, ctx.c.target, ctx.c.champion))
    answer = said(Proposal, await ask_agent(ctx, "implementer", request, folder))
    if answer.question:
        return await _ask(ctx, answer.question)
    if answer.ideas:
        ideas = {"round": ctx.c.round, "ideas": [idea.model_dump() for idea in answer.ideas]}
        await ctx.once("idea.recorded", ideas, actor=_actor(ctx))
    cited = [row for row in answer.rows if row in rows]
    if answer.decline or not cited:
        reason = answer.decline or "the proposal cites no open row"
        await ctx.once("idea.rejected", {"round": ctx.c.round, "rows": rows, "reason": reason}, "outcome")
        return f"declined: {reason}"
    proposed = {
        "round": ctx.c.round,
        "attempt_id": f"a{len(ctx.c.attempts) + 1}",
        "citations": cited,
        "hypothesis": answer.hypothesis,
        "contract": answer.contract,
    }
    await ctx.once("patch.proposed", proposed, "outcome", actor=_actor(ctx))
    return answer.hypothesis


def proposal_request(ctx: Context, rows: list[str]) -> JSON:
    """What the implementer is told when it is asked for the next change: evidence, what was tried, what is owed."""
    c = ctx.c
    return {
        **_common(ctx),
        "action": "propose",
        "rows": _rows(ctx, rows),
        "statement": c.rootcause["statement"],
        "gaps": c.gaps[-1:],
        "tried": [{"hypothesis": a.hypothesis, "status": a.status, "gate": a.refused_by} for a in c.attempts.values()],
        "rejected": c.rejected_rows,
        "ideas": c.ideas,
        "recovery": c.recovery,
        "weak": c.weak if loop.research_owed(c) else 0,
    }


def _common(ctx: Context) -> JSON:
    """What every request of an implementer holds. Nothing of the held-out workload."""
    own = ctx.c.plan.get("plan") or {}
    questions = {name: found for name, found in ctx.c.answers.items() if name.startswith("question:")}
    return {
        "campaign": ctx.campaign,
        "target": ctx.c.target,
        "round": ctx.c.round,
        "goal": own.get("goal", ""),
        "criteria": own.get("criteria", []),
        "boundary": plan.boundary(own) if own else [],
        "paths": ctx.spec["frameworks"][ctx.c.target]["paths"],
        "issues": loop.open_issues(ctx.c),
        "answers": questions,
    }


def _rows(ctx: Context, names: list[str]) -> list[JSON]:
    return [row for row in ctx.c.tables.get("rows", []) if row["row_id"] in names]  # none after a fresh intake


def _history(ctx: Context) -> JSON:
    """What was read before patching: the notes, and the pull requests that were open."""
    with Reader(ctx.state_dir / "ledger.db") as reader:
        last = {event.type: event.payload for event in reader.events(campaign=ctx.campaign) if event.type in READ}
    noted, scanned = (last.get(type_, {}) for type_ in READ)
    notes = ctx.artifacts.read(noted["notes"]["sha256"]).decode(errors="replace") if noted else ""
    return {"notes": notes[:LONGEST_NOTES], "pulls": scanned.get("found", [])[:MOST_PULLS]}


async def _ask(ctx: Context, text: str) -> str:
    """Put a question of the implementer to a person; the campaign waits, then this job is done anew."""
    subject = f"question:{ctx.job.replace('/', '-')}-{ctx.attempt}"
    question = {"subject": subject, "text": text, "by": "implementer"}
    await ctx.once("human.question", question, "question", actor=_actor(ctx))
    return ASKED


def _actor(ctx: Context) -> str:
    return f"implementer:{ctx.spec['implementer']['driver']}"


# --- implementing ----------------------------------------------------------------------------------------------


async def implement(ctx: Context) -> str:
    """Let the implementer commit in the attempt's workspace, then judge the commit by the mechanical gates."""
    if ctx.recorded("question"):
        return ASKED
    if ctx.recorded("patch.applied"):
        return "done"
    attempt = ctx.c.attempt
    space = await attempt_workspace(ctx, attempt.attempt_id, attempt.base)
    if not ctx.recorded("summary.recorded"):
        await remember(ctx, space)
        borrowed = [await lent(space)]
        given = await ask_agent(ctx, "implementer", work_request(ctx, space), space.folder, readable=borrowed)
        answer = said(Implementation, given)
        if answer.question:
            return await _ask(ctx, answer.question)
        await _summarize(ctx, answer)
    judged = ctx.recorded(f"gate-{GATES[0].__name__}")  # what was judged counts, not what lies there by now
    taken = await (taken_before(space) if judged else take_over(space))
    gates = await _judged(ctx, space, taken)
    if gates is None:
        return "nothing to simplify"
    refused = [gate.gate for gate in gates if not gate.passed]
    kept = space.base if taken.trouble or any(gate in refused for gate in WITHHELD) else taken.commit
    await publish(space, kept)
    if refused:
        return f"refused by {refused[0]}"
    await _apply(ctx, space, taken.commit)
    return "applied"


def work_request(ctx: Context, space: Workspace) -> JSON:
    """What the implementer is told when it is to change something."""
    attempt = ctx.c.attempt
    return {
        **_common(ctx),
        "action": "finalize" if attempt.kind == "finalize" else "implement",
        "kind": attempt.kind,
        "attempt_id": attempt.attempt_id,
        "branch": space.branch,
        "hypothesis": attempt.hypothesis,
        "contract": attempt.contract,
        "rows": _rows(ctx, attempt.citations),
        "findings": attempt.findings,
    }


async def _summarize(ctx: Context, answer: Implementation) -> None:
    attempt = ctx.c.attempt.attempt_id
    document = await ctx.keep_json(answer.model_dump(), f"humanize/summary-{attempt}-{ctx.attempt}.json")
    known = answer.model_dump(include={"files", "tests", "provenance", "complete"})
    summary = {**known, "attempt_id": attempt, "text": answer.summary, "document": document}
    await ctx.once("summary.recorded", summary, actor=_actor(ctx))


async def _judged(ctx: Context, space: Workspace, taken: Taken) -> list[Gate] | None:
    """Every gate, as recorded; None when there was nothing to simplify: that there is no commit is on record then.

    Gates that are on record stand: what they looked at may have been changed since, by ourselves.
    """
    names = [gate.__name__ for gate in GATES]
    if not all(ctx.recorded(f"gate-{name}") for name in names):
        facts = await establish(ctx, space, taken)
        untouched = facts.commit == facts.base and not facts.trouble and not facts.dirty
        if ctx.c.attempt.kind == "finalize" and untouched:
            await _record_gate(ctx, commit_exists(facts))
            return None
        for gate in evaluate(facts):
            await _record_gate(ctx, gate)
    events = [ctx.recorded(f"gate-{name}") for name in names]
    return [Gate(**{key: e.payload.get(key, "") for key in Gate._fields}) for e in events if e]


async def _record_gate(ctx: Context, gate: Gate) -> None:
    clean = redactor(os.environ, ctx.spec["implementer"]["env_from"])  # names of files stand in details
    evaluated = {"attempt_id": ctx.c.attempt.attempt_id, **clean(gate._asdict())}
    await ctx.once("gate.evaluated", evaluated, f"gate-{gate.gate}")


async def _apply(ctx: Context, space: Workspace, commit: str) -> None:
    attempt, repo = ctx.c.attempt, space.repo
    diff = await ctx.keep((await git.diff(repo, attempt.base, commit)).encode(), f"patches/{attempt.attempt_id}.diff")
    applied = {
        "attempt_id": attempt.attempt_id,
        "base": attempt.base,
        "commit": commit,
        "branch": space.branch,
        "files": await git.changed_files(repo, attempt.base, commit),
        "diff": diff,
        "subject": (await git.git(repo, "log", "-1", "--format=%s", commit)).strip(),
    }
    await ctx.once("patch.applied", applied, actor=_actor(ctx))


# --- testing ----------------------------------------------------------------------------------------------------


async def _to_test(ctx: Context, commit: str) -> str:
    """A copy of the worktree for tests to write in: what they leave is neither served nor shown to git."""
    if not ctx.host.here:
        return await trees.lay_out(ctx, _repo(ctx), ctx.c.target, commit, "tests")
    folder = ctx.path("tests", "tree")
    if (await ctx.host.status(ctx.run_id("tests"))).phase == "absent":
        tree = await checkout(ctx, ctx.c.target, commit)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await asyncio.to_thread(shutil.copytree, tree, folder, symlinks=True)
    return folder


async def run_base_tests(ctx: Context) -> str:
    """Run the target's own tests once on the commit that the loop began at: a patch is held to how many pass there.

    Raises:
        ActivityFailed: they did not come to an end by themselves.
    """
    run = await _run_tests(ctx, ctx.c.base, "tests/base.log")
    if run["exit_code"] is None:
        raise ActivityFailed("the target's tests do not come to their end on the base")
    await ctx.once("base.tested", {"commit": ctx.c.base, **run})
    return f"exit code {run['exit_code']}, {run['counted']} passed"


def _repo(ctx: Context) -> Path:
    return Path(ctx.spec["frameworks"][ctx.c.target]["checkout"])


async def run_tests(ctx: Context) -> str:
    """Run the target's own tests on the patched commit; the daemon's run counts, not the agent's word."""
    attempt = ctx.c.attempt
    run = await _run_tests(ctx, attempt.commit, f"tests/{attempt.attempt_id}.log")
    base = Outcome(ctx.c.base_tests.get("exit_code"), ctx.c.base_tests.get("counted"))
    gate = own_tests(Outcome(run["exit_code"], run["counted"]), base)
    if not ctx.spec["frameworks"][ctx.c.target]["tests"]:
        gate = gate._replace(passed=False, detail="no tests are configured for the target")
    about = {"attempt_id": attempt.attempt_id}
    await ctx.once("tests.finished", {**about, "passed": gate.passed, **run})
    await ctx.once("gate.evaluated", {**about, **gate._asdict()}, "gate-tests")
    return gate.detail


async def _run_tests(ctx: Context, commit: str, path: str) -> JSON:
    """Command, exit code, number of tests that passed and log of the daemon's run on a commit."""
    target = ctx.spec["frameworks"][ctx.c.target]
    argv = [target["python"] or "python3", *target["tests"]]
    folder = await _to_test(ctx, commit)
    within = guarded(ctx, ctx.c.target, tuple(argv), writable=[folder])
    variables = {**(target.get("env") or {}), "PYTHONDONTWRITEBYTECODE": "1"}  # what serves it; secrets are not lent
    spec = ctx.command(within, timeout_s=1800, cwd=folder, **variables)
    status = await ctx.run("tests", await ctx.serving("tests", spec, folder))
    if ctx.host.here:  # elsewhere it goes with the campaign's other folders
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    out, errors = [await ctx.output("tests", name, LOG_LIMIT_BYTES) for name in ("stdout.log", "stderr.log")]
    counted = await asyncio.to_thread(lambda: passed_in(b"\n".join((out, errors)).decode(errors="replace")))
    ended = status.exit_code if status.reason == "exited" else None
    return {"command": argv, "exit_code": ended, "counted": counted, "log": await ctx.keep(out + errors, path)}
