"""The small sections of a campaign file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from sotad.config.section import Section, Slug
from sotad.results.sla import DEPRECATED

OFF = BeforeValidator(lambda written: "off" if written is False else written)
"""YAML reads a bare ``off`` as false."""
NO = BeforeValidator(lambda written: None if written in (False, "off") else written)
"""A section that is turned off."""


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
    """Where it is served: the same for every framework. ``gpu_count`` counts the GPUs of one node.

    ``host`` is ``local``, the daemon's own machine, or one of ``hosts`` in the daemon's ``sotad.yaml``.
    """

    host: str = Field(default="local", pattern=Slug)
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


class EarlyStop(Section):
    """When further runs of a candidate are not made: it cannot win a scenario any more, see docs/sweeps.md.

    ``wrong_stop``: the chance, per campaign, to stop the best candidate of a framework somewhere. ``launch_noise_pct``:
    standard deviation between launches of one command, which the search cannot see; ``noise_pct``: the one between
    runs of a launch, when it is known (default: from the runs seen).
    """

    wrong_stop: float = Field(default=0.01, ge=1e-6, le=0.2)
    launch_noise_pct: float = Field(default=1.0, ge=0, le=50)
    noise_pct: float | None = Field(default=None, gt=0, le=50)


class Search(Section):
    """Which candidates are made of a search space, how they are measured, and when a framework is given up."""

    tier: int = Field(default=2, ge=1, le=3)
    runs: int = Field(default=1, ge=1, le=5)
    max_candidates: int = Field(default=8, ge=1)
    generation: Literal["one_factor_first", "baseline_first_bounded_product"] = "one_factor_first"
    capacity_study: bool = False
    max_failures_in_a_row: int = Field(default=3, ge=1)
    early_stop: Annotated[EarlyStop | None, NO] = EarlyStop()
    qps: Qps | None = None


class Decision(Section):
    """The rule of the gap decision, fixed before anything is measured. Margins in percent.

    A patch that gains more than ``max_gain_pct`` waits for a person: it is more often a mistake than a wonder.
    """

    metric: Literal["request_throughput", "output_token_throughput"] = "request_throughput"
    runs: int = Field(default=3, ge=1, le=20)
    tau_pct: float = Field(default=1.0, gt=0, le=50)
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    first_look: int = Field(default=4, ge=4)
    cap: int = Field(default=20, ge=4, le=60)
    noise_limit_pct: float = Field(default=5.0, gt=0)
    max_gain_pct: float = Field(default=100.0, gt=0)

    @model_validator(mode="after")
    def _order(self) -> Decision:
        if self.cap < self.first_look:
            raise ValueError("cap must not be below first_look")
        return self


class Equivalence(Section):
    """The lengths of the new prompts whose outputs a patch must not change.

    ``text_tokens``: how many tokens from the start the texts of single requests must share (default: all, up to 256);
    a kernel may honestly flip a late one.
    """

    replaced: ClassVar[dict[str, str]] = {"seed": "is drawn anew for every attempt: leave it out"}

    prompts: int = Field(default=8, ge=1)
    input_len: int = Field(default=48, ge=1)
    output_len: int = Field(default=24, ge=1)
    text_tokens: int | None = Field(default=None, ge=1)


class AgentBudget(Section):
    """What one call of an agent may use, as its tool reports it; its time is ``timeout_s``."""

    tokens: int | None = Field(default=None, gt=0)
    money_usd: float | None = Field(default=None, gt=0)


class Agent(Section):
    """Who implements or reviews.

    ``claude`` and ``codex`` are those command lines, with ``argv`` in place of their name when it is given;
    ``command`` runs argv with a request file and a result file. ``env_from`` names the variables that it gets beside
    the everyday ones, ``home`` its HOME (default: an empty one). It may write to its worktree, its run's folder, its
    home and ``writable``, and cannot read the daemon's state; ``sandbox: off`` gives that up. ``silence_s`` without a
    line of output end it; left out, only ``timeout_s`` does for programs that do not talk.
    """

    driver: Literal["scripted", "none", "cheater", "command", "claude", "codex"] = "scripted"
    argv: list[str] = Field(default=[])
    model: str = ""
    effort: str = ""
    timeout_s: float = Field(default=600, gt=0)
    silence_s: float | None = Field(default=None, gt=0)
    env_from: list[str] = Field(default=[])
    home: Path | None = None
    sandbox: Annotated[Literal["auto", "off"], OFF] = "auto"
    writable: list[Path] = Field(default=[])
    budget: AgentBudget = AgentBudget()

    @model_validator(mode="after")
    def _argv(self) -> Agent:
        if self.driver == "command" and not self.argv:
            raise ValueError("driver: command needs argv")
        if self.argv and self.driver not in ("command", "claude", "codex"):
            raise ValueError(f"driver: {self.driver} takes no argv")
        return self


class Plan(Section):
    """Where the plan comes from: a template of the campaign, or the implementer from a ``draft`` in Markdown."""

    source: Literal["template", "agent"] = "template"
    draft: Path | None = None


class Review(Section):
    """How rounds are reviewed.

    ``self`` lets the implementer check itself, and a person approve every ``approve_every``-th round. ``code``: the
    diff of an accepted patch is read for defects too. Every ``alignment_every``-th round is reviewed against every
    criterion. ``finalize``: after success the implementer may simplify once; what it changes is tested, measured and
    reviewed like any patch.
    """

    mode: Literal["independent", "self"] = "independent"
    code: bool = True
    alignment_every: int = Field(default=5, ge=2)
    approve_every: int = Field(default=1, ge=1)
    finalize: bool = True


class Humanize(Section):
    """Whether the loop is mirrored as Humanize lays loops out, and the folder (default: in the state directory)."""

    mirror: bool = True
    folder: Path | None = None


class Budget(Section):
    """Bounds in seconds and rounds; of all agents together in tokens and money, as their tools report them.

    ``grace_s``: what a server that was asked to end has before it is killed.
    """

    wall_clock_s: float = Field(default=86_400, gt=0)
    rounds: int = Field(default=5, ge=1)
    job_s: float = Field(default=3_600, gt=0)
    ready_s: float = Field(default=600, gt=0)
    grace_s: float = Field(default=10, ge=0)
    resource_wait_s: float = Field(default=1_800, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    money_usd: float | None = Field(default=None, gt=0)


class Cleanup(Section):
    """What becomes, at the end, of models that the campaign's servers downloaded and that were not there before."""

    downloads: Literal["remove", "keep"] = "remove"


class Caches(Section):
    """Whether launches reuse the engines' compiled code; see docs/sweeps.md.

    ``fair``: search, rates, A/A check and gap decision share a folder per framework, commit and hardware; where a
    patch is judged every launch starts cold. ``all``: every launch shares. ``off``: none does. ``engine``: wherever
    the engines keep it, unknown to the record. ``folder``: on the host (default: the campaign's).
    """

    reuse: Annotated[Literal["fair", "all", "off", "engine"], OFF] = "fair"
    folder: str | None = Field(default=None, pattern=r"^/[^:,\n]*$")


class Knowledge(Section):
    """What is read before patching: a folder of Markdown dossiers, and open pull requests of ``repositories``.

    Pull requests are asked for through the command ``gh`` or the REST API at ``api_url``, with the token in the
    variable ``token_from`` when it is named.
    """

    folder: Path | None = None
    query: str = ""
    repositories: list[str] = Field(default=[])
    pulls: Annotated[Literal["off", "gh", "rest"], OFF] = "off"
    api_url: str = "https://api.github.com"
    token_from: str = ""
