"""What must hold after every event of every campaign. Give an instance to a simulation as its ``watch``."""

from __future__ import annotations

from simulation import Simulation

from ledger.events import Event
from statemachine import loop
from statemachine.decide import FINISHERS
from statemachine.state import Attempt, Campaign
from statemachine.table import HALTED, LIVE, PHASES, SUCCESS, TERMINALS

KINDS = ("resources", "evidence", "workspace", "human")
PLANTED = "late"  # a job that no daemon started


class Invariants:
    """Remembers what it needs of the state before; an instance watches one campaign."""

    def __init__(self) -> None:
        self._champion, self._round, self._seq, self._closed = "", 0, 0, False

    def __call__(self, sim: Simulation, event: Event) -> None:
        c = sim.c
        assert event.seq == self._seq + 1 == sim.world.seq == c.seq == c.campaign_seq
        assert c.phase in PHASES
        self._moves(c, event)
        _one_job(c)
        _halts(c)
        _rows_count_once(c)
        for attempt in c.attempts.values():
            _earned(c, attempt)
        if c.phase in ("stopping", "closed"):
            _ends(c)
        self._champion, self._round, self._seq, self._closed = c.champion, c.round, c.seq, c.phase == "closed"

    def _moves(self, c: Campaign, event: Event) -> None:
        """Only an accepted patch makes a champion; rounds go forward; closed is for ever."""
        if c.champion != self._champion:
            assert event.type in ("patch.accepted", "loop.started")
        if event.type == "patch.accepted":
            assert c.champion == event.payload["commit"] == c.attempts[event.payload["attempt_id"]].commit
        assert self._round <= c.round <= self._round + 1
        assert c.stalls <= 3
        assert not self._closed or c.phase == "closed"


def _one_job(c: Campaign) -> None:
    """One thing is done at a time, and nothing but the finishing once the campaign stops for good."""
    running = [job for job in c.jobs.values() if job.status == "running" and job.job != PLANTED]
    assert len([job for job in running if job.activity not in FINISHERS]) <= 1
    assert len(running) <= 1


def _halts(c: Campaign) -> None:
    assert bool(c.blocked) == (c.phase == "blocked")
    if c.phase in HALTED:
        assert c.back in (*LIVE, "stopping")
    if c.phase == "blocked":
        assert c.blocked["kind"] in KINDS
        assert c.blocked["reason"] and c.blocked["next"]


def _rows_count_once(c: Campaign) -> None:
    """A measurement belongs to one launch, is there once, and goes when its launch is void."""
    seqs = []
    for launch in c.launches.values():
        which = [(row["scenario"], row["run"]) for row in launch.rows]
        assert len(which) == len(set(which))
        assert not launch.rows or launch.status in ("launched", "ready", "stopped")
        seqs += [row["seq"] for row in launch.rows]
    assert len(seqs) == len(set(seqs))


def _earned(c: Campaign, attempt: Attempt) -> None:
    """An accepted patch has a commit that passed every gate, its tests and the comparison, and a gain."""
    if attempt.status == "accepted":
        assert attempt.commit and attempt.tests is True and attempt.equivalence is True
        assert all(attempt.gates[gate] for gate in loop.commit_gates(c))
        assert attempt.gain_pct is not None
        if loop.is_current(c):
            assert attempt.gates["timed_outputs"] and attempt.summary


def _ends(c: Campaign) -> None:
    """A campaign stops for an established reason; success has a decision for every scenario behind it."""
    assert c.stop["condition"] in TERMINALS and c.stop["reason"] and c.stop["seq"] <= c.seq
    if c.stop["condition"] in SUCCESS:
        last = c.gaps[-1]
        assert last["verdict"] in ("ahead", "par_or_better") and last["seq"] == c.stop["seq"]
        assert set(last["decisions"]) == set(c.scenarios)
        assert last["round"] == c.round == c.fairness["round"]
        assert c.fairness["passed"] and c.aa["passed"]
        assert not loop.heldout_owed(c) and (not loop.is_current(c) or not loop.open_issues(c))
    if c.phase == "closed":
        assert c.report and c.cleaned and not c.lease
        assert not [job for job in c.jobs.values() if job.status == "running"]
