"""Lets the tests of this folder import the simulated executor that lies beside them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # importmode=importlib adds no folder by itself
