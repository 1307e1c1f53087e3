"""Write the golden ledger of a release: ``python tests/golden/make.py``, once per release, and never change one again.

The campaign is played by the simulation of the state machine's tests, so the file names no real machine.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "statemachine"))

from simulation import Simulation  # noqa: E402

from ledger.events import Draft, Event  # noqa: E402
from ledger.export import export  # noqa: E402
from ledger.store import Ledger  # noqa: E402
from statemachine.state import to_json  # noqa: E402

SCRIPT = {"launch": {0: "oom", 3: "vanishes"}, "outputs": {0: "differ"}, "operator": {120: "pause"}}


def written(path: Path, events: list[Event]) -> None:
    """Append the events to a ledger, at their own times."""
    times: Iterator[int] = iter(event.time_ns for event in events)
    with Ledger.open(path, clock=lambda: next(times)) as ledger:
        ledger.claim_epoch()
        for event in events:
            draft = Draft(campaign=event.campaign, type=event.type, payload=event.payload, actor=event.actor)
            ledger.append([draft])


def main(release: str) -> None:
    """Write ``RELEASE.jsonl.gz`` and the digest of its folded state."""
    sim = Simulation(SCRIPT)
    sim.run()
    with tempfile.TemporaryDirectory() as folder:
        ledger, out = Path(folder) / "ledger.db", BytesIO()
        written(ledger, sim.events)
        export(ledger, out)
    (HERE / f"{release}.jsonl.gz").write_bytes(gzip.compress(out.getvalue(), mtime=0))
    state = to_json(sim.world).encode()
    (HERE / f"{release}.state.json.gz").write_bytes(gzip.compress(state, mtime=0))
    print(f"{len(sim.events)} events, {sim.c.phase} {sim.c.stop}, state {hashlib.sha256(state).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1])
