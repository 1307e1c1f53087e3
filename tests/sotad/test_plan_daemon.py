"""A plan that needs a person, in a daemon that is killed: nothing starts before the word, and no word is lost."""

from __future__ import annotations

import sys

import pytest
from rig.audit import audit
from rig.campaign import Rig

from sotad.errors import Unreachable

pytestmark = pytest.mark.timeout(300)

PLANNER = """\
import json, sys
request = json.load(open(sys.argv[1]))
assert request["action"] == "plan", request["action"]
task = {"id": "T-8", "text": "Meet it.", "criteria": ["AC-10"], "tag": "coding", "depends_on": ["T-3"]}
decision = {"id": "DEC-1", "positions": ["eager", "graph"], "tradeoff": "memory", "status": "PENDING"}
plan = {
    "goal": "faster decode",
    "criteria": [{"id": "AC-10", "text": "no copies", "positive_tests": ["none seen"], "negative_tests": ["one seen"]}],
    "boundary": {"upper": "all", "lower": "one", "may_change": ["refengine/*"], "may_not_change": ["docs/*"]},
    "hints": [],
    "milestones": [{"id": "M-1", "text": "Done.", "tasks": ["T-8"], "depends_on": []}],
    "tasks": [*request["tasks"], task],
    "deliberation": {"agreements": [], "resolved": [], "status": "converged"},
    "pending_decisions": [decision],
    "notes": [],
}
json.dump(plan, open(sys.argv[2], "w"))
"""


@pytest.mark.slow
def test_a_pending_decision_holds_the_loop_until_a_person_speaks_whoever_dies(rig: Rig) -> None:
    """Killed after the question and after the answer: asked once, answered once, started once."""
    (rig.home / "planner.py").write_text(PLANNER)
    planner = {"driver": "command", "argv": [sys.executable, str(rig.home / "planner.py")], "timeout_s": 30}
    rig.start("--kill", "after:human.question")
    rig.submit(plan={"source": "agent"}, implementer=planner)
    rig.ended()
    rig.start("--kill", "after:human.answered")
    rig.until(lambda: rig.c.phase == "blocked" and not rig.c.lease, "the campaign waits without the host")
    assert (rig.c.blocked["kind"], list(rig.c.waits)) == ("human", ["question:DEC-1"])
    assert rig.events("loop.started") == []
    with pytest.raises(Unreachable):
        rig.client.post("/v1/campaigns/small/answer", {"subject": "question:DEC-1", "text": "eager"})
    rig.ended()
    rig.start()
    rig.seen("loop.started")
    assert len(rig.events("human.question", "human.answered", "campaign.resumed", "plan.recorded")) == 4
    plan = rig.c.plan["plan"]
    assert [criterion["id"] for criterion in plan["criteria"]] == [f"AC-{number}" for number in range(1, 11)]
    assert "tests/*" in plan["boundary"]["may_not_change"]
    proposed = rig.client.post("/v1/campaigns/small/amend", {"plan": {**plan, "hints": ["look"]}, "reason": "a hint"})
    rig.client.post("/v1/campaigns/small/approve", {"subject": proposed["subject"]})
    rig.seen("plan.amended")
    assert (rig.c.plan["version"], rig.c.plan["plan"]["hints"]) == (2, ["look"])
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)
