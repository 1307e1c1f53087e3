"""What people say to campaigns: yes or no, an answer, another plan; and what the Humanize plugin reports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from ledger.artifacts import Artifacts
from sotad.daemon.journal import Journal, is_fatal
from sotad.errors import BadInput, IllegalNow, NotFound
from sotad.plan.amendment import amended
from sotad.redact import redactor
from statemachine.evidence import digest
from statemachine.state import Campaign

log = structlog.get_logger()
JSON = dict[str, Any]
QUESTION, AMENDMENT = "question:", "plan:"


class Words:
    """Records what people say under their name. ``resume`` lets a campaign go on that waited for nothing else."""

    def __init__(self, journal: Journal, artifacts: Artifacts, resume: Callable[[str, str], Awaitable[None]]) -> None:
        self._journal = journal
        self._artifacts = artifacts
        self._resume = resume
        self._one_at_a_time = asyncio.Lock()

    async def approve(self, campaign: str, subject: str, approved: bool, reason: str, operator: str) -> JSON:
        """Say yes or no to a subject that the campaign waits for; return what it waits for now.

        Raises:
            NotFound: there is no such campaign, or it does not wait for that.
            BadInput: the subject is a question.
            IllegalNow: it is an amendment of a plan that is not in force any more.
        """
        if subject.startswith(QUESTION):
            raise BadInput(f"{subject} is a question", f"answer it: sotactl answer {campaign} {subject} TEXT")
        if approved and _is_overtaken(self._known(campaign), subject):
            advice = f"deny it, and amend what `sotactl plan {campaign}` shows now"
            raise IllegalNow(f"{subject} was written before the plan that is in force", advice)
        said = {"subject": subject, "approved": approved, "reason": reason}
        return await self._say(campaign, "human.approved", said, operator)

    async def answer(self, campaign: str, subject: str, text: str, operator: str) -> JSON:
        """Answer a question of the campaign; return what it waits for now.

        Raises:
            NotFound: there is no such campaign, or it does not ask that.
            BadInput: the subject wants a yes or a no, or the text is empty.
        """
        if not text.strip():
            raise BadInput("the answer is empty", "say something")
        if self._open(campaign, subject) and not subject.startswith(QUESTION):
            raise BadInput(f"{subject} wants a yes or a no", f"use: sotactl approve {campaign} {subject} [--deny]")
        return await self._say(campaign, "human.answered", {"subject": subject, "answer": text}, operator)

    async def amend(self, campaign: str, plan: Any, reason: str, operator: str) -> JSON:
        """Propose another plan; return the subject to approve it under, and what it changes.

        Raises:
            NotFound: there is no such campaign.
            IllegalNow: it has no plan yet, or is at its end.
            BadPlan: the plan may not take the place of the one in force.
            BadInput: no reason is given.
        """
        c = self._known(campaign)
        if not c.plan or c.phase in ("stopping", "closed"):
            why = f"is {c.phase}" if c.plan else "has no plan yet"
            raise IllegalNow(f"campaign {campaign!r} {why}: there is nothing to amend")
        if not reason.strip():
            raise BadInput("the reason is empty", "say with --reason why the plan has to change")
        plan = redactor(os.environ)(plan)  # as the ledger does: the digest has to be that of what is written
        changed = amended(c.plan["plan"], plan)
        proposed = {"plan": plan, "digest": digest(plan), "reason": reason, "by": operator}
        event = await self._journal.record(campaign, "plan.amendment_proposed", proposed, actor=operator)
        return {"campaign": campaign, "subject": f"plan:{event.seq}", "changes": changed}

    async def humanize(self, report: JSON, operator: str) -> JSON:
        """Keep a file of a loop that the Humanize plugin runs; the same content twice is on record once.

        ``report``: ``loop``, ``file``, ``kind``, ``fields`` and ``text``. Returns its seq and digest.
        """
        if any(part in ("", ".", "..") for part in report["file"].split("/")):
            raise BadInput(f"file {report['file']!r} is no relative path", "name it as it lies below the loop's folder")
        document = await asyncio.to_thread(self._artifacts.put_bytes, report["text"].encode("utf-8", "replace"))
        key = f"humanize/{report['loop']}/{report['file']}/{document['sha256']}"
        about = {name: report[name] for name in ("loop", "file", "kind", "fields")}
        kept = {**document, "path": f"humanize/{report['file']}"}
        event = await self._journal.record(
            "", "humanize.reported", {**about, "document": kept}, actor=operator, key=key
        )
        return {"seq": event.seq, "sha256": document["sha256"]}

    async def catch_up(self) -> None:
        """Let go on what was given its last word right before the daemon ended; called once, at its start."""
        for c in list(self._journal.world.campaigns.values()):
            if _has_every_word(c) and any(answer["seq"] == c.seq for answer in c.answers.values()):
                try:
                    await self._resume(c.id, "daemon")
                except Exception as error:  # the world may have changed meanwhile; then it waits for a person as before
                    if is_fatal(error):
                        raise
                    log.exception("resume.failed", campaign=c.id)

    async def _say(self, campaign: str, type_: str, payload: JSON, operator: str) -> JSON:
        """Record a word, and let the campaign go on when it was the last that it waited for."""
        async with self._one_at_a_time:
            c = self._known(campaign)
            if not self._open(campaign, payload["subject"]):
                raise _not_open(c, payload["subject"])
            await self._journal.record(campaign, type_, payload, actor=operator)
            if _has_every_word(c):
                await self._resume(campaign, operator)
        waits = {name: wait["text"] for name, wait in c.waits.items()}
        return {"campaign": campaign, "subject": payload["subject"], "waits": waits, "phase": c.phase}

    def _open(self, campaign: str, subject: str) -> bool:
        return subject in self._known(campaign).waits

    def _known(self, campaign: str) -> Campaign:
        if campaign not in self._journal.world.campaigns:
            raise NotFound(f"there is no campaign {campaign!r}")
        return self._journal.world.campaigns[campaign]


def _has_every_word(c: Campaign) -> bool:
    """Whether a campaign that was blocked for a person waits for nothing any more."""
    return not c.waits and c.phase == "blocked" and c.blocked.get("kind") == "human"


def _is_overtaken(c: Campaign, subject: str) -> bool:
    """Whether another amendment came between: approving this one would silently undo that."""
    seq = subject.removeprefix(AMENDMENT)
    if not subject.startswith(AMENDMENT) or seq not in c.amendments:
        return False
    others = any(c.answers.get(f"{AMENDMENT}{other}", {}).get("approved") for other in c.amendments)
    return others or int(c.plan["seq"]) > int(seq)


def _not_open(c: Campaign, subject: str) -> NotFound:
    """What is open instead; a campaign that stays blocked with nothing open only has to be resumed."""
    if c.waits:
        return NotFound(f"campaign {c.id!r} does not wait for {subject!r}, but for {', '.join(c.waits)}", "name one")
    halted = c.phase == "blocked"
    advice = f"let it go on with `sotactl resume {c.id}`" if halted else f"see `sotactl status {c.id}`"
    said = f"; {subject!r} is settled" if subject in c.answers else ""
    return NotFound(f"campaign {c.id!r} waits for nobody's word{said}", advice)
