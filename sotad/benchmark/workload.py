"""Workloads: which requests are sent, the same to the byte wherever and whenever they are made.

Four kinds. `random`: prompts of exact token lengths. `sharegpt`, `jsonl` and `trace`: rows of a file, see
`sotad.benchmark.datasets`. Taking a 32-bit number modulo the size of the token range favours some tokens by
less than one part in 100000, which no server can notice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sotad.benchmark.randomness import numbers

Prompt = str | list[int] | list[dict[str, Any]]
Kind = Literal["random", "sharegpt", "jsonl", "trace"]


class WorkloadError(ValueError):
    """The workload cannot be made; the text says where and what to do, in one line."""


@dataclass(frozen=True)
class Request:
    """One request: a prompt as text, token ids or chat messages, and how many tokens to answer with.

    `at_s` is its moment in a trace. `metadata` is kept beside its result and never sent.
    """

    prompt: Prompt
    output_len: int
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    at_s: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Scenario(BaseModel):
    """One shape of requests: `num_prompts` prompts of `input_len` tokens, `output_len` tokens each in return.

    The first `shared_prefix_len` tokens of every prompt are the same. Token ids are drawn from
    `first_token` (included) to `last_token` (excluded), which the model's vocabulary has to contain. The
    other kinds take prompts and lengths from the file `dataset`; an `output_len` given here overrides its own.
    `tokenizer` is the path of a tokenizer.json, for what only it can count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    kind: Kind = "random"
    dataset: Path | None = None
    tokenizer: Path | None = None
    num_prompts: int = Field(ge=1)
    input_len: int | None = Field(default=None, ge=1)
    output_len: int | None = Field(default=None, ge=1)
    seed: int = 0
    shared_prefix_len: int = Field(default=0, ge=0)
    first_token: int = Field(default=300, ge=0)
    last_token: int = Field(default=30000, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Scenario":
        if self.kind == "random":
            self._check_lengths()
        elif self.dataset is None:
            raise ValueError(f"kind {self.kind} needs a dataset")
        elif self.input_len is not None or self.shared_prefix_len:
            raise ValueError(f"kind {self.kind} takes its prompts from the dataset: no input_len, no shared_prefix_len")
        if self.first_token >= self.last_token:
            raise ValueError("first_token must be below last_token")
        return self

    def _check_lengths(self) -> None:
        if self.dataset is not None:
            raise ValueError("kind random takes no dataset; say which kind it is: sharegpt, jsonl or trace")
        if self.input_len is None or self.output_len is None:
            raise ValueError(f"kind random needs {'input_len' if self.input_len is None else 'output_len'}")
        if self.shared_prefix_len > self.input_len:
            raise ValueError("shared_prefix_len is larger than input_len")


def requests(scenario: Scenario, stream: str = "measured") -> list[Request]:
    """The requests in the order in which they are sent; another `stream` gives others of the same shape.

    Raises:
        WorkloadError: the dataset is not there, malformed, or too small.
    """
    if scenario.kind == "random":
        assert scenario.output_len is not None, "checked when it was made"
        return [Request(prompt, scenario.output_len) for prompt in prompts(scenario, stream)]
    from sotad.benchmark.datasets import chosen

    return chosen(scenario, stream)


def prompts(scenario: Scenario, stream: str = "measured") -> list[list[int]]:
    """The random prompts as token ids; another `stream` gives others with the same prefix."""
    assert scenario.input_len is not None, "a random scenario has lengths"
    own = scenario.input_len - scenario.shared_prefix_len
    prefix = token_ids(scenario, "prefix", scenario.shared_prefix_len)
    labels = (f"{stream}/{index}" for index in range(scenario.num_prompts))
    return [prefix + token_ids(scenario, label, own) for label in labels]


def token_ids(scenario: Scenario, label: str, count: int) -> list[int]:
    """`count` tokens that the scenario's name and seed and the label determine.

    Another name gives other tokens: what one scenario leaves in a server's prefix cache must be no use to the next.
    """
    size, source = scenario.last_token - scenario.first_token, f"tokens/{scenario.name}/{scenario.seed}/{label}"
    return [scenario.first_token + number % size for number in numbers(source, count)]


def digest(scenario: Scenario) -> str:
    """SHA-256 of the measured requests, in hexadecimal: equal digests are equal workloads.

    Raises:
        WorkloadError: as for `requests`.
    """
    return digest_of(scenario, requests(scenario))


def digest_of(scenario: Scenario, made: list[Request]) -> str:
    """The digest of requests that were made already."""
    content: Any = [[r.prompt, r.output_len, dict(r.extra_body), r.at_s] for r in made]
    if scenario.kind == "random":
        content = {"prompts": [r.prompt for r in made], "output_len": scenario.output_len}
    return hashlib.sha256(json.dumps(content, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
