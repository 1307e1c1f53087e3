"""Reading and writing rows as JSON Lines; what cannot be read is a named problem, never left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sotad.errors import NotFound
from sotad.results import convert
from sotad.results.errors import BadRows
from sotad.results.rows import Row, checked, parse
from sotad.results.scrub import scrubber

SUFFIXES = (".jsonl", ".json")
MOST_PROBLEMS = 50


class Line(NamedTuple):
    """One JSON object of a file, the framework's name that the user gave it, and its place ``path:line``."""

    path: Path
    place: str
    number: int
    text: str
    cut: bool
    framework: str | None


class Read(NamedTuple):
    """Valid rows without secrets, and what the reader should know about them."""

    rows: list[Row]
    notes: list[str]


def read(sources: Iterable[str], environment: Mapping[str, str] | None = None) -> Read:
    """The rows of files and folders. ``NAME=PATH`` names the framework of a file that does not name it itself.

    Raises:
        BadRows: at least one line is no row, or contradicts itself or another.
        NotFound: there is no such file or folder.
    """
    scrub = scrubber(os.environ if environment is None else environment)
    rows: list[Row] = []
    notes: list[str] = []
    problems: list[str] = []
    for source in sources:
        for path, name, sure in _files(source):
            lines = list(_lines(path, name))
            if not sure and _is_foreign(path, lines):
                notes.append(f"{path}: left out, not a result")
            else:
                rows += _rows(lines, problems, scrub)
    problems += checked(rows)
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} more problems"] if len(problems) > MOST_PROBLEMS else []
        raise BadRows([str(scrub(problem)) for problem in problems[:MOST_PROBLEMS]] + more)
    return Read(rows, notes)


def _files(source: str) -> Iterator[tuple[Path, str | None, bool]]:
    """Path, framework, and whether the user named just this file."""
    name, is_named, rest = source.partition("=")
    path = Path(source)
    if is_named and not path.exists():
        path = Path(rest)
    framework = name if is_named and path == Path(rest) else None
    if path.is_dir():
        found = (each for suffix in SUFFIXES for each in path.rglob(f"*{suffix}"))
        yield from ((each, framework, False) for each in sorted(found) if each.is_file())
    elif path.exists():
        yield path, framework, True
    else:
        raise NotFound(f"{path}: no such file or folder", "give files or folders with rows as JSON Lines")


def _rows(lines: Iterable[Line], problems: list[str], scrub: Callable[[Any], Any]) -> Iterator[Row]:
    """The rows among the lines; what is wrong with the others is added to the problems."""
    for line in lines:
        try:
            yield scrub(_row(line))
        except UnicodeEncodeError:
            problems.append(f"{line.place}: half a character (a lone surrogate): write the row again")
        except ValueError as error:
            problems += [f"{line.place}: {problem}" for problem in str(error).splitlines()]
        except RecursionError:
            problems.append(f"{line.place}: nested too deeply to be a row")


def _lines(path: Path, framework: str | None) -> Iterator[Line]:
    """The lines that are not blank; a ``.json`` file that is one object over many lines is one of them."""
    text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if path.suffix == ".json" and text.lstrip().startswith("{") and _loosely(text) is not None:
        yield Line(path, f"{path}:1", 1, text, False, framework)
        return
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Line(path, f"{path}:{number}", number, line, number == len(lines), framework)


def _is_foreign(path: Path, lines: Sequence[Line]) -> bool:
    """Whether a file that nobody named holds something else. One that has a broken line may be rows: it is read."""
    found = [_loosely(line.text) for line in lines]
    if any(isinstance(each, dict) and ("candidate_id" in each or convert.origin(each)) for each in found):
        return False
    return path.suffix == ".json" or (bool(found) and all(isinstance(each, dict) for each in found))


def _loosely(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _row(line: Line) -> Row:
    """The line as a row.

    Raises:
        ValueError: it is none; one problem a line.
    """
    found = _object(line)
    convertor: Callable[..., Row] | None = convert.origin(found)
    if convertor is not None:
        found = convertor(found, line.path, line.number, line.framework)
    elif line.framework:
        found = {**found, "framework": _same_name(found.get("framework"), line.framework)}
    return {**parse(found), "source": line.place}


def _same_name(own: Any, given: str) -> str:
    if own not in (None, given):
        raise ValueError(f"the row's framework is {own}, the command line says {given}: leave out `{given}=`")
    return given


def _object(line: Line) -> dict[str, Any]:
    if any("\udc80" <= character <= "\udcff" for character in line.text):
        raise ValueError("not UTF-8 text: write the row again")
    try:
        found = json.loads(line.text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        if line.cut:
            raise ValueError("half a line, its writer was stopped: remove it, or measure again") from None
        raise ValueError(f"not JSON ({error.msg} at column {error.colno}): one JSON object a line is needed") from None
    if not isinstance(found, dict):
        kind = {list: "an array", str: "text", type(None): "null"}.get(type(found), "a number or a boolean")
        raise ValueError(f"{kind}, not a JSON object: one object a line is needed")
    json.dumps(found, ensure_ascii=False).encode()  # what could not be written again
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)} is there twice: keep one")
    return found


def dump(rows: Iterable[Mapping[str, Any]], environment: Mapping[str, str] | None = None) -> bytes:
    """Rows as JSON Lines in UTF-8, checked against the schema and without secrets.

    Raises:
        BadRows: a row does not fit the schema.
    """
    scrub = scrubber(os.environ if environment is None else environment)
    lines: list[str] = []
    for index, row in enumerate(rows, 1):
        try:
            lines.append(json.dumps(scrub(parse(row)), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError as error:
            raise BadRows([f"row {index}: {scrub(line)}" for line in str(error).splitlines()]) from None
    return "".join(lines).encode()
