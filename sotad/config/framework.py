"""The section of one serving framework."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from sotad.config.section import Section, Slug

Kind: TypeAlias = Literal["reference", "sglang", "vllm", "tensorrt_llm", "tokenspeed", "openai"]
Flags: TypeAlias = dict[str, JsonValue]


def _argv(value: Any) -> Any:
    """A command line as words."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"no command line: {error}") from None


class Candidate(Section):
    """One launch command: the flags beside the framework's fixed options. ``true`` renders a bare flag."""

    id: str = Field(pattern=Slug)
    flags: Flags = Field(default={})


class Accuracy(Section):
    """A program that scores a served model, higher being better; its last line is JSON with ``score``.

    ``{url}`` and ``{model}`` in the command are the server's; a patch may score ``max_drop`` less than the champion.
    """

    command: Annotated[list[str], BeforeValidator(_argv)] = Field(min_length=1)
    max_drop: float = Field(default=0.0, ge=0)


class Framework(Section):
    """One serving framework. ``kind`` names its driver; ``checkout`` the git repository it runs from.

    ``tests`` are arguments of ``python``, run where the daemon is unless they need the host's GPUs: ``tests_on: host``.
    ``options`` are the flags of every candidate. ``candidates`` are listed, made of ``search_space``, or both.
    """

    kind: Kind
    role: Literal["target", "competitor"]
    enabled: bool = True
    checkout: Path | None = None
    base_branch: str = "main"
    command: Annotated[list[str] | None, BeforeValidator(_argv)] = None
    python: str = ""
    env: dict[str, str] = Field(default={})
    env_from: list[str] = Field(default=[])
    backend_policy: Literal["fixed_pytorch"] | None = None
    options: Flags = Field(default={})
    candidates: list[Candidate] = Field(default=[])
    search_space: dict[str, list[JsonValue]] = Field(default={})
    paths: list[str] = Field(default=["**"])
    tests: list[str] = Field(default=[])
    tests_on: Literal["daemon", "host"] = "daemon"
    accuracy: Accuracy | None = None

    @field_validator("command")
    @classmethod
    def _nonempty(cls, command: list[str] | None) -> list[str] | None:
        if command == []:
            raise ValueError("a command needs at least one word")
        return command

    @model_validator(mode="after")
    def _unique(self) -> Framework:
        names = [candidate.id for candidate in self.candidates]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"candidate ids must differ: {', '.join(sorted(twice))}")
        return self
