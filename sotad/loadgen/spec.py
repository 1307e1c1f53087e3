"""What the load generator is asked to do."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sotad.benchmark.workload import Scenario

SpecT = TypeVar("SpecT", bound=BaseModel)


class SpecError(ValueError):
    """The file is no specification; the text says which field and why, in one line."""


class Target(BaseModel):
    """The server to talk to, and how patient to be with one request.

    A request fails after `timeout_s` seconds in all, or `stall_s` seconds without a byte.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(pattern=r"^https?://\S+$")
    endpoint: str = Field(default="/v1/completions", pattern=r"^/\S*$")
    model: str = Field(min_length=1)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    timeout_s: float = Field(default=600.0, gt=0)
    stall_s: float = Field(default=120.0, gt=0)

    @property
    def url(self) -> str:
        return self.base_url.rstrip("/") + self.endpoint

    def body(self, prompt: list[int], output_len: int) -> dict[str, Any]:
        """The request: greedy, of exact length, streamed, with the server's own count at the end."""
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": output_len,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra_body,
        }


class LoadSpec(Target):
    """One measurement: which requests, how many at a time, and how they arrive.

    Without `request_rate` (requests per second) every request is due at once; `max_concurrency` bounds how
    many are under way in either case.
    """

    scenario: Scenario
    request_rate: float | None = Field(default=None, gt=0)
    max_concurrency: int = Field(ge=1)
    warmup_requests: int = Field(default=0, ge=0)


def read_spec(path: Path, kind: type[SpecT]) -> SpecT:
    """The specification in `path`.

    Raises:
        SpecError: it cannot be read, is no JSON, or a field is wrong.
    """
    try:
        return kind.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the whole"
        raise SpecError(f"{path}: {where}: {wrong['msg']}") from error
    except ValueError as error:
        raise SpecError(f"{path}: not JSON: {error}") from error
