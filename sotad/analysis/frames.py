"""How much a Python frame says about where a kernel comes from, and how it is shown. The order is data: frames.yaml."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import yaml

_FRAME = re.compile(r"^(?P<path>.*\.py)\((?P<line>\d+)\): (?P<function>.+)$")
BUILT_IN = -10  # `<built-in method addmm of ...>` and `nn.Module: RMSNorm_1` name no line


class Frame(NamedTuple):
    """A frame with its rank (see frames.yaml) and `path:line function`, empty when it has no line."""

    rank: int
    location: str


class _Path(NamedTuple):
    rank: int
    pattern: re.Pattern[str]
    prefix: str


class _Order(NamedTuple):
    paths: tuple[_Path, ...]
    penalty: int
    functions: frozenset[str]
    passing: re.Pattern[str]


@cache
def _order() -> _Order:
    loaded: dict[str, Any] = yaml.safe_load(resources.files("sotad.analysis").joinpath("frames.yaml").read_text())
    paths = tuple(_Path(each["rank"], re.compile(each["regex"]), each.get("prefix", "")) for each in loaded["paths"])
    passing = loaded["passing"]
    return _Order(paths, int(loaded["penalty"]), frozenset(passing["functions"]), re.compile(passing["paths"]))


def read_frame(name: str) -> Frame:
    """What the profiler's name of a frame, `path(line): function`, says."""
    found = _FRAME.match(name)
    if not found:
        return Frame(BUILT_IN, "")
    order = _order()
    path, hit = next((path, hit) for path in order.paths if (hit := path.pattern.search(name)))  # the last knows all
    rank = path.rank
    if rank > 0 and (found["function"] in order.functions or order.passing.search(found["path"])):
        rank = max(1, rank - order.penalty)
    start = hit.start("root") if "root" in hit.groupdict() else 0
    return Frame(rank, f"{path.prefix}{found['path'][start:]}:{found['line']} {found['function']}")
