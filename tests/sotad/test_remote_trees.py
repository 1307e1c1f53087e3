"""The files of a commit on a host without git: laid out, proven, and made anew when anything differs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig.campaign import git

from sotad.activities import trees
from sotad.there import tree


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Programs, links, ignored files, names that are no UTF-8, and a submodule that is not there."""
    repo = tmp_path / "repo"
    (repo / "deep" / "er").mkdir(parents=True)
    (repo / "run.sh").write_text("#!/bin/sh\n")
    (repo / "run.sh").chmod(0o755)
    (repo / "deep" / "er" / "data.bin").write_bytes(bytes(range(256)) * 50)
    (repo / "empty").write_bytes(b"")
    (repo / "link").symlink_to("deep/er/data.bin")
    (repo / "folder-link").symlink_to("deep")
    Path(os.fsdecode(os.fsencode(repo) + b"/caf\xe9")).write_text("latin")
    (repo / ".gitignore").write_text("*.pyc\n")
    git(repo, "init", "--quiet", "--initial-branch=main")
    git(repo, "add", "--all")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendored")
    git(repo, "commit", "--quiet", "-m", "Begin")
    return repo


def said(command: list[str], **how: Any) -> str:
    """What a command prints that must not fail."""
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, **how).stdout


async def packed(repo: Path, place: Path, commit: str = "HEAD") -> list[str]:
    """Manifest and archive of a commit, as the daemon sends them."""
    entries = await trees._entries(repo, commit)
    objects = sorted(trees._objects(entries))
    (place / "objects.zip").write_bytes(trees._zipped(await trees._contents(repo, objects), objects))
    (place / "manifest.json").write_text(json.dumps({"format": "sha1", "entries": entries}))
    return [str(place / "manifest.json"), str(place / "tree"), str(place / "objects.zip")]


async def test_a_commit_is_laid_out_as_git_would(repo: Path, tmp_path: Path) -> None:
    """Every file, its mode, links and empty folders of submodules are what a checkout has."""
    arguments = await packed(repo, tmp_path)
    assert tree.main(arguments) == 0
    folder = tmp_path / "tree"
    env = {**os.environ, "GIT_DIR": str(repo / ".git"), "GIT_WORK_TREE": str(folder)}
    asked = ["git", "status", "--porcelain", "--ignored", "--untracked-files=all"]
    assert said(asked, cwd=folder, env=env) == "" and (folder / "vendored").is_dir() and (folder / "link").is_symlink()
    assert (folder / "run.sh").stat().st_mode & stat.S_IXUSR and not (folder / "empty").stat().st_mode & stat.S_IXUSR


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda folder: (folder / "run.sh").write_text("#!/bin/sh\nexit 1\n"),
    "mode": lambda folder: (folder / "empty").chmod(0o755),
    "missing": lambda folder: (folder / "empty").unlink(),
    "ignored file beside it": lambda folder: (folder / "deep" / "x.pyc").write_bytes(b"x"),
    "folder beside it": lambda folder: (folder / "__pycache__").mkdir(),
    "link elsewhere": lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("/etc/passwd")),
    "link instead of a file": lambda folder: ((folder / "empty").unlink(), (folder / "empty").symlink_to("run.sh")),
    "link instead of a folder": lambda folder: (
        shutil.move(folder / "deep", folder.parent / "moved"),
        (folder / "deep").symlink_to(folder.parent / "moved"),
    ),
    "something in the submodule": lambda folder: (folder / "vendored" / "code.py").write_text("x"),
    "pipe": lambda folder: os.mkfifo(folder / "deep" / "pipe"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_whatever_was_changed_is_found_and_put_right(
    repo: Path, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that differs in anything is made anew; one that does not stays as it is."""
    arguments = await packed(repo, tmp_path)
    folder = tmp_path / "tree"
    assert [tree.main(arguments), tree.main(arguments)] == [0, 0]
    CHANGES[change](folder)
    assert [tree.main(arguments), tree.main(arguments)] == [0, 0]
    assert [json.loads(line)["made"] for line in capsys.readouterr().out.splitlines()] == [True, False, True, False]


async def test_what_did_not_arrive_whole_is_not_laid_out(repo: Path, tmp_path: Path) -> None:
    """An object that is missing or is something else leaves the folder as it was, and says which."""
    manifest, folder, archive = await packed(repo, tmp_path)
    empty = tmp_path / "none.zip"
    empty.write_bytes(trees._zipped(b"", []))
    assert tree.main([manifest, folder, str(empty)]) == 1
    assert not Path(folder).exists()
    entries = json.loads(Path(manifest).read_text())["entries"]
    names = [name for mode, name, _ in entries if mode != tree.SUBMODULE]
    wrong = b"".join(b"%s blob 5\nother\n" % name.encode() for name in dict.fromkeys(names))
    Path(archive).write_bytes(trees._zipped(wrong, list(dict.fromkeys(names))))
    assert tree.main([manifest, folder, archive]) == 1
    assert not Path(folder).exists()


async def test_it_needs_nothing_but_an_old_python(repo: Path, tmp_path: Path) -> None:
    """The program runs as one file, without site-packages or our other code."""
    arguments = await packed(repo, tmp_path)
    alone = tmp_path / "alone" / "tree.py"
    alone.parent.mkdir()
    shutil.copy(tree.__file__, alone)
    python = [sys.executable, "-I", "-S", str(alone)]
    assert json.loads(said([*python, *arguments])) == {"made": True}
    said([*python, "--remove", arguments[1]])
    assert not (tmp_path / "tree").exists()
