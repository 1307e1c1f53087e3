"""The facts that the gates judge a commit by, established by the daemon itself: with git, hashes and process lists."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import psutil

from sotad import git, sandbox, shim
from sotad.activities.context import Context
from sotad.activities.workspace import Taken, Workspace, blobs, uncommitted
from sotad.gates.commit import tests_named
from sotad.gates.content import HEADER
from sotad.gates.facts import Added, Change, Facts
from sotad.gates.patches import added_lines, changes, numbers
from sotad.harness import harness_digest
from sotad.redact import NAMES
from statemachine import plan
from statemachine.state import JSON

ROLE = "implementer"
MOST_HEADERS = 20
LINKS = re.compile(r":\d+ (?:120000|160000) ")
CACHES = ("refs/remotes/", "refs/prefetch/")  # of a fetch that anybody may do at any time


async def remember(ctx: Context, space: Workspace) -> None:
    """Write down how the world is before the implementer begins; what it was stays while it works."""
    if not await ctx.begun():
        state = json.dumps(await _world(ctx), sort_keys=True).encode()
        await asyncio.to_thread(shim.write_atomically, space.before, state)


async def establish(ctx: Context, space: Workspace, taken: Taken) -> Facts:
    """Everything that the gates ask about a commit that was taken over."""
    before = json.loads(await asyncio.to_thread(space.before.read_bytes))
    now = await _world(ctx)
    span = await _span(space, taken.commit)
    spec, attempt = ctx.spec["frameworks"][ctx.c.target], ctx.c.attempt
    own = ctx.c.plan.get("plan")
    confinement, unconfined = await _confinement(ctx)
    return Facts(
        base=space.base,
        commit=taken.commit,
        trouble=taken.trouble,
        builds_on=await _builds_on(space, taken.commit),
        dirty=await uncommitted(space, taken.commit),
        branch=space.branch,
        on=taken.on,
        changes=span.changes,
        links=span.links,
        added=span.added,
        allowed=[spec["paths"], *([plan.boundary(own)] if own else [])],
        forbidden=[*plan.TESTS, *tests_named(spec["tests"]), *(plan.forbidden(own) if own else [])],
        claimed=attempt.summary.get("files", []),
        sources=attempt.summary.get("provenance", []),
        moved=[*await _moved_checkouts(ctx), *await _moved_harness(ctx), *_differing(before["files"], now["files"])],
        refs=_moved_refs(before["refs"], now["refs"], space.branch),
        known=await _known_headers(space, span.added),
        secrets=_secrets(ctx),
        alive=await _alive(ctx, space),
        confinement=confinement,
        unconfined=unconfined,
    )


# --- what the commits do --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """What the commits since the base do, one by one and together."""

    changes: list[Change]
    added: list[Added]
    links: list[str]


async def _span(space: Workspace, commit: str) -> Span:
    between = f"{space.base}..{commit}"
    log = ("log", "-m", "--no-color", *git.PLAIN)
    patch = await space.git("-c", "core.quotePath=false", *log, "--format=", "--patch", "--unified=0", between)
    commits = await space.git("log", "--format=raw", between)  # whole, with headers that no other format shows
    lines = numbers(await space.git(*log, "--format=", "--numstat", "-z", between))
    raw = (await space.git("diff", *git.PLAIN, "--raw", "-z", space.base, commit)).split("\0")
    net = set(await git.changed_files(space.seen, space.base, commit, env=space.looking))
    return Span(
        changes(lines, await _sizes(space, between), await _sizes_at(space, space.base), net),
        [*added_lines(patch), *(Added("", text) for text in (*commits.splitlines(), *lines))],
        [path for head, path in zip(raw[::2], raw[1::2], strict=False) if LINKS.match(head)],
    )


async def _sizes(space: Workspace, between: str) -> dict[str, int]:
    """The largest size that each file has in any of the commits, bytes."""
    found: dict[str, int] = {}
    for path, size in await blobs(space, between, env=space.looking):
        found[path] = max(found.get(path, 0), size)
    return found


async def _sizes_at(space: Workspace, commit: str) -> dict[str, int]:
    """Sizes of the files in a commit, bytes."""
    listed = await space.git("ls-tree", "-r", "-l", "-z", commit)
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry]
    sizes = {path: about.split()[-1] for about, path in entries}
    return {path: int(size) for path, size in sizes.items() if size != "-"}  # "-" is of a submodule


async def _builds_on(space: Workspace, commit: str) -> bool:
    return await git.is_ancestor(space.seen, space.base, commit, env=space.looking)


async def _known_headers(space: Workspace, added: list[Added]) -> frozenset[str]:
    """Lines about licences and holders among the added ones that stand in the base already."""
    headers = sorted({line.text.strip() for line in added if line.path and HEADER.search(line.text)})
    find = ("grep", "-l", "--fixed-strings", "--max-count=1")
    known = []
    for text in headers[:MOST_HEADERS]:
        if await git.run(space.seen, *find, "-e", text, space.base, check=False, env=space.looking):
            known.append(text)
    return frozenset(known)


# --- what surrounds them ------------------------------------------------------------------------------------------


async def _world(ctx: Context) -> JSON:
    """Refs of every checkout and of the repositories on this machine that they push to; digests of workload files."""
    refs = {}
    for framework in ctx.spec["frameworks"].values():
        if framework.get("checkout") is None:
            continue
        repo = Path(framework["checkout"])
        for place in (repo, *await _local_remotes(repo)):
            found = await _refs(place)
            refs[str(place)] = {ref: name for ref, name in found.items() if _watched(ctx, ref)}
    return {"refs": refs, "files": await asyncio.to_thread(_workload_files, ctx.spec)}


async def _refs(repo: Path) -> dict[str, str]:
    """Its refs; none of a remote that this user may not read."""
    try:
        return await git.refs(repo)
    except git.GitError:
        return {}


async def _local_remotes(repo: Path) -> list[Path]:
    """Repositories on this machine that the remotes of a checkout name."""
    listed = await git.git(repo, "config", "--get-regexp", r"^remote\..*\.(push)?url$", check=False)
    urls = {line.split(" ", 1)[1].removeprefix("file://") for line in listed.splitlines() if " " in line}
    places = [repo / url for url in sorted(urls)]
    return [place for place in places if (place / "HEAD").exists() or (place / ".git").exists()]


def _watched(ctx: Context, ref: str) -> bool:
    """Whether a ref may not move now: other campaigns set their own branches, fetches their caches."""
    branches = [c.branch for c in ctx.journal.world.campaigns.values() if c.branch]
    short = ref.removeprefix("refs/heads/")
    owners = [name for name in branches if short == name or short.startswith(f"{name}-")]
    return not ref.startswith(CACHES) and max(owners, key=len, default=ctx.c.branch) == ctx.c.branch


def _moved_refs(before: JSON, now: JSON, own: str) -> list[str]:
    found = []
    for repo in sorted(before.keys() | now.keys()):
        old, new = before.get(repo, {}), now.get(repo, {})
        for ref in sorted(old.keys() | new.keys()):
            if old.get(ref) != new.get(ref) and ref != f"refs/heads/{own}":
                what = "was removed" if ref not in new else "is new" if ref not in old else "was moved"
                found.append(f"{ref} {what} in {repo}")
    return found


def _workload_files(spec: JSON) -> dict[str, str]:
    """Digests of the files that requests are made of: the dataset, and the tokenizer where it is a local one."""
    tokenizer = Path(spec["model"].get("tokenizer") or spec["model"]["id"])
    paths = [Path(spec["workload"]["dataset"])] if spec["workload"].get("dataset") else []
    paths += [tokenizer / "tokenizer.json", tokenizer] if tokenizer.is_absolute() else []
    found = {}
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                found[str(path)] = file_digest(file, "sha256").hexdigest()
    return found


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [path for path in sorted(before.keys() | now.keys()) if before.get(path) != now.get(path)]


async def _moved_checkouts(ctx: Context) -> list[str]:
    """Checkouts, the target's among them, that are not as they were checked at intake."""
    moved = []
    for name, checked in ctx.c.workspaces.items():
        if ctx.spec["frameworks"][name].get("checkout") is None:
            continue  # an installed package: no workspace of ours leads there
        repo = Path(checked["repo"])
        if await git.head(repo) != checked["commit"] or not await git.is_clean(repo):
            moved.append(f"the checkout of {name}")
    return moved


async def _moved_harness(ctx: Context) -> list[str]:
    same = not ctx.c.harness or await asyncio.to_thread(harness_digest) == ctx.c.harness
    return [] if same else ["the code of sotad"]


def _secrets(ctx: Context) -> dict[str, str]:
    """Values that no commit may hold: what the implementer was given, and what looks like the daemon's own."""
    given = ctx.spec[ROLE]["env_from"]
    return {name: value for name, value in os.environ.items() if name in given or NAMES.search(name)}


async def _alive(ctx: Context, space: Workspace) -> list[str]:
    """Processes of the implementer that outlived its run, by its mark or by where they are."""
    status = await ctx.host.status(ctx.run_id(ROLE))
    stuck = [f"{found['pid']} {found['command']}" for found in status.survivors]
    claim = json.loads(await ctx.output(ROLE, "pid.json"))
    return sorted({*stuck, *await asyncio.to_thread(_processes, space.folder, claim["token"])})


def _processes(folder: Path, token: str) -> list[str]:
    found = {f"{process.pid} {process.command}" for process in shim.marked(token)}
    for process in psutil.process_iter(["pid", "name", "cwd"]):
        if Path(process.info["cwd"] or "/").is_relative_to(folder):
            found.add(f"{process.info['pid']} {process.info['name']}")
    return sorted(found)


async def _confinement(ctx: Context) -> tuple[str, str]:
    """What the kernel enforced for the implementer's run, or why it did not: as the run was started."""
    spec = json.loads(await ctx.output(ROLE, "spec.json"))
    if sandbox.is_confined(spec["argv"]):
        abi = sandbox.abi()
        signals = "" if abi >= sandbox.SIGNALS_ABI else "; signals were not, before Linux 6.12"
        return f"writes outside were refused by the kernel (Landlock {abi}){signals}", ""
    off = ctx.spec[ROLE]["sandbox"] == "off"
    return "", "the campaign switched the sandbox off" if off else sandbox.available()
