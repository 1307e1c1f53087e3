"""Which files of a folder are traces, and of which rank and stage.

Profilers leave one file per rank and stage, in a folder per capture. Of several captures the newest is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sotad.trace.errors import TraceError
from sotad.trace.source import opened

PREFILL, DECODE = "prefill", "decode"
IGNORED = ("server_args.json", "metadata.json", "config.json")
MERGED = "merged-"
LOOK = 1 << 20  # bytes, in which a JSON of any name has to show that it is a trace
STAGE_PARTS = 6  # of a path, counted from its end, that may name a stage
_JSON = re.compile(r"\.json(\.gz)?$", re.IGNORECASE)
_BY_NAME = re.compile(r"\.trace\.json(\.gz)?$|\.pt\.trace\.json", re.IGNORECASE)
_BY_CONTENT = re.compile(rb'\s*(\{.*"traceEvents"\s*:\s*\[|\[\s*\{.*"ph"\s*:\s*")', re.DOTALL)
_RANKS = (r"(?:^|[_.-])tp(\d+)(?=[_.-])", r"tp-(\d+)", r"rank[_-]?(\d+)", r"worker[_-]?(\d+)")
_PARALLEL = re.compile(r"(?:^|[_.-])(tp|dp|pp|ep|dcp|rank|worker)[_-]?(\d+)(?=[_.-])", re.IGNORECASE)
_TIME = re.compile(r"\d{9,}([._]\d+)?")
_FRONT_END = re.compile(r"async_llm|front[_-]?end|api[_-]?server", re.IGNORECASE)
_STAGE_OF_FILE = re.compile(r"(?:^|[-_.])(extend|prefill|decode)(?=[-_.])", re.IGNORECASE)
_STAGE_OF_FOLDER = re.compile(r"(?:^|[-_.])(extend|prefill|decode)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace file; ``rank`` and ``stage`` ("prefill", "decode") as its path names them."""

    path: Path
    rank: int | None
    stage: str | None


def find(path: Path) -> list[TraceFile]:
    """The traces that `path` means: the file, or of a folder its newest capture, one file for each stage and rank.

    Prefill comes before decode before files that name no stage, then by rank and name.

    Raises:
        TraceError: there is no such file or folder, it may not be read, or no trace is in it.
    """
    try:
        if not path.is_dir():
            path.open("rb").close()
            return [_told(path)]
        next(path.iterdir(), None)
        capture = _newest_capture(path, [each for each in _jsons(path) if _is_trace(each)])
    except OSError as error:
        reason = error.strerror or str(error)
        raise TraceError(f"{path}: {reason}; give a trace file, or a folder with some, that you may read") from error
    if not capture:
        raise TraceError(
            f"{path}: no trace in this folder or below; give the folder that the profiler wrote to"
            " (*.trace.json, *.pt.trace.json.gz, ...)"
        )
    return sorted(_one_each(capture), key=_order)


def _jsons(folder: Path) -> list[Path]:
    found = [
        each for each in folder.rglob("*") if _JSON.search(each.name) and each.name not in IGNORED and each.is_file()
    ]
    return [each for each in found if not each.name.startswith(MERGED)] or found


def _is_trace(path: Path) -> bool:
    """By name, else by content."""
    if _BY_NAME.search(path.name):
        return True
    try:
        with opened(path) as source:
            return bool(_BY_CONTENT.match(source.read(LOOK)))
    except TraceError:
        return False


def _newest_capture(folder: Path, traces: Iterable[Path]) -> list[Path]:
    """Traces that lie together, apart from folders named for a stage or a time (stage/1795295558/...)."""
    captures: dict[tuple[str, ...], list[Path]] = {}
    for trace in traces:
        parts = trace.relative_to(folder).parent.parts
        kept = tuple(part for part in parts if not _STAGE_OF_FOLDER.search(part) and not re.fullmatch(r"[\d.]+", part))
        captures.setdefault(kept, []).append(trace)
    return max(captures.values(), key=lambda capture: max(map(_age, capture)), default=[])


def _one_each(capture: Iterable[Path]) -> list[TraceFile]:
    """The newest file of each stage and rank; files without a rank only where no file has one, front ends last.

    Engines that name no rank name the process: such files are of one rank when their names differ by a time only.
    """
    newest: dict[tuple[object, ...], TraceFile] = {}
    for file in map(_told, sorted(capture, key=_age)):
        name = file.path.name.lower()
        parallel = _PARALLEL.findall(name) if file.rank is not None else [_TIME.sub("", name)]
        newest[file.stage, file.rank, *parallel] = file
    files = list(newest.values())
    for better in (_ranked, _works):
        stages = {file.stage for file in files if better(file)}
        files = [file for file in files if better(file) or file.stage not in stages]
    return files


def _ranked(file: TraceFile) -> bool:
    return file.rank is not None


def _works(file: TraceFile) -> bool:
    """Whether the name is not that of a front end, which launches no kernels."""
    return not _FRONT_END.search(file.path.name)


def _told(path: Path) -> TraceFile:
    return TraceFile(path, _rank(path.name), _stage(path))


def _rank(name: str) -> int | None:
    found = (re.search(pattern, name, re.IGNORECASE) for pattern in _RANKS)
    return next((int(match[1]) for match in found if match), None)


def _stage(path: Path) -> str | None:
    """The stage in the file's name, else that of the nearest folder named for one."""
    *folders, name = path.absolute().parts[-STAGE_PARTS:]
    found = [_STAGE_OF_FILE.search(name), *map(_STAGE_OF_FOLDER.search, reversed(folders))]
    stage = next((match[1].lower() for match in found if match), None)
    return PREFILL if stage == "extend" else stage


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, str(path)


def _order(file: TraceFile) -> tuple[int, int, str]:
    stages = (PREFILL, DECODE, None)
    return stages.index(file.stage), -1 if file.rank is None else file.rank, file.path.name
