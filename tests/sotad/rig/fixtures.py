"""A rig for each test, and one campaign of the session that was killed on its way and can be gone back to."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rig.campaign import SLOW_WORK, Rig

KILLS = (  # one life of the daemon each, in the order of the campaign
    "before:candidate.stopped",
    "after:benchmark.finished",
    "before:aa.checked",
    "after:gap.decided",
    "after:rootcause.written",
    "after:human.question",
    "after:patch.proposed",
    "after:patch.applied",
    "after:patch.quarantined",
    "before:patch.accepted",
    "after:patch.accepted",
    "after:checkpoint.written",
    "before:heldout.checked",
    "before:finalize.opened",
)
KEPT = {  # where the campaign stood after a kill
    "before:aa.checked": "gap",
    "after:gap.decided": "profiling",
    "after:rootcause.written": "selecting",
    "after:human.question": "asking",
    "after:patch.proposed": "patching",
    "after:patch.applied": "revalidating",
    "after:patch.quarantined": "quarantined",
    "after:patch.accepted": "recording",
    "after:checkpoint.written": "reviewing",
    "before:heldout.checked": "heldout",
    "before:finalize.opened": "finalizing",
}
DOUBTED = {"decision__max_gain_pct": 50}  # of a campaign file: what the patch gains waits for a person

Rigs = Callable[..., Rig]
At = Callable[[str], Rig]


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Rigs]:
    """Makes rigs by name: checkouts, and a daemon not yet started. What still runs at the end is ended."""
    made: list[Rig] = []

    def make(name: str = "rig", target_work: int | None = SLOW_WORK) -> Rig:
        made.append(Rig(tmp_path / name, target_work))
        return made[-1]

    yield make
    for rig in made:
        rig.end()


@pytest.fixture
def rig(rigs: Rigs) -> Rig:
    """One rig."""
    return rigs()


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A campaign driven to its end through ``KILLS``; the places of ``KEPT``, and ``end``, are kept."""
    found = Rig(tmp_path_factory.mktemp("killed") / "rig")
    try:
        _drive(found)
        yield found
    finally:
        found.end()
        shutil.rmtree(found.home.parent)


def _drive(rig: Rig) -> None:
    for number, kill in enumerate(KILLS):
        process = rig.launch("--kill", kill)
        if number == 0:
            rig.until_ready()
            rig.behave("implementer", "ask\npatch")
            rig.submit(**DOUBTED)
        rig.until(lambda process=process: process.poll() is not None or not rig.tended(), f"the kill {kill}", 150)
        assert process.returncode == -signal.SIGKILL, rig.said()
        if kill in KEPT:
            rig.keep(KEPT[kill])
    rig.start()
    rig.finished(200)
    rig.stop()
    rig.keep("end")


@pytest.fixture
def at(killed: Rig) -> Iterator[At]:
    """Takes the session's campaign back to a place of ``KEPT``. No daemon runs."""

    def back(name: str) -> Rig:
        killed.back_to(name)
        return killed

    yield back
    killed.end()


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
