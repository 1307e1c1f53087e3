"""The result row: one candidate on one scenario. `row.schema.json` beside this file is generated from here.

Reading is more lenient than the schema in four things only: numbers and booleans may be text, `launch_command`
stands for `server_command`, a command may be a list of arguments, and an infinite `request_rate` is none.
What a row does not have stays None; unknown keys end up under `extra`.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator

from sotad.results.sla import DEPRECATED, LIMITS

TRUE, FALSE = ("1", "true", "yes", "y"), ("0", "false", "no", "n")
SCENARIO_KEYS = ("scenario", "scenario_name", "dataset_scenario", "dataset_name", "kind")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def number(value: object) -> object:
    """Numbers as they are, decimal text as its number; everything else is refused, also true and false.

    Raises:
        ValueError: no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        raise ValueError("must be a number")
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value.strip()):
            raise ValueError("must be a number, or null when it was not measured")
        return float(value)
    return value


def flag(value: object) -> object:
    """True and false, also as 1, "true", "yes", "y" and their opposites.

    Raises:
        ValueError: none of these.
    """
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in (*TRUE, *FALSE):
        raise ValueError("must be true or false")
    return text in TRUE


def _command(value: object) -> object:
    return shlex.join(map(str, value)) if isinstance(value, list | tuple) else value


def _rate(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in ("inf", "infinity"):
        return None
    return None if isinstance(value, float) and value == math.inf else number(value)


def _named(value: object) -> object:
    return value.get("name", value.get("id")) if isinstance(value, Mapping) else value


def _no_text(value: object) -> object:
    return None if value == "" else value


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(number)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(number)]
Count = Annotated[int, Field(ge=0), BeforeValidator(number)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(number)]
Rate = Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, BeforeValidator(_rate)]
Flag = Annotated[bool | None, BeforeValidator(flag)]
Command = Annotated[str | None, BeforeValidator(_command)]
Name = Annotated[str, Field(min_length=1)]
Text = Annotated[str | None, BeforeValidator(_no_text)]


class Part(BaseModel):
    """A mapping inside the row; further keys are kept as they are."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)


class Hardware(Part):
    """Where it ran. `gpu_count` 0 is a run without GPUs."""

    gpu_model: Text = None
    gpu_count: Count | None = None
    visible_devices: JsonValue = None


class Workload(Part):
    """What was sent; `request_rate` null is saturation, `max_concurrency` null no limit."""

    kind: Text = None
    scenario: Name = "default"
    dataset_path: Text = None
    digest: Text = None
    input_len: Count | None = None
    output_len: Count | None = None
    input_len_p50: Amount | None = None
    input_len_p95: Amount | None = None
    output_len_p50: Amount | None = None
    output_len_p95: Amount | None = None
    num_prompts: Count | None = None
    request_rate: Rate = None
    max_concurrency: Positive | None = None
    endpoint: Text = None


class Sla(BaseModel):
    """The limits, and whether they hold: recomputed on reading."""

    model_config = ConfigDict(extra="forbid")

    max_p50_ttft_ms: Amount | None = None
    max_p50_tpot_ms: Amount | None = None
    max_p50_e2e_ms: Amount | None = None
    min_success_rate: Share | None = None
    passed: Flag = None

    @model_validator(mode="before")
    @classmethod
    def _replacements(cls, value: object) -> object:
        for key in value if isinstance(value, Mapping) else ():
            if key in DEPRECATED:
                raise ValueError(f"{key} is deprecated: use {DEPRECATED[key]}")
            if key not in cls.model_fields:
                raise ValueError(f"{key} is no limit: there are {', '.join(LIMITS)}")
        return value


class Metrics(Part):
    """What was measured: rates per second, latencies in ms, the success rate from 0 to 1; null is not measured."""

    request_throughput: Amount | None = None
    output_token_throughput: Amount | None = None
    total_token_throughput: Amount | None = None
    p50_ttft_ms: Amount | None = None
    mean_ttft_ms: Amount | None = None
    p99_ttft_ms: Amount | None = None
    p50_tpot_ms: Amount | None = None
    mean_tpot_ms: Amount | None = None
    p99_tpot_ms: Amount | None = None
    p50_e2e_ms: Amount | None = None
    mean_e2e_ms: Amount | None = None
    p99_e2e_ms: Amount | None = None
    success_rate: Share | None = None

    @model_validator(mode="after")
    def _others(self) -> Metrics:
        for name, value in (self.model_extra or {}).items():
            if name.endswith(("_ms", "_throughput")) and isinstance(value, int | float) and value < 0:
                raise ValueError(f"{name} is negative: {value}")
        return self


class SpecDecode(Part):
    """Speculative decoding, as observed."""

    enabled: Flag = None
    algorithm: Text = None
    num_steps: Count | None = None
    num_draft_tokens: Count | None = None
    mean_accept_length: Amount | None = None
    acceptance_rate: Amount | None = None


class Cache(Part):
    """The prefix and KV cache, as observed."""

    prefix_cache_enabled: Flag = None
    prefix_cache_hit_rate: Share | None = None
    kv_cache_tokens: Count | None = None
    kv_cache_utilization: Share | None = None


class ResultRow(BaseModel):
    """One candidate of one framework on one scenario."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    framework: Name
    framework_version: Text = None
    framework_commit: Text = None
    candidate_id: Name
    model: Annotated[str | None, BeforeValidator(_named)] = None
    precision: Text = None
    quantization: Text = None
    status: Literal["ok", "failed", "oom", "timeout", "skipped"]
    failure_reason: Text = None
    hardware: Hardware = Field(default_factory=Hardware)
    workload: Workload = Field(default_factory=Workload)
    sla: Sla = Field(default_factory=Sla)
    metrics: Metrics = Field(default_factory=Metrics)
    spec_decode: SpecDecode = Field(default_factory=SpecDecode)
    phase_metrics: dict[str, Amount | None] = Field(default_factory=dict)
    cache: Cache = Field(default_factory=Cache)
    memory: dict[str, JsonValue] = Field(default_factory=dict)
    normalization: dict[str, JsonValue] = Field(default_factory=dict)
    conditions: dict[str, JsonValue] = Field(default_factory=dict)
    server_command: Command = None
    benchmark_command: Command = None
    validated_cli_flags: JsonValue = None
    artifacts: JsonValue = None
    purpose: Text = None
    run: JsonValue = None
    launch: JsonValue = None
    attempt: JsonValue = None
    seed: JsonValue = None
    counts: bool = True
    repeats: Positive | None = None
    ci95: dict[str, tuple[Amount, Amount]] = Field(default_factory=dict)
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _normal(cls, value: object) -> object:
        return normal(value) if isinstance(value, Mapping) else value

    @field_validator("normalization")
    @classmethod
    def _same(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return {key: flag(entry) if key.startswith("same_") else entry for key, entry in value.items()}  # type: ignore[misc]


def normal(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row under the names of the schema: aliases replaced, nulls left out, unknown keys under `extra`."""
    found = {key: value for key, value in row.items() if value is not None}
    if "server_command" not in found and "launch_command" in found:
        found["server_command"] = found.pop("launch_command")
    if found.get("status") == "lost":
        found |= {"status": "failed", "failure_reason": f"lost: {found.get('failure_reason', 'no reason was given')}"}
    workload = found.get("workload") or {}
    if isinstance(workload, Mapping):
        found["workload"] = {**workload, "scenario": scenario_of(workload, found.pop("scenario", None))}
    unknown = {key: found.pop(key) for key in list(found) if key not in ResultRow.model_fields}
    extra = found.get("extra", {})
    return found | {"extra": {**extra, **unknown}} if isinstance(extra, Mapping) else found


def scenario_of(workload: Mapping[str, Any], top_level: object = None) -> str:
    """The scenario's name: the first of `SCENARIO_KEYS` that the workload has, the row's own, else `default`."""
    names = (*(workload.get(key) for key in SCENARIO_KEYS), top_level)
    return next((str(name) for name in names if name not in (None, "")), "default")


def json_schema() -> str:
    """The JSON Schema of the row (draft 2020-12), as `row.schema.json` has it."""
    schema = ResultRow.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "sotad result row"}
    return json.dumps({**schema, **head}, indent=1, sort_keys=True) + "\n"
