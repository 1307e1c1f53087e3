"""The reference engine: a tiny decoder on the CPU, launched from its own git checkout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sotad.frameworks.base import PORT, Value, render


class Reference:
    """``python -m refengine`` in the checkout's root."""

    kind = "reference"

    def help_command(self, python: str) -> tuple[str, ...]:
        return (python, "-m", "refengine", "--help")

    def version_command(self, python: str) -> tuple[str, ...]:
        return (python, "-m", "refengine", "--version")

    def launch_command(self, python: str, model: Mapping[str, Any], flags: Mapping[str, Value]) -> list[str]:
        head = [python, "-m", "refengine", "--host", "127.0.0.1", "--port", PORT]
        return [
            *head,
            "--model-name",
            self.served_model(model),
            "--max-model-len",
            str(model["max_context"]),
            *render(flags),
        ]

    def served_model(self, model: Mapping[str, Any]) -> str:
        return str(model["id"])

    def failure_status(self, log: str) -> str:
        memory = ("out of memory", "kv cache", "cannot hold", "--kv-tokens")
        return "oom" if any(sign in log.lower() for sign in memory) else "failed"

    def profile_flags(self, folder: str) -> dict[str, Value]:
        return {"profile-dir": folder}
