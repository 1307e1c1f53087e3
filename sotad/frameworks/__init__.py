"""Serving frameworks: how each is launched, asked for help, and profiled. One file per framework."""

from __future__ import annotations

from sotad.frameworks.base import Framework
from sotad.frameworks.reference import Reference

FRAMEWORKS: dict[str, Framework] = {"reference": Reference()}
