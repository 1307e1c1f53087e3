"""Implementers and reviewers that fail: on record, bounded, and never able to take the daemon down."""

from __future__ import annotations

import pytest
from rig.audit import audit
from rig.campaign import Rig, git

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
]  # the first to ask for the session's campaign waits for all of it


def cancelled(rig: Rig) -> None:
    """End the campaign and hold it to what a finished one owes."""
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


@pytest.mark.parametrize(
    "said",
    [
        ("prose", "nothing", "two verdicts"),
        ("crash", "no findings key", "unstorable"),
        ("deep", "prose", "crash"),
    ],
)
def test_a_reviewer_that_gives_no_usable_verdict_blocks_the_campaign(reviewing: Rig, said: tuple[str, ...]) -> None:
    """Each failure is on record with its reason; after three the campaign waits for a person."""
    reviewing.behave("reviewer", "\n".join(said))
    before = len(reviewing.events("campaign.blocked"))
    reviewing.start()
    blocked = reviewing.seen("campaign.blocked", count=before + 1).payload
    failures = reviewing.events("review.failed")
    assert [len(failures), len(reviewing.events("verdict.recorded"))] == [3, 0]
    assert all(event.payload["reason"] for event in failures)
    assert (blocked["kind"], "no usable verdict 3 times" in blocked["reason"]) == ("evidence", True)
    assert reviewing.c.champion == reviewing.c.attempt.commit
    cancelled(reviewing)


def test_an_implementer_that_crashes_goes_silent_or_talks_nonsense_is_tried_again(selecting: Rig) -> None:
    """Three failures block the campaign with the last reason; after a resume a better one is asked."""
    selecting.behave("implementer", "crash\nunstorable\nno object")
    selecting.start()
    blocked = selecting.seen("campaign.blocked").payload
    ends = [e.payload["detail"] for e in selecting.events("job.finished") if "propose" in e.payload["job"]]
    assert "the model is not available" in ends[0]
    assert "U+D800" in ends[1] or "surrogate" in ends[1] or "hypothesis" in ends[1]
    assert "no JSON object" in ends[2]
    assert (blocked["kind"], "failed 3 times" in blocked["reason"]) == ("evidence", True)
    selecting.behave("implementer", "patch")
    selecting.client.post("/v1/campaigns/small/resume")
    assert selecting.seen("patch.applied").payload["files"] == ["refengine/work.py"]
    cancelled(selecting)


def test_an_implementer_that_goes_silent_runs_out_of_time(selecting: Rig) -> None:
    """Its bound ends it and all that it started; then it is asked again."""
    selecting.behave("implementer", "silent\npatch")
    selecting.start()
    selecting.seen("patch.applied")
    ends = [e.payload["detail"] for e in selecting.events("job.finished") if "propose" in e.payload["job"]]
    assert "timeout" in ends[0]
    cancelled(selecting)


@pytest.mark.parametrize(
    ("mode", "gate"),
    [
        ("outside", "path_boundary"),
        ("wrong tokens", "output_equivalence"),
        ("uncommitted", "commit_exists"),
        ("cannot start", "output_equivalence"),
    ],
)
def test_a_patch_that_a_gate_refuses_is_reverted(selecting: Rig, mode: str, gate: str) -> None:
    """The gate that refused is named, the champion stays, the attempt stays on its branch."""
    selecting.behave("implementer", mode)
    selecting.start()
    reverted = selecting.seen("patch.reverted").payload
    assert reverted["gate"] == gate
    assert reverted["restored_commit"] == git(selecting.target, "rev-parse", "main")
    cancelled(selecting)
    assert "sotad/small-a1" in git(selecting.target, "branch", "--list", "sotad/*")


def test_an_implementer_that_fails_half_way_starts_again_from_the_champion(selecting: Rig) -> None:
    """What a crashed try left behind is in no later one; a branch of somebody else is not touched."""
    git(selecting.target, "branch", "sotad/small-a1-try2", "main~1")
    selecting.behave("implementer", "patch\ncommit and crash\npatch\npatch")
    selecting.start()
    applied = selecting.seen("patch.applied").payload
    ends = [e.payload["detail"] for e in selecting.events("job.finished") if "implement/" in e.payload["job"]]
    assert "is of another campaign" in ends[1]
    assert applied["branch"] == "sotad/small-a1-try3"
    assert git(selecting.target, "rev-list", "--count", f"main..{applied['commit']}") == "1"
    assert git(selecting.target, "rev-parse", "sotad/small-a1-try2") == git(selecting.target, "rev-parse", "main~1")
    cancelled(selecting)
