"""The small sections of a campaign file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sotad.config.section import Section
from sotad.results.sla import DEPRECATED


class Model(Section):
    """What is served. ``max_context`` in tokens: the longest scenario when left out."""

    id: str = Field(min_length=1)
    precision: str = "auto"
    tokenizer: str = ""
    quantization: str = "none"
    max_context: int | None = Field(default=None, gt=0)
    served_name: str = ""
    trust_remote_code: bool = False


class Hardware(Section):
    """Where it is served: the same for every framework. ``gpu_count`` counts the GPUs of one node."""

    host: Literal["local"] = "local"
    gpu_type: str = ""
    gpu_count: int | None = Field(default=None, ge=0)
    gpu_ids: list[int] = Field(default=[])
    nodes: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _counted(self) -> Hardware:
        if len(set(self.gpu_ids)) < len(self.gpu_ids):
            raise ValueError("gpu_ids must differ")
        if self.gpu_ids and self.gpu_count not in (None, len(self.gpu_ids)):
            raise ValueError(f"gpu_count is {self.gpu_count}, but gpu_ids lists {len(self.gpu_ids)}")
        return self


class Sla(Section):
    """Limits that a result must meet to count; milliseconds, and a rate from 0 to 1."""

    replaced: ClassVar[dict[str, str]] = {
        old: f"limits are medians: write {new}" for old, new in DEPRECATED.items()
    } | {"passed": "only results have it: leave it out"}

    max_p50_ttft_ms: float = Field(gt=0)
    max_p50_tpot_ms: float = Field(gt=0)
    max_p50_e2e_ms: float | None = Field(default=None, gt=0)
    min_success_rate: float = Field(default=1.0, ge=0, le=1)


class Qps(Section):
    """Bounds of the search for the highest request rate that meets the SLA, in requests per second.

    It ends when the bracket is narrower than ``tolerance`` times its lower end, or after ``max_rounds`` midpoints.
    Each rate is held for at least ``min_duration_s`` seconds.
    """

    lower: float = Field(gt=0)
    upper: float = Field(gt=0)
    tolerance: float = Field(default=0.1, gt=0, lt=1)
    max_rounds: int = Field(default=5, ge=1)
    min_duration_s: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _order(self) -> Qps:
        if self.lower >= self.upper:
            raise ValueError(f"lower ({self.lower:g}) must be below upper ({self.upper:g})")
        return self


class Search(Section):
    """Which candidates are made of a search space, how they are measured, and when a framework is given up."""

    tier: int = Field(default=2, ge=1, le=3)
    runs: int = Field(default=1, ge=1, le=5)
    max_candidates: int = Field(default=8, ge=1)
    generation: Literal["one_factor_first", "baseline_first_bounded_product"] = "one_factor_first"
    capacity_study: bool = False
    max_failures_in_a_row: int = Field(default=3, ge=1)
    qps: Qps | None = None


class Decision(Section):
    """The rule of the gap decision, fixed before anything is measured. Margins in percent."""

    metric: Literal["request_throughput", "output_token_throughput"] = "request_throughput"
    runs: int = Field(default=3, ge=1, le=20)
    tau_pct: float = Field(default=1.0, gt=0, le=50)
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    first_look: int = Field(default=4, ge=4)
    cap: int = Field(default=20, ge=4, le=60)
    noise_limit_pct: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _order(self) -> Decision:
        if self.cap < self.first_look:
            raise ValueError("cap must not be below first_look")
        return self


class Equivalence(Section):
    """The fixed prompts whose outputs a patch must not change."""

    prompts: int = Field(default=8, ge=1)
    input_len: int = Field(default=48, ge=1)
    output_len: int = Field(default=24, ge=1)
    seed: int = 4242


class Agent(Section):
    """Who implements or reviews. ``command`` runs argv with a request file and a result file."""

    driver: Literal["scripted", "none", "cheater", "command"] = "scripted"
    argv: list[str] = Field(default=[])
    timeout_s: float = Field(default=600, gt=0)

    @model_validator(mode="after")
    def _argv(self) -> Agent:
        if (self.driver == "command") != bool(self.argv):
            raise ValueError("argv belongs to driver: command, and only to it")
        return self


class Budget(Section):
    """Bounds in seconds and rounds."""

    wall_clock_s: float = Field(default=86_400, gt=0)
    rounds: int = Field(default=5, ge=1)
    job_s: float = Field(default=3_600, gt=0)
    ready_s: float = Field(default=600, gt=0)
    resource_wait_s: float = Field(default=1_800, gt=0)


class Knowledge(Section):
    """A folder of Markdown dossiers that is searched before patching."""

    folder: Path | None = None
    query: str = ""
