"""The workload section: what every candidate is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, JsonValue, PlainValidator, model_validator

from sotad.config.section import Section, Slug

Arrival: TypeAlias = Literal["closed", "poisson", "gamma", "constant", "trace"]


def _concurrency(value: Any) -> int | list[int | None] | None:
    """One number, null, or a list of them."""
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(v is None or (type(v) is int and v > 0) for v in listed):
        raise ValueError("a number above 0, null (unlimited), or a list of these was expected")
    if len(set(listed)) < len(listed):
        raise ValueError("the list holds a value twice")
    return value  # type: ignore[no-any-return]


class Scenario(Section):
    """One shape of traffic. Lengths in tokens, ``request_rate`` per second; a list of concurrencies makes one each."""

    name: str = Field(pattern=Slug)
    num_prompts: int = Field(gt=0)
    input_len: int | None = Field(default=None, gt=0)
    output_len: int | None = Field(default=None, gt=0)
    shared_prefix_len: int = Field(default=0, ge=0)
    max_concurrency: Annotated[int | list[int | None] | None, PlainValidator(_concurrency)] = None
    request_rate: float | None = Field(default=None, gt=0)
    arrival: Arrival | None = None
    burstiness: float = Field(default=1.0, gt=0)
    time_scale: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _paced(self) -> Scenario:
        paced = self.arrival not in (None, "closed", "trace")
        if paced and self.request_rate is None:
            raise ValueError(f"arrival {self.arrival} needs a request_rate")
        if self.arrival in ("closed", "trace") and self.request_rate is not None:
            raise ValueError(f"arrival {self.arrival} takes no request_rate")
        if self.input_len and self.shared_prefix_len > self.input_len:
            raise ValueError(f"shared_prefix_len {self.shared_prefix_len} is above input_len {self.input_len}")
        return self

    def each(self) -> list[dict[str, Any]]:
        """The scenario as recorded, once per concurrency."""
        plain = self.model_dump(mode="json")
        plain["arrival"] = self.arrival or ("closed" if self.request_rate is None else "poisson")
        if not isinstance(self.max_concurrency, list):
            return [plain]
        return [{**plain, "name": self._name(limit), "max_concurrency": limit} for limit in self.max_concurrency]

    def _name(self, limit: int | None) -> str:
        return self.name if limit is None else f"{self.name}-c{limit}"


class Workload(Section):
    """The workload, frozen by digest before the search. Seconds for times; ``token_range`` is [first, last)."""

    kind: Literal["random", "sharegpt", "jsonl", "trace"] = "random"
    dataset: Path | None = None
    endpoint: Literal["/v1/completions", "/v1/chat/completions"] = "/v1/completions"
    seed: int = 1
    warmup_requests: int = Field(default=2, ge=0)
    request_timeout_s: float = Field(default=60, gt=0)
    extra_request_body: dict[str, JsonValue] = Field(default={})
    token_range: list[int] | None = None
    scenarios: list[Scenario] = Field(min_length=1)

    @model_validator(mode="after")
    def _dataset(self) -> Workload:
        if (self.kind == "random") != (self.dataset is None):
            raise ValueError("dataset names the file of kinds sharegpt, jsonl and trace, and only of these")
        found = self.token_range
        if found is not None and not (len(found) == 2 and 0 <= found[0] < found[1]):
            raise ValueError("token_range must be two numbers: the first token id, and the one behind the last")
        return self

    @model_validator(mode="after")
    def _shapes(self) -> Workload:
        for scenario in self.scenarios:
            lengths = (scenario.input_len, scenario.output_len)
            if self.kind == "random" and None in lengths:
                raise ValueError(f"scenario {scenario.name} needs input_len and output_len")
            if self.kind != "random" and lengths != (None, None):
                raise ValueError(f"scenario {scenario.name}: the lengths of kind {self.kind} are those of its dataset")
            if scenario.arrival == "trace" and self.kind != "trace":
                raise ValueError(f"scenario {scenario.name}: arrival trace needs kind trace")
        return self

    @model_validator(mode="after")
    def _names(self) -> Workload:
        names = [shape["name"] for scenario in self.scenarios for shape in scenario.each()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"scenario names must differ: {', '.join(twice)}")
        return self
