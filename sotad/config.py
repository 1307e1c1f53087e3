"""Campaign and daemon configuration: YAML in, checked plain data out.

Unknown keys are refused, with the nearest known key as a suggestion, because a mistyped SLA that is silently
ignored would make every later number wrong.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sotad.errors import BadConfig

M = TypeVar("M", bound=BaseModel)
Slug = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class Section(BaseModel):
    """Base of all sections: no unknown keys."""

    model_config = ConfigDict(extra="forbid")


class Model(Section):
    """What is served."""

    id: str
    precision: str
    tokenizer: str = ""
    quantization: str = "none"
    max_context: int = Field(gt=0)


class Hardware(Section):
    """Where it is served: the same for every framework."""

    host: Literal["local"] = "local"
    gpu_type: str
    gpu_ids: list[int] = []


class Candidate(Section):
    """One launch command: the flags beside the framework's fixed options. ``true`` renders a bare flag."""

    id: str = Field(pattern=Slug)
    flags: dict[str, str | int | float | bool] = {}


class Framework(Section):
    """One serving framework. ``kind`` names its driver; ``checkout`` the git repository it runs from."""

    kind: Literal["reference"]
    role: Literal["target", "competitor"]
    checkout: Path
    base_branch: str = "main"
    python: str = ""
    options: dict[str, str | int | float | bool] = {}
    candidates: list[Candidate] = Field(min_length=1)
    paths: list[str] = ["**"]
    tests: list[str] = []

    @model_validator(mode="after")
    def _unique(self) -> Framework:
        names = [candidate.id for candidate in self.candidates]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"candidate ids must differ: {', '.join(sorted(twice))}")
        return self


class Scenario(Section):
    """One shape of traffic. Lengths in tokens; ``request_rate`` per second, null for a closed loop."""

    name: str = Field(pattern=Slug)
    num_prompts: int = Field(gt=0)
    input_len: int = Field(gt=0)
    output_len: int = Field(gt=0)
    max_concurrency: int = Field(gt=0)
    request_rate: float | None = Field(default=None, gt=0)
    shared_prefix_len: int = Field(default=0, ge=0)


class Workload(Section):
    """What every candidate is measured on; frozen by digest before the search."""

    kind: Literal["random"] = "random"
    endpoint: str = "/v1/completions"
    seed: int = 1
    warmup_requests: int = Field(default=2, ge=0)
    request_timeout_s: float = Field(default=60, gt=0)
    scenarios: list[Scenario] = Field(min_length=1)


class Sla(Section):
    """Limits that a result must meet to count; milliseconds, and a rate from 0 to 1."""

    max_p50_ttft_ms: float = Field(gt=0)
    max_p50_tpot_ms: float = Field(gt=0)
    min_success_rate: float = Field(default=1.0, ge=0, le=1)


class Search(Section):
    """How the candidates are measured."""

    runs: int = Field(default=1, ge=1, le=5)


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
    argv: list[str] = []
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


class CampaignConfig(Section):
    """One campaign file."""

    campaign: str = Field(pattern=Slug)
    description: str = ""
    model: Model
    hardware: Hardware
    frameworks: dict[str, Framework]
    excluded: dict[str, str] = {}
    workload: Workload
    sla: Sla
    search: Search = Search()
    decision: Decision = Decision()
    equivalence: Equivalence = Equivalence()
    implementer: Agent = Agent()
    reviewer: Agent = Agent()
    knowledge: Knowledge = Knowledge()
    budget: Budget = Budget()

    @field_validator("frameworks")
    @classmethod
    def _roles(cls, frameworks: dict[str, Framework]) -> dict[str, Framework]:
        roles = [framework.role for framework in frameworks.values()]
        if roles.count("target") != 1:
            raise ValueError("exactly one framework must have role: target")
        if "competitor" not in roles:
            raise ValueError("at least one framework must have role: competitor")
        return frameworks

    @model_validator(mode="after")
    def _lengths(self) -> CampaignConfig:
        for scenario in self.workload.scenarios:
            longest = scenario.input_len + scenario.output_len
            if longest > self.model.max_context:
                raise ValueError(
                    f"scenario {scenario.name} needs {longest} tokens, model.max_context is {self.model.max_context}"
                )
        return self


class DaemonConfig(Section):
    """The daemon's own file, ``sotad.yaml``; read at start and again whenever it changes."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    checkpoint_interval_s: float = Field(default=60, gt=0)
    checkpoint_copy: Path | None = None
    inbox: bool = True


def load_campaign(path: Path) -> dict[str, Any]:
    """Read a campaign file into the spec that the ledger records; relative paths are taken from the file.

    Raises:
        BadConfig: with one line per problem, each naming file and key.
    """
    return parse_campaign(_read(path), str(path), path.parent)


def parse_campaign(text: str, source: str, base: Path) -> dict[str, Any]:
    """Check campaign YAML; ``source`` names it in problems, ``base`` anchors its relative paths.

    Raises:
        BadConfig: with one line per problem, each naming source and key.
    """
    config = _check(CampaignConfig, text, source)
    for framework in config.frameworks.values():
        framework.checkout = (base / framework.checkout).resolve()
    if config.knowledge.folder:
        config.knowledge.folder = (base / config.knowledge.folder).resolve()
    return config.model_dump(mode="json")


def load_daemon(path: Path) -> DaemonConfig:
    """Read the daemon's file; defaults when there is none.

    Raises:
        BadConfig: with one line per problem.
    """
    return _check(DaemonConfig, _read(path), str(path)) if path.exists() else DaemonConfig()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig([f"{path}: cannot be read: {error}"]) from None


def _check(model: type[M], text: str, source: str) -> M:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise BadConfig([f"{where}: not YAML: {getattr(error, 'problem', error)}"]) from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise BadConfig([f"{source}: a mapping of keys was expected, found {type(data).__name__}"])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadConfig([_problem(source, model, found) for found in error.errors(include_url=False)]) from None


def _problem(source: str, model: type[BaseModel], found: Any) -> str:
    where = ".".join(str(part) for part in found["loc"]) or "(whole file)"
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(found["loc"][-1]), sorted(_known_keys(model)), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{source}: {where}: unknown key{hint}"
    return f"{source}: {where}: {found['msg'].removeprefix('Value error, ')}"


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Names of every field of a model and of the sections below it."""
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for section in Section.__subclasses__():
            if section.__name__ in str(field.annotation):
                keys |= set(section.model_fields)
    return keys
