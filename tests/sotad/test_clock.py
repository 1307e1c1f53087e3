"""The daemon's clock."""

import time

import pytest

from sotad.daemon.clock import Clock


def test_clock_never_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system's clock is set back, time stands still until that has caught up."""
    moments = iter([100, 90, 95, 101])
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    clock = Clock()
    assert [clock() for _ in range(4)] == [100, 100, 100, 101]


def test_clock_begins_no_earlier_than_the_ledger_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon on a machine whose clock was set back goes on from the ledger's last time."""
    monkeypatch.setattr(time, "time_ns", lambda: 50)
    clock = Clock()
    clock.not_before(70)
    assert clock() == 70
