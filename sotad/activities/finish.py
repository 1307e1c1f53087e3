"""The report of a campaign that is over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ledger.reader import Reader
from sotad.activities.context import Context
from sotad.report import build


async def report(ctx: Context) -> str:
    """Build the report from the ledger, keep every file by digest, and lay the tree out on disk."""
    files = await asyncio.to_thread(_build, ctx)
    root = ctx.state_dir / "reports" / ctx.campaign
    kept = []
    for name, data in sorted(files.items()):
        path = root / name
        await asyncio.to_thread(_write, path, data)
        kept.append(await ctx.keep(data, f"reports/{name}"))
    if not ctx.recorded("report.published"):
        await ctx.once("report.published", {"files": kept})
    return str(root / "final_report.md")


def _build(ctx: Context) -> dict[str, bytes]:
    with Reader(ctx.state_dir / "ledger.db") as reader:
        events = list(reader.events(campaign=ctx.campaign))
    return build(ctx.c, events, ctx.artifacts.read)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
