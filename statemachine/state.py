"""What the machine knows: plain records that events are folded into. No behaviour, no I/O.

Everything here is JSON in the end: :func:`to_json` is the form in which state is compared between machines,
printed by ``replay`` and kept in snapshots.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

JSON = dict[str, Any]


@dataclass(slots=True)
class Job:
    """One activity: an effect under way, or done. ``status`` is running, finished, lost or timed_out."""

    job: str
    activity: str
    attempt: int
    status: str
    deadline_ns: int
    seq: int
    tries: int = 1
    ok: bool | None = None
    detail: str = ""
    params: JSON = field(default_factory=dict)


@dataclass(slots=True)
class Launch:
    """One server lifetime. ``status`` is launched, ready, stopped, failed, oom, timeout or lost.

    ``rows`` holds the measurements of the current attempt only: what a lost attempt measured is void. ``gpus`` is how
    its GPUs were found before it, where it has any. ``curtailed`` says by scenario why the runs that are left are not
    made. ``caches`` is which compiled code it could start from.
    """

    launch: str
    purpose: str
    framework: str
    candidate: str
    commit: str
    attempt: int
    status: str
    seq: int
    command: list[str] = field(default_factory=list)
    reason: str = ""
    rows: list[JSON] = field(default_factory=list)
    sla: dict[str, str] = field(default_factory=dict)
    gpus: list[JSON] = field(default_factory=list)
    curtailed: dict[str, str] = field(default_factory=dict)
    caches: JSON = field(default_factory=dict)
    began_ns: int = 0
    run_ns: int = 0
    busy_s: float = 0.0


@dataclass(slots=True)
class Attempt:
    """One patch attempt. ``status`` is proposed, applied, accepted or reverted; ``kind`` patch, fix or finalize.

    ``gain_by`` is what it gained on each scenario, percent; ``salt`` makes the seeds of its blocks such as nobody
    could know before the patch was there.
    """

    attempt_id: str
    round: int
    citations: list[str]
    hypothesis: str
    status: str
    base: str
    seq: int
    commit: str = ""
    subject: str = ""
    files: list[str] = field(default_factory=list)
    diff: JSON = field(default_factory=dict)
    gates: dict[str, bool] = field(default_factory=dict)
    tests: bool | None = None
    equivalence: bool | None = None
    accuracy: bool | None = None
    refused_by: str = ""
    reason: str = ""
    gain_pct: float | None = None
    findings: list[JSON] = field(default_factory=list)
    kind: str = "patch"
    parent: str = ""
    contract: JSON = field(default_factory=dict)
    summary: JSON = field(default_factory=dict)
    gain_by: dict[str, float] = field(default_factory=dict)
    salt: int = 0


@dataclass(slots=True)
class Campaign:
    """The folded history of one campaign.

    ``gpus`` are those first leased, by uuid, with the memory that they held then.
    """

    id: str
    phase: str = "draft"
    seq: int = 0
    campaign_seq: int = 0
    created_ns: int = 0
    updated_ns: int = 0
    spec: JSON = field(default_factory=dict)
    spec_digest: str = ""
    back: str = ""
    blocked: JSON = field(default_factory=dict)
    away_ns: int = 0  # since when its host does not answer
    mismatches: list[str] = field(default_factory=list)
    stop: JSON = field(default_factory=dict)
    lease: JSON = field(default_factory=dict)
    gpus: dict[str, JSON] = field(default_factory=dict)
    lease_ns: int = 0
    gpu_s: float = 0.0
    pace: dict[str, list[float]] = field(default_factory=dict)
    caches: dict[str, JSON] = field(default_factory=dict)
    waiting: JSON = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    launches: dict[str, Launch] = field(default_factory=dict)
    workspaces: dict[str, JSON] = field(default_factory=dict)
    probes: dict[str, JSON] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)
    host: JSON = field(default_factory=dict)
    harness: str = ""
    preflight_failed: JSON = field(default_factory=dict)
    history: str = ""
    consulted: JSON = field(default_factory=dict)
    open_prs: bool = False
    workload_digest: str = ""
    heldout: dict[str, JSON] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    exhausted: list[str] = field(default_factory=list)
    winners: dict[str, JSON] = field(default_factory=dict)
    baseline_digest: str = ""
    plan_digest: str = ""
    plan: JSON = field(default_factory=dict)
    amendments: dict[str, JSON] = field(default_factory=dict)
    base: str = ""
    base_tests: JSON = field(default_factory=dict)
    champion: str = ""
    branch: str = ""
    round: int = 0
    fairness: JSON = field(default_factory=dict)
    aa: JSON = field(default_factory=dict)
    gaps: list[JSON] = field(default_factory=list)
    heldout_check: JSON = field(default_factory=dict)
    finalized: bool = False
    profiles: dict[str, JSON] = field(default_factory=dict)
    tables: JSON = field(default_factory=dict)
    pipeline: JSON = field(default_factory=dict)
    rootcause: JSON = field(default_factory=dict)
    rejected_rows: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    current_attempt: str = ""
    checkpoints: int = 0
    review: JSON = field(default_factory=dict)
    verdicts: dict[str, JSON] = field(default_factory=dict)
    review_failures: int = 0
    issues: dict[str, JSON] = field(default_factory=dict)
    ideas: list[JSON] = field(default_factory=list)
    waits: dict[str, JSON] = field(default_factory=dict)
    answers: dict[str, JSON] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    transcripts: dict[str, JSON] = field(default_factory=dict)
    stalls: int = 0
    recovery: bool = False
    weak: int = 0
    fix_cycles: int = 0
    report: list[JSON] = field(default_factory=list)
    downloads: list[JSON] = field(default_factory=list)
    cleanup: JSON = field(default_factory=dict)
    cleaned: bool = False

    @property
    def attempt(self) -> Attempt:
        """The patch attempt of this round. Raises KeyError when there is none."""
        return self.attempts[self.current_attempt]

    @property
    def target(self) -> str:
        """Name of the framework that is being patched."""
        frameworks: JSON = self.spec["frameworks"]
        return next(name for name, framework in frameworks.items() if framework["role"] == "target")

    @property
    def scenarios(self) -> list[str]:
        """Names of the scenarios of the workload, in order."""
        return [scenario["name"] for scenario in self.spec["workload"]["scenarios"]]


@dataclass(slots=True)
class World:
    """Everything in one ledger: its head, the daemon's own record, and every campaign."""

    seq: int = 0
    epoch: int = 0
    daemon: JSON = field(default_factory=dict)
    inbox: dict[str, str] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)


def to_json(world: World) -> str:
    """The state as canonical JSON text: sorted keys, no spaces; equal states give equal bytes."""
    return json.dumps(asdict(world), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def from_json(text: str | bytes) -> World:
    """Rebuild the state that :func:`to_json` wrote.

    Raises:
        ValueError: not such a text.
    """
    try:
        data = json.loads(text)
        data["campaigns"] = {name: _campaign(entry) for name, entry in data["campaigns"].items()}
        return World(**data)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a state of this release: {error}") from None


def _campaign(data: JSON) -> Campaign:
    records = {
        "jobs": {key: Job(**value) for key, value in data["jobs"].items()},
        "launches": {key: Launch(**value) for key, value in data["launches"].items()},
        "attempts": {key: Attempt(**value) for key, value in data["attempts"].items()},
    }
    return Campaign(**{**data, **records})
