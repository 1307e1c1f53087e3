"""A campaign whose agents are a real command line, and a repository for them. Nothing is replaced but the model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripted_model import CACHED, INPUT, OUTPUT, ScriptedModel, Turn

import sotad.cli
from ledger.artifacts import Artifacts
from ledger.store import Ledger
from ledger.verify import verify
from ledger.writer import Writer
from sotad.activities.agents import ask_agent
from sotad.activities.context import Context
from sotad.activities.review import Verdict
from sotad.config import parse_campaign
from sotad.config.sections import Agent
from sotad.daemon.journal import Journal
from sotad.hosts.local import LocalHost
from sotad.redact import scrubber
from statemachine.evidence import digest
from statemachine.state import Job, World

JSON = dict[str, Any]
EXAMPLE = Path(sotad.cli.__file__).with_name("example-campaign.yaml").read_text()
PROPOSED = {
    "decline": "",
    "rows": ["k1"],
    "hypothesis": "the constant is too high",
    "contract": {"objective": "lower it", "criteria": ["AC-5"], "success": "fewer rounds", "recovery": None},
    "ideas": [],
    "question": "",
}
IMPLEMENTED = {
    "summary": "lowered",
    "files": ["work.py"],
    "tests": [],
    "provenance": [],
    "complete": True,
    "question": "",
}
VERDICT = {"mainline": "ADVANCED", "control": "CONTINUE", "findings": [], "summary": "one line, evidence cited"}


def git(folder: Path, *argv: str) -> str:
    """Run git under an identity of the tests'."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@sotad.invalid", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(folder), *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


@dataclass
class Loop:
    """The campaign; ``home`` is the agents' HOME, ``tree`` where they work."""

    root: Path
    home: Path
    tree: Path
    journal: Journal
    host: LocalHost
    artifacts: Artifacts
    model: ScriptedModel

    async def ask(self, job: str, role: str, request: JSON, attempt: int = 1) -> JSON:
        """One call."""
        schema = Verdict.model_json_schema() if request["action"] == "review" else None
        parts = (self.journal, self.host, self.artifacts, self.root / "state")
        self.journal.world.campaigns["a"].jobs[job] = Job(job, "ask", attempt, "running", 2**62, 1)
        return await ask_agent(Context("a", job, attempt, {}, 2**62, *parts), role, request, self.tree, schema)

    def finished(self, job: str, role: str, attempt: int = 1) -> JSON:
        """What is on record of a call."""
        event = self.journal.find(f"a/{job}/{attempt}/agent-{role}")
        assert event is not None
        return event.payload

    async def round(self) -> list[JSON]:
        """A proposal, a patch and its review, each checked for what it left behind; what is on record of each."""
        self.model.will(Turn("runs", "cat work.py"), Turn("answers", PROPOSED))
        request = {"action": "propose", "rows": [{"row_id": "k1"}], "paths": ["work.py"]}
        assert await self.ask("propose/1", "implementer", request) == PROPOSED

        edit = "sed -i s/7000/100/ work.py && git commit -qam 'Do less work' -m 'Evidence: k1' && git status --short"
        self.model.will(Turn("runs", edit), Turn("answers", IMPLEMENTED))
        request = {"action": "implement", "attempt_id": "a1", "hypothesis": PROPOSED["hypothesis"]}
        assert await self.ask("implement/a1", "implementer", request) == IMPLEMENTED
        assert (self.tree / "work.py").read_text() == "TOKEN_WORK = 100\n"
        assert git(self.tree, "log", "--format=%s %an", "-1") == "Do less work sotad implementer"
        assert git(self.tree, "status", "--short") == ""

        self.model.will(Turn("runs", "git show --stat HEAD"), Turn("answers", VERDICT))
        request = {"action": "review", "kind": "code", "diff": git(self.tree, "diff", "HEAD~1")}
        said = await self.ask("review/1", "reviewer", request)
        assert Verdict.model_validate(said).mainline == "ADVANCED"

        made = (("propose/1", "implementer"), ("implement/a1", "implementer"), ("review/1", "reviewer"))
        calls = [self.finished(*call) for call in made]
        assert {call["outcome"] for call in calls} == {"exited"}
        assert len({call["session"] for call in calls}) == 3
        assert edit[:30] in self.artifacts.read(calls[1]["transcript"]["sha256"]).decode()
        assert "Only these paths may change: work.py" in json.dumps(self.model.asked)
        return calls

    async def shell(self, command: str, action: str = "propose") -> str:
        """What the agent's shell gave back for a command."""
        self.model.will(Turn("runs", command), Turn("answers", PROPOSED if action == "propose" else IMPLEMENTED))
        await self.ask("shell/1", "implementer", {"action": action})
        return json.dumps(self.model.asked[-1])

    def holding(self, secret: str) -> list[Path]:
        """Files of the daemon's that hold a text."""
        files = [path for path in (self.root / "state").rglob("*") if path.is_file()]
        return [path for path in files if secret.encode() in path.read_bytes()]


def used(finished: JSON, turns: int) -> bool:
    """Whether a call is on record with the tokens of so many turns of the script."""
    usage = finished["usage"]
    counts = (usage["input_tokens"], usage["cached_input_tokens"], usage["output_tokens"])
    return bool(counts == (INPUT * turns, CACHED * turns, OUTPUT * turns))


@asynccontextmanager
async def open_loop(root: Path, model: ScriptedModel, agent: JSON, secrets: Mapping[str, str]) -> AsyncIterator[Loop]:
    """The campaign with its ledger, which is verified in the end."""
    home, tree = root / "user", root / "state" / "attempt"
    home.mkdir()
    _make_tree(tree)
    ledger = Ledger.open(root / "state" / "ledger.db")
    ledger.claim_epoch()
    writer = Writer(ledger)
    journal = Journal(ledger, writer, World())
    spec = parse_campaign(EXAMPLE, "test.yaml", Path("/"))
    chosen = Agent(timeout_s=120, env_from=sorted(secrets), home=home, **agent)
    spec["implementer"] = spec["reviewer"] = chosen.model_dump(mode="json")
    await journal.record("a", "campaign.created", {"spec": spec, "spec_digest": digest(spec), "source": "test"})
    host = LocalHost(root / "state" / "runs", secrets_source=secrets)
    artifacts = Artifacts(root / "state" / "artifacts", redact=scrubber(secrets))
    yield Loop(root, home, tree, journal, host, artifacts, model)
    journal.close()
    await writer.close()
    assert verify(root / "state" / "ledger.db").ok


def _make_tree(tree: Path) -> None:
    """A repository with one file, on a branch of an attempt."""
    tree.mkdir(parents=True)
    git(tree, "init", "--quiet", "--initial-branch=sotad/a-a1")
    (tree / "work.py").write_text("TOKEN_WORK = 7000\n")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "-m", "Import")
