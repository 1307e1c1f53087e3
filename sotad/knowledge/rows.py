"""What a row of a kernel table is about, in words that a history may use: source paths, functions, kernels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MOST_TERMS = 12
_LOCATION = re.compile(r"(?P<path>[\w./-]+\.\w{1,4})(?:[:(]\d+\)?:?\s*(?P<function>[\w.<>]+)?)?")
_WORD = re.compile(r"[A-Za-z_]\w{3,}")
_COMMON = frozenset(
    """void const float half bool true false char short long auto type kernel kernels step aten native cuda unnamed
    torch triton namespace template class struct static int8 int32 int64 unsigned std prefill decode extend forward call
    __call__ module python other none bfloat16 float16 __nv_bfloat16 __half""".split()  # noqa: SIM905
)


def terms(row: Mapping[str, Any]) -> list[str]:
    """Search terms of a row, the most telling first: the places that launch it, then the words of its name.

    Places are `path:line function` or `path(line): function`; of a path its last two parts are kept, because
    histories name files from the root of a repository and traces from where they are installed.
    """
    places = [str(place.get("location", "")) for place in row.get("locations", []) if isinstance(place, Mapping)]
    found = [term for place in places for term in _of_place(place)]
    name = re.sub(r"<.*", "", str(row.get("name", "")), flags=re.DOTALL)
    found += _words(name) + _words(str(row.get("annotation") or ""))
    return list(dict.fromkeys(found))[:MOST_TERMS]


def of_files(paths: Iterable[str]) -> list[str]:
    """Search terms for source files: what a history would call each."""
    return list(dict.fromkeys("/".join(path.split("/")[-2:]) for path in paths if path))


def _of_place(place: str) -> list[str]:
    found = _LOCATION.match(place.strip())
    if not found:
        return []
    function = found.group("function") or ""
    return of_files([found.group("path")]) + [word for word in _words(function) if word == function]


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if word.lower() not in _COMMON]
