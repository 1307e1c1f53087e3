"""The judge: what the machine would have refused is named, and the rest is judged as if it were not there."""

from __future__ import annotations

from ledger.events import Event
from statemachine.judge import Judge

START = {"version": "0", "machine_digest": "0" * 64, "pid": 1, "boot_id": "b", "host": "h", "sqlite": "3"}


def event(seq: int, campaign: str, type_: str, payload: dict[str, object]) -> Event:
    return Event(seq, campaign, seq, seq, 1, type_, 1, "daemon", None, None, payload, "")


def test_a_legal_event_moves_the_judge_on() -> None:
    """None means admitted, and the state has it."""
    judge = Judge()
    assert judge(event(1, "", "daemon.started", dict(START))) is None
    assert judge.world.seq == 1


def test_a_refused_event_is_named_and_not_applied() -> None:
    """The campaign that it would have made does not exist afterwards."""
    judge = Judge()
    refusal = judge(event(1, "x", "campaign.closed", {"terminal": "success_ahead", "reason": "", "evidence": []}))
    assert refusal is not None
    assert "campaign.closed is illegal" in refusal
    assert judge.world.campaigns == {}


def test_a_payload_that_lacks_everything_is_a_finding() -> None:
    """A forged event cannot stop the judge."""
    judge = Judge()
    assert "does not fit" in str(judge(event(1, "x", "campaign.created", {})))
    assert judge(event(2, "", "daemon.started", dict(START))) is None
