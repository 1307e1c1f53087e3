"""One look for all runs of a campaign: how they ended, and which did not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sotad.hosts.base import RunSpec
from sotad.hosts.local import LocalHost
from sotad.there.runs import look, main


def spec(*argv: str) -> RunSpec:
    return RunSpec(argv=argv, cwd="/", env={"PATH": "/usr/bin:/bin"}, timeout_s=60)


async def test_ends_are_counted_and_what_has_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that ended, were stopped, still run, or were asked for and never begun."""
    host = LocalHost(tmp_path)
    for name in ("a/1", "a/2"):
        await host.start(f"c/{name}", spec("true"))
        await host.wait(f"c/{name}", 30)
    await host.start("c/b/server", spec("sleep", "60"))
    await host.start("c/b/other", spec("sleep", "60"))
    await host.stop("c/b/other")
    (tmp_path / "c" / "lost").mkdir()
    (tmp_path / "c" / "lost" / "spec.json").write_text("{}")
    try:
        assert main([str(tmp_path / "c")]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found == {"ends": {"exited": 2, "stopped": 1}, "open": ["b/server", "lost"]}
    finally:
        await host.stop("c/b/server")
    assert look(tmp_path / "c", "b")["open"] == ["lost"], "those of the job that asks are left out"
    assert look(tmp_path / "nothing") == {"ends": {}, "open": []}
    assert main([]) == 2
