"""Whether the champion and the patched commit answer alike: prompts that nobody knew, and what was timed."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator, Sequence

from sotad.activities.context import ActivityFailed, Context
from sotad.activities.engine_caches import discard
from sotad.activities.launch import bench
from sotad.activities.server import Server, ServerFailed, require, serve_target, written
from sotad.activities.traffic import Files, files_there, scenario_of
from sotad.activities.worktrees import checkout
from sotad.benchmark.equivalence import compare, in_phase, other_text
from sotad.benchmark.randomness import numbers
from sotad.benchmark.timed import Counts, count, judge
from sotad.hosts.base import RunSpec
from statemachine import evidence
from statemachine.evidence import Contest
from statemachine.state import JSON

SEED_BITS = 48
OF_EACH = 2  # prompts of every scenario, and as many of lengths in between
LONGEST_ANSWER = 256  # tokens; more would take longer, and show no more
SHARE_OF_JOB = 0.4  # of the job's time for the answers of a side: a patch that hangs leaves the champion enough
Digests = list[tuple[str, str]]


# --- prompts that nobody knew -------------------------------------------------------------------------------


async def compare_outputs(ctx: Context) -> str:
    """Ask both commits the same new prompts; lengths, usage and the greedy text must be the same.

    The patched commit is asked first: then there is no answer yet that it could find.
    """
    attempt, broken = ctx.c.attempt, ""
    for commit in (attempt.commit, attempt.base):  # both before anything is begun: only then they are looked at
        await checkout(ctx, ctx.c.target, commit)
    seed = await _seed(ctx)
    try:
        challenger = await _answers(ctx, "challenger", attempt.commit, seed)
    except ServerFailed as error:  # the patch broke it, unless the champion does not come up either
        challenger, broken = {}, str(error)
        await ctx.stop("challenger")
    try:
        champion = await _answers(ctx, "champion", attempt.base, seed)
        found = _all_differ(broken, len(champion["requests"])) if broken else compare(champion, challenger)
    except ServerFailed as error:
        raise ActivityFailed(f"the champion could not be asked: {error}") from None
    except ValueError as error:
        raise ActivityFailed(str(error)) from None
    await discard(ctx, ctx.c.target)
    kept = {"seed": seed, "comparison": found, "champion": champion, "challenger": challenger}
    detail = _detail(found, seed)
    known = {"attempt_id": attempt.attempt_id, "passed": found["equal"]}
    finished = {**known, "prompts": found["prompts"], "differing": len(found["differences"]), "detail": detail}
    evidence_file = await ctx.keep_json(kept, f"equivalence/{attempt.attempt_id}.json")
    await ctx.once("equivalence.finished", {**finished, "evidence": evidence_file})
    gate = {"gate": "output_equivalence", "detail": detail, "satisfy": "every output equals the champion's"}
    await ctx.once("gate.evaluated", {**known, **gate}, "gate-output_equivalence")
    return detail


def _detail(found: JSON, seed: int) -> str:
    differing = found["differences"]
    told = [f"{found['prompts'] - len(differing)} of {found['prompts']} outputs are the same (seed {seed})"]
    if differing:
        told.append(f"first: {differing[0]['phase']}: {differing[0]['reasons'][0]}")
    return "; ".join([*told, *found["notes"]])


def _all_differ(reason: str, prompts: int) -> JSON:
    """The comparison with a server that did not come up, in the words of ``compare``."""
    differences = [{"index": index, "phase": "alone", "reasons": [f"error: {reason}"]} for index in range(prompts)]
    return {"equal": False, "prompts": prompts, "differences": differences, "notes": []}


async def _seed(ctx: Context) -> int:
    """The seed of this attempt: drawn once, so that no agent can know it before, and found again by a later entry."""
    known = await ctx.find("ask-challenger", "seed", 32)
    if known is not None:
        return int(known)
    seed = secrets.randbits(SEED_BITS)
    await ctx.host.put(ctx.run_id("ask-challenger"), "seed", str(seed).encode())
    return seed


async def _answers(ctx: Context, side: str, commit: str, seed: int) -> JSON:
    """Every answer of one commit, from a server of its own.

    Raises:
        ServerFailed: it did not come up, or died while it was asked.
    """
    name = f"ask-{side}"
    if not (await ctx.host.status(ctx.run_id(name))).succeeded:
        await _ask(ctx, side, name, commit, seed)
    await ctx.stop(side)
    answer: JSON = json.loads(await written(ctx, name))
    return answer


async def _ask(ctx: Context, side: str, name: str, commit: str, seed: int) -> None:
    server = await serve_target(ctx, commit, side)
    await ctx.start(name, *_question(ctx, server, name, seed, await files_there(ctx)))
    status = await server.while_running(name)
    if status.reason == "timeout":
        raise ServerFailed("timeout", "it took too long to answer; budget.job_s has to allow more if it should")
    require(status, "equivalence prompts", await ctx.tail(name))


def _question(ctx: Context, server: Server, name: str, seed: int, files: Files) -> tuple[RunSpec, dict[str, bytes]]:
    workload = ctx.spec["workload"]
    request = {
        "base_url": server.url,
        "endpoint": workload["endpoint"],
        "model": server.model,
        "extra_body": workload.get("extra_request_body") or {},
        "timeout_s": workload["request_timeout_s"],
        "scenarios": questions(ctx.spec, seed, files),
        "longest_answer": LONGEST_ANSWER,
        "text_tokens": ctx.spec["equivalence"].get("text_tokens"),
    }
    argv = ("-m", "sotad.benchmark.equivalence", "spec.json.in", "out.json")
    patience = float(ctx.spec["budget"]["job_s"]) * SHARE_OF_JOB
    return ctx.python(*argv, timeout_s=patience, cwd=ctx.path(name)), {"spec.json.in": json.dumps(request).encode()}


def questions(spec: JSON, seed: int, files: Files | None = None) -> list[JSON]:
    """The scenarios to ask: of the configured lengths, of every scenario's own, and of odd lengths in between.

    Of a dataset its rows, which the seed chooses, with the lengths that they have. Every one has a seed of its own.
    """
    workload, wanted = spec["workload"], spec["equivalence"]
    shapes = [{**shape, "num_prompts": min(shape["num_prompts"], OF_EACH)} for shape in workload["scenarios"]]
    if workload["kind"] == "random":
        own = [(shape["input_len"], shape["output_len"]) for shape in shapes]
        lengths = [(wanted["input_len"], wanted["output_len"]), *odd_lengths(own, seed)]
        counts = [wanted["prompts"], *([1] * OF_EACH)]
        limit = spec["model"].get("max_context")
        shapes += [
            {"name": f"length-{number}", "num_prompts": counts[number], "shared_prefix_len": 0, **_fit(*pair, limit)}
            for number, pair in enumerate(lengths)
        ]
    else:
        first = workload["scenarios"][0]
        shapes[0] = {**first, "num_prompts": min(first["num_prompts"], wanted["prompts"])}
    return [scenario_of(spec, shape, seed + number, files) for number, shape in enumerate(shapes)]


def odd_lengths(own: Sequence[tuple[int, int]], seed: int) -> list[tuple[int, int]]:
    """Odd lengths below the longest of each kind, which the seed draws: no scenario is likely to have them."""
    most = [max(lengths) for lengths in zip(*own, strict=True)]
    drawn = iter(numbers(f"odd lengths/{seed}", 2 * OF_EACH))
    return [(_odd_below(most[0], next(drawn)), _odd_below(most[1], next(drawn))) for _ in range(OF_EACH)]


def _odd_below(length: int, number: int) -> int:
    """An odd number from about half of the length to below it; 1 where there is none."""
    return max(1, (length - 2 - number % max(1, length // 2)) | 1)


def _fit(input_len: int, output_len: int, limit: int | None) -> JSON:
    """Lengths that the model's context holds, in tokens: the answer is shortened first, to a half at the most."""
    if limit is not None and input_len + output_len > limit:
        output_len = max(1, min(output_len, max(limit - input_len, limit // 2)))
        input_len = max(1, min(input_len, limit - output_len))
    return {"input_len": input_len, "output_len": output_len}


# --- what was timed -----------------------------------------------------------------------------------------


async def compare_timed(ctx: Context) -> str:
    """Hold the answers of the requests that measured the improvement against the champion's to the same ones."""
    attempt, c = ctx.c.attempt, ctx.c
    sides = list(_measured(ctx, evidence.improvement_contest(c), reference=1))
    usual = list(_measured(ctx, evidence.aa_contest(c), reference=0))
    found, same = await asyncio.to_thread(_count, ctx, sides), await asyncio.to_thread(_count, ctx, usual)
    calibration = [(same.differing, same.compared), *_by_batching(ctx)]
    try:
        judged = judge(found, [each for each in calibration if each[1]])
    except ValueError as error:
        raise ActivityFailed(str(error)) from None
    kept = await ctx.keep_json({**judged, "reports": sides}, f"timed/{attempt.attempt_id}.json")
    detail = f"{judged['detail']}; evidence {kept['sha256']}"
    satisfy = "answers of the champion's length and text, but for what batching changes in the champion's own"
    gate = {"gate": "timed_outputs", "passed": judged["passed"], "detail": detail, "satisfy": satisfy}
    await ctx.once("gate.evaluated", {"attempt_id": attempt.attempt_id, **gate}, "gate-timed_outputs")
    return detail


def _measured(ctx: Context, contest: Contest, reference: int) -> Iterator[tuple[str, str]]:
    """The raw reports, by digest, of each run that both sides of a contest finished; the reference's first."""
    for scenario, pair in contest.pairs.items():
        for block in range(evidence.rule(ctx.c).cap):
            launches = [contest.name(block, entry) for entry in (pair[reference], pair[1 - reference])]
            for run in range(int(ctx.spec["decision"]["runs"])):
                found = [_raw(ctx, launch, scenario, run) for launch in launches]
                if found[0] and found[1]:
                    yield found[0], found[1]


def _raw(ctx: Context, launch: str, scenario: str, run: int) -> str | None:
    """The digest of what the load generator wrote in a run of a launch that counts."""
    known = ctx.c.launches.get(launch)
    if known is None or known.status != "stopped":
        return None
    event = ctx.journal.find(f"{ctx.campaign}/{launch}/{known.attempt}/{bench(scenario, run)}")
    return str(event.payload["raw"]["sha256"]) if event else None


def _count(ctx: Context, pairs: Digests) -> Counts:
    """Two reports at a time are in memory: each holds every answer of its run."""
    reports = ((_report(ctx, ours), _report(ctx, theirs)) for ours, theirs in pairs)
    return count(reports, ctx.spec["equivalence"].get("text_tokens"))


def _report(ctx: Context, digest: str) -> JSON:
    report: JSON = json.loads(ctx.artifacts.read(digest))
    return report


def _by_batching(ctx: Context) -> list[tuple[int, int]]:
    """How many of how many texts of the champion change when its prompts share a batch: a patch may change as many."""
    name = f"equivalence/{ctx.c.current_attempt}"
    tries = ctx.c.jobs[name].attempt if name in ctx.c.jobs else 0
    found = (ctx.journal.find(f"{ctx.campaign}/{name}/{number + 1}/equivalence.finished") for number in range(tries))
    for event in filter(None, found):
        champion = _report(ctx, event.payload["evidence"]["sha256"])["champion"]
        alone, batch = in_phase(champion, "alone"), in_phase(champion, "batch")
        differing = sum(other_text(each, batch[prompt]) is not None for prompt, each in alone.items())
        return [(differing, len(alone))]
    return []
