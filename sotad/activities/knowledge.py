"""What is known before patching: histories of the model's pull requests, and those that are open now."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import aiohttp

from ledger.events import Event
from sotad.activities.context import Context
from sotad.hosts.base import HostError, RunStatus
from sotad.knowledge import corpus as histories
from sotad.knowledge import gh, rest, rows
from sotad.knowledge.names import family_terms
from sotad.knowledge.origin import describe
from sotad.knowledge.pulls import Asked, PullsError, scanned, searches
from sotad.knowledge.reading import EVENT_BYTES, REQUEST_BYTES, Reading, Side, Subject
from statemachine.state import JSON

NOTES = "history/model-pr-history-notes.md"
GH_S = 60.0
GH_TRIES = 2
GH_BYTES = 1 << 25
MOST_TERMS = 6


async def consult_history(ctx: Context) -> str:
    """Read the histories of the model in every framework, and list the pull requests that are open now."""
    if not ctx.recorded("history"):
        await _consult(ctx)
    if not ctx.recorded("prs"):
        await ctx.once("openpr.scanned", await _open_pulls(ctx), "prs")
    return "consulted"


async def _consult(ctx: Context) -> None:
    reading = await _reading(ctx)
    if isinstance(reading, str):
        await ctx.once("history.unavailable", {"reason": reading}, "history")
        return
    model, words = ctx.spec["model"]["id"], _words(ctx.spec["knowledge"]["query"])
    sides = [_side(ctx, name) for name in _frameworks(ctx)]
    known = await asyncio.to_thread(reading.consult, sides, model, words)
    if not known and not ctx.recorded("history-of-target"):
        held = f"none of {reading.about['documents']} documents is of {model} in {ctx.c.target}"
        await ctx.once("history.unavailable", {"reason": f"{reading.corpus.folder}: {held}"}, "history-of-target")
    count = len(reading.documents())
    decision = f"{count} dossiers bear on this model" if count else "no dossier bears on this model"
    await _record(ctx, reading, "history", " ".join((model, *words)), decision)


async def notes_for(ctx: Context, table_rows: Sequence[JSON], files: Sequence[str] = ()) -> JSON:
    """What the histories say of the places, functions and kernels of these rows, and of these files.

    The target's history first, then that of who leads. It goes into the implementer's request: ``notes`` by document,
    ``no_prior_change`` what no history of the target mentions, ``stale`` why not to trust them. Recorded once per
    activity and question; a later entry gets the recorded notes.
    """
    reading = await _reading(ctx, REQUEST_BYTES)
    if isinstance(reading, str):
        return {"available": False, "reason": reading, "notes": []}
    subjects = list(_subjects(table_rows, files))
    sides = [_side(ctx, name) for name in (ctx.c.target, *_leaders(ctx))]
    unknown = await asyncio.to_thread(reading.inquire, sides, ctx.spec["model"]["id"], subjects)
    asked = "; ".join(subject.label for subject in subjects)
    name = "history-" + sha256(asked.encode()).hexdigest()[:12]
    known = ctx.recorded(name)
    if known is None and (subjects or table_rows):
        decision = f"{len(reading.documents())} documents go to the implementer with {asked}"
        decision += f"; no prior change was found for {', '.join(unknown)}" if unknown else ""
        about_rows = [row["row_id"] for row in table_rows]
        known = await _record(ctx, reading, name, asked, decision, about_rows)
    about = {key: reading.about[key] for key in ("stale", "watch")} | {"no_prior_change": unknown}
    return {"available": True, **about, "notes": known.payload["documents"] if known else [], "queries": reading.log}


def _subjects(table_rows: Sequence[JSON], files: Sequence[str]) -> Iterator[Subject]:
    for row in table_rows:
        if terms := rows.terms(row):
            yield Subject(f"row {row['row_id']}", tuple(terms))
    for file in files:
        yield Subject(f"file {file}", tuple(rows.of_files([file])))


async def _record(
    ctx: Context, reading: Reading, name: str, query: str, decision: str, about_rows: Sequence[str] = ()
) -> Event:
    stale = f"; the corpus is stale: {reading.about['stale']}" if reading.about["stale"] else ""
    path = NOTES if name == "history" else NOTES.replace(".md", f"-{ctx.job.replace('/', '-')}-{name[-12:]}.md")
    noted: JSON = {"query": query, "documents": reading.documents(), "decision": decision + stale}
    noted |= {"corpus": reading.about, "queries": reading.log, "subjects": list(about_rows)}
    return await ctx.once("history.noted", {**noted, "notes": await ctx.keep(reading.text().encode(), path)}, name)


async def _reading(ctx: Context, most_bytes: int = EVENT_BYTES) -> Reading | str:
    """The corpus, ready to be asked; or why there is none."""
    folder = ctx.spec["knowledge"]["folder"]
    if not folder:
        return "no knowledge folder is configured"
    if not Path(folder).is_dir():
        return f"knowledge folder {folder} is not there"
    corpus = await asyncio.to_thread(histories.read, Path(folder))
    if not corpus.documents:
        return "; ".join([f"knowledge folder {folder} holds no Markdown that can be read", *corpus.remarks[:10]])
    checkout = ctx.spec["frameworks"][ctx.c.target].get("checkout")
    commit = ctx.c.champion or ctx.c.probes.get(ctx.c.target, {}).get("commit", "")
    about = await describe(corpus, Path(checkout) if checkout and commit else None, commit or "")
    return Reading(corpus, about, most_bytes)


def _frameworks(ctx: Context) -> list[str]:
    """The target first: its history is what patches rest on."""
    return sorted(ctx.spec["frameworks"], key=lambda name: name != ctx.c.target)


def _leaders(ctx: Context) -> list[str]:
    """Frameworks that lead on any scenario, as the last gap was decided."""
    leaders = ctx.c.gaps[-1]["leader"].split(", ") if ctx.c.gaps else []
    return [name for name in _frameworks(ctx)[1:] if name in leaders]


def _side(ctx: Context, name: str) -> Side:
    names = dict.fromkeys((ctx.spec["frameworks"][name]["kind"], name))
    return Side(name, tuple(names), name == ctx.c.target)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.findall(r"[\w./-]+", text) if len(word) > 2)


# --- open pull requests ---------------------------------------------------------------------------------


async def _open_pulls(ctx: Context) -> JSON:
    """The payload of `openpr.scanned`; whatever goes wrong is its reason."""
    knowledge = ctx.spec["knowledge"]
    source = knowledge.get("pulls", "off")
    if source == "off":
        return {"available": False, "reason": "no pull-request source is configured"}
    terms = (*family_terms(ctx.spec["model"]["id"]), *_words(knowledge["query"]))[:MOST_TERMS]
    try:
        return await (_by_gh if source == "gh" else _by_rest)(ctx, terms)
    except PullsError as error:
        return {"available": False, "reason": str(error)}


async def _by_rest(ctx: Context, terms: Sequence[str]) -> JSON:
    knowledge, name = ctx.spec["knowledge"], ctx.spec["knowledge"]["token_from"]
    if name and not os.environ.get(name):
        raise PullsError(f"knowledge.token_from: {name} is not set in the daemon's environment: set it and restart")
    patience = rest.Patience(total_s=min(rest.Patience.total_s, ctx.remaining_s / 2))
    async with aiohttp.ClientSession() as session:
        source = rest.Source(session, knowledge["api_url"], os.environ.get(name, "") if name else "", name, patience)
        return await rest.scan(source, knowledge["repositories"], terms)


async def _by_gh(ctx: Context, terms: Sequence[str]) -> JSON:
    pairs = searches(ctx.spec["knowledge"]["repositories"], terms)
    return scanned([await _ask_gh(ctx, place, pair, terms) for place, pair in enumerate(pairs)])


async def _ask_gh(ctx: Context, place: int, pair: tuple[str, str], terms: Sequence[str]) -> Asked:
    """One search, tried again once; what the tool says of its failure is the reason."""
    (repo, term), token_from, reason = pair, ctx.spec["knowledge"]["token_from"], ""
    for attempt in range(GH_TRIES):
        try:
            return Asked(repo, term, *await _gh(ctx, f"gh-{place}-{attempt}", pair, terms, token_from))
        except (PullsError, HostError) as error:
            reason = str(error)
    return Asked(repo, term, [], reason)


async def _gh(
    ctx: Context, run: str, pair: tuple[str, str], terms: Sequence[str], token_from: str
) -> tuple[list[JSON], str, str]:
    argv = gh.command(*pair, token_from)
    secrets = [name for name in gh.PROXIES if os.environ.get(name)] + ([token_from] if token_from else [])
    env = gh.QUIET | {name: os.environ[name] for name in gh.PASSED if name in os.environ}
    status = await ctx.run(run, ctx.command(argv, timeout_s=GH_S, secrets=secrets, **env))
    if not status.succeeded:
        raise PullsError(_failure(status, await ctx.tail(run)))
    found = gh.parse(*pair, terms, await ctx.output(run, limit=GH_BYTES))
    return found, "", f"only the first {gh.LIMIT} were listed" if len(found) == gh.LIMIT else ""


def _failure(status: RunStatus, tail: str) -> str:
    if status.reason == "timeout":
        return f"gh gave no answer within {GH_S:g} s"
    return f"gh: {status.message or tail or f'exit code {status.exit_code}'}"[:300]
