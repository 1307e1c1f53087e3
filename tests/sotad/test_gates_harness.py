"""The digest of the code that measures and judges."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from sotad import harness


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that stands for ours."""
    found = ModuleType("ours")
    found.__file__ = str(tmp_path / "ours" / "__init__.py")
    (tmp_path / "ours" / "deep" / "__pycache__").mkdir(parents=True)
    (tmp_path / "ours" / "__init__.py").write_text("x = 1\n")
    monkeypatch.setattr(harness, "PACKAGES", (found,))
    return tmp_path / "ours"


def test_any_file_changes_it_and_a_compiled_one_does_not(package: Path) -> None:
    """Content, name and presence count; what the interpreter leaves behind does not."""
    seen = {harness.harness_digest()}
    (package / "deep" / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert harness.harness_digest() in seen
    for change in (
        lambda: (package / "deep" / "a.j2").write_text("x"),
        lambda: (package / "deep" / "a.j2").write_text("y"),
        lambda: (package / "deep" / "a.j2").rename(package / "a.j2"),
        lambda: (package / "a.j2").unlink() or (package / "__init__.py").write_text("x = 2\n"),
    ):
        change()
        digest = harness.harness_digest()
        assert digest not in seen
        seen.add(digest)
