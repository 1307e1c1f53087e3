"""One daemon per ledger: the second is refused, a deposed one stops, a killed one leaves nothing behind."""

from __future__ import annotations

import pytest
from rig.audit import audit
from rig.campaign import Rig

from ledger.store import Ledger
from sotad.errors import SotadError


def test_the_second_daemon_is_refused_and_a_killed_one_frees_the_lock_at_once(rig: Rig) -> None:
    """Exit 2 and one line that names the holder's pid; after SIGKILL the next start is fine."""
    rig.start()
    first = rig.process
    assert first is not None
    rig.launch()
    assert rig.ended() == 2
    refusal = rig.said().splitlines()[-1]
    assert f"in use by the daemon with pid {first.pid}" in refusal
    assert rig.client.get("/healthz")["pid"] == first.pid
    first.kill()
    first.wait(10)
    rig.start()
    assert [event.epoch for event in rig.events("daemon.started")] == [1, 2]
    assert rig.stop() == 0


@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_deposed_daemon_writes_nothing_more_and_ends_with_an_error(rig: Rig, busy: bool) -> None:
    """Another writer claims the epoch: at its next write the daemon learns of it, and stops."""
    rig.start()
    if busy:
        rig.submit()
        rig.seen("benchmark.started")
    with Ledger.open(rig.paths.ledger) as usurper:
        usurper.claim_epoch()
    before = rig.events()[-1].seq
    if not busy:
        with pytest.raises(SotadError, match="deposed"):
            rig.submit()
    assert rig.ended() == 2
    assert "deposed by epoch 2" in rig.said().splitlines()[-1]
    assert rig.events()[-1].seq == before
    if busy:
        rig.start()
        rig.seen("candidate.stopped")
        rig.client.post("/v1/campaigns/small/cancel")
        rig.seen("campaign.closed")
        audit(rig)
