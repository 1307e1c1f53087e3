"""What the engine tests share: installed engines, a tiny model, and a place that adopts what others leave behind."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # install.py and make_model.py are programs that are also used here
import install
import make_model

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


@pytest.fixture(scope="session")
def engine() -> Callable[[str], Path]:
    """The interpreter of an engine's venv, installed when it is not there yet."""

    def get(name: str) -> Path:
        try:
            return install.install(name, install.home() / name)
        except install.InstallError as error:
            if name == "vllm":
                raise
            pytest.skip(f"{name} does not install here: {error}")

    return get


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model."""
    return make_model.make(tmp_path_factory.mktemp("engines") / "model")


@pytest.fixture
def adopting_orphans() -> None:
    """A process whose parent dies becomes a child of this one, so that it can be seen."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
