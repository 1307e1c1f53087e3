"""What a campaign still takes, in time and GPU hours: from its own launches, and where it has none from its file.

A forecast reaches to the next verdict: search, rates, A/A check and gap decision, or the revalidation of the patch at
hand. It is a range: decisions may end at their first look or need all blocks, and candidates may be given up early.
Start-ups are forecast from start-ups that found their caches alike; where there are none the forecast says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from statemachine import caches, evidence, goodput, pace, sweep
from statemachine.evidence import Contest
from statemachine.state import JSON, Campaign

STARTUP_S = 90.0
"""Of a server that was never seen to start; with an 8B model on one H200 and cold caches vLLM took 67 s, SGLang 99."""
REFERENCE_S = 3.0
REST_S = 5.0
"""Beside start-up and runs: waiting for an idle GPU, stopping, keeping the log."""
OUTPUT_TOKENS = 256
"""Of a request whose length a dataset decides."""
BEFORE = ("draft", "intake", "knowledge", "searching")
UNTIL_GAP = (*BEFORE, "baseline", "planning", "round.gap")
REVALIDATED = ("round.patching", "round.revalidating")


@dataclass(slots=True)
class Work:
    """Launches, runs and seconds that are left, each at least and at most."""

    launches: list[int] = field(default_factory=lambda: [0, 0])
    runs: list[int] = field(default_factory=lambda: [0, 0])
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(self, end: int, launches: int, runs: int, seconds: float) -> None:
        """Count something for the least (0) or the most (1)."""
        self.launches[end] += launches
        self.runs[end] += runs
        self.seconds[end] += seconds

    def as_json(self, part: str) -> JSON:
        seconds = [round(value, 1) for value in self.seconds]
        return {"part": part, "launches": self.launches, "runs": self.runs, "seconds": seconds}


def expected(c: Campaign) -> JSON:
    """Done, left, expected end and GPU hours. ``assumed`` says what no measurement stands behind.

    ``left_s`` and all pairs are at least and at most, ``budget_s`` is what the campaign may still take. ``end_ns`` is
    as of the campaign's last event, None before there is one. GPU hours are those in which GPUs are held.
    """
    known = _Forecast(c)
    back = c.back if c.phase in ("paused", "blocked") else c.phase
    parts = [work.as_json(name) for name, work in known.parts(back) if work.launches[1] or work.runs[1]]
    left = [round(sum(part["seconds"][end] for part in parts), 1) for end in (0, 1)]
    gpus = len(c.spec["hardware"].get("gpu_ids") or []) or int(c.spec["hardware"].get("gpu_count") or 0)
    launches = [launch for launch in c.launches.values() if launch.status in evidence.SETTLED]
    return {
        "parts": parts,
        "done": {"launches": len(launches), "runs": sum(len(launch.rows) for launch in c.launches.values())},
        "left_s": left,
        "budget_s": round(float(c.spec["budget"]["wall_clock_s"]) - (c.updated_ns - c.created_ns) / 1e9, 1),
        "end_ns": [c.updated_ns + int(seconds * 1e9) for seconds in left] if c.updated_ns and c.phase == back else None,
        "gpus": gpus,
        "gpu_hours": {
            "spent": round(pace.gpu_seconds(c) / 3600, 4),
            "left": [round(seconds * gpus / 3600, 4) for seconds in left],
        },
        "assumed": list(known.assumed) if parts else [],
    }


class _Forecast:
    """Figures for one campaign, and in ``assumed`` where they are not its own."""

    def __init__(self, c: Campaign) -> None:
        self.c = c
        self.assumed: dict[str, None] = {}

    def parts(self, phase: str) -> Iterable[tuple[str, Work]]:
        if phase in BEFORE:
            yield "search", self._search()
        if phase in (*BEFORE, "baseline") and goodput.search(self.c):
            yield "rates", self._rates()
        if phase in UNTIL_GAP:
            if "passed" not in self.c.aa:
                yield "A/A check", self._contest("aa", [self.c.target] * 2, "aa")
            yield "gap decision", self._contest(f"gap/r{self.c.round}", self._sides(), "gap")
        elif phase in REVALIDATED:
            yield "revalidation", self._contest(f"reval/{self.c.current_attempt}", [self.c.target] * 2, "revalidate")

    # --- parts -----------------------------------------------------------------------------------------

    def _search(self) -> Work:
        work, stops = Work(), sweep.stop_rule(self.c) is not None
        for framework in self.c.spec["frameworks"]:
            for entry in evidence.unsettled(self.c, framework):
                launch = self.c.launches.get(evidence.search_launch(framework, entry["id"]))
                here = launch if launch and launch.status in ("launched", "ready") else None
                planned = int(self.c.spec["search"]["runs"])
                for end, wanted in ((0, 1 if stops else planned), (1, planned)):
                    seconds, runs = 0.0, 0
                    for scenario in self.c.scenarios:
                        made = sum(row["scenario"] == scenario for row in here.rows) if here else 0
                        given_up = here is not None and scenario in here.curtailed
                        left = 0 if given_up else max(0, wanted - made)
                        runs, seconds = runs + left, seconds + left * self.run_s(framework, scenario)
                    begins = here is None or here.status == "launched"
                    seconds += self.startup_s(framework, "search") if begins else 0.0
                    work.add(end, 1, runs, seconds + self.rest_s(framework))
        return work

    def _rates(self) -> Work:
        work, bounds = Work(), goodput.search(self.c) or {}
        shapes = [shape for shape in self.c.spec["workload"]["scenarios"] if shape.get("request_rate") is None]
        for framework in self.c.spec["frameworks"]:
            for shape in shapes:
                if evidence.settled(self.c, goodput.launch_name(framework, shape["name"])):
                    continue
                one = pace.mean(self.c, "rate") or float(bounds["min_duration_s"]) + self._at_limit_s(shape)
                fixed = self.startup_s(framework, "rate") + self.rest_s(framework)
                for end, runs in ((0, 2), (1, goodput.runs(self.c))):
                    work.add(end, 1, runs, fixed + runs * one)
        return work

    def _contest(self, prefix: str, sides: Sequence[str], purpose: str) -> Work:
        """Blocks of one launch a side until the first look, or until the last."""
        work, rule, runs = Work(), self.c.spec["decision"], int(self.c.spec["decision"]["runs"])
        blocks = self._blocks(sides, prefix)
        done = [launch for launch in self.c.launches.values() if launch.launch.startswith(f"{prefix}/")]
        settled = sum(launch.status in evidence.SETTLED for launch in done)
        for end, wanted in ((0, int(rule["first_look"])), (1, int(rule["cap"]))):
            entries = blocks[end]
            made = settled // max(1, len(entries))
            for framework, scenarios in entries:
                seconds = sum(runs * self.run_s(framework, scenario) for scenario in scenarios)
                seconds += self.startup_s(framework, purpose) + self.rest_s(framework)
                left = max(0, wanted - made)
                work.add(end, left, left * runs * len(scenarios), left * seconds)
        return work

    def _blocks(self, sides: Sequence[str], prefix: str) -> tuple[list[tuple[str, list[str]]], ...]:
        """The launches of a block, framework and scenarios: as they will be, or with as few and many as there may."""
        if self.c.baseline_digest and prefix.startswith(("aa", "gap")):
            contest = evidence.aa_contest(self.c) if prefix == "aa" else evidence.gap_contest(self.c)
            entries = _entries(contest)
            return entries, entries
        together = [(side, self.c.scenarios) for side in sides]
        apart = [(side, [scenario]) for side in sides for scenario in self.c.scenarios]
        several = any(len(self.c.spec["frameworks"][side]["candidates"]) > 1 for side in sides)
        return together, apart if several else together

    def _sides(self) -> list[str]:
        """The target, and the rival whose runs take longest."""
        rivals = [name for name in evidence.competitors(self.c) if name not in self.c.unsupported]
        longest = max(rivals, key=lambda name: sum(self.run_s(name, s) for s in self.c.scenarios), default="")
        return [self.c.target, *([longest] if longest else [])]

    # --- figures ---------------------------------------------------------------------------------------

    def startup_s(self, framework: str, purpose: str) -> float:
        """Of launches that found their caches as this one will, else of others, else assumed."""
        shared = caches.shares(self.c, purpose)
        wanted = "unknown" if caches.reuse(self.c) == "engine" else "cold"
        wanted = ("partly" if purpose == "search" else "warm") if shared else wanted
        for state in dict.fromkeys((wanted, "unknown", "cold", "partly", "warm")):
            found = pace.mean(self.c, f"startup/{framework}/{state}")
            if found is not None:
                if state not in (wanted, "unknown"):
                    self.assumed[f"{framework} starts with {wanted} caches as fast as with {state} ones"] = None
                return found
        kind = self.c.spec["frameworks"][framework].get("kind")
        seconds = REFERENCE_S if kind == "reference" else STARTUP_S
        limit = float(self.c.spec["budget"]["ready_s"])
        self.assumed[f"{framework} starts in {min(seconds, limit):g} s, as none was seen (at most {limit:g} s)"] = None
        return min(seconds, limit)

    def run_s(self, framework: str, scenario: str) -> float:
        """Of this framework's runs, else of the slowest other one's, else at the limits of the SLA."""
        own = pace.mean(self.c, f"run/{framework}/{scenario}")
        if own is not None:
            return own
        others = [pace.mean(self.c, f"run/{name}/{scenario}") for name in self.c.spec["frameworks"]]
        if seen := [value for value in others if value is not None]:
            self.assumed[f"{framework} takes as long on {scenario} as the slowest other framework"] = None
            return max(seen)
        shape = next(shape for shape in self.c.spec["workload"]["scenarios"] if shape["name"] == scenario)
        seconds = self._at_limit_s(shape)
        self.assumed[f"a run of {scenario} takes {seconds:.0f} s: that of a server that just meets the SLA"] = None
        return seconds

    def rest_s(self, framework: str) -> float:
        """Of a launch beside its start-up and runs."""
        return REST_S if (found := pace.mean(self.c, f"rest/{framework}")) is None else found

    def _at_limit_s(self, shape: JSON) -> float:
        sla, prompts = self.c.spec["sla"], shape.get("num_prompts") or 1
        tokens = shape.get("output_len") or OUTPUT_TOKENS
        one = (float(sla.get("max_p50_ttft_ms") or 0) + (tokens - 1) * float(sla.get("max_p50_tpot_ms") or 0)) / 1000
        if rate := shape.get("request_rate"):
            return prompts / float(rate) + one
        at_once = shape.get("max_concurrency") or prompts
        warm = math.ceil(int(self.c.spec["workload"].get("warmup_requests") or 0) / at_once)
        return float((math.ceil(prompts / at_once) + warm) * one)


def _entries(contest: Contest) -> list[tuple[str, list[str]]]:
    return [(entry.framework, contest.scenarios_of(entry)) for entry in contest.entries(0)]


def of_spec(spec: JSON) -> JSON:
    """The forecast of a campaign that was not begun."""
    return expected(Campaign(spec.get("campaign", ""), spec=spec))
