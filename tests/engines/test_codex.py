"""The real Codex CLI as implementer and reviewer, driven by a model endpoint whose turns are scripted.

Nothing between the request and the ledger is replaced but the model: the CLI's own process, protocol, tools and files,
our driver, our sandbox, a git repository.
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

KEY = "sk-PlantedForTheCodexTests0123456789"
CONFIG = """model = "scripted"
model_provider = "local"

[model_providers.local]
name = "scripted"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "MODEL_KEY"
"""


@pytest.fixture(scope="session")
def codex() -> Path:
    """The CLI's program, installed when it is not there yet."""
    try:
        return install_agents.install("codex", install_agents.home() / "codex")
    except install_agents.InstallError as error:
        pytest.skip(f"the Codex CLI does not install here: {error}")


@pytest.fixture
async def loop(tmp_path: Path, codex: Path) -> AsyncIterator[Loop]:
    agent = {"driver": "codex", "argv": [str(codex)]}
    async with serving() as model, open_loop(tmp_path, model, agent, {"MODEL_KEY": KEY}) as found:
        (found.home / ".codex").mkdir()
        (found.home / ".codex" / "config.toml").write_text(CONFIG.format(url=model.url))
        yield found


async def test_a_round_of_proposal_patch_and_review(loop: Loop) -> None:
    """It reads, edits, commits and answers by the schemas; versions, sessions, usage and transcripts are on record."""
    calls = await loop.round()
    assert {(call["driver"], call["version"]) for call in calls} == {("codex", install_agents.VERSIONS["codex"])}
    assert all(used(call, 2) and call["usage"]["cost_usd"] is None for call in calls)
    assert loop.model.keys == {f"Bearer {KEY}"}
    schemas = {json.dumps(body["text"]["format"]["schema"]) for body in loop.model.asked}
    assert len(schemas) == 3


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
    seen = await loop.shell(f"touch {loop.tree}/new; touch {loop.root}/new; head -c 15 {ledger}", action)
    assert (loop.tree / "new").exists() == (action == "implement")
    assert not (loop.root / "new").exists()
    assert "SQLite format" not in seen


async def test_prose_is_no_verdict(loop: Loop) -> None:
    """What a model says instead of the object does not pass for one."""
    loop.model.will(Turn("says", "Looks good to me."))
    with pytest.raises(ActivityFailed, match=r"no JSON but 'Looks good to me\.'"):
        await loop.ask("review/1", "reviewer", {"action": "review"})
    assert loop.finished("review/1", "reviewer")["outcome"] == "exited"


async def test_a_session_goes_on_in_the_next_try(loop: Loop) -> None:
    """After a call that failed half-way the next one resumes its session: the model sees what was said before."""
    loop.model.will(Turn("runs", "echo what-was-found-before"))  # then the script is at its end, and the turn fails
    with pytest.raises(ActivityFailed, match="no turn is left"):
        await loop.ask("propose/1", "implementer", {"action": "propose"})
    first = loop.finished("propose/1", "implementer")
    loop.model.will(Turn("answers", PROPOSED))
    assert await loop.ask("propose/1", "implementer", {"action": "propose"}, attempt=2) == PROPOSED
    second = loop.finished("propose/1", "implementer", 2)
    assert (second["resumed"], second["session"], first["outcome"]) == (True, first["session"], "failed")
    assert "what-was-found-before" in json.dumps(loop.model.asked[-1]["input"])
    assert (first.get("usage"), used(second, 2)) == (None, True)  # the first turn was never reported by itself


async def test_what_was_reported_before_is_not_counted_again(loop: Loop) -> None:
    """A session that goes on after an answer that was none: the second call has used one turn more."""
    loop.model.will(Turn("says", "I would rather talk."), Turn("answers", PROPOSED))
    with pytest.raises(ActivityFailed, match="rather talk"):
        await loop.ask("propose/1", "implementer", {"action": "propose"})
    await loop.ask("propose/1", "implementer", {"action": "propose"}, attempt=2)
    calls = [loop.finished("propose/1", "implementer", attempt) for attempt in (1, 2)]
    assert all(used(call, 1) for call in calls)
