"""``sotactl knowledge``: the search of a campaign, by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sotad.cli import knowledge
from sotad.cli.entry import Parser
from sotad.cli.entry import main as enter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two dossiers, a list of open pull requests, and a file that is no text."""
    (tmp_path / "sglang" / "kimi").mkdir(parents=True)
    (tmp_path / "sglang" / "kimi" / "README.md").write_text("# Kimi\n\n#1 `moe_gate` \x1b[31m\n")
    (tmp_path / "qwen3.md").write_text("# Qwen\n\nmoe_gate\n")
    (tmp_path / "open-pr-watch.md").write_text("# Open PR watch\n\nmoe_gate\n")
    (tmp_path / "binary.md").write_bytes(b"\0")
    return tmp_path


def run(*argv: str) -> int:
    """The command in a parser of its own."""
    parser = Parser(prog="sotactl")
    knowledge.add(parser.add_subparsers(required=True))
    return enter(parser, ["knowledge", *argv])


def test_what_bears_on_a_model_is_printed_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths and lines on stdout without control characters, what could not be read on stderr."""
    assert run(str(folder), "moe_gate", "--model", "Kimi-K2") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "sglang/kimi/README.md"
    assert out.splitlines()[1].startswith("  sglang/kimi/README.md:3: #1 `moe_gate`")
    assert "qwen3.md" in out and "open-pr-watch" not in out and "\x1b" not in out
    assert err == "binary.md: left out: binary, not text\n"


def test_json_and_paths(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The notes as data; paths alone; everything as a list."""
    assert run(str(folder), "moe_gate", "--framework", "sglang", "--json") == 0
    first, _ = json.loads(capsys.readouterr().out)
    assert (first["document"], first["prs"], first["match"]) == ("sglang/kimi/README.md", [1], "terms")
    assert run(str(folder), "moe_gate", "--paths-only", "--limit", "1") == 0
    assert capsys.readouterr().out == "sglang/kimi/README.md\n"
    assert run(str(folder), "--list", "--json") == 0
    kinds = {entry["path"]: entry["kind"] for entry in json.loads(capsys.readouterr().out)}
    assert kinds == {"open-pr-watch.md": "open pull requests", "qwen3.md": "", "sglang/kimi/README.md": ""}


def test_nothing_found_is_no(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, and an empty JSON list."""
    assert run(str(folder), "absent_word", "--json") == 1
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("argv", [("/absent/folder",), (".", "--limit", "0")])
def test_bad_arguments_are_one_line(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, and what to do."""
    assert run(*argv) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_loads_nothing_heavy() -> None:
    """Adding it to the parser reads no corpus code, and searching needs no aiohttp."""
    code = "import sys, sotad.cli.knowledge; print([m for m in sys.modules if m.startswith('sotad.knowledge')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys, sotad.knowledge.notes, sotad.knowledge.corpus; print('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
