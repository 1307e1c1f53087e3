"""The files of a commit on another host, which knows nothing of the repository and needs no git.

The daemon lists the commit, sends the contents that the host lacks as archives by digest, and a program there lays the
folder out and proves that it holds the commit and nothing else (:mod:`sotad.there.tree`). The commit that the campaign
began with is one archive, what a patch adds to it another: a patch costs what it changes. Contents are as in the
repository; filters of git (LFS, line ends) are not applied.
"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from sotad import git
from sotad.activities.context import ActivityFailed, Context
from sotad.activities.toolbox import EPOCH

SUBMODULE = "160000"
PATIENCE_S = 900.0
Entry = tuple[str, str, str]  # mode, object, path


async def lay_out(ctx: Context, repo: Path | None, framework: str, commit: str, use: str = "") -> str:
    """The folder on the host; of one attempt it is made, or found whole, once. Another ``use`` has a folder of its own.

    Raises:
        ActivityFailed: the host could not make it.
    """
    name = "-".join(filter(None, (framework, commit[:12] if repo else "", use)))
    folder, run = f"{root(ctx)}/{name}", f"tree-{name}"
    if (await ctx.host.status(ctx.run_id(run))).phase == "absent":
        entries = await _entries(repo, commit) if repo else []
        archives = await _archives(ctx, repo, framework, entries) if repo else []
        form = "sha256" if len(commit) == 64 else "sha1"
        manifest = json.dumps({"format": form, "entries": entries}).encode()
    else:
        return await _laid_out(ctx, run, folder)
    argv = ("manifest.json", folder, *archives)
    program = ctx.program("sotad.there.tree", *argv, timeout_s=PATIENCE_S, cwd=ctx.path(run))
    await ctx.start(run, program, {"manifest.json": manifest})
    return await _laid_out(ctx, run, folder)


async def remove(ctx: Context) -> None:
    """None of the campaign's folders is left on the host."""
    argv = ("--remove", root(ctx))
    await ctx.run("no-trees", ctx.program("sotad.there.tree", *argv, timeout_s=PATIENCE_S, cwd="/"))


def root(ctx: Context) -> str:
    """The folder of the campaign's folders on the host."""
    return f"{ctx.tools.files}/trees/{ctx.campaign}"


async def _laid_out(ctx: Context, run: str, folder: str) -> str:
    status = await ctx.wait(run, PATIENCE_S)
    if not status.succeeded:
        raise ActivityFailed(f"{ctx.host.name}: {folder} could not be made: {await ctx.tail(run)}")
    return folder


async def _entries(repo: Path, commit: str) -> list[Entry]:
    """Every file of a commit; names that are no UTF-8 keep their bytes as surrogates."""
    listed = await git.run(repo, "ls-tree", "-r", "-z", "--full-tree", commit)
    pairs = (entry.split(b"\t", 1) for entry in listed.split(b"\0") if entry)
    return [(*_mode_and_object(about), path.decode(errors="surrogateescape")) for about, path in pairs]


def _mode_and_object(about: bytes) -> tuple[str, str]:
    mode, _, name = about.decode().split(" ")
    return mode, name


async def _archives(ctx: Context, repo: Path, framework: str, entries: Sequence[Entry]) -> list[str]:
    """Paths, on the host, of archives that hold every object together: of the first commit, and what came since."""
    wanted = _objects(entries)
    base = ctx.c.workspaces.get(framework, {}).get("commit", "")
    first = _objects(await _entries(repo, base)) if base else wanted
    parts = [first, wanted - first] if wanted - first else [first]
    return [await _placed(ctx, repo, "objects.zip", sorted(part)) for part in parts]


def _objects(entries: Sequence[Entry]) -> set[str]:
    return {name for mode, name, _ in entries if mode != SUBMODULE}


async def _placed(ctx: Context, repo: Path, name: str, objects: list[str]) -> str:
    """An archive of these objects on the host. Which file they are is remembered, so that it is packed once."""
    note = ctx.state_dir / "archives" / sha256("\n".join(objects).encode()).hexdigest()
    if note.exists():
        known = note.read_text()
        if await ctx.host.holds(known):
            return f"{ctx.tools.files}/{known}/{name}"
    data = await asyncio.to_thread(_zipped, *(await _contents(repo, objects), objects))
    place = await ctx.host.place(name, data)
    note.parent.mkdir(exist_ok=True)
    note.write_text(sha256(data).hexdigest())
    return place


async def _contents(repo: Path, objects: list[str]) -> bytes:
    """What ``git cat-file --batch`` prints of them."""
    return await git.run(repo, "cat-file", "--batch", data="".join(f"{name}\n" for name in objects).encode())


def _zipped(printed: bytes, objects: list[str]) -> bytes:
    made, view = io.BytesIO(), io.BytesIO(printed)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in objects:
            found, kind, size = view.readline().decode().split()
            if (found, kind) != (name, "blob"):
                raise git.GitError(f"object {name} is a {kind}")
            archive.writestr(zipfile.ZipInfo(name, EPOCH), view.read(int(size)), zipfile.ZIP_DEFLATED)
            view.read(1)
    return made.getvalue()
