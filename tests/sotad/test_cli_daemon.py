"""``sotad``: the real daemon started, found, and stopped; and what prepares for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sotad.cli.lock import holder
from sotad.paths import StateDir

DAEMON = "sotad.cli.daemon"


async def test_a_detached_daemon_from_start_to_stop(here: StateDir, run: Any) -> None:
    """It is ready when start returns, holds its lock, refuses a second one, and is gone when stop returns."""
    started = await run("start", "--detach", "--json", module=DAEMON)
    assert started.status == 0, started.err
    pid = json.loads(started.out)["pid"]
    try:
        status = json.loads((await run("status", "--json")).out)
        assert (status["daemon"]["pid"], status["daemon"]["ready"]) == (pid, True)
        assert f"pid {pid}" in str(holder(here.lock))
        second = await run("start", "--detach", module=DAEMON)
        assert (second.status, f"in use by pid {pid}" in second.err) == (2, True)
        third = await run("start", module=DAEMON)
        assert (third.status, len(third.err.splitlines())) == (2, 1)
    finally:
        stopped = await run("stop", module=DAEMON)
    assert stopped.status == 0, stopped.err
    assert holder(here.lock) is None
    again = await run("stop", module=DAEMON)
    assert (again.status, "no daemon runs" in again.err) == (3, True)
    assert (await run("ledger", "verify", str(here.root))).status == 0


async def test_a_daemon_that_dies_says_why(here: StateDir, run: Any) -> None:
    """The child's own last line and exit status come back."""
    here.root.mkdir()
    here.ledger.write_text("this is no ledger " * 1000)
    found = await run("start", "--detach", module=DAEMON)
    assert (found.status, len(found.err.splitlines())) == (2, 1)
    assert "not a ledger" in found.err


async def test_start_refuses_an_address_before_it_starts(run: Any) -> None:
    """A typo costs a line, not a daemon."""
    found = await run("start", "--detach", "--tcp", "nowhere", module=DAEMON)
    assert (found.status, "no port" in found.err) == (2, True)


async def test_init_makes_files_that_are_fine_and_overwrites_none(here: StateDir, run: Any, tmp_path: Path) -> None:
    """What init writes, validate accepts."""
    made = await run("init", str(tmp_path / "new"), module=DAEMON)
    assert made.status == 0
    example = tmp_path / "new" / "example-campaign.yaml"
    assert (await run("validate", str(example), module=DAEMON)).out.startswith(f"{example}: fine\n  search: ")
    again = await run("init", str(tmp_path / "new"), module=DAEMON)
    assert (again.status, "there already" in again.err) == (2, True)


async def test_validate_tells_every_problem_of_every_file(run: Any, tmp_path: Path, example: str) -> None:
    """One line per mistake with file and key, for all files before the status says no."""
    good, bad, missing = (tmp_path / name for name in ("good.yaml", "bad.yaml", "missing.yaml"))
    good.write_text(example)
    bad.write_text(example.replace("alpha: ", "alfa: ").replace("rounds: 3", "rounds: none"))
    found = await run("validate", str(bad), str(good), str(missing), module=DAEMON)
    assert found.status == 2
    assert found.out.startswith(f"{good}: fine\n  together ") and found.out.count("\n") == 2
    lines = found.err.splitlines()
    assert len(lines) == 3
    assert "decision.alfa" in lines[0]
    assert "budget.rounds" in lines[1]
    assert str(missing) in lines[2]
    as_json = json.loads((await run("validate", "--json", str(bad), module=DAEMON)).out)
    assert (as_json["ok"], len(as_json["problems"][str(bad)])) == (False, 2)


async def test_version(run: Any) -> None:
    """A number, and JSON on request."""
    assert (await run("version", module=DAEMON)).out.startswith("sotad ")
    assert "version" in json.loads((await run("version", "--json", module=DAEMON)).out)


async def test_demo_refuses_a_defect_that_it_does_not_have(run: Any, tmp_path: Path) -> None:
    """The known ones are listed."""
    found = await run("demo", "--dir", str(tmp_path / "demo"), "--defect", "nope", module=DAEMON)
    assert (found.status, "choose" in found.err) == (2, True)


async def test_the_readme_s_campaign_is_fine(run: Any, tmp_path: Path) -> None:
    """Whoever copies the campaign with coding agents out of the README can submit it."""
    readme = Path(__file__).parents[2] / "README.md"
    (written,) = re.findall(r"^```yaml\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)
    copied = tmp_path / "copied.yaml"
    copied.write_text(written)
    checked = await run("validate", str(copied), module=DAEMON)
    assert (checked.out.splitlines()[0], checked.err) == (f"{copied}: fine", "")
