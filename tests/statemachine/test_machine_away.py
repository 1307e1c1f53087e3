"""A job's time stands still while its host does not answer, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.events import Event
from statemachine import pace
from statemachine.changes import APPLY
from statemachine.state import Campaign, Job, Launch

S = 1_000_000_000
AWAY = {"kind": "resources", "reason": "gone", "next": "wait", "host": "gpu1", "deadline_ns": 900 * S}
HUMAN = {"kind": "human", "reason": "a question", "next": "answer"}


@pytest.fixture
def c() -> Campaign:
    jobs = {
        "launch/1": Job("launch/1", "launch", 1, "running", 100 * S, 1),
        "old": Job("old", "x", 1, "finished", 9, 1),
    }
    return Campaign("c", jobs=jobs)


def happen(c: Campaign, at_s: int, type_: str, **payload: Any) -> None:
    event = Event(1, "c", 1, at_s * S, 1, type_, 1, "daemon", None, None, payload, "")
    APPLY[type_](c, event, payload)


def test_the_time_of_a_running_job_stands_still_while_its_host_is_away(c: Campaign) -> None:
    """What is left of it is left when the host is back, once; jobs that are over stay as they are."""
    happen(c, 40, "campaign.blocked", **AWAY)
    happen(c, 640, "campaign.resumed", checks=[])
    assert (c.jobs["launch/1"].deadline_ns, c.jobs["old"].deadline_ns) == (700 * S, 9)
    happen(c, 650, "campaign.resumed", checks=[])
    assert c.jobs["launch/1"].deadline_ns == 700 * S


def test_no_other_block_gives_a_job_time(c: Campaign) -> None:
    """A campaign that waits for a person, or was cancelled while its host was away, keeps its deadlines."""
    happen(c, 40, "campaign.blocked", **HUMAN)
    happen(c, 640, "campaign.resumed", checks=[])
    happen(c, 650, "campaign.blocked", **AWAY)
    happen(c, 660, "campaign.cancel_requested", by="operator:x")
    happen(c, 700, "campaign.resumed", checks=[])
    assert c.jobs["launch/1"].deadline_ns == 100 * S


@pytest.mark.parametrize(("block", "known"), [(AWAY, False), (HUMAN, True)])
def test_what_nobody_watched_makes_no_forecast(c: Campaign, block: dict[str, Any], known: bool) -> None:
    """How long it really took is not known: neither its start-up, nor its run, nor its rest is counted."""
    launch = c.launches["a"] = Launch("a", "search", "ours", "x", "", 1, "ready", 1, began_ns=10 * S, run_ns=20 * S)
    happen(c, 40, "campaign.blocked", **block)
    happen(c, 640, "campaign.resumed", checks=[])
    pace.ready(c, launch, 600.0)
    pace.measured(c, launch, "chat", 645 * S)
    pace.stopped(c, launch, 650 * S)
    assert bool(c.pace) == known and (not known or set(c.pace) >= {"run/ours/chat", "rest/ours"})
