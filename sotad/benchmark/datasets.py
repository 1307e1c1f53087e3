"""Requests out of files: ShareGPT conversations, canonical JSON Lines, production traces.

canonical   one object a line: prompt (text, token ids or chat messages), output_len; optionally
            extra_request_body and metadata
trace       the same with timestamp (seconds) or timestamp_ms in every row; instead of a prompt it may have
            input_len. Two public shapes are read as well: rows with input_length, output_length, timestamp in
            milliseconds and hash_ids (each id stands for 512 tokens, so equal ids are equal prefixes), and CSV
            with TIMESTAMP, ContextTokens, GeneratedTokens
sharegpt    a JSON array of {"conversations": [{"from", "value"}, ...]}: the first question is the prompt, the
            length of the first answer the output length. The answer itself is never sent.

Every problem is one line that begins with the file and the row.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sotad.benchmark.randomness import order
from sotad.benchmark.tokens import Tokenizer, TokenizerError, load_tokenizer
from sotad.benchmark.workload import Prompt, Request, Scenario, WorkloadError, token_ids

HASHED_BLOCK = 512  # tokens that one of a trace's hash_ids stands for
Row = dict[str, Any]


def chosen(scenario: Scenario, stream: str = "measured") -> list[Request]:
    """The requests of a dataset scenario: a trace's first rows in time, of the others a seeded choice.

    Any other `stream` gets the rows that were not chosen as far as there are any, each made to differ, so that
    it cannot fill a cache for the measured ones.

    Raises:
        WorkloadError: the file is not there, malformed, or has fewer usable rows than num_prompts.
    """
    rows = _read(scenario)
    if len(rows) < scenario.num_prompts and stream == "measured":
        raise WorkloadError(f"{scenario.dataset}: {len(rows)} usable rows; num_prompts is {scenario.num_prompts}")
    if scenario.kind == "trace":
        rows.sort(key=lambda row: row.at_s or 0.0)
    else:
        rows = [rows[index] for index in order(f"rows/{scenario.name}/{scenario.seed}", len(rows))]
    if stream == "measured":
        return rows[: scenario.num_prompts]
    last = len(rows) - 1
    return [_another(rows[last - index % len(rows)], f"{stream} {index}") for index in range(scenario.num_prompts)]


def _another(request: Request, salt: str) -> Request:
    prompt = request.prompt
    if isinstance(prompt, str):
        return replace(request, prompt=f"{salt}\n{prompt}")
    if all(isinstance(token, int) for token in prompt):
        return replace(request, prompt=prompt[::-1])
    return replace(request, prompt=[{"role": "system", "content": salt}, *prompt])


def _read(scenario: Scenario) -> list[Request]:
    assert scenario.dataset is not None, "checked when the scenario was made"
    readers: dict[str, Callable[[Scenario, Path], list[Request]]]
    readers = {"sharegpt": _sharegpt, "jsonl": _lines, "trace": _lines}
    try:
        found = readers[scenario.kind](scenario, scenario.dataset)
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{scenario.dataset}: cannot be read: {error}") from None
    except TokenizerError as error:
        raise WorkloadError(str(error)) from None
    if not found:
        raise WorkloadError(f"{scenario.dataset}: no usable row")
    return found


def _sharegpt(scenario: Scenario, path: Path) -> list[Request]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise WorkloadError(f"{path}: not JSON: {error}; a file of one object a line is kind jsonl") from None
    if not isinstance(content, list):
        raise WorkloadError(f"{path}: not a JSON array of conversations")
    length = _answer_length(scenario)
    found = []
    for number, entry in enumerate(content):
        turns = entry.get("conversations") if isinstance(entry, dict) else None
        if not isinstance(turns, list):
            raise WorkloadError(f"{path}: entry {number}: no list `conversations`")
        if pair := _first_turn(turns):
            found.append(Request(pair[0], length(pair[1])))
    return found


def _first_turn(turns: list[Any]) -> tuple[str, str] | None:
    """The first question and its answer; None where a conversation does not begin with both."""
    said = [turn.get("value") for turn in turns[:2] if isinstance(turn, dict)]
    if len(said) < 2 or not all(isinstance(each, str) and each.strip() for each in said):
        return None
    return str(said[0]), str(said[1])


def _answer_length(scenario: Scenario) -> Callable[[str], int]:
    if fixed := scenario.output_len:
        return lambda answer: fixed
    if scenario.tokenizer is None:
        raise WorkloadError("the answers' lengths need output_len, or a tokenizer to count them with")
    tokenizer: Tokenizer = load_tokenizer(scenario.tokenizer)
    return lambda answer: max(1, len(tokenizer.ids(answer)))


def _lines(scenario: Scenario, path: Path) -> list[Request]:
    found = []
    for number, row in _csv_rows(path) if path.suffix == ".csv" else _json_rows(path):
        try:
            found.append(_request(scenario, _canonical(row), number))
        except (ValueError, TypeError, KeyError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise WorkloadError(f"{path}:{number}: {said}") from None
    return found


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise WorkloadError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise WorkloadError(f"{path}:{number}: not an object")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from enumerate(csv.DictReader(file), 2)


def _canonical(row: Row) -> Row:
    """A row of another known shape in the words of the canonical one."""
    if "input_length" in row:
        lengths = {"input_len": row["input_length"], "output_len": row["output_length"]}
        return {**lengths, "timestamp_ms": row["timestamp"], "hash_ids": row.get("hash_ids")}
    if "ContextTokens" in row:
        lengths = {"input_len": int(row["ContextTokens"]), "output_len": int(row["GeneratedTokens"])}
        return {**lengths, "timestamp": datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC).timestamp()}
    return row


def _request(scenario: Scenario, row: Row, number: int) -> Request:
    output_len = scenario.output_len or _count(row["output_len"], "output_len")
    return Request(
        prompt=_prompt(row["prompt"]) if "prompt" in row else _made(scenario, row, number),
        output_len=output_len,
        extra_body=_mapping(row, "extra_request_body"),
        at_s=_moment(row) if scenario.kind == "trace" else None,
        metadata=_mapping(row, "metadata"),
    )


def _prompt(prompt: Any) -> Prompt:
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt:
        if all(type(each) is int and each >= 0 for each in prompt):
            return prompt
        if all(isinstance(each, dict) and "role" in each for each in prompt):
            return prompt
    raise ValueError("prompt is neither text, nor token ids, nor chat messages, or it is empty")


def _made(scenario: Scenario, row: Row, number: int) -> list[int]:
    """A prompt of the row's length; a hash id always stands for the same tokens."""
    if scenario.kind != "trace":
        raise KeyError("prompt")
    wanted, made = _count(row["input_len"], "input_len"), []
    for name in row.get("hash_ids") or ():
        made += token_ids(scenario, f"hash/{name}", HASHED_BLOCK)
    made = made[:wanted]
    return made + token_ids(scenario, f"row/{number}", wanted - len(made))


def _count(value: Any, name: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}, not a number of tokens")
    return value


def _mapping(row: Row, name: str) -> Row:
    value = row.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value or {}


def _moment(row: Row) -> float:
    if "timestamp_ms" not in row and "timestamp" not in row:
        raise KeyError("timestamp")
    value = row["timestamp_ms"] / 1e3 if "timestamp_ms" in row else row["timestamp"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"timestamp is {value!r}, not a number of seconds")
    return float(value)
