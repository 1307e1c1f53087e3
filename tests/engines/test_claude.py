"""The real Claude Code as implementer and reviewer, driven by a model endpoint whose turns are scripted.

It has a HOME of its own and nothing of anybody's in its environment; its only key is the one planted here, its only
endpoint the loopback address.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import install_agents
import pytest
from agent_rig import PROPOSED, Loop, open_loop, used
from scripted_model import Turn, serving

from sotad import sandbox
from sotad.activities.context import ActivityFailed

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

KEY = "sk-ant-PlantedForTheClaudeTests0123456789"


@pytest.fixture(scope="session")
def claude() -> Path:
    """The CLI's program, installed when it is not there yet."""
    try:
        return install_agents.install("claude", install_agents.home() / "claude")
    except install_agents.InstallError as error:
        pytest.skip(f"Claude Code does not install here: {error}")


@pytest.fixture
async def loop(tmp_path: Path, claude: Path) -> AsyncIterator[Loop]:
    agent = {"driver": "claude", "argv": [str(claude)], "budget": {"money_usd": 5}}
    async with serving() as model:
        quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        secrets = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": model.url, **quiet}
        async with open_loop(tmp_path, model, agent, secrets) as found:
            yield found


async def test_a_round_of_proposal_patch_and_review(loop: Loop) -> None:
    """It reads, edits, commits and answers by the schemas; versions, sessions, usage and transcripts are on record."""
    calls = await loop.round()
    assert {(call["driver"], call["version"]) for call in calls} == {("claude", install_agents.VERSIONS["claude"])}
    assert all(used(call, 2) and call["usage"]["cost_usd"] > 0 for call in calls)
    assert loop.model.keys == {KEY}


async def test_it_has_the_tools_of_its_task_only(loop: Loop) -> None:
    """No web, no background work, no sub-agents; editing only for whoever implements."""
    await loop.shell("true")
    tools = {tool["name"] for tool in loop.model.asked[0]["tools"]}
    assert tools == {"Bash", "Glob", "Grep", "Read", "StructuredOutput"}


async def test_nothing_of_this_process_reaches_its_shell(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its commands see is what the call was given; no file of the daemon's holds the key."""
    monkeypatch.setenv("CANARY", "of the daemon")
    seen = await loop.shell("env | sort")
    assert f"HOME={loop.home}" in seen
    assert "CANARY" not in seen
    assert loop.holding(KEY) == []


@pytest.mark.skipif(bool(sandbox.available()), reason=sandbox.available())
@pytest.mark.parametrize("action", ["propose", "implement"])
async def test_its_shell_cannot_leave_its_place(loop: Loop, action: str) -> None:
    """A proposal changes no file; nothing writes elsewhere or reads the ledger."""
    ledger = loop.root / "state" / "ledger.db"
    seen = await loop.shell(f"touch {loop.tree}/new; touch {loop.root}/new; head -c 15 {ledger}; true", action)
    assert (loop.tree / "new").exists() == (action == "implement")
    assert not (loop.root / "new").exists()
    assert "SQLite format" not in seen


async def test_it_stops_at_its_budget(loop: Loop) -> None:
    """The limit in money is passed on; when it is met, the answer that came with it does not count."""
    loop.journal.world.campaigns["a"].spec["implementer"]["budget"]["money_usd"] = 0.0001
    loop.model.will(*(Turn("runs", "true") for _ in range(3)), Turn("answers", PROPOSED))
    with pytest.raises(ActivityFailed, match="over budget"):
        await loop.ask("propose/1", "implementer", {"action": "propose"})
    done = loop.finished("propose/1", "implementer")
    assert (done["outcome"], len(loop.model.asked) < 4) == ("over budget", True)
    assert b"error_max_budget_usd" in loop.artifacts.read(done["transcript"]["sha256"])


async def test_a_session_goes_on_in_the_next_try(loop: Loop) -> None:
    """After a call that failed half-way the next one resumes its session: the model sees what was said before."""
    loop.model.will(Turn("runs", "echo what-was-found-before"))  # then the script is at its end, and the turn fails
    with pytest.raises(ActivityFailed, match="no turn is left"):
        await loop.ask("propose/1", "implementer", {"action": "propose"})
    first = loop.finished("propose/1", "implementer")
    loop.model.will(Turn("answers", PROPOSED))
    assert await loop.ask("propose/1", "implementer", {"action": "propose"}, attempt=2) == PROPOSED
    second = loop.finished("propose/1", "implementer", 2)
    assert (second["resumed"], first["outcome"]) == (True, "failed")
    assert "what-was-found-before" in json.dumps(loop.model.asked[-1]["messages"])
    assert (used(first, 1), used(second, 1)) == (True, True)
