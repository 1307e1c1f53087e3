"""What the load generator is asked to do."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sotad.benchmark.arrivals import Arrival
from sotad.benchmark.workload import Scenario

SpecT = TypeVar("SpecT", bound=BaseModel)


class SpecError(ValueError):
    """The file is no specification; the text says which field and why, in one line."""


class Target(BaseModel):
    """The server to talk to, and how patient to be with one request.

    A request fails after `timeout_s` seconds in all, or `stall_s` seconds without a byte. `api_key_env` names
    the environment variable with the key; the key itself is never written down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(pattern=r"^https?://[^\s/]+\S*$")
    endpoint: str = Field(default="/v1/completions", pattern=r"^/\S*$")
    model: str = Field(min_length=1)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    timeout_s: float = Field(default=600.0, gt=0)
    stall_s: float = Field(default=120.0, gt=0)
    api_key_env: str | None = None
    user_agent: str = Field(default="sotad", pattern=r"^[!-~]+$")

    @property
    def is_chat(self) -> bool:
        return self.endpoint.rstrip("/").endswith("/chat/completions")

    def headers(self) -> dict[str, str]:
        """What every request carries besides its length.

        Raises:
            SpecError: the variable with the API key is not set.
        """
        name = {"User-Agent": self.user_agent}
        if self.api_key_env is None:
            return name
        key = os.environ.get(self.api_key_env)
        if not key:
            raise SpecError(f"api_key_env: the environment has no {self.api_key_env}; export it first")
        return {**name, "Authorization": f"Bearer {key}"}


class LoadSpec(Target):
    """One measurement: which requests, how many at a time, and how they arrive.

    Without `request_rate` (requests per second) every request is due at once; `max_concurrency` bounds how
    many are under way in either case, null not at all. `arrival`, `burstiness`: see
    `sotad.benchmark.arrivals`. `time_scale` multiplies a trace's gaps. `processes` send, by default as many as
    the cores and the concurrency call for.
    """

    scenario: Scenario
    request_rate: float | None = Field(default=None, gt=0)
    arrival: Arrival | None = None
    burstiness: float = Field(default=1.0, gt=0)
    time_scale: float = Field(default=1.0, gt=0)
    max_concurrency: int | None = Field(ge=1)
    warmup_requests: int = Field(default=0, ge=0)
    processes: int | None = Field(default=None, ge=1, le=256)

    @model_validator(mode="after")
    def _check_arrival(self) -> "LoadSpec":
        paced = self.arrival in ("poisson", "gamma", "constant")
        if paced and self.request_rate is None:
            raise ValueError(f"arrival {self.arrival} needs a request_rate")
        if self.arrival in ("closed", "trace") and self.request_rate is not None:
            raise ValueError(f"arrival {self.arrival} takes no request_rate")
        if self.arrival == "trace" and self.scenario.kind != "trace":
            raise ValueError("arrival trace needs a scenario of kind trace")
        return self

    @property
    def arrives(self) -> Arrival:
        """How requests arrive, when `arrival` leaves it open too."""
        return self.arrival or ("closed" if self.request_rate is None else "poisson")


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
