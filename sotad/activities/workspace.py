"""Workspaces: where an implementer works, and how its commit gets from there into the user's checkout.

A workspace is a repository of its own that borrows the checkout's objects. It has no remote and no hook, and nothing
else is writable for the implementer. What it leaves there is looked at, never trusted: no git command of ours runs
under its configuration, index or hooks. Its commit is packed, and every object of it checked, into a repository that
only the daemon writes; gates look there, and from there it gets its branch in the checkout.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sotad import git
from sotad.activities.context import ActivityFailed, Context
from sotad.daemon.journal import to_the_end

MOST_BYTES = 64 << 20
LONGEST_REF_FILE = 1 << 20
DIFFED_AS_TEXT = 4 << 20
CONFIG = """
[core]
    hooksPath = /dev/null
[commit]
    gpgSign = false
[gc]
    auto = 0
[maintenance]
    auto = false
"""
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SETTINGS = ("core.commitGraph=false", "core.multiPackIndex=false", f"core.bigFileThreshold={DIFFED_AS_TEXT}")
DISTRUST = tuple(part for setting in SETTINGS for part in ("-c", setting))
FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A repository for one try of an implementer, on a branch at ``base``."""

    folder: Path
    branch: str
    repo: Path
    base: str

    @property
    def seen(self) -> Path:
        """The daemon's own repository beside it, with what was taken over."""
        return self.folder.with_name("seen.git")

    @property
    def before(self) -> Path:
        """A file of the daemon beside it: what the world was like before the implementer began."""
        return self.folder.with_name("before.json")

    @property
    def looking(self) -> dict[str, str]:
        """Environment of a git that looks at what was taken over."""
        return {**git.NEUTRAL, "GIT_DIR": str(self.seen)}

    async def git(self, *argv: str, data: bytes = b"") -> str:
        """Ask git about what was taken over.

        Raises:
            GitError: it refused.
        """
        out = await git.run(self.seen, *DISTRUST, *argv, data=data, env=self.looking)
        return out.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Taken:
    """Where the workspace's branch and commit stand; ``trouble`` says why the commit could not be taken over."""

    commit: str
    on: str
    trouble: str = ""


async def attempt_workspace(ctx: Context, attempt_id: str, base: str) -> Workspace:
    """The workspace of this try; made anew unless the try has begun already.

    Raises:
        ActivityFailed: its branch is there already, with commits that this campaign does not know.
    """
    name = attempt_id if ctx.attempt == 1 else f"{attempt_id}-try{ctx.attempt}"
    repo = Path(ctx.spec["frameworks"][ctx.c.target]["checkout"])
    space = Workspace(workspaces(ctx) / name / "tree", f"{ctx.c.branch}-{name}", repo, base)
    if not await ctx.begun():
        if await git.tip(repo, f"refs/heads/{space.branch}") not in ("", base):
            raise ActivityFailed(f"branch {space.branch} in {repo} is of another campaign: rename or delete it")
        await to_the_end(_make(space))
    return space


def workspaces(ctx: Context) -> Path:
    """The folder of the campaign's workspaces: they hold no work of their own once the campaign is over."""
    return ctx.state_dir / "workspaces" / ctx.campaign


async def lent(space: Workspace) -> Path:
    """The objects that the workspace borrows: those of the target's checkout, which may lie in the state directory."""
    return Path((await git.git(space.repo, "rev-parse", "--path-format=absolute", "--git-path", "objects")).strip())


async def _make(space: Workspace) -> None:
    """Both repositories, from nothing."""
    await asyncio.to_thread(shutil.rmtree, space.folder.parent, ignore_errors=True)
    space.folder.mkdir(parents=True)
    space.seen.mkdir()
    asked = ("--path-format=absolute", "--git-path", "objects", "--git-path", "shallow", "--show-object-format")
    objects, shallow, form = (await git.git(space.repo, "rev-parse", *asked)).splitlines()
    begin = ("init", "--quiet", "--template=", f"--object-format={form}", f"--initial-branch={space.branch}")
    for folder, place, more in ((space.folder, space.folder / ".git", ()), (space.seen, space.seen, ("--bare",))):
        await git.git(folder, *begin, *more, ".", env=git.NEUTRAL)
        (place / "objects" / "info" / "alternates").write_text(f"{objects}\n")
        if Path(shallow).exists():
            shutil.copy(shallow, place / "shallow")
    await space.git("update-ref", f"refs/heads/{space.branch}", space.base)
    with (space.folder / ".git" / "config").open("a") as config:
        config.write(CONFIG)
    await git.git(space.folder, "checkout", "--quiet", "-B", space.branch, space.base, env=git.NEUTRAL)


# --- taking over ----------------------------------------------------------------------------------------------


async def take_over(space: Workspace) -> Taken:
    """Copy the workspace's commit, every object checked, into the daemon's repository."""
    on, commit = await asyncio.to_thread(head_of, space.folder / ".git")
    if not COMMIT.fullmatch(commit):
        return Taken(space.base, on, "the workspace's HEAD names no commit")
    try:
        if commit != space.base:
            await _copy(space, commit)
    except git.GitError as error:
        return Taken(space.base, on, str(error))
    return Taken(commit, on)


async def taken_before(space: Workspace) -> Taken:
    """The commit that was taken over at an earlier look, whatever has become of the workspace since."""
    on, _ = await asyncio.to_thread(head_of, space.folder / ".git")
    return Taken((await space.git("rev-parse", f"refs/heads/{space.branch}")).strip(), on)


async def _copy(space: Workspace, commit: str) -> None:
    """Raises: GitError when objects are missing, broken or too many."""
    borrowing = {**space.looking, "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(space.folder / ".git" / "objects")}
    span = (commit, f"^{space.base}")
    size = sum(size for _, size in await blobs(space, *span, env=borrowing))
    if size > MOST_BYTES:
        raise git.GitError(f"its commits hold {size} bytes of files, more than {MOST_BYTES}")
    wanted = "\n".join((*span, "")).encode()
    packing = (*DISTRUST, "pack-objects", "--quiet", "--revs", "--stdout")
    pack = await git.run(space.seen, *packing, data=wanted, env=borrowing)
    await git.run(space.seen, "index-pack", "--stdin", "--strict", data=pack, env=space.looking)
    await space.git("update-ref", f"refs/heads/{space.branch}", commit)


async def blobs(space: Workspace, *span: str, env: Mapping[str, str]) -> list[tuple[str, int]]:
    """Path and size, bytes, of every state of a file that is new in a span of commits.

    Raises:
        GitError: objects are missing.
    """
    objects = (await git.git(space.seen, *DISTRUST, "rev-list", "--objects", *span, env=env)).splitlines()
    named = [line.partition(" ") for line in objects]
    asked = "".join(f"{name}\n" for name, _, _ in named).encode()
    if not named:
        return []
    form = "--batch-check=%(objecttype) %(objectsize)"
    told = (await git.run(space.seen, *DISTRUST, "cat-file", form, data=asked, env=env)).decode().splitlines()
    pairs = zip(named, (line.split(" ") for line in told), strict=True)
    return [(path, int(size)) for (_, _, path), (kind, size) in pairs if kind == "blob"]


def head_of(folder: Path) -> tuple[str, str]:
    """Branch and commit of a git folder, read as text: its configuration is somebody else's."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return "", ""
        name = _text(folder / "HEAD")
        if not name.startswith("ref: "):
            return "", name
        name = name.removeprefix("ref: ").strip()
        if not name.startswith("refs/heads/") or ".." in name:
            return "", ""
        return name.removeprefix("refs/heads/"), _ref(folder, name)
    except OSError:
        return "", ""


def _ref(folder: Path, name: str) -> str:
    try:
        return _text(folder / name)
    except OSError:
        packed = [line.split(" ", 1) for line in _text(folder / "packed-refs").splitlines() if " " in line]
        return next((commit for commit, ref in packed if ref == name), "")


def _text(path: Path) -> str:
    """What a plain file holds; a link, a pipe or a device is none.

    Raises:
        OSError: there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no plain file")
        return file.read(LONGEST_REF_FILE).decode(errors="replace").strip()


async def uncommitted(space: Workspace, commit: str) -> list[str]:
    """Paths of the workspace that are not as in the commit, or in no commit; ignored files apart.

    An index of our own is compared with the files: the workspace's may say of a file not to look at it.
    """
    index = {"GIT_INDEX_FILE": str(space.seen / "index"), "GIT_WORK_TREE": str(space.folder)}
    env = {**space.looking, **index}
    await git.run(space.folder, *DISTRUST, "read-tree", commit, env=env)
    status = ("status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all", "--no-renames")
    found = await git.git(space.folder, *DISTRUST, *status, env=env)
    return [entry[3:] for entry in found.split("\0") if entry]


# --- into the checkout --------------------------------------------------------------------------------------------


async def publish(space: Workspace, commit: str) -> None:
    """The attempt's branch is in the user's checkout, at ``commit``.

    Raises:
        ActivityFailed: it is there already and names something else.
    """
    ref = f"refs/heads/{space.branch}"
    if await git.tip(space.repo, ref) == commit:
        return
    try:
        if commit == space.base:
            await to_the_end(git.git(space.repo, "update-ref", ref, commit, "0" * len(commit)))
        else:
            checked = ("-c", "fetch.fsckObjects=true", *FETCH, str(space.seen), f"{ref}:{ref}")
            await to_the_end(git.git(space.repo, *checked))
    except git.GitError as error:
        raise ActivityFailed(f"branch {space.branch} cannot be set in {space.repo}: {error}") from None
