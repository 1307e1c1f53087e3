"""The reasons of the loop's own events: plan, contract, agents, people, reviews, held-out check, quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sotad.api.phrases import Words, cut, decision_rule, number, payload_lines, samples
from statemachine import plan
from statemachine.guards import MAX_FIX_CYCLES, MAX_STALLS
from statemachine.state import JSON, Campaign

Explain = Callable[[JSON, Campaign], Words]
LOOP: dict[str, Explain] = {}


def _on(*types: str) -> Callable[[Explain], Explain]:
    def register(function: Explain) -> Explain:
        LOOP.update(dict.fromkeys(types, function))
        return function

    return register


# --- the plan ----------------------------------------------------------------------------------------------


@_on("plan.recorded")
def _plan(p: JSON, c: Campaign) -> Words:
    return [
        f"plan version {p['version']}, from {p['source']}, digest {p['digest']}",
        f"goal: {cut(str(p['plan'].get('goal', '')))}",
        *(f"{found['id']}: {cut(found['text'])}" for found in p["plan"].get("criteria", [])),
        *_boundary(p["plan"]),
    ], ["an amendment that a person approves: sotactl amend"]


def _boundary(found: JSON) -> Iterator[str]:
    for key in ("may_change", "may_not_change"):
        yield f"{key.replace('_', ' ')}: {', '.join(found.get('boundary', {}).get(key, [])) or 'nothing'}"


@_on("plan.amendment_proposed")
def _proposed_amendment(p: JSON, c: Campaign) -> Words:
    lines = [f"asked for by {p['by']}: {p['reason']}", *_changes(c, p["plan"])]
    return lines, ["nothing changes before a person approves it: sotactl approve CAMPAIGN plan:SEQ, or with --deny"]


@_on("plan.amended")
def _amended(p: JSON, c: Campaign) -> Words:
    proposal, answer = c.amendments.get(str(p["proposal"]), {}), c.answers.get(f"plan:{p['proposal']}", {})
    lines = [
        f"version {p['version']} takes the place of version {c.plan.get('version')}, as event {p['proposal']} asks"
    ]
    lines += [f"approved by a person in event {answer['seq']}"] if answer.get("approved") else []
    return [*lines, *_changes(c, proposal.get("plan"))], ["a person who denies it"]


def _changes(c: Campaign, new: JSON | None) -> list[str]:
    old = c.plan.get("plan")
    if old is None or new is None or plan.problems(old) or plan.problems(new):
        return []
    return [f"it changes: {line}" for line in plan.changes(old, new)]


# --- contract, ideas, agents -----------------------------------------------------------------------------------


@_on("patch.proposed")
def _proposed(p: JSON, c: Campaign) -> Words:
    contract = p.get("contract") or {}
    lines = [
        f"attempt {p['attempt_id']} of round {p['round']}: {p['hypothesis']}",
        f"cites {', '.join(p['citations'])}",
    ]
    lines += [f"contract, {line}" for line in payload_lines(contract)]
    lines += [f"a recovery contract was owed after {c.stalls} stalled rounds in a row"] if c.recovery else []
    lines += [f"weak rounds in a row before this: {c.weak}"] if c.weak else []
    return lines, ["another row of the root cause that nobody has tried or rejected"]


@_on("idea.recorded")
def _ideas(p: JSON, c: Campaign) -> Words:
    lines = [f"idea {place}: {'; '.join(payload_lines(idea))}" for place, idea in enumerate(p["ideas"], 1)]
    return [f"weak rounds in a row before this: {c.weak}", *lines], ["rounds that are not weak need no new ideas"]


@_on("summary.recorded")
def _summary(p: JSON, c: Campaign) -> Words:
    said = [line for line in payload_lines(p) if not line.startswith("document:")]
    return ["what the implementer says of its work; the gates look for themselves", *said], []


@_on("agent.finished")
def _agent(p: JSON, c: Campaign) -> Words:
    use = p.get("usage")
    told = ", ".join(f"{key} {number(value)}" for key, value in (use or {}).items() if value is not None)
    session = (
        f"session {p['session']}, {'resumed' if p.get('resumed') else 'new'}" if p.get("session") else "no session"
    )
    return [
        f"the {p['role']} ({' '.join(filter(None, (p['driver'], p.get('version'))))}) {p['outcome']} "
        f"after {number(p['wall_s'])} s, {session}",
        *([f"no sandbox bounded it: {p['unconfined']}"] if p.get("unconfined") else []),
        f"its tool reported: {told}" if told else "its tool reported no usage: what it spent is unknown, not nothing",
        *_spent(c),
    ], []


def _spent(c: Campaign) -> Iterator[str]:
    """What all agents had used before, against the budgets."""
    for key in ("tokens", "money_usd"):
        limit = c.spec.get("budget", {}).get(key)
        bound = f"of {number(limit)}" if limit is not None else "without a limit"
        yield f"{key} of all agents before this: {number(c.spent.get(key, 0))} {bound}"


@_on("finalize.opened")
def _finalize(p: JSON, c: Campaign) -> Words:
    gap = c.gaps[-1] if c.gaps else {}
    return [
        f"the target is {gap.get('verdict')} (event {gap.get('seq')}) with patches that nobody has tried to simplify",
        "what the implementer changes now is tested, measured and reviewed like any patch",
    ], ["review.finalize: false in the campaign file, or a success without patches"]


@_on("finalize.unchanged")
def _unchanged(p: JSON, c: Campaign) -> Words:
    stands = f"attempt {p['attempt_id']} made no commit: the champion {c.champion} stands as it was measured"
    return [stands], ["a commit"]


# --- checks that no agent can prepare for -----------------------------------------------------------------------


@_on("heldout.checked")
def _heldout(p: JSON, c: Campaign) -> Words:
    said = "holds on" if p["passed"] else "is not there on"
    return [
        f"what was gained {said} the held-out workload: champion {p['commit']} against {c.base}",
        decision_rule(c),
        *samples(p["decisions"]),
    ], [_heldout_flip(p)]


def _heldout_flip(p: JSON) -> str:
    if p["passed"]:
        return "no scenario on which the champion is faster, or one on which it is slower"
    return "a scenario on which the champion is faster than the first commit, and none on which it is slower"


@_on("patch.quarantined")
def _quarantined(p: JSON, c: Campaign) -> Words:
    gain, ceiling = number(p["gain_pct"]), number(p["ceiling_pct"])
    return [
        f"attempt {p['attempt_id']} gains {gain}%, more than the {ceiling}% that is believed: {p['why']}",
        "a gain this large is more often a mistake, or a cheat, than a wonder: a person has to look",
    ], [f"a gain of at most {ceiling}%", f"sotactl approve CAMPAIGN attempt:{p['attempt_id']}"]


# --- people --------------------------------------------------------------------------------------------------


@_on("human.question")
def _question(p: JSON, c: Campaign) -> Words:
    return [f"{p['by']} asks about {p['subject']}: {p['text']}"], [
        f"an answer: sotactl answer CAMPAIGN {p['subject']} TEXT"
    ]


@_on("human.answered", "human.approved")
def _reply(p: JSON, c: Campaign) -> Words:
    asked = c.waits.get(p["subject"], {})
    said = p["answer"] if "answer" in p else "approved" if p["approved"] else "denied"
    others = [subject for subject in c.waits if subject != p["subject"]]
    lines = [f"{p['subject']} waited since event {asked['seq']}: {asked['text']}"] if asked else []
    lines += [f"the person said: {said}", *([f"because: {p['reason']}"] if p.get("reason") else [])]
    return [*lines, f"still waiting: {', '.join(others) or 'nothing'}"], ["another answer; nobody's silence is one"]


# --- reviews -------------------------------------------------------------------------------------------------


@_on("verdict.recorded")
def _verdict(p: JSON, c: Campaign) -> Words:
    return [
        f"{p.get('kind', 'summary')} review of round {p['round']}: {p['mainline']}, {p['control']}",
        f"summary: {cut(p['summary'])}",
        *(f"finding: {'; '.join(payload_lines(found))}" for found in p["findings"]),
        *(f"seen mended: {_issue(c, name)}" for name in p.get("resolved", [])),
        *(f"criterion {'; '.join(payload_lines(found))}" for found in p.get("criteria", [])),
        *(f"still open: {_issue(c, name)}" for name in _open(c) if name not in p.get("resolved", [])),
    ], ["what the reviewer sees: this is its word; what follows from it is decided by the rules"]


def _open(c: Campaign) -> list[str]:
    return [name for name, issue in c.issues.items() if issue["status"] == "open"]


def _issue(c: Campaign, name: str) -> str:
    issue = c.issues.get(name, {})
    return f"{name} ({issue.get('severity')}, {issue.get('lane')}): {cut(str(issue.get('text', '')))}"


@_on("review.passed", "review.findings", "review.stalled", "review.stopped", "review.failed")
def _review(p: JSON, c: Campaign) -> Words:
    lines = [line for kind, said in _verdicts(c).items() for line in _said(kind, said)]
    lines += [f"open issue {_issue(c, name)}" for name in _open(c)]
    lines += [f"stalled rounds in a row before this: {c.stalls} of {MAX_STALLS}"]
    lines += [f"fix cycles so far: {c.fix_cycles} of {MAX_FIX_CYCLES}", *payload_lines(p)]
    return lines, ["another verdict; it is stalled rounds or fix cycles that end the loop"]


def _verdicts(c: Campaign) -> dict[str, JSON]:
    """The round's verdicts by kind of review."""
    return c.verdicts or ({"summary": c.review} if "seq" in c.review else {})


def _said(kind: str, said: JSON) -> Iterator[str]:
    yield f"recorded verdict of the {kind} review: {said['mainline']}, {said['control']} (event {said['seq']})"
    yield f"summary: {cut(said['summary'])}"
    for item in said["findings"]:
        yield f"finding: {'; '.join(payload_lines(item))}"
