"""A rig for each test, and one campaign of the session that was killed on its way and can be gone back to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.campaign import Rig

KILLS = (  # one life of the daemon each, in the order of the campaign
    "before:candidate.stopped",
    "after:benchmark.finished",
    "before:aa.checked",
    "after:rootcause.written",
    "after:patch.applied",
    "before:patch.accepted",
    "after:checkpoint.written",
)
KEPT = {"after:rootcause.written": "selecting", "after:checkpoint.written": "reviewing"}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Checkouts and a daemon not yet started; whatever still runs at the end is ended."""
    found = Rig(tmp_path / "rig")
    yield found
    found.end()


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A campaign driven to its end through ``KILLS``; ``selecting``, ``reviewing`` and ``end`` are kept."""
    found = Rig(tmp_path_factory.mktemp("killed") / "rig")
    for number, kill in enumerate(KILLS):
        found.start("--kill", kill)
        if number == 0:
            found.submit()
        found.ended()
        if kill in KEPT:
            found.keep(KEPT[kill])
    found.start()
    found.seen("campaign.closed")
    found.stop()
    found.keep("end")
    yield found
    found.end()
    shutil.rmtree(found.home.parent)


@pytest.fixture
def reviewing(killed: Rig) -> Iterator[Rig]:
    """The session's campaign with a patch accepted and checkpointed: next is its review. No daemon runs."""
    yield from _back(killed, "reviewing")


@pytest.fixture
def selecting(killed: Rig) -> Iterator[Rig]:
    """The session's campaign with its root cause written: next the implementer is asked. No daemon runs."""
    yield from _back(killed, "selecting")


def _back(rig: Rig, name: str) -> Iterator[Rig]:
    rig.back_to(name)
    yield rig
    rig.end()
