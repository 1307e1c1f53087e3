"""The red team's campaign: driven once a session to where its implementer is asked, gone back to for every test."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tabulate import tabulate

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "sotad")]  # modules beside this file, and the rig of the other tests
from campaign import Redteam  # noqa: E402
from measured import measured, stages  # noqa: E402, F401


@pytest.fixture(scope="session")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redteam]:
    """The campaign, driven and kept."""
    found = Redteam(tmp_path_factory.mktemp("redteam") / "rig")
    try:
        found.drive()
        yield found
    finally:
        found.end()
        shutil.rmtree(found.home.parent)


@pytest.fixture
def arena(driven: Redteam) -> Iterator[Redteam]:
    """The campaign right before its implementer is asked: say what it plays, then start the daemon."""
    driven.again()
    yield driven
    driven.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the red team: what was tried and what refused it, and honest patches beside."""
    told = list(_told(terminalreporter))
    if not told:
        return
    refused = Counter(value[1] for key, value in told if key == "cheat")
    honest = sum(key == "honest" for key, _ in told)
    terminalreporter.section("red team")
    terminalreporter.write_line(
        tabulate([*sorted(refused.items()), ("all", refused.total())], ("refused by", "cheats"))
    )
    terminalreporter.write_line(f"honest patches that no gate blocked: {honest}")


def _told(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, Any]]:
    for report in terminalreporter.stats.get("passed", []):
        yield from ((key, value) for key, value in report.user_properties if key in ("cheat", "honest"))
