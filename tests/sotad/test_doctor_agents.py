"""``sotactl doctor`` looks at agents, sandbox and git. The agents' tools are stand-ins: scripts without a model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sotad import sandbox
from sotad.cli import doctor
from sotad.paths import StateDir

KNOWN = """
  --print  --output-format <x>  --verbose  --json-schema <x>  --setting-sources <x>  --strict-mcp-config  --tools <x>
  --allowed-tools <x>  --permission-mode <x>  --model <x>  --effort <x>  --max-budget-usd <x>  --resume <x>
"""


def standin_claude(folder: Path, *without: str) -> Path:
    """A stand-in that says of itself what Claude Code says: a version, and its flags; it does nothing."""
    flags = "\n".join(f"  {flag.strip()}" for flag in KNOWN.strip().split("  ") if flag.split()[0] not in without)
    tool = folder / "standin-claude"
    tool.write_text(
        f"#!{sys.executable}\nimport sys\nprint('9.8.7 (a stand-in)' if '--version' in sys.argv else {flags!r})\n"
    )
    tool.chmod(0o755)
    return tool


@pytest.fixture
def campaign(tmp_path: Path, example: str) -> Any:
    """Writes a campaign whose implementer is as given, and returns its path."""

    def write(implementer: str) -> str:
        path = tmp_path / "campaign.yaml"
        old = example[example.index("implementer:") : example.index("reviewer:")]
        path.write_text(example.replace(old, f"implementer: {implementer}\n"))
        return str(path)

    return write


async def examined(run: Any, *configs: str) -> dict[str, dict[str, str]]:
    """The findings, by the name of the check."""
    ended = await run("doctor", "--json", *configs)
    return {check["check"]: check for check in json.loads(ended.out)["checks"]}


async def test_an_agent_of_a_campaign_is_told_with_its_version(run: Any, campaign: Any, tmp_path: Path) -> None:
    """The tool is asked for version and flags; the scripted reviewer needs none."""
    path = campaign(f"{{driver: claude, argv: [{standin_claude(tmp_path)}]}}")
    found = await examined(run, path)
    implementer = found[f"implementer of {path}"]
    assert implementer["detail"].startswith("claude 9.8.7 has every flag")
    assert implementer["state"] == ("warn" if sandbox.available() else "ok")
    assert found[f"reviewer of {path}"]["state"] == "ok"


async def test_an_agent_whose_tool_lacks_a_flag_fails(run: Any, campaign: Any, tmp_path: Path) -> None:
    """What would fail in the middle of a campaign fails here, with tool, version and flag."""
    path = campaign(f"{{driver: claude, argv: [{standin_claude(tmp_path, '--json-schema')}]}}")
    ended = await run("doctor", path)
    assert ended.status == 1
    assert "claude 9.8.7 has no --json-schema" in ended.out


async def test_an_agent_that_is_not_installed_fails_where_it_is_needed(run: Any, campaign: Any) -> None:
    """A program of the user's that is not there is found before the campaign."""
    path = campaign("{driver: command, argv: [/nowhere/agent]}")
    found = await examined(run, path)
    assert found[f"implementer of {path}"]["state"] == "fail"
    assert "/nowhere/agent" in found[f"implementer of {path}"]["detail"]


async def test_a_secret_that_is_not_set_and_an_open_door_are_told(run: Any, campaign: Any, tmp_path: Path) -> None:
    """Both are the operator's to decide: a warning each, and no failure."""
    asked = f"argv: [{standin_claude(tmp_path)}], env_from: [NO_SUCH_KEY], sandbox: 'off'"
    found = (await examined(run, path := campaign(f"{{driver: claude, {asked}}}")))[f"implementer of {path}"]
    assert found["state"] == "warn"
    assert "not set here: NO_SUCH_KEY" in found["detail"]
    assert "runs unconfined" in found["detail"]


async def test_a_campaign_that_is_wrong_is_a_failure_in_one_line(run: Any, tmp_path: Path) -> None:
    """Never a traceback."""
    (tmp_path / "bad.yaml").write_text("campain: x\n")
    ended = await run("doctor", str(tmp_path / "bad.yaml"))
    assert ended.status == 1
    assert "unknown key" in ended.out
    assert "Traceback" not in ended.err


async def test_without_a_campaign_a_missing_tool_is_no_failure(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only campaigns that name it need it."""
    standin_claude(tmp_path).rename(tmp_path / "claude")
    only_git = tmp_path / "git"
    only_git.symlink_to(next(p for p in map(Path, os.environ["PATH"].split(":")) if (p / "git").exists()) / "git")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = await examined(run)
    assert found["claude"]["state"] == "ok"
    assert (found["codex"]["state"], "cannot run codex" in found["codex"]["detail"]) == ("warn", True)


def test_what_is_told_of_the_sandbox_is_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch, here: StateDir) -> None:
    """Without Landlock agents run, and the doctor says that nothing holds them."""
    monkeypatch.setattr(sandbox, "available", lambda: "the kernel has no Landlock")
    found = doctor._sandbox(here)
    assert (found.state, "unconfined: the kernel has no Landlock" in found.detail) == ("warn", True)


def test_an_old_git_is_refused(monkeypatch: pytest.MonkeyPatch, here: StateDir, tmp_path: Path) -> None:
    """Git before 2.32 reads the user's configuration whatever it is told."""
    tool = tmp_path / "git"
    tool.write_text("#!/bin/sh\necho git version 2.25.1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert doctor._git(here) == doctor.Finding("fail", "git version 2.25.1", "install git 2.32 or later")
