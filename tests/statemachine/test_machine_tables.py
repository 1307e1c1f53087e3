"""One declaration, read in several ways: compiled table, `transitions` machine, catalogue, fold, diagram, README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from ledger.catalogue import MODELS
from statemachine import fold, guards, machine
from statemachine.decide import PLANS
from statemachine.guards import GUARDS, Ask
from statemachine.machine import COMPILED, IllegalEvent, destination
from statemachine.shell import CampaignMachine, diagram
from statemachine.state import Campaign, World
from statemachine.table import DAEMON_FACTS, FACTS, HALTED, LIVE, PHASES, STEPS, digest

ROOT = Path(__file__).parents[2]
EVENTS = {step.event for step in STEPS}
MACHINE = CampaignMachine()
NAMED = {name for step in STEPS for name in step.guards} | {name for names in FACTS.values() for name in names}


def forced(verdicts: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every guard answer as told."""
    for name, holds in verdicts.items():
        monkeypatch.setitem(GUARDS, name, lambda ask, answer=None if holds else "evidence": answer)


def outcome(ask, phase: str, event: str, how) -> str:
    try:
        return how(ask, event)
    except IllegalEvent as refused:
        assert (refused.phase, refused.event) == (phase, event)
        return f"refused by {refused.guard}"


def compiled(ask: Ask, event: str) -> str:
    return destination(ask.world, ask.c, event, ask.p, ask.time_ns)


@pytest.mark.parametrize("seed", ["all hold", "none holds", *range(6)])
def test_library_and_compiled_table_agree_everywhere(seed: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every phase and event, whatever the guards say: the same phase, or the same refusal."""
    rng = Random(seed)
    verdicts = {name: {"all hold": True, "none holds": False}.get(seed, rng.random() < 0.7) for name in GUARDS}
    forced(verdicts, monkeypatch)
    moved = 0
    for phase in PHASES:
        for event in sorted({*EVENTS, *MODELS, "no.such.event"}):
            ask = Ask(World(), Campaign("x", phase=phase), {}, 0)
            expected = outcome(ask, phase, event, compiled)
            assert outcome(ask, phase, event, MACHINE.fire) == expected, (phase, event)
            moved += expected in PHASES
    assert moved > (0 if seed == "none holds" else 30)


def test_first_row_whose_guards_hold_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """With guards on their own, each row of the table is taken for some answers: none is dead."""
    taken = set()
    for (phase, event), steps in COMPILED.items():
        for step in steps:
            forced({name: name in step.guards for name in GUARDS}, monkeypatch)
            ask = Ask(World(), Campaign("x", phase=phase), {}, 0)
            taken.add((step, compiled(ask, event) == step.dest))
    assert {step for step, _ in taken} == set(STEPS)
    assert all(right for _, right in taken)


def test_every_guard_is_defined_and_used() -> None:
    """The table names no guard that is not there, and no guard waits for a row."""
    assert set(GUARDS) == NAMED
    assert guards.GUARDS is machine.GUARDS


def test_every_type_is_a_step_or_a_fact() -> None:
    """The catalogue and the table know the same types, each once; only a note is of both daemon and campaign."""
    assert set(MODELS) == EVENTS | set(FACTS) | DAEMON_FACTS
    assert not EVENTS & set(FACTS) and not EVENTS & DAEMON_FACTS
    assert set(FACTS) & DAEMON_FACTS == {"note.recorded"}


KEPT_ONLY = {
    "finalize.unchanged",
    "benchmark.disturbed",
    "campaign.paused",
    "campaign.closed",
    "profile.rejected",
    "patch.refused",
}


def test_every_type_is_folded_or_meant_to_be_kept_only() -> None:
    """A type that leaves no trace in the state is one of the few whose phase or record is all there is to it."""
    assert set(MODELS) - set(fold.APPLY) - DAEMON_FACTS == KEPT_ONLY
    assert set(fold.APPLY) <= EVENTS | set(FACTS)


def test_every_phase_is_entered_and_planned_for() -> None:
    """Each phase but the first is some step's destination; each in which work is done has a plan."""
    assert {step.dest for step in STEPS} == set(PHASES) - {"draft"}
    assert {source for step in STEPS for source in step.sources} == set(PHASES) - {"closed"}
    assert set(PLANS) == {*LIVE, "stopping"}
    assert set(PHASES) == {"draft", "closed", *PLANS, *HALTED}


def test_a_halt_returns_to_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every phase that can be halted there is the way back to it."""
    for step in STEPS:
        if step.dest in HALTED:
            for source in step.sources:
                ask = Ask(World(), Campaign("x", phase=step.dest, back=source), {}, 0)
                assert destination(ask.world, ask.c, "campaign.resumed", {}, 0) == source


def test_the_digest_names_the_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same table has the same digest, a changed one another."""
    before = digest()
    assert re.fullmatch(r"[0-9a-f]{64}", before) and digest() == before
    monkeypatch.setitem(FACTS, "history.noted", ("lease_held",))
    assert digest() != before


def test_diagram_is_mermaid_of_every_phase_and_stays_the_same() -> None:
    """Every phase is in it, every arrow is a step, and no text has the marks that end a Mermaid label."""
    text = diagram()
    lines = text.splitlines()
    assert lines[0] == "stateDiagram-v2" and diagram() == text
    for phase in PHASES:
        assert re.search(rf"\b{phase.replace('.', '_')}\b", text), phase
    arrows = re.findall(r"^    (\w+) --> (\w+) : (.+)$", text, re.M)
    drawn = {(a, b, event) for a, b, label in arrows for event in label.split(" / ")}
    declared = {(s.replace(".", "_"), t.dest.replace(".", "_"), t.event) for t in STEPS for s in t.sources}
    assert drawn <= declared and len(drawn) > 20
    assert all(len(re.findall(r"[:;]", line)) <= 1 for line in lines)


def test_diagram_is_printed_by_the_module() -> None:
    """`python -m statemachine.shell` is how it gets into a document."""
    command = [sys.executable, "-m", "statemachine.shell"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == diagram()


def test_readme_shows_the_diagram_of_this_machine() -> None:
    """Between the markers stands what the declaration gives, nothing else."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- diagram:begin -->\n(.*?)<!-- diagram:end -->", text, re.S)
    assert found and found[1] == f"```mermaid\n{diagram()}```\n", "run: python -m statemachine.shell, and put it there"
