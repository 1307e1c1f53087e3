"""The loop's own questions: what is owed, what stands open, who was asked. Answered from the state alone."""

from __future__ import annotations

import math

from statemachine import evidence
from statemachine.evidence import Contest
from statemachine.gap import decide_improvement
from statemachine.state import JSON, Attempt, Campaign

VERSION = 2  # of the rules for rounds; a spec of an earlier release has none and is judged by the rules it was run by
BLOCKING = ("mainline", "blocking")
WEAK_PCT = 1.0  # a round that gains less over all scenarios is a weak one
WEAK_ROUNDS = 2  # in a row, and new ideas have to be on record before the next patch
COMMIT_GATES = (
    *evidence.COMMIT_GATES,
    "refs_untouched",
    "files_as_claimed",
    "no_secrets",
    "large_files",
    "provenance",
    "nothing_left_running",
    "inside_worktree",
)


def is_current(c: Campaign) -> bool:
    """Whether the campaign was created under the present rules for rounds."""
    return int(c.spec.get("loop", 1)) >= VERSION


def commit_gates(c: Campaign) -> tuple[str, ...]:
    """The gates that a commit has to pass before it is run."""
    return COMMIT_GATES if is_current(c) else evidence.COMMIT_GATES


# --- reviews -------------------------------------------------------------------------------------------


def reviews_owed(c: Campaign) -> list[str]:
    """The kinds of review of this round, in order: of the round, then of an accepted patch's code."""
    if not is_current(c):
        return ["summary"]
    review = c.spec["review"]
    kinds = ["alignment" if (c.round + 1) % int(review["alignment_every"]) == 0 else "summary"]
    return [*kinds, "code"] if review["code"] and c.attempt.status == "accepted" else kinds


def next_review(c: Campaign) -> str | None:
    """The kind of review that has no verdict yet."""
    return next((kind for kind in reviews_owed(c) if kind not in c.verdicts), None)


def mainline(c: Campaign) -> JSON:
    """The verdict on the round itself."""
    return c.verdicts.get(reviews_owed(c)[0], {})


def findings(c: Campaign) -> list[JSON]:
    """What this round's verdicts found, in order."""
    return [finding for kind in reviews_owed(c) for finding in c.verdicts.get(kind, {}).get("findings", [])]


def open_issues(c: Campaign) -> list[JSON]:
    """Issues that nobody has seen mended and that have to be."""
    return [issue for issue in c.issues.values() if issue["status"] == "open" and issue["lane"] in BLOCKING]


def unapproved_review(c: Campaign) -> str:
    """The subject that a person has to approve before this round's self-review counts; empty when none has to."""
    if not is_current(c) or c.spec["review"]["mode"] != "self":
        return ""
    sampled = (c.round + 1) % int(c.spec["review"]["approve_every"]) == 0
    subject = f"round:{c.round}"
    return subject if sampled and not approved(c, subject) else ""


# --- people --------------------------------------------------------------------------------------------


def approved(c: Campaign, subject: str) -> bool:
    """Whether a person said yes."""
    return c.answers.get(subject, {}).get("approved") is True


def denied(c: Campaign, subject: str) -> bool:
    """Whether a person said no."""
    return c.answers.get(subject, {}).get("approved") is False


def question(c: Campaign) -> str:
    """A subject that the loop cannot go on without; empty when there is none."""
    return next((subject for subject in c.waits if subject.startswith("question:")), "")


def approved_amendment(c: Campaign) -> JSON | None:
    """The amendment that a person approved and that is not in force yet, as ``plan.amended`` carries it."""
    for seq, proposal in c.amendments.items():
        if int(seq) > c.plan["seq"] and approved(c, f"plan:{seq}"):
            return {"version": c.plan["version"] + 1, "digest": proposal["digest"], "proposal": int(seq)}
    return None


# --- gains ---------------------------------------------------------------------------------------------


def attempt_verdict(c: Campaign) -> JSON | None:
    """Whether the attempt under way is accepted by its samples; to simplify it is enough to lose nothing."""
    found = evidence.improvement_verdict(c)
    if found is None or c.attempt.kind == "patch":
        return found
    verdicts = {decision["verdict"] for decision in found["decisions"].values()}
    return {**found, "accepted": verdicts <= {"accept", "flat"}}


def gain_pct(decisions: JSON) -> float:
    """The largest gain over the scenarios, percent; g says how far the challenger is behind."""
    return max(-float(found["g_pct"]) for found in decisions.values())


def ceiling_pct(c: Campaign) -> tuple[float, str]:
    """The gain that is believed without asking a person, percent, and where it comes from."""
    most = float(c.spec["decision"]["max_gain_pct"])
    fraction = float((c.pipeline.get("limit") or {}).get("fraction") or 0.0)
    if 0 < fraction < 1 and (possible := 100 * (1 / fraction - 1)) < most:
        return possible, f"the slow stage was at {fraction:.0%} of what its hardware allows"
    return most, "decision.max_gain_pct"


def quarantine(c: Campaign) -> JSON | None:
    """Why the accepted samples of the attempt under way are too good to be believed; None when they are not."""
    found = attempt_verdict(c)
    if not is_current(c) or found is None or not found["accepted"]:
        return None
    gain, (ceiling, why) = gain_pct(found["decisions"]), ceiling_pct(c)
    if gain <= ceiling:
        return None
    return {"attempt_id": c.current_attempt, "gain_pct": gain, "ceiling_pct": ceiling, "why": why}


def is_weak(attempt: Attempt) -> bool:
    """Whether a round's attempt brought less than what counts, in the geometric mean over the scenarios."""
    if attempt.status != "accepted" or not attempt.gain_by:
        return True
    product = math.prod(1 + gain / 100 for gain in attempt.gain_by.values())
    return 100 * (math.pow(product, 1 / len(attempt.gain_by)) - 1) < WEAK_PCT


def research_owed(c: Campaign) -> bool:
    """Whether weak rounds in a row demand new ideas, and none is on record in this round."""
    weak = is_current(c) and c.weak >= WEAK_ROUNDS
    return weak and not any(idea["round"] == c.round for idea in c.ideas)


def accuracy_owed(c: Campaign) -> bool:
    """Whether the target names an accuracy command, and nobody has scored the attempt under way."""
    return bool(c.spec["frameworks"][c.target].get("accuracy")) and c.attempt.accuracy is None


# --- the held-out workload -----------------------------------------------------------------------------


def heldout_owed(c: Campaign) -> bool:
    """Whether a claim of success rests on patches that were not confirmed on the held-out workload."""
    if not is_current(c) or c.champion == c.base:
        return False
    return c.heldout_check.get("commit") != c.champion or not c.heldout_check["passed"]


def heldout_contest(c: Campaign) -> Contest:
    """The champion against the commit that the loop began with, on requests that no agent was shown."""
    pairs = {}
    for scenario in c.scenarios:
        candidate = evidence.target_candidate(c, scenario) or ""
        pairs[scenario] = (
            evidence.Entry(f"champion.{candidate}", c.target, candidate, c.champion),
            evidence.Entry(f"base.{candidate}", c.target, candidate, c.base),
        )
    return Contest(f"heldout/{c.champion[:12]}", pairs, 10_000 * (c.round + 1))


def heldout_verdict(c: Campaign) -> JSON | None:
    """What ``heldout.checked`` says: is faster than the base somewhere and slower nowhere; None while open."""
    found = evidence.decisions(c, heldout_contest(c), decide_improvement)
    if evidence.is_open(found):
        return None
    verdicts = [decision.verdict for decision in found.values() if decision]
    passed = "accept" in verdicts and set(verdicts) <= {"accept", "flat"}
    return {"round": c.round, "commit": c.champion, "passed": passed, "decisions": evidence.as_json(found)}


def finalize_owed(c: Campaign) -> bool:
    """Whether the implementer may simplify once before the success stands."""
    return is_current(c) and bool(c.spec["review"]["finalize"]) and c.champion != c.base and not c.finalized


# --- budgets -------------------------------------------------------------------------------------------

BUDGETS = {"tokens": "tokens", "money": "money_usd"}


def overspent(c: Campaign) -> JSON | None:
    """The budget that the agents have used up, as ``budget.exhausted`` carries it."""
    if not is_current(c):
        return None
    for kind, key in BUDGETS.items():
        limit = c.spec["budget"].get(key)
        if limit is not None and c.spent.get(key, 0.0) >= limit:
            return {"kind": kind, "limit": float(limit), "used": float(c.spent[key])}
    return None
