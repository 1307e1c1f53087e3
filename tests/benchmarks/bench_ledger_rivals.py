"""Two durable-event libraries at the same job, each in its own interpreter. Run by ``bench_ledger.py``.

Usage: bench_ledger_rivals.py eventsourcing|dbos FOLDER EVENTS. Prints one JSON line of rates per second.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench_ledger_event import PAYLOAD


def eventsourcing(folder: Path, count: int) -> dict[str, float]:
    """One event per save through an application on SQLite; replay through its repository."""
    os.environ.update(PERSISTENCE_MODULE="eventsourcing.sqlite", SQLITE_DBNAME=str(folder / "eventsourcing.db"))
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Campaign(Aggregate):
        def __init__(self) -> None:
            self.finished = 0

        @event("BenchmarkFinished")
        def finish(self, payload: dict[str, Any]) -> None:
            self.finished += 1

    application: Any = Application()
    campaign: Any = Campaign()
    application.save(campaign)
    begin = time.perf_counter()
    for _ in range(count):
        campaign.finish(PAYLOAD)
        application.save(campaign)
    append = count / (time.perf_counter() - begin)
    for _ in range(20):
        for _ in range(500):
            campaign.finish(PAYLOAD)
        application.save(campaign)
    begin = time.perf_counter()
    found = application.repository.get(campaign.id)
    replay = found.version / (time.perf_counter() - begin)
    assert found.finished == count + 10_000
    return {"append": append, "replay": replay}


def dbos(folder: Path, count: int) -> dict[str, float]:
    """One recorded step per event in one workflow, with its SQLite system database as shipped."""
    from dbos import DBOS

    logging.disable(logging.CRITICAL)
    url = f"sqlite:///{folder / 'dbos.db'}"
    DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "CRITICAL"})

    @DBOS.step()
    def finish(payload: dict[str, Any]) -> dict[str, Any]:
        return payload

    @DBOS.workflow()
    def campaign(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            finish(PAYLOAD)
        return steps / (time.perf_counter() - begin)

    DBOS.launch()
    try:
        campaign(5)
        return {"append": campaign(count)}
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    rival = {"eventsourcing": eventsourcing, "dbos": dbos}[sys.argv[1]]
    print(json.dumps(rival(Path(sys.argv[2]), int(sys.argv[3]))))
