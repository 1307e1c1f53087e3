"""The demo, whole and for real, as a user starts it: every defect, nobody patching, and a cheat."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger.events import Event
from ledger.reader import Reader
from ledger.verify import verify
from sotad.demo.defects import DEFECTS
from statemachine.judge import Judge

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def demo(folder: Path, noise: set[str], *argv: str) -> tuple[dict[str, Any], int]:
    """What ``sotad demo --json`` says, and its exit status.

    Once more when the verdict is one that a machine busy with other things can cause; any other verdict stands, above
    all a success that should not be.
    """
    for attempt in range(2):
        state = folder / f"state-{attempt}"
        command = [sys.executable, "-m", "sotad.cli.daemon", "demo", "--dir", str(state), "--json", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=720)
        found = json.loads(done.stdout)
        if found["verdict"] not in noise:
            break
    print(done.stderr)
    return found, done.returncode


def events(found: dict[str, Any]) -> list[Event]:
    """The ledger's events, after it verified clean with every guard asked again."""
    ledger = Path(found["ledger"])
    report = verify(ledger, judge=Judge())
    assert report.ok, report.problems
    with Reader(ledger) as reader:
        return list(reader.events(campaign=found["campaign"]))


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_repaired_and_proven(defect: str, tmp_path: Path) -> None:
    """Behind, patched, accepted, par or better: and the failed and SLA-missing candidates stay on record."""
    found, status = demo(tmp_path, {"blocked", "no_patch"}, "--defect", defect)
    assert (found["verdict"].startswith("success"), status) == (True, 0), found
    types = [event.type for event in events(found)]
    assert {"candidate.failed", "sla.failed", "patch.accepted", "review.passed"} <= set(types)
    first, *_, last = (e.payload["verdict"] for e in events(found) if e.type == "gap.decided")
    assert first == "behind" and last in ("par_or_better", "ahead")
    report = Path(found["report"])
    assert "yes" in report.read_text() and "<svg" in report.with_suffix(".html").read_text()


def test_without_an_implementer_nothing_is_claimed(tmp_path: Path) -> None:
    """Nobody patches: the campaign ends no_patch, with every cited row dealt with."""
    found, status = demo(tmp_path, {"blocked"}, "--implementer", "none")
    assert (found["verdict"], status) == ("no_patch", 1), found
    assert not [event for event in events(found) if event.type == "patch.proposed"]


def test_a_cheat_is_refused_by_a_named_gate(tmp_path: Path) -> None:
    """A patch that answers wrongly is refused, recorded and reverted, and the campaign does not succeed."""
    found, status = demo(tmp_path, {"blocked"}, "--implementer", "cheater", "--defect", "token-budget")
    assert (found["verdict"], status) == ("no_patch", 1), found
    (reverted,) = [event for event in events(found) if event.type == "patch.reverted"]
    assert reverted.payload["gate"] == "output_equivalence"
