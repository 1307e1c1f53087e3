"""The packages import in one direction, the machine is pure, and the daemon stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"ledger", "statemachine", "sotad"}
PURE_STDLIB = {
    *("__future__", "collections", "copy", "dataclasses", "functools", "hashlib", "json", "math", "re", "statistics"),
    "typing",
}
MAY_IMPORT_OF_OURS = {"ledger": {"ledger"}, "statemachine": {"statemachine", "ledger.events"}}
ALSO = {"statemachine/shell.py": {"transitions", "sys"}}  # the table run by the library, and its printed diagram


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield from ((f"{module}.{alias.name}" for alias in node.names) if module in OURS else (module,))


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", MAY_IMPORT_OF_OURS)
def test_package_imports_nothing_above_it(package: str) -> None:
    """ledger knows only itself; statemachine only itself and what an event is."""
    allowed = MAY_IMPORT_OF_OURS[package]
    for path in files(package):
        for module in imports(path):
            if module.split(".")[0] in OURS:
                assert any(module == name or module.startswith(f"{name}.") for name in allowed), f"{path}: {module}"


def test_the_machine_is_pure() -> None:
    """No clock, randomness, file, network or process can be reached from it: only the modules named here."""
    for path in files("statemachine"):
        extra = ALSO.get(str(path.relative_to(ROOT)), set())
        for module in imports(path):
            top = module.split(".")[0]
            assert top in OURS | PURE_STDLIB | extra, f"{path.relative_to(ROOT)} imports {module}"


def test_the_machine_reads_no_builtin_input() -> None:
    """Neither does it open, print, ask or run anything by a builtin."""
    for path in files("statemachine"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input", "eval", "exec", "__import__"}, path


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_daemon_loads_no_engine() -> None:
    """torch and numpy belong to the engine's own process."""
    assert not {"torch", "numpy"} & loaded_by("sotad.daemon.service, sotad.daemon.driver")


@pytest.mark.parametrize("module", ["statemachine.fold", "statemachine.decide", "statemachine.judge", "ledger.events"])
def test_replay_needs_the_standard_library_only(module: str) -> None:
    """An auditor's replay loads neither the table's library nor a validator."""
    assert not {"transitions", "pydantic", "aiohttp", "sqlite_utils", "sotad"} & loaded_by(module)
