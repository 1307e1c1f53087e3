"""Questions about the evidence in a campaign's state, each answered by one pure function.

Guards and :mod:`statemachine.decide` ask the same questions here, so what is decided and what is checked
cannot drift apart.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from statemachine.gap import Block, GapDecision, GapRule, check_aa, combine, decide_gap, decide_improvement
from statemachine.ranking import best, passes, ranking_key
from statemachine.state import JSON, Attempt, Campaign, Launch
from statemachine.stopping import to_skip

SETTLED = frozenset({"stopped", "failed", "oom", "timeout"})
MIN_ROW_SHARE = 1.0  # percent of GPU (or operator) time in the slow stage below which a row proves nothing

NEAR_LIMIT = 0.85  # least possible over measured time of a step of the slow stage, as sotad.simulate.limit says it


def digest(value: Any) -> str:
    """SHA-256 over the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- search ------------------------------------------------------------------------------------------


def search_launch(framework: str, candidate: str) -> str:
    """Name of the launch that measures a candidate in the search."""
    return f"search/{framework}/{candidate}"


def candidates(c: Campaign, framework: str) -> list[JSON]:
    """The planned candidates of a framework, baseline first; none when it is unsupported."""
    if framework in c.unsupported:
        return []
    planned: list[JSON] = c.spec["frameworks"][framework]["candidates"]
    return planned


def unsettled(c: Campaign, framework: str) -> list[JSON]:
    """Candidates that are neither measured nor failed nor skipped yet."""
    return [
        entry
        for entry in candidates(c, framework)
        if f"{framework}/{entry['id']}" not in c.skipped and not settled(c, search_launch(framework, entry["id"]))
    ]


def settled(c: Campaign, launch: str) -> bool:
    """Whether a launch came to an end that stands (a lost one does not)."""
    found = c.launches.get(launch)
    return found is not None and found.status in SETTLED


def search_rows(c: Campaign, framework: str, scenario: str) -> list[JSON]:
    """Every row the search measured for a framework and scenario, in candidate order."""
    launches = (c.launches.get(search_launch(framework, entry["id"])) for entry in candidates(c, framework))
    return [row for launch in launches if launch for row in launch.rows if row["scenario"] == scenario]


def winner(c: Campaign, framework: str, scenario: str) -> JSON | None:
    """The best SLA-passing row of a framework and scenario."""
    return best(search_rows(c, framework, scenario), c.spec["sla"])  # type: ignore[return-value]


def skippable(c: Campaign, framework: str) -> list[JSON]:
    """Candidates that need not be tried any more: ``framework``, ``candidate`` and the reason."""
    waiting = [{"candidate": entry["id"], "flags": entry["flags"]} for entry in unsettled(c, framework)]
    enough = int(c.spec["search"].get("max_failures_in_a_row", 0))
    if not waiting or not enough:
        return []
    return [{"framework": framework, **skip} for skip in to_skip(_results(c, framework), waiting, enough)]


def _results(c: Campaign, framework: str) -> list[JSON]:
    """How the candidates that were launched came out, in the order of the search."""
    found = []
    for entry in candidates(c, framework):
        launch = c.launches.get(search_launch(framework, entry["id"]))
        if launch and launch.status in SETTLED:
            status = "ok" if launch.status == "stopped" else launch.status
            found.append({"candidate": entry["id"], "flags": entry["flags"], "status": status, "reason": launch.reason})
    return found


def exhausted(c: Campaign, framework: str) -> JSON:
    """How the planned candidates of a framework came out, in counts."""
    planned = [entry["id"] for entry in candidates(c, framework)]
    launches = [c.launches.get(search_launch(framework, name)) for name in planned]
    measured = sum(1 for launch in launches if launch and launch.status == "stopped")
    skipped = sum(1 for name in planned if f"{framework}/{name}" in c.skipped)
    failed = len(planned) - measured - skipped
    return {"framework": framework, "measured": measured, "skipped": skipped, "failed": failed}


def winning_pairs(c: Campaign) -> Iterator[tuple[str, str]]:
    """Every (framework, scenario) that needs a winner or the statement that there is none."""
    for framework in c.spec["frameworks"]:
        if framework not in c.unsupported:
            yield from ((framework, scenario) for scenario in c.scenarios)


def competitors(c: Campaign) -> list[str]:
    """Names of the frameworks that the target is compared with."""
    return [name for name, framework in c.spec["frameworks"].items() if framework["role"] == "competitor"]


# --- contests: two sides launched in interleaved blocks --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One side of a contest: which command at which commit, and the label of its launches."""

    label: str
    framework: str
    candidate: str
    commit: str


@dataclass(frozen=True, slots=True)
class Contest:
    """Blocks named ``prefix/bN/label``; ``pairs`` gives per scenario the (first, second) side."""

    prefix: str
    pairs: dict[str, tuple[Entry, Entry]]
    seed_offset: int

    def entries(self, block: int) -> list[Entry]:
        """The launches of a block, order alternating A B, B A."""
        unique = list(dict.fromkeys(entry for pair in self.pairs.values() for entry in pair))
        return unique if block % 2 == 0 else unique[::-1]

    def name(self, block: int, entry: Entry) -> str:
        """Name of one launch."""
        return f"{self.prefix}/b{block}/{entry.label}"

    def scenarios_of(self, entry: Entry) -> list[str]:
        """The scenarios that a side must be measured on."""
        return [scenario for scenario, pair in self.pairs.items() if entry in pair]


def leader(c: Campaign, scenario: str) -> tuple[str, str] | None:
    """(framework, candidate) of the best competitor that passes the SLA on a scenario, or None."""
    rows = [(name, winner(c, name, scenario)) for name in competitors(c) if name not in c.unsupported]
    passing = [(name, row) for name, row in rows if row is not None]
    if not passing:
        return None
    name, row = max(passing, key=lambda item: ranking_key(item[1], c.spec["sla"]))
    return name, row["candidate"]


def target_candidate(c: Campaign, scenario: str) -> str | None:
    """The target's command for a scenario: its winner, else its best row that ran at all."""
    rows = [row for row in search_rows(c, c.target, scenario) if row["status"] == "ok"]
    chosen = winner(c, c.target, scenario) or max(rows, key=lambda row: ranking_key(row, c.spec["sla"]), default=None)
    return chosen["candidate"] if chosen else None


def _target_entry(c: Campaign, scenario: str, label: str, commit: str) -> Entry:
    candidate = target_candidate(c, scenario) or ""
    return Entry(f"{label}.{candidate}", c.target, candidate, commit)


def aa_contest(c: Campaign) -> Contest:
    """The target's command against itself."""
    pairs = {
        scenario: (
            _target_entry(c, scenario, "a", c.champion),
            _target_entry(c, scenario, "b", c.champion),
        )
        for scenario in c.scenarios
    }
    return Contest("aa", pairs, 1_000)


def gap_contest(c: Campaign) -> Contest:
    """The champion of the target against the leader of each scenario, in this round."""
    pairs = {}
    for scenario in c.scenarios:
        ahead = leader(c, scenario)
        if ahead is None:
            continue
        rival = Entry(f"{ahead[0]}.{ahead[1]}", ahead[0], ahead[1], c.probes[ahead[0]]["commit"])
        pairs[scenario] = (_target_entry(c, scenario, c.target, c.champion), rival)
    return Contest(f"gap/r{c.round}", pairs, 10_000 * (c.round + 1))


def improvement_contest(c: Campaign) -> Contest:
    """The patched commit against the champion, both measured again."""
    attempt = c.attempt
    pairs = {
        scenario: (
            _target_entry(c, scenario, "challenger", attempt.commit),
            _target_entry(c, scenario, "champion", attempt.base),
        )
        for scenario in c.scenarios
    }
    return Contest(f"reval/{attempt.attempt_id}", pairs, 1_000_000 + 10_000 * len(c.attempts) + attempt.salt)


def rule(c: Campaign) -> GapRule:
    """The decision rule that the campaign's spec recorded before anything was measured."""
    decision = {
        key: value for key, value in c.spec["decision"].items() if key not in ("runs", "metric", "max_gain_pct")
    }
    return GapRule(**decision, scenarios=len(c.scenarios))


def values(c: Campaign, contest: Contest, block: int, entry: Entry, scenario: str) -> tuple[float, ...]:
    """The primary metric of each run of one side's launch in a block.

    Empty unless the launch is of that very side, came to its end, and every planned run of it ran.
    """
    launch = c.launches.get(contest.name(block, entry))
    if launch is None or launch.status != "stopped" or not _is_of(launch, entry):
        return ()
    metric = c.spec["decision"]["metric"]
    rows = sorted((row for row in launch.rows if row["scenario"] == scenario), key=lambda row: row["run"])
    found = tuple(row["metrics"].get(metric) for row in rows if row["status"] == "ok")
    return found if len(found) == c.spec["decision"]["runs"] and all(map(_positive, found)) else ()


def _is_of(launch: Launch, entry: Entry) -> bool:
    measured = (launch.framework, launch.candidate, launch.commit)
    return measured == (entry.framework, entry.candidate, entry.commit)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def blocks(c: Campaign, contest: Contest, scenario: str) -> list[Block]:
    """The complete blocks of a contest for a scenario, in order, up to the first incomplete one."""
    pair = contest.pairs[scenario]
    complete = []
    for number in range(rule(c).cap):
        sides = [values(c, contest, number, entry, scenario) for entry in pair]
        if not all(sides):
            break
        complete.append(Block(target=sides[0], leader=sides[1]))
    return complete


def first_call(found: list[Block], rule_: GapRule, call: Any) -> GapDecision | None:
    """The decision at the first look that makes one, else the last look's; None before the first look."""
    decision: GapDecision | None = None
    for count in range(rule_.first_look, len(found) + 1):
        decision = call(found[:count], rule_)
        if decision.verdict != "more":
            break
    return decision


def decisions(c: Campaign, contest: Contest, call: Any = decide_gap) -> dict[str, GapDecision | None]:
    """Per scenario, what the blocks measured so far say."""
    return {scenario: first_call(blocks(c, contest, scenario), rule(c), call) for scenario in contest.pairs}


def as_json(found: dict[str, GapDecision | None]) -> JSON:
    """Decisions as an event carries them."""
    text = json.dumps({name: asdict(decision) for name, decision in found.items() if decision})
    value: JSON = json.loads(text)
    return value


def is_open(found: dict[str, GapDecision | None]) -> bool:
    """Whether some scenario still needs blocks."""
    return any(decision is None or decision.verdict == "more" for decision in found.values())


def sla_gap(c: Campaign) -> list[str]:
    """Scenarios on which the target fails the SLA while a competitor passes it: in the latest gap blocks of
    the round, else in the search."""
    contest = gap_contest(c)
    missing = []
    for scenario, (entry, _) in contest.pairs.items():
        names = [contest.name(number, entry) for number in range(rule(c).cap)]
        measured = [c.launches[name] for name in names if name in c.launches]
        rows = [row for launch in measured for row in launch.rows if row["scenario"] == scenario]
        rows = rows or search_rows(c, c.target, scenario)
        if 2 * sum(passes(row, c.spec["sla"]) for row in rows) < len(rows) or not rows:
            missing.append(scenario)
    return missing


def gap_verdict(c: Campaign) -> JSON | None:
    """Verdict, leader, per-scenario decisions and reasons of this round's gap decision; None while open."""
    contest = gap_contest(c)
    found = decisions(c, contest)
    if is_open(found) or not found:
        return None
    behind_sla = sla_gap(c)
    verdict = "sla_gap" if behind_sla else combine([d for d in found.values() if d])
    reasons = [f"{name}: {reason}" for name, d in found.items() if d for reason in d.reasons]
    reasons += [f"{name}: the target fails an SLA that the leader passes" for name in behind_sla]
    names = sorted({pair[1].framework for pair in contest.pairs.values()})
    return {
        "round": c.round,
        "verdict": verdict,
        "leader": ", ".join(names),
        "decisions": as_json(found),
        "reasons": reasons,
    }


def aa_verdict(c: Campaign) -> JSON | None:
    """The A/A check of the target's command; None while it is being measured."""
    found = decisions(c, aa_contest(c), check_aa)
    if is_open(found):
        return None
    return {"passed": all(d is not None and d.verdict == "same" for d in found.values()), "decisions": as_json(found)}


def improvement_verdict(c: Campaign) -> JSON | None:
    """``accepted`` and the decisions of challenger against champion; None while it is being measured."""
    found = decisions(c, improvement_contest(c), decide_improvement)
    if is_open(found):
        return None
    verdicts = [decision.verdict for decision in found.values() if decision]
    accepted = "accept" in verdicts and set(verdicts) <= {"accept", "flat"}
    return {"accepted": accepted, "decisions": as_json(found)}


# --- profiles, rows, patches -----------------------------------------------------------------------------


def plausible_rows(c: Campaign) -> list[str]:
    """Row ids that the root cause of this round cites and nobody has tried or rejected since."""
    tried = {row for attempt in c.attempts.values() if attempt.round == c.round for row in attempt.citations}
    cited = c.rootcause.get("rows", [])
    return [row for row in cited if row not in tried and row not in c.rejected_rows]


def table_row(c: Campaign, row_id: str) -> JSON | None:
    """The row of the current kernel table with that id."""
    return next((row for row in c.tables.get("rows", []) if row["row_id"] == row_id), None)


def slowest_stage(c: Campaign) -> str | None:
    """The stage that costs the target most against the leader, by the current tables and what requests waited for."""
    rows = [row for row in c.tables.get("rows", []) if row["row_id"] == f"{row['stage']}/step" and "extra_ms" in row]
    steps = {row["stage"]: row["extra_ms"] for row in rows}
    return costliest(steps, waits(c)) if steps else None


def costliest(extra_ms: Mapping[str, float], waited_ms: Mapping[str, float]) -> str:
    """Of the stages whose steps take longer, the one that requests wait longer in; without waits, by the steps."""
    slower = [stage for stage, extra in extra_ms.items() if extra > 0] or list(extra_ms)
    weights = {stage: waited_ms.get(stage, -math.inf) for stage in slower} if waited_ms else extra_ms
    return max(slower, key=lambda stage: (weights[stage], stage))


def waits(c: Campaign) -> dict[str, float]:
    """By how many ms a request of the slow scenario waits longer for the target than for the leader, by stage.

    Stages that were captured apart, one prompt at a time in prefill, do not show how much of each a workload has; the
    launches of the gap decision do: the mean time to the first token, and the mean time from then on. Empty where one
    capture shows the workload itself, or where the launches do not say.
    """
    if not any(trace.get("stage") for trace in c.profiles.get("target", {}).get("traces", ())):
        return {}
    contest, scenario = gap_contest(c), slow_scenario(c)
    target, leader = (_waited(c, contest, entry, scenario) for entry in contest.pairs[scenario])
    return {stage: round(target[stage] - leader[stage], 4) for stage in target if stage in leader}


def _waited(c: Campaign, contest: Contest, entry: Entry, scenario: str) -> dict[str, float]:
    """Mean ms that a request of one side waits in each stage, over all runs of the contest."""
    names = [contest.name(number, entry) for number in range(rule(c).cap)]
    rows = [row for name in names if name in c.launches for row in c.launches[name].rows]
    metrics = [row["metrics"] for row in rows if (row["scenario"], row["status"]) == (scenario, "ok")]
    told = [(each.get("mean_ttft_ms"), each.get("mean_e2e_ms")) for each in metrics]
    known = [(first, whole) for first, whole in told if first is not None and whole is not None]
    if not known:
        return {}
    first_ms, whole_ms = (fmean(column) for column in zip(*known, strict=True))
    return {"prefill": first_ms, "decode": whole_ms - first_ms}


def at_limit(c: Campaign) -> JSON | None:
    """What shows that the slow stage is as fast as its hardware allows; None when nothing does."""
    limit: JSON = c.pipeline.get("limit") or {}
    here = (c.pipeline.get("round"), c.pipeline.get("commit")) == (c.round, c.champion)
    near = here and limit.get("stage") == c.rootcause.get("stage") and limit.get("fraction", 0.0) >= NEAR_LIMIT
    return limit if near else None


def needed_profiles(c: Campaign) -> dict[str, Entry]:
    """Side name to the command to profile: the target, and the leader of the slowest scenario."""
    contest = gap_contest(c)
    scenario = slow_scenario(c)
    target, rival = contest.pairs[scenario]
    return {"target": target, "leader": rival}


def slow_scenario(c: Campaign) -> str:
    """The scenario with the largest gap in the last decision."""
    found: JSON = c.gaps[-1]["decisions"]
    return max(found, key=lambda name: (found[name]["g_pct"], name))


def failed_gates(attempt: Attempt) -> list[str]:
    """The gates that refuse an attempt; tests and outputs count as their own events say, gate event or not."""
    failed = [gate for gate, passed in attempt.gates.items() if not passed]
    if attempt.tests is False:
        failed.append("tests")
    if attempt.equivalence is False:
        failed.append("output_equivalence")
    if attempt.accuracy is False:
        failed.append("accuracy")
    return failed


COMMIT_GATES = ("commit_exists", "clean_tree", "campaign_branch", "path_boundary", "harness_untouched")
