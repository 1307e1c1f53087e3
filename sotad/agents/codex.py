"""The Codex CLI without a terminal: ``codex exec --json``.

Lines as printed by version 0.169: ``thread.started`` (thread_id), ``item.completed``, ``turn.completed`` (usage),
``turn.failed`` and ``error``. Usage comes at the end of a turn only, and counts the whole thread since it was started.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sotad.agents.call import COUNTS, JSON, PROMPT, SCHEMA, Call, Command, Said, Usage, section, text, whole

UNSUPPORTED = ("default", "title", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "format")
"""Keywords without which a schema still says the same to a model; its service may refuse them."""


class Codex:
    """The driver ``codex``."""

    silence_s: float | None = 600.0
    result = "answer.json"
    help: tuple[tuple[str, ...], ...] = (("exec", "--help"),)
    resumes = True
    moves = True
    counts_sessions = True

    def command(self, call: Call) -> Command:
        """Its own sandbox keeps ``.git`` from being written, and whoever has to commit cannot live with that."""
        free = call.confined or call.writes
        argv = [*(call.argv or ("codex",)), "exec", "--json", "--skip-git-repo-check", "--cd", call.folder]
        argv += ["--sandbox", "danger-full-access" if free else "read-only"]
        argv += ["--output-schema", call.on_desk(SCHEMA), "--output-last-message", call.on_desk(self.result)]
        argv += ["--model", call.model] if call.model else []
        argv += ["--config", f'model_reasoning_effort="{call.effort}"'] if call.effort else []
        argv += ["resume", call.resume] if call.resume else []
        return Command((*argv, "-"), PROMPT, "exec")

    def schema(self, schema: JSON) -> JSON:
        """Every property required and no other allowed, as strict structured outputs demand.

        https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
        """
        strict: JSON = _strict(schema)
        return strict

    def heard(self, said: Said, line: JSON) -> Said:
        """An ``error`` line may be a mere warning: it counts as the reason only when the call fails."""
        kind = line.get("type")
        if kind == "thread.started":
            return replace(said, session=text(line.get("thread_id")))
        if kind == "turn.completed":
            return replace(said.using("thread", _usage(section(line, "usage"))), error="")
        if kind in ("turn.failed", "error"):
            return replace(said, error=text(section(line, "error").get("message")) or text(line.get("message")))
        return said


def _usage(found: JSON) -> Usage:
    return Usage(**{name: whole(found.get(name)) for name in COUNTS})


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in UNSUPPORTED}
    named = {key: {n: _strict(s) for n, s in kept[key].items()} for key in ("properties", "$defs") if key in kept}
    kept = {key: named.get(key) or _strict(value) for key, value in kept.items()}
    if "properties" in kept:
        kept |= {"required": sorted(kept["properties"]), "additionalProperties": False}
    return kept
