"""The workload that nobody may change afterwards, and beside it one that no agent is shown."""

from __future__ import annotations

import asyncio
import secrets

from sotad.activities.context import ActivityFailed, Context
from sotad.activities.traffic import files_here, scenario_of
from sotad.benchmark.workload import Scenario, WorkloadError
from sotad.benchmark.workload import digest as workload_digest
from statemachine.evidence import digest
from statemachine.state import JSON

SHORTEST, LONGEST = 60, 95  # percent of a scenario's lengths between which the held-out ones are drawn
SEED_BITS = 48  # more than anybody tries out


async def freeze_workload(ctx: Context) -> str:
    """Fix the workload by digest: its rule, and the very requests of the first seed of each scenario.

    The held-out variants are drawn here, once: recorded, and in no request to an agent.
    """
    workload, files = ctx.spec["workload"], files_here(ctx.c, ctx.artifacts)
    shapes = {}
    for shape in workload["scenarios"]:
        scenario = Scenario(**scenario_of(ctx.spec, shape, workload["seed"], files))
        try:
            shapes[shape["name"]] = await asyncio.to_thread(workload_digest, scenario)
        except WorkloadError as error:
            raise ActivityFailed(f"scenario {shape['name']}: {error}") from None
    frozen = {
        "digest": digest({"rule": workload, "requests": shapes}),
        "scenarios": list(shapes),
        "sla": ctx.spec["sla"],
        "heldout": {shape["name"]: held_out(shape) for shape in workload["scenarios"]},
    }
    await ctx.once("workload.frozen", frozen)
    return str(frozen["digest"])


def held_out(shape: JSON) -> JSON:
    """A variant of a scenario that cannot be foreseen: ``input_len``, ``output_len`` and ``seed``.

    A dataset's lengths are its rows': None stays None, and the seed alone chooses other rows.
    """
    return {
        "input_len": _drawn(shape["input_len"], beside_one=2),
        "output_len": _drawn(shape["output_len"], beside_one=1),
        "seed": secrets.randbits(SEED_BITS),
    }


def _drawn(length: int | None, beside_one: int) -> int | None:
    """A length from 60% to 95% of a scenario's, or one less where no whole number lies between.

    A prompt of one token becomes one of two; of an answer of one token there is no other.
    """
    if length is None:
        return None
    low, high = -(-length * SHORTEST // 100), length * LONGEST // 100
    return low + secrets.randbelow(high - low + 1) if low <= high else (length - 1 or beside_one)
