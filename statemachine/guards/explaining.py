"""Guards of profiles, tables and the root cause."""

from __future__ import annotations

import math

from statemachine import evidence
from statemachine.evidence import MIN_ROW_SHARE, NEAR_LIMIT
from statemachine.guards.asking import Ask, guard, unless
from statemachine.state import Campaign


@guard
def profile_of_compared_commit(a: Ask) -> str | None:
    entry = evidence.needed_profiles(a.c).get(a.p["side"])
    if entry is None:
        return "a side of the comparison: target or leader"
    same = (a.p["framework"], a.p["commit"], a.p["round"]) == (entry.framework, entry.commit, a.c.round)
    return unless(same, f"a profile of {entry.framework} at {entry.commit} in round {a.c.round}")


@guard
def profiles_fresh(a: Ask) -> str | None:
    for side, entry in evidence.needed_profiles(a.c).items():
        profile = a.c.profiles.get(side)
        if not profile or (profile["commit"], profile["round"]) != (entry.commit, a.c.round):
            return f"profile.captured of the {side} ({entry.framework}) at {entry.commit} in round {a.c.round}"
    return None


@guard
def tables_fresh(a: Ask) -> str | None:
    fresh = (a.c.tables.get("round"), a.c.tables.get("commit")) == (a.c.round, a.c.champion)
    return unless(fresh, f"tables.produced at {a.c.champion} in round {a.c.round}")


@guard
def pipeline_fresh(a: Ask) -> str | None:
    fresh = (a.c.pipeline.get("round"), a.c.pipeline.get("commit")) == (a.c.round, a.c.champion)
    return unless(fresh, f"pipeline.written at {a.c.champion} in round {a.c.round}")


def unresolved(c: Campaign, row_ids: list[str], stage: str) -> str | None:
    for row_id in row_ids:
        row = evidence.table_row(c, row_id)
        if row is None:
            return f"a row {row_id!r} in the kernel table of round {c.round}"
        if row["stage"] != stage:
            return f"a row of the slow stage {stage}; {row_id} is of {row['stage']}"
        if row["share"] < MIN_ROW_SHARE:
            return f"a row of at least {MIN_ROW_SHARE}% of the stage; {row_id} has {row['share']}%"
    return None if row_ids else "at least one cited row"


@guard
def cited_rows_count(a: Ask) -> str | None:
    return unresolved(a.c, a.p["rows"], a.p["stage"])


@guard
def stage_is_slow(a: Ask) -> str | None:
    slow = evidence.slowest_stage(a.c)
    return unless(slow is None or a.p["stage"] == slow, f"the stage that costs most against the leader, {slow}")


@guard
def limit_adds_up(a: Ask) -> str | None:
    limit = a.p.get("limit")
    if limit is None:
        return None
    roofline, measured = float(limit.get("limit_ms", 0)), float(limit.get("measured_ms", 0))
    if not 0 < roofline <= measured:
        return "a limit above 0 and no longer than what was measured: a limit that is beaten is wrong"
    right = math.isclose(limit.get("fraction", -1), roofline / measured, abs_tol=1e-3)
    return unless(right, f"fraction = limit_ms / measured_ms = {roofline / measured:.4f}")


@guard
def near_the_limit(a: Ask) -> str | None:
    if a.p["condition"] != "at_limit":
        return None
    needed = f"pipeline.written of this round whose limit for the slow stage has a fraction of {NEAR_LIMIT} or more"
    return unless(evidence.at_limit(a.c) is not None, needed)


@guard
def rows_of_rootcause(a: Ask) -> str | None:
    unknown = [row for row in a.p["rows"] if row not in a.c.rootcause.get("rows", [])]
    return unless(not unknown, f"rows that the root cause cites; not {', '.join(unknown)}")
