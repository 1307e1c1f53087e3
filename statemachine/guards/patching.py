"""Guards of plans, contracts, patches, and gains that have to be believed."""

from __future__ import annotations

from statemachine import evidence, loop, plan
from statemachine.evidence import digest
from statemachine.guards.asking import Ask, guard, unless
from statemachine.guards.explaining import unresolved


@guard
def citations_resolve(a: Ask) -> str | None:
    if a.p["attempt_id"] in a.c.attempts:
        return "a new attempt_id"
    stale = a.c.rootcause.get("round") != a.c.round or a.c.tables.get("commit") != a.c.champion
    if stale:
        return f"a root cause of round {a.c.round} at {a.c.champion}"
    rejected = [row for row in a.p["citations"] if row in a.c.rejected_rows]
    if rejected:
        return f"rows that were not rejected; {', '.join(rejected)} was"
    return unresolved(a.c, a.p["citations"], a.c.rootcause["stage"])


@guard
def no_open_row(a: Ask) -> str | None:
    if a.p["condition"] not in ("no_patch", "at_limit", "external_gap"):
        return "a condition of no_patch, at_limit or external_gap"
    rows = evidence.plausible_rows(a.c)
    return unless(not rows, f"idea.rejected or an attempt for {', '.join(rows)}")


@guard
def attempt_known(a: Ask) -> str | None:
    return unless(a.p["attempt_id"] in a.c.attempts, f"patch.proposed for {a.p['attempt_id']}")


@guard
def gate_stands(a: Ask) -> str | None:
    """A refusal is for good: nobody evaluates a gate again until it passes."""
    said = a.c.attempts[a.p["attempt_id"]].gates.get(a.p["gate"])
    return unless(said is not False or not a.p["passed"], f"a gate that has not refused {a.p['attempt_id']}")


@guard
def attempt_under_way(a: Ask) -> str | None:
    return unless(a.p["attempt_id"] == a.c.current_attempt, f"the attempt under way, {a.c.current_attempt}")


@guard
def attempt_applied(a: Ask) -> str | None:
    attempt = a.c.attempts.get(a.p["attempt_id"])
    return unless(attempt is not None and bool(attempt.commit), f"patch.applied for {a.p['attempt_id']}")


@guard
def tested_once(a: Ask) -> str | None:
    tests = a.c.attempts[a.p["attempt_id"]].tests
    return unless(tests is None, f"an attempt without tests.finished; passed = {tests} is on record")


@guard
def base_tested_once(a: Ask) -> str | None:
    if a.c.base_tests:
        return f"a campaign without base.tested; {a.c.base_tests['commit']} is on record"
    return unless(a.p["commit"] == a.c.base, f"the commit that the loop began at, {a.c.base}")


@guard
def as_many_pass(a: Ask) -> str | None:
    """A run in which fewer tests passed than on the base did not pass, whatever it ended with."""
    if loop.is_current(a.c) and a.c.spec["frameworks"][a.c.target].get("tests") and not a.c.base_tests:
        return f"base.tested: how many tests pass on {a.c.base}"
    wanted = a.c.base_tests.get("counted")
    fewer = wanted is not None and a.p.get("counted", -1) < wanted
    return unless(not (a.p["passed"] and fewer), f"{wanted} tests that passed, as on the base")


@guard
def compared_once(a: Ask) -> str | None:
    equal = a.c.attempts[a.p["attempt_id"]].equivalence
    return unless(equal is None, f"an attempt without equivalence.finished; passed = {equal} is on record")


@guard
def based_on_champion(a: Ask) -> str | None:
    return unless(a.p["base"] == a.c.champion, f"a commit on top of the champion {a.c.champion}")


@guard
def commit_gates_passed(a: Ask) -> str | None:
    gates = a.c.attempt.gates
    missing = [name for name in loop.commit_gates(a.c) if not gates.get(name)]
    return unless(not missing, f"gate.evaluated passed for {', '.join(missing)}")


@guard
def refusal_on_record(a: Ask) -> str | None:
    attempt, gate = a.c.attempt, a.p["gate"]
    if gate == "plausibility":
        return unless(loop.denied(a.c, f"attempt:{attempt.attempt_id}"), "human.approved with approved = false")
    if gate == "improvement":
        found = loop.attempt_verdict(a.c) if attempt.commit else None
        fails = found is not None and not found["accepted"] and dict(a.p["decisions"]) == found["decisions"]
        return unless(fails, "samples by which the patch is no improvement")
    return unless(gate in evidence.failed_gates(attempt), f"gate.evaluated failed for {gate}")


@guard
def champion_restored(a: Ask) -> str | None:
    return unless(a.p["restored_commit"] == a.c.champion, f"the checkout back at {a.c.champion}")


@guard
def tests_passed(a: Ask) -> str | None:
    return unless(a.c.attempt.tests is True, "tests.finished passed, run by the daemon")


@guard
def outputs_equal(a: Ask) -> str | None:
    return unless(a.c.attempt.equivalence is True, "equivalence.finished passed")


@guard
def accuracy_adds_up(a: Ask) -> str | None:
    wanted = a.c.spec["frameworks"][a.c.target].get("accuracy")
    if a.c.attempts[a.p["attempt_id"]].accuracy is not None or not wanted:
        return "an attempt that was not scored, and an accuracy command of the spec"
    score = a.p.get("score")
    held = score is not None and score >= a.p["baseline"] - a.p["max_drop"]
    as_asked = (a.p["command"], a.p["max_drop"]) == (wanted["command"], wanted["max_drop"])
    return unless(as_asked and a.p["passed"] == held, f"the spec's command and max_drop, and passed = {held}")


@guard
def accuracy_held(a: Ask) -> str | None:
    return unless(not loop.accuracy_owed(a.c) and a.c.attempt.accuracy is not False, "accuracy.finished passed")


@guard
def equivalence_adds_up(a: Ask) -> str | None:
    honest = a.p["differing"] == 0 and a.p["prompts"] > 0
    return unless(a.p["passed"] == honest, f"passed = {honest} with {a.p['differing']} differing prompts")


@guard
def improvement_adds_up(a: Ask) -> str | None:
    found = loop.attempt_verdict(a.c)
    if found is None:
        return "more blocks of challenger against champion"
    if not found["accepted"]:
        return "an interval of improvement that excludes zero, and no scenario that regressed"
    right = (a.p["decisions"], a.p["commit"]) == (found["decisions"], a.c.attempt.commit)
    return unless(right, "the decisions that the samples make, and the commit that was measured")


@guard
def attempt_closed(a: Ask) -> str | None:
    return unless(a.c.attempt.status in ("accepted", "reverted"), "patch.accepted or patch.reverted")


@guard
def plan_valid(a: Ask) -> str | None:
    wrong = plan.problems(a.p["plan"])
    if wrong:
        return f"a plan without problems: {wrong[0]}"
    if digest(a.p["plan"]) != a.p["digest"]:
        return "a digest that is the plan's"
    if a.c.plan.get("seq"):
        wanted = "the plan in force with the baseline that was frozen since; all else is changed by plan.amended"
        return unless(_only_rebased(a), wanted)
    return unless(a.p["version"] == 1, "version 1 of a plan")


def _only_rebased(a: Ask) -> bool:
    """Whether a plan is the one in force but for its baseline, which was discarded and frozen anew."""
    old, new = a.c.plan["plan"], a.p["plan"]
    moved = old["baseline"]["digest"] != a.c.baseline_digest == new["baseline"]["digest"]
    measured = new["baseline"]["winners"] == a.c.winners
    else_same = new == {**old, "baseline": new["baseline"]}
    return bool(moved and measured and else_same and a.p["version"] == a.c.plan["version"] + 1)


@guard
def plan_on_record(a: Ask) -> str | None:
    if not loop.is_current(a.c):
        return None
    right = a.c.plan.get("digest") == a.p["plan_digest"]
    return unless(right, "plan.recorded with this plan_digest")


@guard
def decisions_made(a: Ask) -> str | None:
    if not a.c.plan:
        return None
    open_ = [name for name in plan.pending(a.c.plan["plan"]) if f"question:{name}" not in a.c.answers]
    return unless(not open_, f"human.answered for the plan's open decisions: {', '.join(open_)}")


@guard
def amendment_valid(a: Ask) -> str | None:
    if not a.c.plan or a.c.phase in ("stopping", "closed"):
        return "plan.recorded, and a campaign that is not over"
    wrong = plan.amendment_problems(a.c.plan["plan"], a.p["plan"])
    if wrong:
        return f"an amendment without problems: {wrong[0]}"
    return unless(digest(a.p["plan"]) == a.p["digest"], "a digest that is the plan's")


@guard
def amendment_approved(a: Ask) -> str | None:
    right = dict(a.p) == loop.approved_amendment(a.c)
    if right and a.p["proposal"] < a.c.plan["seq"]:
        return f"an amendment of the plan in force, which is newer: {a.c.plan['seq']}"
    return unless(right, f"human.approved of plan:{a.p['proposal']}, and its digest")


@guard
def contract_valid(a: Ask) -> str | None:
    if not loop.is_current(a.c):
        return None
    contract = a.p.get("contract") or {}
    objective, chosen = str(contract.get("objective", "")).strip(), contract.get("criteria") or []
    known = plan.criteria(a.c.plan["plan"]) if a.c.plan else []
    if not objective or "\n" in objective:
        return "a round contract with one objective, in one line"
    if not 1 <= len(chosen) <= 2 or any(name not in known for name in chosen):
        return f"a round contract for one or two criteria of the plan: {', '.join(known)}"
    if a.c.recovery and not str((contract.get("recovery") or {}).get("cause", "")).strip():
        return "a recovery contract that names the cause of the stalled rounds"
    return unless(bool(str(contract.get("success", "")).strip()), "a round contract that says what success is")


@guard
def research_done(a: Ask) -> str | None:
    owed = loop.research_owed(a.c)
    return unless(not owed, f"idea.recorded in round {a.c.round}: {a.c.weak} weak rounds in a row demand new ideas")


@guard
def summary_on_record(a: Ask) -> str | None:
    missing = loop.is_current(a.c) and not a.c.attempt.summary
    return unless(not missing, "summary.recorded for this attempt")


@guard
def heldout_drawn(a: Ask) -> str | None:
    if a.c.spec.get("loop", 1) < loop.VERSION:
        return None
    drawn = a.p.get("heldout") or {}
    for shape in a.c.spec["workload"]["scenarios"]:
        own = drawn.get(shape["name"])
        if not own:
            return f"a held-out variant of scenario {shape['name']}"
        same = [key for key in ("input_len", "output_len") if (shape.get(key) or 1) > 1 and own.get(key) == shape[key]]
        if same or "seed" not in own:
            return f"a held-out variant of scenario {shape['name']} with another {', '.join(same or ['seed'])}"
    return None


@guard
def heldout_adds_up(a: Ask) -> str | None:
    expected = loop.heldout_verdict(a.c)
    right = expected is not None and dict(a.p) == expected
    return unless(right, f"what the held-out samples say: {expected}")


@guard
def heldout_passed(a: Ask) -> str | None:
    return unless(a.p["passed"], "a champion that is faster than the base on the held-out workload")


@guard
def heldout_confirmed(a: Ask) -> str | None:
    return unless(not loop.heldout_owed(a.c), f"heldout.checked passed for {a.c.champion}")


@guard
def finalize_owed(a: Ask) -> str | None:
    return unless(loop.finalize_owed(a.c), "a success with patches that nobody has tried to simplify")


@guard
def finalizing(a: Ask) -> str | None:
    return unless(a.c.attempt.kind == "finalize", "an attempt to simplify")


@guard
def attempt_new(a: Ask) -> str | None:
    return unless(a.p["attempt_id"] not in a.c.attempts, "a new attempt_id")


@guard
def nothing_applied(a: Ask) -> str | None:
    nothing = a.c.attempt.gates.get("commit_exists") is False and a.c.attempt.status == "proposed"
    return unless(nothing, "gate.evaluated failed for commit_exists: an attempt that changed nothing")


@guard
def timed_outputs_equal(a: Ask) -> str | None:
    missing = loop.is_current(a.c) and not a.c.attempt.gates.get("timed_outputs")
    return unless(not missing, "gate.evaluated passed for timed_outputs: the answers of the timed requests")


@guard
def gain_plausible(a: Ask) -> str | None:
    doubt = loop.quarantine(a.c)
    if doubt is None or loop.approved(a.c, f"attempt:{a.c.current_attempt}"):
        return None
    return f"human.approved of attempt:{a.c.current_attempt}: {doubt['gain_pct']:.0f}% is above {doubt['why']}"


@guard
def quarantine_adds_up(a: Ask) -> str | None:
    expected = loop.quarantine(a.c)
    if f"attempt:{a.c.current_attempt}" in a.c.answers:
        return "an attempt that no person has decided on"
    return unless(dict(a.p) == expected, f"a gain that the samples make and that is not believed: {expected}")
