"""What a call left in its run's directory, and the account of it that goes on record."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ledger.artifacts import Artifacts
from sotad.agents import TOOLS
from sotad.agents.call import JSON, Said, Tool, Usage, answer_of
from sotad.agents.listening import Listener
from sotad.config.sections import AgentBudget
from sotad.hosts.base import Host, HostError, RunStatus

ABOUT, ENDED = "call.json", "ended"
"""Files beside the desk: what the call was, and why we ended it."""
PIECE = 1 << 20
LONGEST_ANSWER = 1 << 22


@dataclass(frozen=True, slots=True)
class CallRun:
    """The run of a call; ``about`` is what was written down when it began."""

    host: Host
    run_id: str
    about: JSON

    @classmethod
    async def find(cls, host: Host, run_id: str) -> CallRun | None:
        """The run, when it is one of a call."""
        data = await read(host, run_id, ABOUT)
        return cls(host, run_id, json.loads(data)) if data else None

    @property
    def tool(self) -> Tool:
        return TOOLS[self.about["driver"]]

    @property
    def budget(self) -> AgentBudget:
        return AgentBudget(**self.about["budget"])

    def listener(self) -> Listener:
        """Who follows its output, from the start."""
        return Listener(self.tool, Said(before=Usage(**self.about["before"])))

    async def catch_up(self, listener: Listener) -> None:
        """Take what was printed since."""
        while data := await read(self.host, self.run_id, "stdout.log", listener.read):
            listener.take(data)

    async def said(self) -> Said:
        """All that it printed so far."""
        listener = self.listener()
        await self.catch_up(listener)
        return listener.close()

    async def answer(self) -> JSON:
        """The answer, from this very call's output or desk.

        Raises:
            NoAnswer: there is no single JSON object.
        """
        result = None
        if self.tool.result:
            with suppress(HostError):
                result = await self.host.read(self.run_id, f"desk/{self.tool.result}", 0, LONGEST_ANSWER)
        return answer_of(self.tool, await self.said(), result)

    async def account(self, artifacts: Artifacts, status: RunStatus) -> JSON:
        """What ``agent.finished`` says, once it is over; the transcript is stored."""
        said = await self.said()
        ended = (await read(self.host, self.run_id, ENDED)).decode()
        _, _, rest = self.run_id.partition("/")
        job, attempt, role = rest.rsplit("/", 2)
        return {
            "role": "planner" if self.about["action"] == "plan" else role,
            "driver": self.about["driver"],
            "version": self.about["version"],
            "job": job,
            "attempt": int(attempt),
            "outcome": outcome(status, ended, said, self.budget),
            "wall_s": self._wall_s(status),
            "usage": asdict(said.total) if said.total.known else None,
            "session": said.session,
            "resumed": bool(self.about["resume"]),
            "unconfined": self.about.get("unconfined"),
            "transcript": await self._transcript(artifacts),
        }

    async def _transcript(self, artifacts: Artifacts) -> JSON:
        """Everything it printed: its lines, and one more that holds what went to stderr."""
        out, errors = [await _whole(self.host, self.run_id, name) for name in ("stdout.log", "stderr.log")]
        if errors:
            out += json.dumps({"stderr": errors.decode(errors="replace")}).encode() + b"\n"
        kept = await asyncio.to_thread(artifacts.put_bytes, out)
        return {**kept, "path": f"transcripts/{self.run_id}.jsonl"}

    def _wall_s(self, status: RunStatus) -> float:
        """Seconds from start to end; to its last line when it vanished."""
        started, ended = status.started_ns or 0, status.ended_ns
        if ended is None:
            with suppress(OSError):
                ended = Path(self.host.path(self.run_id), "stdout.log").stat().st_mtime_ns
        return round(max(0, (ended or started) - started) / 1e9, 3)


def outcome(status: RunStatus, ended: str, said: Said, budget: AgentBudget) -> str:
    """One word for how a call ended. What used too much does not count, though it came to its end."""
    if is_over(said, budget):
        return "over budget"
    if status.phase == "lost":
        return "interrupted"
    if status.reason == "stopped":
        return ended or "interrupted"
    if status.reason == "timeout":
        return "timeout"
    return "exited" if status.succeeded and not said.error else "failed"


def is_over(said: Said, budget: AgentBudget) -> bool:
    """Whether more was used than a call may; what is not known is not over."""
    used = said.total
    tokens = budget.tokens is not None and used.tokens is not None and used.tokens > budget.tokens
    return said.over or tokens or (budget.money_usd is not None and (used.cost_usd or 0.0) > budget.money_usd)


async def read(host: Host, run_id: str, name: str, offset: int = 0) -> bytes:
    """A piece of a run's file; empty when there is no more, or no such file."""
    try:
        return await host.read(run_id, name, offset, PIECE)
    except HostError:
        return b""


async def _whole(host: Host, run_id: str, name: str) -> bytes:
    pieces: list[bytes] = []
    while piece := await read(host, run_id, name, sum(map(len, pieces))):
        pieces.append(piece)
    return b"".join(pieces)
