"""The plan that every campaign can follow: what a round must prove, for the target and the boundary of its spec."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from statemachine.plan import TESTS
from statemachine.state import JSON, Campaign


def template(c: Campaign, draft: str = "", **written: Any) -> JSON:
    """A valid plan of the campaign. ``written`` replaces parts of it by what a draft or an agent says.

    What only the daemon knows is taken from the campaign whatever ``written`` holds.
    """
    target = c.spec["frameworks"][c.target]
    goal = f"Bring {c.target} to par with the best competitor or ahead of it in every scenario, or show why not."
    boundary = {
        "upper": "Any change of the target's own code inside the boundary that keeps its outputs as they are.",
        "lower": "One change that gains measurably in the scenario in which the target is furthest behind.",
        "may_change": list(target["paths"]),
        "may_not_change": list(TESTS),
    }
    parts = {
        "goal": goal,
        "criteria": deepcopy([*CRITERIA]),
        "boundary": boundary,
        "hints": list(HINTS),
        "milestones": deepcopy([*MILESTONES]),
        "tasks": deepcopy([*TASKS]),
        "deliberation": {"agreements": [], "resolved": [], "status": "converged"},
        "pending_decisions": [],
        "notes": list(NOTES),
    }
    return {**parts, **written, **known(c, draft)}


def known(c: Campaign, draft: str) -> JSON:
    """The parts of a plan that nobody may write but the daemon."""
    return {
        "draft": draft,
        "baseline": baseline(c),
        "decision": c.spec["decision"],
        "rounds": c.spec["budget"]["rounds"],
    }


def baseline(c: Campaign) -> JSON:
    """What a plan says of the rows that were frozen."""
    return {"digest": c.baseline_digest, "winners": c.winners}


def _criterion(id_: str, text: str, positive: tuple[str, ...], negative: tuple[str, ...]) -> JSON:
    return {"id": id_, "text": text, "positive_tests": list(positive), "negative_tests": list(negative)}


def _task(id_: str, tag: str, text: str, criteria: tuple[str, ...], *depends_on: str) -> JSON:
    known_by = {"id": id_, "text": text, "criteria": list(criteria)}
    return {**known_by, "tag": tag, "depends_on": list(depends_on)}


CRITERIA = (
    _criterion(
        "AC-1",
        "What was frozen stays frozen: workload, SLA, and every competitor's command and version.",
        ("each launch of a competitor repeats the command and commit of its frozen row",),
        ("a result under another workload, SLA or competitor command is refused",),
    ),
    _criterion(
        "AC-2",
        "What earlier work on this model found is read before a patch is proposed.",
        ("the history on record names what was read and what it decides", "open pull requests are on record"),
        ("a proposal before the history is on record is refused",),
    ),
    _criterion(
        "AC-3",
        "Each round decides the gap and profiles anew, at the commit that it is about to change.",
        ("profiles of the target and of the leader carry the round and the commit of the decision",),
        ("a root cause from another round's profile or another commit is refused",),
    ),
    _criterion(
        "AC-4",
        "The layers of the slow stage are broken down before a place to patch is chosen.",
        ("the layer report names the pass, the layers and the kernels that are hot in them",),
        ("a root cause without this round's layer report is refused",),
    ),
    _criterion(
        "AC-5",
        "A patch is one small change that cites the rows that called for it and says where borrowed code is from.",
        ("every cited row is in this round's table with its share of the stage", "its files are inside the boundary"),
        (
            "a patch that cites a rejected row or none is refused",
            "a change of tests, harness or settings alone is refused",
        ),
    ),
    _criterion(
        "AC-6",
        "Work on a kernel belongs to the same loop and rests on what the hardware counted for that kernel.",
        ("a changed kernel has a row of at least 1% of its stage and a limit to compare with",),
        ("a gain in a microbenchmark alone is no reason to accept a patch",),
    ),
    _criterion(
        "AC-7",
        "A patch is accepted only with passing tests, equal outputs and a gain of the served model that is not noise.",
        ("tests, outputs and the frozen benchmark are run again by the daemon on the patched commit",),
        (
            "a patch that changes an output or slows a scenario is taken back",
            "a gain whose interval holds zero is taken back",
        ),
    ),
    _criterion(
        "AC-8",
        "Every attempt is on record with its end, failed ones too, and there is one loop.",
        ("each attempt ends as accepted, taken back or refused, with the reason",),
        ("a second loop on the same checkout is refused", "an attempt without an end keeps the round open"),
    ),
    _criterion(
        "AC-9",
        "The loop stops for a reason that its evidence shows, and not while a plausible row is untried.",
        ("the stop names the events that establish it",),
        ("a stop with a row of weight neither tried nor rejected is refused",),
    ),
)

TASKS = (
    _task("T-1", "analyze", "Read the history and the open pull requests of the model.", ("AC-2",)),
    _task("T-2", "analyze", "Decide the gap under the frozen workload and name the leader.", ("AC-1", "AC-3"), "T-1"),
    _task("T-3", "analyze", "Profile, break the layers down, and write the root cause.", ("AC-3", "AC-4"), "T-2"),
    _task("T-4", "coding", "Make one small change at the root cause.", ("AC-5", "AC-6"), "T-3"),
    _task("T-5", "analyze", "Test, compare outputs, measure again; accept or take back.", ("AC-1", "AC-7"), "T-4"),
    _task("T-6", "analyze", "Record the attempt; go on, or stop for a reason on record.", ("AC-8", "AC-9"), "T-5"),
)

MILESTONES = (
    {"id": "M-1", "text": "The cause of the gap is known.", "tasks": ["T-1", "T-2", "T-3"], "depends_on": []},
    {"id": "M-2", "text": "A change is measured and judged.", "tasks": ["T-4", "T-5"], "depends_on": ["M-1"]},
    {"id": "M-3", "text": "The loop stops with evidence.", "tasks": ["T-6"], "depends_on": ["M-2"]},
)

HINTS = (
    "Look first for a faster path that exists and is not taken, then for copies, syncs and host work to remove.",
    "Compare with what the leader does in the same stage before anything new is written.",
    "Fusions and overlaps pay only in rows that weigh; keep guarded heuristics narrow.",
)

NOTES = ("Code and its comments speak of the code: no words of the plan, its criteria or its rounds in them.",)
