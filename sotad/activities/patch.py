"""One patch attempt: proposal, implementation on a branch of its own, gates, tests, equal outputs."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ValidationError

from sotad import git
from sotad.activities.context import ActivityFailed, Context
from sotad.activities.gates import commit_gates
from sotad.activities.server import Server, ServerFailed, render_launch, require
from sotad.activities.worktrees import attempt_worktree, checkout
from sotad.agents import agent_command
from sotad.benchmark.equivalence import compare
from sotad.frameworks import FRAMEWORKS
from sotad.hosts.base import HostError, RunSpec
from statemachine import evidence
from statemachine.state import JSON


async def propose(ctx: Context) -> str:
    """Ask the implementer which of the open rows it can improve, and how; a refusal settles those rows."""
    if done := ctx.recorded("outcome"):
        return done.type
    rows = evidence.plausible_rows(ctx.c)
    request = {
        "action": "propose",
        "rows": [row for row in ctx.c.tables["rows"] if row["row_id"] in rows],
        "statement": ctx.c.rootcause["statement"],
        "tried": [
            {"hypothesis": a.hypothesis, "status": a.status, "gate": a.refused_by} for a in ctx.c.attempts.values()
        ],
    }
    folder = await checkout(ctx, ctx.c.target, ctx.c.champion)
    answer = _proposal(await ask_agent(ctx, "implementer", request, folder))
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
    }
    await ctx.once("patch.proposed", proposed, "outcome", actor="implementer:" + _driver(ctx, "implementer"))
    return answer.hypothesis


class Proposal(BaseModel):
    """What an implementer answers when it is asked for an idea; more keys are its own affair."""

    decline: str = ""
    rows: list[str] = []
    hypothesis: str = ""


def _proposal(answer: JSON) -> Proposal:
    try:
        return Proposal.model_validate(answer)
    except ValidationError as error:
        found = error.errors()[0]
        raise ActivityFailed(f"the implementer's proposal: {found['loc'][0]}: {found['msg']}") from None


def _driver(ctx: Context, role: str) -> str:
    return str(ctx.spec[role]["driver"])


async def ask_agent(ctx: Context, role: str, request: JSON, folder: Path) -> JSON:
    """Run an agent in a folder with a request file; its result file is what it said.

    Raises:
        ActivityFailed: it failed, or left no JSON object.
        RunLost: its process vanished.
    """
    agent = ctx.spec[role]
    home = Path(ctx.host.path(ctx.run_id(role)))
    argv = agent_command(agent, role, str(home / "request.json"), str(home / "result.json"))
    spec = ctx.command(argv, timeout_s=agent["timeout_s"], cwd=str(folder), **_identity())
    data = json.dumps(request, sort_keys=True, indent=1).encode()
    status = await ctx.run(role, spec, {"request.json": data})
    require(status, f"the {role}", await ctx.tail(role))
    try:
        answer = json.loads(await ctx.output(role, "result.json", 1 << 22))
    except (HostError, ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ActivityFailed(f"the {role} left no JSON object in result.json")
    return answer


def _identity() -> dict[str, str]:
    """Who commits: agents have no identity of the user's."""
    return {
        "GIT_AUTHOR_NAME": "sotad implementer",
        "GIT_AUTHOR_EMAIL": "implementer@sotad.invalid",
        "GIT_COMMITTER_NAME": "sotad implementer",
        "GIT_COMMITTER_EMAIL": "implementer@sotad.invalid",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


async def implement(ctx: Context) -> str:
    """Let the implementer commit on the attempt's branch, then judge the commit by the mechanical gates."""
    attempt = ctx.c.attempt
    repo = Path(ctx.spec["frameworks"][ctx.c.target]["checkout"])
    folder, branch = await attempt_worktree(ctx, attempt.attempt_id, attempt.base)
    request = {
        "action": "implement",
        "attempt_id": attempt.attempt_id,
        "hypothesis": attempt.hypothesis,
        "rows": [row for row in ctx.c.tables["rows"] if row["row_id"] in attempt.citations],
        "findings": attempt.findings,
        "paths": ctx.spec["frameworks"][ctx.c.target]["paths"],
    }
    if not ctx.recorded("gate-clean_tree"):
        await ask_agent(ctx, "implementer", request, folder)
    gates = await commit_gates(ctx, repo, folder, branch)
    for gate in gates:
        await ctx.once("gate.evaluated", {"attempt_id": attempt.attempt_id, **gate._asdict()}, f"gate-{gate.gate}")
    if all(gate.passed for gate in gates):
        await _apply(ctx, repo, folder, branch)
        return "applied"
    return f"refused by {next(gate.gate for gate in gates if not gate.passed)}"


async def _apply(ctx: Context, repo: Path, folder: Path, branch: str) -> None:
    if ctx.recorded("patch.applied"):
        return
    attempt = ctx.c.attempt
    commit = await git.head(folder)
    diff = await ctx.keep((await git.diff(repo, attempt.base, commit)).encode(), f"patches/{attempt.attempt_id}.diff")
    subject = (await git.git(repo, "log", "-1", "--format=%s", commit)).strip()
    applied = {
        "attempt_id": attempt.attempt_id,
        "base": attempt.base,
        "commit": commit,
        "branch": branch,
        "files": await git.changed_files(repo, attempt.base, commit),
        "diff": diff,
        "subject": subject,
    }
    await ctx.once("patch.applied", applied, actor="implementer:" + _driver(ctx, "implementer"))


async def run_tests(ctx: Context) -> str:
    """Run the target's own tests on the patched commit; the daemon's run counts, not the agent's word."""
    attempt, target = ctx.c.attempt, ctx.spec["frameworks"][ctx.c.target]
    argv = [target["python"] or "python3", *target["tests"]]
    folder = await checkout(ctx, ctx.c.target, attempt.commit)
    status = await ctx.run(
        "tests", ctx.command(tuple(argv), timeout_s=1800, cwd=str(folder), PYTHONDONTWRITEBYTECODE="1")
    )
    log = await ctx.output("tests") + await ctx.output("tests", "stderr.log")
    kept = await ctx.keep(log, f"tests/{attempt.attempt_id}.log")
    passed = status.succeeded and bool(target["tests"])
    finished = {"attempt_id": attempt.attempt_id, "passed": passed, "command": argv, "log": kept}
    await ctx.once("tests.finished", {**finished, "exit_code": status.exit_code})
    detail = f"exit code {status.exit_code}" if target["tests"] else "no tests are configured for the target"
    gate = {"gate": "tests", "passed": passed, "detail": detail, "satisfy": "the target's own tests pass"}
    await ctx.once("gate.evaluated", {"attempt_id": attempt.attempt_id, **gate}, "gate-tests")
    return detail


async def compare_outputs(ctx: Context) -> str:
    """Ask the champion and the patched commit the same prompts greedily; every answer must be the same."""
    attempt = ctx.c.attempt
    try:
        champion = await _answers(ctx, "champion", attempt.base)
    except ServerFailed as error:
        raise ActivityFailed(f"the champion could not be asked: {error}") from None
    try:
        challenger = await _answers(ctx, "challenger", attempt.commit)
        found = compare(champion, challenger)
    except ServerFailed as error:  # the patch broke it: that is an answer, and a different one
        challenger, found = {}, _all_differ(str(error), ctx.spec["equivalence"]["prompts"])
    except ValueError as error:
        raise ActivityFailed(str(error)) from None
    answers = {"champion": champion, "challenger": challenger}
    evidence_file = await ctx.keep_json({"comparison": found, **answers}, f"equivalence/{attempt.attempt_id}.json")
    differing = len(found["differences"])
    detail = f"{found['prompts'] - differing} of {found['prompts']} outputs are the same"
    if differing:
        detail += f"; first: {found['differences'][0]['reasons'][0]}"
    known = {"attempt_id": attempt.attempt_id, "passed": found["equal"]}
    finished = {**known, "prompts": found["prompts"], "differing": differing, "detail": detail}
    await ctx.once("equivalence.finished", {**finished, "evidence": evidence_file})
    gate = {"gate": "output_equivalence", "detail": detail, "satisfy": "every output equals the champion's"}
    await ctx.once("gate.evaluated", {**known, **gate}, "gate-output_equivalence")
    return detail


def _all_differ(reason: str, prompts: int) -> JSON:
    """The comparison with a server that did not come up, in the words of ``compare``."""
    differences = [{"index": index, "reasons": [f"error: {reason}"]} for index in range(prompts)]
    return {"equal": False, "prompts": prompts, "differences": differences}


async def _answers(ctx: Context, side: str, commit: str) -> JSON:
    """Every answer of one commit, from a server of its own.

    Raises:
        ServerFailed: it did not come up, or died while it was asked.
    """
    name = f"ask-{side}"
    if not (await ctx.host.status(ctx.run_id(name))).succeeded:
        await _ask(ctx, side, name, commit)
    await ctx.stop(side)
    answer: JSON = json.loads(await ctx.output(name, "out.json", 1 << 26))
    return answer


async def _ask(ctx: Context, side: str, name: str, commit: str) -> None:
    target = ctx.spec["frameworks"][ctx.c.target]
    candidate = evidence.target_candidate(ctx.c, ctx.c.scenarios[0])
    flags = next(entry["flags"] for entry in target["candidates"] if entry["id"] == candidate)
    server = await Server.start(ctx, target["kind"], await render_launch(ctx, ctx.c.target, commit, flags), side)
    await server.ready()
    await ctx.start(name, *_question(ctx, server, name))
    status = await server.while_running(name)
    require(status, "equivalence prompts", await ctx.tail(name))


def _question(ctx: Context, server: Server, name: str) -> tuple[RunSpec, dict[str, bytes]]:
    wanted = ctx.spec["equivalence"]
    scenario = {"name": "equivalence", "num_prompts": wanted["prompts"], "seed": wanted["seed"]}
    scenario |= {"input_len": wanted["input_len"], "output_len": wanted["output_len"]}
    model = FRAMEWORKS[server.kind].served_model(ctx.spec["model"])
    request = {"base_url": server.url, "endpoint": ctx.spec["workload"]["endpoint"], "model": model}
    folder = ctx.host.path(ctx.run_id(name))
    spec = ctx.python(
        "-m", "sotad.benchmark.equivalence", "spec.json.in", str(Path(folder) / "out.json"), timeout_s=600, cwd=folder
    )
    return spec, {"spec.json.in": json.dumps({**request, "scenario": scenario}).encode()}
