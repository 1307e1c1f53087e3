"""One JSON object to one valid row; and what is wrong with rows that are valid by themselves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sotad.results.judge import false_claim
from sotad.results.plausible import contradictions, mixed_units
from sotad.results.schema import ResultRow

Row = dict[str, Any]
ORIGIN = ("launch", "attempt", "run", "seed")


def parse(found: Mapping[str, Any]) -> Row:
    """The row with every key of the schema, None where nothing is known.

    Raises:
        ValueError: it does not fit the schema; one problem a line.
    """
    infinite = [
        f"{'.'.join(place)}: {value} is not a number: write null when it was not measured"
        for place, value in _numbers(dict(found))
        if not math.isfinite(value) and not (place[-1] == "request_rate" and value == math.inf)
    ]
    if infinite:
        raise ValueError("\n".join(infinite))
    try:
        return ResultRow.model_validate(found).model_dump(mode="json")
    except ValidationError as error:
        raise ValueError("\n".join(map(_problem, error.errors(include_url=False)))) from None


def _numbers(value: object, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, (*place, str(key)))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _numbers(entry, (*place, str(index)))


def _problem(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"][:6]))
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    given = error["input"]
    told = f", it is {given!r}" if isinstance(given, int | float | str) and len(repr(given)) <= 40 else ""
    return f"{where}: {text}{told}" if where else text


def load(row: Row) -> tuple[str, float | None, int | None]:
    """What was sent at it: scenario, request rate (None is saturation), concurrency (None is no limit)."""
    w = row["workload"]
    return w["scenario"], w["request_rate"], w["max_concurrency"]


def ran(row: Mapping[str, Any]) -> bool:
    """Whether the row was measured, and did not become void."""
    return bool(row["status"] == "ok" and row["counts"])


def named(row: Mapping[str, Any]) -> str:
    """The row's name in messages."""
    return f"{row['framework']}/{row['candidate_id']} on {row['workload']['scenario']}"


def checked(rows: Iterable[Row]) -> Iterator[str]:
    """What contradicts itself or another row; each names the row and what to look at."""
    loads: defaultdict[Hashable, list[Row]] = defaultdict(list)
    seen: dict[Hashable, Row] = {}
    for row in rows:
        claim = false_claim(row)
        problems = [*contradictions(row), *([claim] if claim else [])]
        yield from (f"{row['source']}: {named(row)}: {problem}" for problem in problems)
        key = (row["framework"], *load(row), row["candidate_id"], row["purpose"], *(str(row[name]) for name in ORIGIN))
        first = seen.setdefault(key, row)
        if first is not row and row["counts"] and first["counts"]:
            yield f"{row['source']}: {named(row)}: the same candidate is at {first['source']} already"
        if row["status"] == "ok":
            loads[load(row)].append(row)
    for group in loads.values():
        for suspect, problem in mixed_units(group):
            yield f"{suspect['source']}: {named(suspect)}: {problem}, at about the same throughput: is it in seconds?"
