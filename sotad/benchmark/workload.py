"""Workloads of exact token lengths, the same to the byte wherever and whenever they are made.

Token ids and gaps come from SHAKE-256 over a label, so that neither the Python version nor the machine
matters. Taking a 32-bit number modulo the size of the token range favours some tokens by less than one
part in 100000, which no server can notice.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Scenario(BaseModel):
    """One shape of requests: `num_prompts` prompts of `input_len` tokens, `output_len` tokens each in return.

    The first `shared_prefix_len` tokens of every prompt are the same. Token ids are drawn from
    `first_token` (included) to `last_token` (excluded), which the model's vocabulary has to contain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    num_prompts: int = Field(ge=1)
    input_len: int = Field(ge=1)
    output_len: int = Field(ge=1)
    seed: int = 0
    shared_prefix_len: int = Field(default=0, ge=0)
    first_token: int = Field(default=300, ge=0)
    last_token: int = Field(default=30000, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Scenario":
        if self.shared_prefix_len > self.input_len:
            raise ValueError("shared_prefix_len is larger than input_len")
        if self.first_token >= self.last_token:
            raise ValueError("first_token must be below last_token")
        return self


def prompts(scenario: Scenario, stream: str = "measured") -> list[list[int]]:
    """The prompts as token ids; another `stream` gives others of the same shape and the same prefix."""
    own = scenario.input_len - scenario.shared_prefix_len
    prefix = _tokens(scenario, "prefix", scenario.shared_prefix_len)
    labels = (f"{stream}/{index}" for index in range(scenario.num_prompts))
    return [prefix + _tokens(scenario, label, own) for label in labels]


def digest(scenario: Scenario) -> str:
    """SHA-256 of the measured requests, in hexadecimal: equal digests are equal workloads."""
    content = {"prompts": prompts(scenario), "output_len": scenario.output_len}
    return hashlib.sha256(json.dumps(content, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


def arrivals(count: int, rate: float | None, seed: int) -> list[float]:
    """When each request is due, in seconds after the start: all at 0.0, or Poisson at `rate` per second."""
    if rate is None:
        return [0.0] * count
    due, clock = [], 0.0
    for number in _numbers(f"arrivals/{seed}", count):
        due.append(clock)
        clock += -math.log((number + 1) / 2**32) / rate
    return due


def _tokens(scenario: Scenario, label: str, count: int) -> list[int]:
    size = scenario.last_token - scenario.first_token
    numbers = _numbers(f"tokens/{scenario.seed}/{label}", count)
    return [scenario.first_token + number % size for number in numbers]


def _numbers(label: str, count: int) -> Iterable[int]:
    """`count` uniform 32-bit numbers."""
    return struct.unpack(f"<{count}I", hashlib.shake_256(label.encode()).digest(4 * count))
