"""A campaign's loop in the layout of Humanize: a projection of its events, never read back.

Pure: the same events give the same files. What is written for whom is said in ``docs/humanize.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ledger.events import Event
from sotad.humanize.layout import LOOPS, REVIEW_MARKER, loop_name, place, round_file
from sotad.humanize.plan_page import plan_page
from sotad.humanize.review_pages import review_prompt_page, review_result_page
from sotad.humanize.round_pages import contract_page, finalize_page, prompt_page, summary_page
from sotad.humanize.rounds import attempts, in_round, was_worked_on
from sotad.humanize.state_page import review_round, state_name, state_page
from sotad.humanize.tracker_page import tracker_page
from sotad.report.facts import Facts
from statemachine.state import Campaign

SHOWS = frozenset(
    {
        *("loop.started", "plan.recorded", "plan.amendment_proposed", "plan.amended"),
        *("gap.decided", "rootcause.written", "idea.rejected"),
        *("patch.proposed", "patch.applied", "patch.accepted", "patch.reverted", "patch.quarantined"),
        *("summary.recorded", "gate.evaluated", "finalize.opened", "finalize.unchanged"),
        *("review.requested", "review.failed", "review.passed", "review.findings", "review.stalled"),
        *("review.stopped", "verdict.recorded", "human.question", "human.answered", "human.approved"),
        *("campaign.paused", "campaign.blocked", "campaign.resumed", "campaign.cancel_requested", "campaign.closed"),
        *("fairness.violated", "heldout.checked", "checkpoint.written", "stop.proposed", "stop.rejected"),
        *("preflight.passed", "workload.frozen", "search.exhausted", "baseline.frozen"),
        *("resource.wait_expired", "budget.exhausted"),
    }
)
"""Types of the events that a mirror tells of, or that move the campaign to where it says it is."""

OWNER = ".sotad"
"""The file that says whose mirror a folder is."""


def tree(c: Campaign, events: Sequence[Event], read: Callable[[str], bytes]) -> dict[str, str]:
    """The mirror's files, ``.humanize/rlcr/<when the loop started, UTC>/<name>`` to text; none before it started.

    ``events`` are the campaign's up to where ``c`` stands; those of types other than SHOWS are not looked at. ``read``
    returns an artifact by its SHA-256; one that it cannot return (OSError, LookupError, LedgerError) is named in its
    place. The state record comes last.
    """
    f = Facts(c, [event for event in events if event.type in SHOWS], read)
    started = f.last("loop.started")
    if started is None:
        return {}
    folder = f"{LOOPS}/{loop_name(started.time_ns)}"
    return {f"{folder}/{name}": text for name, text in _files(f, started)}


def is_owned(name: str) -> bool:
    """Whether a file of this name in a mirror's folder is the mirror's to write and to remove."""
    return name in (OWNER, ".gitignore") or place(name) is not None


def _files(f: Facts, started: Event) -> Iterator[tuple[str, str]]:
    yield OWNER, f"campaign={f.c.id}\n"
    yield ".gitignore", "*\n"  # a mirror inside a checkout must not make it dirty
    yield "plan.md", plan_page(f, started)
    yield "goal-tracker.md", tracker_page(f, started)
    for number in range(f.c.round + 1):
        yield from _round(f, number)
    if (number_reviewed := review_round(f)) is not None:
        yield REVIEW_MARKER, f"build_finish_round={number_reviewed}\n"
    finals = [attempt for attempt in f.c.attempts.values() if attempt.kind == "finalize"]
    if any(was_worked_on(f, attempt) for attempt in finals) or f.last("finalize.unchanged"):
        yield "finalize-summary.md", finalize_page(f, finals)
    yield state_name(f), state_page(f, started)


def _round(f: Facts, number: int) -> Iterator[tuple[str, str]]:
    yield round_file(number, "prompt"), prompt_page(f, number)
    found = attempts(f.c, number)
    if found:
        yield round_file(number, "contract"), contract_page(f, number)
    if any(was_worked_on(f, attempt) for attempt in found):
        yield round_file(number, "summary"), summary_page(f, number)
    if in_round(f, number, "review.requested", "review.failed"):
        yield round_file(number, "review-prompt"), review_prompt_page(f, number)
    if in_round(f, number, "verdict.recorded"):
        yield round_file(number, "review-result"), review_result_page(f, number)
