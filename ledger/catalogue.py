"""The event catalogue: every type that a ledger may hold, and the shape of its payload.

A payload is checked by its model when it is appended and stored as plain JSON; reading it back needs no
model. A type is a name for ever: change its shape by raising ``VERSIONS[type]``, and register in ``UPCASTS``
how the older payload becomes the newer one, so that ledgers of every release keep replaying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ledger.errors import InvalidEvent

JSON = dict[str, Any]
Sha = str


class Payload(BaseModel):
    """Base of all payloads: unknown keys are refused, nothing is coerced silently."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Artifact(Payload):
    """A file of the campaign, named by content."""

    sha256: Sha = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    path: str | None = None


MODELS: dict[str, type[Payload]] = {}
VERSIONS: dict[str, int] = {}
UPCASTS: dict[tuple[str, int], Callable[[JSON], JSON]] = {}


def _event(name: str) -> Callable[[type[Payload]], type[Payload]]:
    def register(model: type[Payload]) -> type[Payload]:
        MODELS[name] = model
        VERSIONS.setdefault(name, 1)
        return model

    return register


def validate(type_: str, payload: Mapping[str, Any]) -> tuple[int, JSON]:
    """Check a payload against its type; return the type's current version and the payload to store.

    Raises:
        InvalidEvent: unknown type, or a payload that does not fit; the message names the field.
    """
    model = MODELS.get(type_)
    if model is None:
        raise InvalidEvent(f"unknown event type {type_!r}; ledger/catalogue.py lists the known ones")
    try:
        checked = model.__pydantic_validator__.validate_python(dict(payload))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "payload"
        raise InvalidEvent(f"{type_}: {where}: {first['msg']}") from None
    return VERSIONS[type_], model.__pydantic_serializer__.to_python(checked, exclude_none=True)


def upcast(type_: str, version: int, payload: JSON) -> JSON:
    """Return the payload in its type's current shape.

    Raises:
        InvalidEvent: the payload is newer than this release knows.
    """
    current = VERSIONS.get(type_, version)
    if version > current:
        raise InvalidEvent(f"{type_} version {version} was written by a newer release (this one knows {current})")
    for step in range(version, current):
        payload = UPCASTS[type_, step](payload)
    return payload


# --- the daemon itself (campaign "") ---------------------------------------------------------------


@_event("daemon.started")
class DaemonStarted(Payload):
    version: str
    machine_digest: Sha
    pid: int
    boot_id: str
    host: str
    sqlite: str


@_event("daemon.stopped")
class DaemonStopped(Payload):
    reason: str


@_event("config.reloaded")
class ConfigReloaded(Payload):
    digest: Sha
    changed: list[str]


@_event("config.rejected")
class ConfigRejected(Payload):
    digest: Sha
    error: str


@_event("inbox.accepted")
class InboxAccepted(Payload):
    name: str
    digest: Sha
    campaign: str


@_event("inbox.rejected")
class InboxRejected(Payload):
    name: str
    digest: Sha
    error: str


@_event("note.recorded")
class NoteRecorded(Payload):
    text: str


# --- campaign, budget, resources ----------------------------------------------------------------------


@_event("campaign.created")
class CampaignCreated(Payload):
    spec: JSON
    spec_digest: Sha
    source: str


@_event("campaign.paused")
class CampaignPaused(Payload):
    reason: str


@_event("campaign.blocked")
class CampaignBlocked(Payload):
    kind: Literal["resources", "evidence", "workspace", "human"]
    reason: str
    next: str
    host: str | None = None  # the one that does not answer, where that is the reason
    deadline_ns: int | None = None  # until when the daemon lets the campaign go on by itself once it does


@_event("campaign.resumed")
class CampaignResumed(Payload):
    checks: list[JSON] = []


@_event("resume.mismatch")
class ResumeMismatch(Payload):
    what: str
    expected: str
    found: str


@_event("campaign.cancel_requested")
class CampaignCancelRequested(Payload):
    by: str
    confirmed: bool = False


@_event("campaign.closed")
class CampaignClosed(Payload):
    terminal: str
    reason: str
    evidence: list[int]


@_event("budget.exhausted")
class BudgetExhausted(Payload):
    kind: Literal["wall_clock", "rounds", "tokens", "money"]
    limit: float
    used: float


@_event("lease.granted")
class LeaseGranted(Payload):
    host: str
    gpu_ids: list[int]
    gpus: list[JSON] | None = None  # index, uuid, name, memory_total_mib and level_mib of each, as found at the lease
    readings: Artifact | None = None


@_event("lease.released")
class LeaseReleased(Payload):
    host: str
    reason: str


@_event("resource.wait_started")
class ResourceWaitStarted(Payload):
    holder: str
    deadline_ns: int


@_event("resource.wait_ended")
class ResourceWaitEnded(Payload):
    waited_s: float


@_event("resource.wait_expired")
class ResourceWaitExpired(Payload):
    deadline_ns: int
    reasons: list[str] | None = None  # who had the GPUs at the end, where it was GPUs that were waited for


# --- activities: one job per effect ---------------------------------------------------------------------


@_event("job.dispatched")
class JobDispatched(Payload):
    job: str
    activity: str
    attempt: int = Field(ge=1)
    deadline_ns: int
    params: JSON = {}


@_event("job.finished")
class JobFinished(Payload):
    job: str
    attempt: int
    ok: bool
    detail: str = ""


@_event("job.lost")
class JobLost(Payload):
    job: str
    attempt: int
    reason: str


@_event("job.timed_out")
class JobTimedOut(Payload):
    job: str
    attempt: int
    deadline_ns: int


# --- intake and knowledge ---------------------------------------------------------------------------------


@_event("workspace.checked")
class WorkspaceChecked(Payload):
    framework: str
    repo: str
    commit: str
    branch: str
    clean: bool


@_event("framework.probed")
class FrameworkProbed(Payload):
    framework: str
    kind: str
    version: str
    commit: str | None = None
    help: Artifact
    flags: list[str]


@_event("framework.unsupported")
class FrameworkUnsupported(Payload):
    framework: str
    reason: str


@_event("preflight.passed")
class PreflightPassed(Payload):
    host: JSON
    harness: str = ""  # digest of the code that measures and judges


@_event("preflight.failed")
class PreflightFailed(Payload):
    check: str
    reason: str


@_event("history.noted")
class HistoryNoted(Payload):
    query: str
    documents: list[JSON]
    notes: Artifact
    decision: str
    corpus: JSON = {}  # commit or digest of the dossiers, and whether they are older than the target
    queries: list[JSON] = []  # what was asked, and the paths that were returned
    subjects: list[str] = []  # the rows that it was asked for; none in the survey before the loop


@_event("history.unavailable")
class HistoryUnavailable(Payload):
    reason: str


@_event("openpr.scanned")
class OpenprScanned(Payload):
    available: bool
    found: list[JSON] = []
    reason: str = ""


@_event("workload.frozen")
class WorkloadFrozen(Payload):
    digest: Sha
    scenarios: list[str]
    sla: JSON
    heldout: JSON | None = None  # input_len, output_len and seed of each scenario's variant that no agent is shown


# --- launches, benchmarks, search ----------------------------------------------------------------------------


class EngineCaches(Payload):
    """Where a launch found compiled code, and whether there was any; ``set_by_hand`` are variables of the spec."""

    state: Literal["cold", "partly", "warm"]
    folder: str
    set_by_hand: list[str] = []


@_event("candidate.launched")
class CandidateLaunched(Payload):
    launch: str
    purpose: str
    framework: str
    candidate: str
    commit: str
    command: list[str]
    dropped_flags: list[str] = []
    translated_flags: dict[str, str] = {}
    flags_from: Literal["help", "static", "none"] = "help"
    attempt: int
    gpus: list[JSON] | None = None  # index, uuid, memory_mib and level_mib of each GPU just before it
    caches: EngineCaches | None = None


@_event("candidate.ready")
class CandidateReady(Payload):
    launch: str
    attempt: int
    startup_s: float


@_event("candidate.failed")
class CandidateFailed(Payload):
    launch: str
    attempt: int
    status: Literal["failed", "oom", "timeout"]
    reason: str
    log: Artifact | None = None


@_event("candidate.lost")
class CandidateLost(Payload):
    launch: str
    attempt: int
    reason: str


@_event("candidate.stopped")
class CandidateStopped(Payload):
    launch: str
    attempt: int
    log: Artifact | None = None


@_event("candidate.skipped")
class CandidateSkipped(Payload):
    framework: str
    candidate: str
    reason: str


class SampledGpus(Payload):
    """The GPUs of a sample: every reading by digest, how many there are, a summary of each GPU and of the CPU."""

    raw: Artifact
    readings: int = Field(ge=0)
    gpus: list[JSON]
    cpu: dict[str, float] = Field(default_factory=dict)


@_event("candidate.curtailed")
class CandidateCurtailed(Payload):
    """The runs that are left on a scenario are not made; percent, and chances from 0 to 1."""

    launch: str
    attempt: int
    framework: str
    candidate: str
    scenario: str
    rule: Literal["slower", "sla"]
    against: str  # the best candidate so far, or the key of the SLA
    runs_made: int
    runs_left: int
    observed: float
    wanted: float
    behind_pct: float
    se_pct: float
    df: int | None = None
    chance: float
    bound: float
    reason: str


@_event("benchmark.started")
class BenchmarkStarted(Payload):
    launch: str
    attempt: int
    scenario: str
    run: int
    seed: int


@_event("benchmark.finished")
class BenchmarkFinished(Payload):
    launch: str
    attempt: int
    scenario: str
    run: int
    seed: int
    row: JSON
    raw: Artifact
    gpus: SampledGpus | None = None


@_event("benchmark.disturbed")
class BenchmarkDisturbed(Payload):
    launch: str
    attempt: int
    scenario: str
    run: int
    seed: int
    reasons: list[str]
    gpus: SampledGpus | None = None


@_event("sla.failed")
class SlaFailed(Payload):
    launch: str
    scenario: str
    key: str
    limit: float
    observed: float | None = None


@_event("sla.passed")
class SlaPassed(Payload):
    launch: str
    scenario: str


@_event("search.exhausted")
class SearchExhausted(Payload):
    framework: str
    measured: int
    failed: int
    skipped: int


@_event("winner.selected")
class WinnerSelected(Payload):
    framework: str
    scenario: str
    candidate: str | None = None
    reason: str


@_event("goodput.found")
class GoodputFound(Payload):
    framework: str
    scenario: str
    rate: float | None = None
    bound: Literal["exact", "ge", "lt", "unknown"]
    monotone: bool
    tests: list[JSON]
    reason: str


@_event("baseline.frozen")
class BaselineFrozen(Payload):
    winners: JSON
    digest: Sha


# --- loop, gap, profile ------------------------------------------------------------------------------------------


@_event("loop.started")
class LoopStarted(Payload):
    plan: Artifact
    plan_digest: Sha
    base_commit: str
    branch: str


@_event("plan.recorded")
class PlanRecorded(Payload):
    version: int = Field(ge=1)
    plan: JSON
    digest: Sha
    document: Artifact
    source: str  # template, or agent:DRIVER


@_event("plan.amendment_proposed")
class PlanAmendmentProposed(Payload):
    plan: JSON
    digest: Sha
    reason: str
    by: str


@_event("plan.amended")
class PlanAmended(Payload):
    version: int = Field(ge=2)
    digest: Sha
    proposal: int  # seq of the proposal that a person approved


@_event("fairness.checked")
class FairnessChecked(Payload):
    round: int
    items: list[JSON]
    passed: bool


@_event("fairness.violated")
class FairnessViolated(Payload):
    round: int
    item: str
    action: str


@_event("aa.checked")
class AaChecked(Payload):
    passed: bool
    decisions: JSON


@_event("gap.decided")
class GapDecided(Payload):
    round: int
    verdict: Literal["behind", "sla_gap", "par_or_better", "ahead", "undecided", "untrusted"]
    leader: str
    decisions: JSON
    reasons: list[str]


@_event("heldout.checked")
class HeldoutChecked(Payload):
    round: int
    commit: str
    passed: bool
    decisions: JSON


@_event("profile.captured")
class ProfileCaptured(Payload):
    round: int
    side: str
    framework: str
    commit: str
    trace: Artifact
    traces: list[JSON] = []  # all of them, each with its stage; empty where the one holds every stage


@_event("profile.rejected")
class ProfileRejected(Payload):
    round: int
    side: str
    reason: str


@_event("tables.produced")
class TablesProduced(Payload):
    round: int
    commit: str
    rows: list[JSON]
    tables: Artifact


@_event("rootcause.written")
class RootcauseWritten(Payload):
    round: int
    commit: str
    stage: str
    rows: list[str]
    statement: str
    document: Artifact


@_event("pipeline.written")
class PipelineWritten(Payload):
    round: int
    commit: str
    document: Artifact
    limit: JSON | None = None  # stage, limit_ms, measured_ms and fraction of a step, where a model can tell


# --- patch, gates, review --------------------------------------------------------------------------------------------


@_event("idea.rejected")
class IdeaRejected(Payload):
    round: int
    rows: list[str]
    reason: str


@_event("idea.recorded")
class IdeaRecorded(Payload):
    round: int
    ideas: list[JSON] = Field(min_length=1)  # origin, reference, licence, applicability of each


@_event("patch.proposed")
class PatchProposed(Payload):
    round: int
    attempt_id: str
    citations: list[str]
    hypothesis: str
    contract: JSON | None = None  # objective, criteria, success; recovery where one is owed


@_event("finalize.opened")
class FinalizeOpened(Payload):
    round: int
    attempt_id: str


@_event("finalize.unchanged")
class FinalizeUnchanged(Payload):
    attempt_id: str


@_event("summary.recorded")
class SummaryRecorded(Payload):
    attempt_id: str
    text: str
    files: list[str]
    tests: list[str]
    provenance: list[JSON] = []
    complete: bool = False
    document: Artifact


@_event("patch.refused")
class PatchRefused(Payload):
    attempt_id: str
    rule: str
    reason: str


@_event("patch.applied")
class PatchApplied(Payload):
    attempt_id: str
    base: str
    commit: str
    branch: str
    files: list[str]
    diff: Artifact
    subject: str


@_event("gate.evaluated")
class GateEvaluated(Payload):
    attempt_id: str
    gate: str
    passed: bool
    detail: str
    satisfy: str = ""


@_event("base.tested")
class BaseTested(Payload):
    commit: str  # at which the loop began
    command: list[str]
    exit_code: int
    counted: int | None = Field(default=None, ge=0)  # tests that passed by the runner's own summary; null without one
    log: Artifact


@_event("tests.finished")
class TestsFinished(Payload):
    attempt_id: str
    passed: bool
    command: list[str]
    exit_code: int | None = None
    counted: int | None = Field(default=None, ge=0)  # as of base.tested
    log: Artifact


@_event("equivalence.finished")
class EquivalenceFinished(Payload):
    attempt_id: str
    passed: bool
    prompts: int
    differing: int
    detail: str
    evidence: Artifact


@_event("accuracy.finished")
class AccuracyFinished(Payload):
    """``score`` is the patched commit's, null when its server gave none; ``baseline`` that of the commit below it."""

    attempt_id: str
    passed: bool
    score: float | None = None
    baseline: float
    max_drop: float
    command: list[str]
    detail: str
    log: Artifact


@_event("patch.accepted")
class PatchAccepted(Payload):
    attempt_id: str
    commit: str
    decisions: JSON


@_event("patch.quarantined")
class PatchQuarantined(Payload):
    attempt_id: str
    gain_pct: float
    ceiling_pct: float
    why: str


@_event("patch.reverted")
class PatchReverted(Payload):
    attempt_id: str
    gate: str
    reason: str
    restored_commit: str
    decisions: JSON = {}


@_event("checkpoint.written")
class CheckpointWritten(Payload):
    round: int
    commit: str
    document: Artifact


@_event("review.requested")
class ReviewRequested(Payload):
    round: int
    attempt_id: str
    inputs: Artifact
    kind: Literal["summary", "alignment", "code"] = "summary"


@_event("review.failed")
class ReviewFailed(Payload):
    round: int
    reason: str


@_event("review.passed")
class ReviewPassed(Payload):
    round: int
    findings: list[JSON] = Field(max_length=0)


@_event("review.findings")
class ReviewFindings(Payload):
    round: int
    items: list[JSON] = Field(min_length=1)


@_event("review.stalled")
class ReviewStalled(Payload):
    round: int
    mainline: Literal["STALLED", "REGRESSED"]


@_event("review.stopped")
class ReviewStopped(Payload):
    round: int
    reason: str


@_event("verdict.recorded")
class VerdictRecorded(Payload):
    round: int
    kind: Literal["summary", "alignment", "code"] = "summary"
    mainline: Literal["ADVANCED", "STALLED", "REGRESSED"]
    control: Literal["CONTINUE", "COMPLETE", "STOP"]
    findings: list[JSON]
    resolved: list[str] = []  # ids of open issues that the reviewer saw mended
    criteria: list[JSON] = []  # id, status and evidence of each acceptance criterion, where they were asked for
    summary: str
    result: Artifact


# --- agents and people -----------------------------------------------------------------------------------------


@_event("agent.finished")
class AgentFinished(Payload):
    role: Literal["planner", "implementer", "reviewer"]
    driver: str
    version: str = ""
    job: str
    attempt: int
    outcome: str  # exited, failed, timeout, silent, over budget, interrupted
    wall_s: float
    usage: JSON | None = None  # input_tokens, output_tokens, cost_usd as the tool reported; null where it did not
    session: str = ""
    resumed: bool = False
    unconfined: str | None = None  # why the kernel did not bound it; empty when it did
    transcript: Artifact


@_event("human.question")
class HumanQuestion(Payload):
    subject: str
    text: str
    by: str


@_event("human.answered")
class HumanAnswered(Payload):
    subject: str
    answer: str


@_event("human.approved")
class HumanApproved(Payload):
    subject: str
    approved: bool
    reason: str = ""


@_event("humanize.reported")
class HumanizeReported(Payload):
    loop: str  # folder of a loop that the Humanize plugin runs
    file: str
    kind: str
    fields: JSON
    document: Artifact
    trust: Literal["reported"] = "reported"


# --- finish -----------------------------------------------------------------------------------------------------------


@_event("stop.proposed")
class StopProposed(Payload):
    condition: str
    reason: str
    evidence: list[int]


@_event("stop.rejected")
class StopRejected(Payload):
    missing: list[str]


@_event("report.published")
class ReportPublished(Payload):
    files: list[Artifact]


@_event("downloads.listed")
class DownloadsListed(Payload):
    folders: list[JSON]  # path of each place that a download of the campaign would make, and whether it was there


@_event("cleanup.started")
class CleanupStarted(Payload):
    processes: list[JSON]
    gpus: list[JSON]
    folders: list[JSON]


@_event("cleanup.finished")
class CleanupFinished(Payload):
    before: list[JSON]
    after: list[JSON]
    gpus: list[JSON] | None = None  # index, uuid, level_mib, before_mib, after_mib and holders of each leased GPU
    folders: list[JSON] | None = None  # path, bytes_before, bytes_after and what became of each
    runs: dict[str, int] | None = None  # how many runs there were, by how they ended
    left: list[str] | None = None  # what could not be put back, in words; empty when nothing is left
