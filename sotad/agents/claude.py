"""Claude Code without a terminal: ``claude --print`` with one JSON object per line on its output.

Flags and lines as documented at https://docs.claude.com/en/docs/claude-code/headless: ``system`` (session_id),
``assistant`` (message.id, message.usage), and last ``result`` (structured_output, usage, total_cost_usd).
"""

from __future__ import annotations

import json
from dataclasses import replace

from sotad.agents.call import JSON, PROMPT, Call, Command, Said, Usage, money, section, text, whole

READING, WRITING = ("Read", "Grep", "Glob"), ("Edit", "Write")
OVER = "error_max_budget_usd"
CACHES = ("cache_read_input_tokens", "cache_creation_input_tokens")


class Claude:
    """The driver ``claude``."""

    silence_s: float | None = 600.0
    result = ""
    help: tuple[tuple[str, ...], ...] = (("--help",),)
    resumes = True
    moves = False  # sessions are kept by the folder that they worked in
    counts_sessions = False

    def command(self, call: Call) -> Command:
        """Settings of the repository are not loaded: they could run commands of their own."""
        argv = [*(call.argv or ("claude",)), "--print", "--output-format", "stream-json", "--verbose"]
        argv += ["--json-schema", json.dumps(call.schema, sort_keys=True)]
        argv += ["--setting-sources", "user", "--strict-mcp-config"]
        tools, allowed = _tools(call)
        argv += ["--tools", tools, "--allowed-tools", allowed, "--permission-mode", "dontAsk"]
        argv += [part for flag, value in _options(call).items() if value for part in (flag, value)]
        return Command(tuple(argv), PROMPT, "--print")

    def schema(self, schema: JSON) -> JSON:
        """As it is."""
        return schema

    def heard(self, said: Said, line: JSON) -> Said:
        """A message may be printed in parts, each with the usage of the whole; the last line has the sum."""
        said = replace(said, session=text(line.get("session_id")) or said.session)
        message = section(line, "message")
        if line.get("type") == "assistant":
            return said.using(text(message.get("id")), _usage(section(message, "usage")))
        return _ended(said, line) if line.get("type") == "result" else said


def _tools(call: Call) -> tuple[str, str]:
    """The tools that it has, and what it may use without asking: there is nobody to ask.

    A shell can write, so outside our sandbox a reader's runs git only.
    """
    others = (*READING, *WRITING) if call.writes else READING
    shell = "Bash" if call.confined or call.writes else "Bash(git *)"
    return ",".join(("Bash", *others)), ",".join((shell, *others))


def _options(call: Call) -> dict[str, str]:
    limit = "" if call.money_usd is None else f"{call.money_usd:g}"
    return {"--model": call.model, "--effort": call.effort, "--max-budget-usd": limit, "--resume": call.resume}


def _ended(said: Said, line: JSON) -> Said:
    kind, answer = text(line.get("subtype")), line.get("structured_output")
    failed = bool(line.get("is_error")) or kind != "success"
    usage = replace(_usage(section(line, "usage")), cost_usd=money(line.get("total_cost_usd")))
    if usage.tokens is None:  # a report of money alone must not hide what the messages said
        usage = replace(said.total, cost_usd=usage.cost_usd)
    said = replace(said, usage={"result": usage}) if usage.known else said
    if failed:
        errors = line.get("errors")
        why = [text(each) for each in (line.get("result"), *(errors if isinstance(errors, list) else ()))]
        return replace(said, error=f"{kind}: {' '.join(filter(None, why))}".strip(": "), over=kind == OVER)
    return replace(said, answer=answer if isinstance(answer, dict) else text(line.get("result")))


def _usage(found: JSON) -> Usage:
    """Here ``input_tokens`` are those that no cache served or took."""
    known = [count for key in CACHES if (count := whole(found.get(key))) is not None]
    fresh = whole(found.get("input_tokens"))
    return Usage(
        input_tokens=None if fresh is None else fresh + sum(known),
        cached_input_tokens=whole(found.get(CACHES[0])),
        output_tokens=whole(found.get("output_tokens")),
    )
