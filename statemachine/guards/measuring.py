"""Guards of launches, rows, the search and the gap decision."""

from __future__ import annotations

from typing import Any

from statemachine import caches, evidence, fairness, goodput, sweep
from statemachine.evidence import digest
from statemachine.guards.asking import Ask, guard, unless
from statemachine.ranking import passes, sla_failures


@guard
def launch_is_next_attempt(a: Ask) -> str | None:
    launch, job = a.c.launches.get(a.p["launch"]), a.c.jobs.get(a.p["launch"])
    last = launch.attempt if launch else 0
    if a.p["attempt"] <= last:
        return f"an attempt after {last} of launch {a.p['launch']}"
    under_way = job is not None and job.status == "running" and job.attempt == a.p["attempt"]
    return unless(under_way, f"job.dispatched for attempt {a.p['attempt']} of {a.p['launch']}")


@guard
def launched_as_dispatched(a: Ask) -> str | None:
    wanted = a.c.jobs[a.p["launch"]].params
    for key in ("purpose", "framework", "candidate", "commit"):
        if a.p[key] != wanted.get(key):
            return f"{key} {wanted.get(key)}, as dispatched"
    return None


@guard
def launch_known(a: Ask) -> str | None:
    launch = a.c.launches.get(a.p["launch"])
    known = launch is not None and launch.attempt == a.p["attempt"]
    return unless(known, f"candidate.launched for attempt {a.p['attempt']} of {a.p['launch']}")


@guard
def competitor_as_frozen(a: Ask) -> str | None:
    framework = a.c.spec["frameworks"].get(a.p["framework"])
    if framework is None:
        return f"framework {a.p['framework']!r} in the spec"
    if not a.c.baseline_digest or framework["role"] == "target":
        return None
    frozen = a.c.launches.get(evidence.search_launch(a.p["framework"], a.p["candidate"]))
    same = frozen is not None and frozen.command == list(a.p["command"]) and frozen.commit == a.p["commit"]
    return unless(same, f"the command and commit that the baseline froze for {a.p['framework']}")


@guard
def caches_as_used(a: Ask) -> str | None:
    return caches.mistake(a.c, dict(a.p)) or None


@guard
def run_as_dispatched(a: Ask) -> str | None:
    job = a.c.jobs.get(a.p["launch"])
    seeds = job.params.get("seeds", {}).get(a.p["scenario"], []) if job else []
    asked = 0 <= a.p["run"] < len(seeds) and seeds[a.p["run"]] == a.p["seed"]
    return unless(asked, f"a run of {a.p['scenario']} with its seed, as dispatched")


@guard
def measured_once(a: Ask) -> str | None:
    launch = a.c.launches[a.p["launch"]]
    again = any(r["scenario"] == a.p["scenario"] and r["run"] == a.p["run"] for r in launch.rows)
    return unless(not again, f"a run other than {a.p['run']} of {a.p['scenario']}, which is measured already")


@guard
def rate_as_searched(a: Ask) -> str | None:
    if a.c.launches[a.p["launch"]].purpose != "rate":
        return None
    wanted = goodput.next_rate(a.c, a.c.launches[a.p["launch"]].framework, a.p["scenario"])
    sent = (a.p["row"].get("workload") or {}).get("request_rate")
    return unless(sent == wanted, f"a run at {wanted} requests/s, which the search asks for next")


@guard
def row_sla_recomputed(a: Ask) -> str | None:
    row = a.p["row"]
    honest = passes(row, a.c.spec["sla"])
    return unless(row["sla"]["passed"] == honest, f"sla.passed = {honest}, as the row's metrics say")


def _rows_of(a: Ask) -> list[dict[str, Any]]:
    launch = a.c.launches.get(a.p["launch"])
    return [row for row in launch.rows if row["scenario"] == a.p["scenario"]] if launch else []


@guard
def sla_failure_recomputed(a: Ask) -> str | None:
    found = [f for row in _rows_of(a) for f in sla_failures(row["metrics"], a.c.spec["sla"])]
    said = (a.p["key"], a.p["limit"], a.p.get("observed"))
    return unless(any(tuple(f) == said for f in found), "a measured row that misses this limit so")


@guard
def sla_pass_recomputed(a: Ask) -> str | None:
    rows = _rows_of(a)
    fine = bool(rows) and all(passes(row, a.c.spec["sla"]) for row in rows)
    return unless(fine, "rows that all meet the SLA")


@guard
def skip_adds_up(a: Ask) -> str | None:
    right = dict(a.p) in evidence.skippable(a.c, a.p["framework"])
    return unless(right, "failures of other candidates that make this one hopeless, and their reason")


@guard
def curtailment_adds_up(a: Ask) -> str | None:
    right = dict(a.p) in sweep.curtailments(a.c, a.p["launch"])
    return unless(right, "runs by which the candidate cannot win this scenario any more, and their numbers")


@guard
def run_is_wanted(a: Ask) -> str | None:
    wanted = a.p["scenario"] not in a.c.launches[a.p["launch"]].curtailed
    return unless(wanted, f"a scenario that was not given up: {a.p['scenario']} was")


@guard
def candidates_settled(a: Ask) -> str | None:
    open_ones = [entry["id"] for entry in evidence.unsettled(a.c, a.p["framework"])]
    if open_ones:
        return f"a result or a reason for {a.p['framework']}: {', '.join(open_ones)}"
    if cut := sweep.unmeasured(a.c, a.p["framework"]):
        return f"every run, or candidate.curtailed, for {', '.join(cut)}"
    if a.p["framework"] in a.c.exhausted:
        return f"a search of {a.p['framework']} that is not exhausted yet"
    found = evidence.exhausted(a.c, a.p["framework"])
    return unless(dict(a.p) == found, f"the counts of its candidates: {found}")


@guard
def last_to_exhaust(a: Ask) -> str | None:
    done = {*a.c.exhausted, *a.c.unsupported, a.p["framework"]}
    missing = [name for name in a.c.spec["frameworks"] if name not in done]
    return unless(not missing, f"search.exhausted for {', '.join(missing)}")


@guard
def winner_is_best(a: Ask) -> str | None:
    if (a.p["framework"], a.p["scenario"]) not in evidence.winning_pairs(a.c):
        return "a framework that was searched, and a scenario of the workload"
    best = evidence.winner(a.c, a.p["framework"], a.p["scenario"])
    expected = best["candidate"] if best else None
    return unless(a.p.get("candidate") == expected, f"candidate {expected}, which ranks first")


@guard
def winners_complete(a: Ask) -> str | None:
    missing = [f"{f}/{s}" for f, s in evidence.winning_pairs(a.c) if f"{f}/{s}" not in a.c.winners]
    return unless(not missing, f"winner.selected for {', '.join(missing)}")


@guard
def goodput_adds_up(a: Ask) -> str | None:
    pair = (a.p["framework"], a.p["scenario"])
    if pair not in goodput.pairs(a.c) or "goodput" in a.c.winners["/".join(pair)]:
        return "a winner whose goodput is searched for, and not known yet"
    expected = goodput.found(a.c, *pair)
    return unless(dict(a.p) == expected, f"the outcome of the tested rates: {expected}")


@guard
def goodput_known(a: Ask) -> str | None:
    missing = [f"{f}/{s}" for f, s in goodput.pairs(a.c) if "goodput" not in a.c.winners[f"{f}/{s}"]]
    return unless(not missing, f"goodput.found for {', '.join(missing)}")


@guard
def competitor_passes_sla(a: Ask) -> str | None:
    missing = [scenario for scenario in a.c.scenarios if evidence.leader(a.c, scenario) is None]
    return unless(not missing, f"a competitor's row that passes the SLA on {', '.join(missing)}")


@guard
def target_measured(a: Ask) -> str | None:
    missing = [scenario for scenario in a.c.scenarios if evidence.target_candidate(a.c, scenario) is None]
    return unless(not missing, f"a row of the target that ran on {', '.join(missing)}")


@guard
def baseline_digest_matches(a: Ask) -> str | None:
    if a.p["winners"] != a.c.winners:
        return "the winners that were selected"
    return unless(a.p["digest"] == digest(a.c.winners), "the digest of the selected winners")


@guard
def starts_at_checked_commit(a: Ask) -> str | None:
    commit = a.c.workspaces[a.c.target]["commit"]
    return unless(a.p["base_commit"] == commit, f"base_commit {commit}, as checked at intake")


@guard
def fairness_adds_up(a: Ask) -> str | None:
    items = fairness.fairness_items(a.c)
    passed = all(item["match"] for item in items)
    right = (a.p["items"], a.p["passed"]) == (items, passed)
    return unless(right, f"every condition as the spec and the state say, passed = {passed}")


@guard
def fairness_failed(a: Ask) -> str | None:
    return unless(a.c.fairness.get("passed") is False, "fairness.checked with an item that differs")


@guard
def aa_adds_up(a: Ask) -> str | None:
    expected = evidence.aa_verdict(a.c)
    return unless(expected is not None and dict(a.p) == expected, f"the A/A check of the samples: {expected}")


@guard
def gap_adds_up(a: Ask) -> str | None:
    expected = evidence.gap_verdict(a.c)
    if expected is None:
        return "more blocks: the samples so far make no call"
    return unless(dict(a.p) == expected, f"the decision that the samples make: {expected['verdict']}")


@guard
def comparison_trusted(a: Ask) -> str | None:
    if a.c.fairness.get("round") != a.c.round or not a.c.fairness["passed"]:
        return f"fairness.checked passed for round {a.c.round}"
    return unless(bool(a.c.aa.get("passed")), "aa.checked passed")


@guard
def target_not_behind(a: Ask) -> str | None:
    return unless(a.p["verdict"] in ("par_or_better", "ahead"), "a verdict of par_or_better or ahead")


@guard
def behind(a: Ask) -> str | None:
    return unless(a.p["verdict"] in ("behind", "sla_gap"), "a verdict of behind or sla_gap")


@guard
def no_call(a: Ask) -> str | None:
    return unless(a.p["verdict"] in ("undecided", "untrusted"), "a verdict of undecided or untrusted")


@guard
def only_comparing(a: Ask) -> str | None:
    return unless(a.c.spec.get("goal") == "compare", "goal: compare in the spec")


@guard
def rounds_used_up(a: Ask) -> str | None:
    limit = a.c.spec["budget"]["rounds"]
    return unless(a.c.round >= limit, f"round {limit} (this is round {a.c.round})")
