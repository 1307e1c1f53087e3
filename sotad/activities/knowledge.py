"""What is known before patching, and the workload that nobody may change afterwards."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from sotad.activities.context import ActivityFailed, Context
from sotad.activities.traffic import scenario_of
from sotad.benchmark.workload import Scenario, WorkloadError
from sotad.benchmark.workload import digest as workload_digest
from statemachine.evidence import digest
from statemachine.state import JSON

PULL = re.compile(r"(?:#|/pull/)(\d+)")
FILE = re.compile(r"`([\w./-]+\.(?:py|cu|cuh|cpp|h|rs))`")


async def consult_history(ctx: Context) -> str:
    """Search the folder of dossiers; record what was read, or that there is none."""
    folder, query = ctx.spec["knowledge"]["folder"], ctx.spec["knowledge"]["query"] or ctx.spec["model"]["id"]
    if folder and Path(folder).is_dir():
        documents = await asyncio.to_thread(search_dossiers, Path(folder), query)
        notes = await ctx.keep(notes_text(query, documents).encode(), "history/model-pr-history-notes.md")
        decision = f"{len(documents)} dossiers bear on this model" if documents else "no dossier bears on this model"
        noted = {"query": query, "documents": documents, "notes": notes, "decision": decision}
        await ctx.once("history.noted", noted, "history")
    else:
        reason = f"knowledge folder {folder} is not there" if folder else "no knowledge folder is configured"
        await ctx.once("history.unavailable", {"reason": reason}, "history")
    await ctx.once("openpr.scanned", {"available": False, "reason": "no pull-request source is configured"}, "prs")
    return "consulted"


def search_dossiers(folder: Path, query: str) -> list[JSON]:
    """Every Markdown file that holds a word of the query, with the PRs and source files that it names."""
    words = [word for word in re.findall(r"\w+", query.lower()) if len(word) > 2]
    found = []
    for path in sorted(folder.rglob("*.md")):
        text = path.read_text(errors="replace")
        hits = [word for word in words if word in text.lower()]
        if hits:
            prs = sorted({int(number) for number in PULL.findall(text)})
            files = sorted(set(FILE.findall(text)))
            found.append({"document": path.name, "words": hits, "prs": prs, "files": files})
    return found


def notes_text(query: str, documents: list[JSON]) -> str:
    """The notes as Markdown."""
    lines = [f"# History notes for {query!r}", ""]
    for entry in documents:
        prs = ", ".join(f"#{number}" for number in entry["prs"]) or "none"
        lines.append(f"- {entry['document']}: PRs {prs}; files {', '.join(entry['files']) or 'none'}")
    return "\n".join([*lines, ""])


async def freeze_workload(ctx: Context) -> str:
    """Fix the workload by digest: its rule, and the very requests of the first seed of each scenario."""
    workload = ctx.spec["workload"]
    shapes = {}
    for shape in workload["scenarios"]:
        scenario = Scenario(**scenario_of(ctx.spec, shape, workload["seed"]))
        try:
            shapes[shape["name"]] = await asyncio.to_thread(workload_digest, scenario)
        except WorkloadError as error:
            raise ActivityFailed(f"scenario {shape['name']}: {error}") from None
    frozen = {
        "digest": digest({"rule": workload, "requests": shapes}),
        "scenarios": list(shapes),
        "sla": ctx.spec["sla"],
    }
    await ctx.once("workload.frozen", frozen)
    return str(frozen["digest"])
