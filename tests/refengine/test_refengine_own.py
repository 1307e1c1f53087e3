"""The engine's own tests, collected here as well: they travel with every checkout of it."""

import pytest

pytest.importorskip("torch")

from sotad.refengine.tests.test_engine import Captures, Outputs
from sotad.refengine.tests.test_parts import Bodies, Regions, Scheduling, Tokens
from sotad.refengine.tests.test_server import CommandLine, Http

__all__ = ["Bodies", "Captures", "CommandLine", "Http", "Outputs", "Regions", "Scheduling", "Tokens"]
