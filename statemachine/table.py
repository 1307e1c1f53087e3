"""The campaign machine as data: phases, the steps between them, and the facts that change no phase.

Two kinds of event. A *fact* says what happened in the world and is recordable in every phase, even late; its
guards only ask whether it fits what is already known. A *step* moves the campaign on, and is legal only
from the phases and under the guards named here. What is in neither table cannot be written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

ROUND = ("gap", "finalizing", "profiling", "selecting", "patching", "revalidating", "recording", "reviewing")
LIVE = ("intake", "knowledge", "searching", "baseline", "planning", *(f"round.{name}" for name in ROUND))
HALTED = ("paused", "blocked")
PHASES = ("draft", *LIVE, *HALTED, "stopping", "closed")

SUCCESS = ("success_ahead", "success_tied")
TERMINALS = (
    *SUCCESS,
    "compared",
    "external_gap",
    "at_limit",
    "no_patch",
    "budget_exhausted",
    "max_rounds",
    "stalled",
    "cancelled",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One row: in any of ``sources``, ``event`` leads to ``dest`` when every guard holds (first row wins)."""

    event: str
    sources: tuple[str, ...]
    dest: str
    guards: tuple[str, ...] = ()


def _step(event: str, sources: str | tuple[str, ...], dest: str, *guards: str) -> Step:
    return Step(event, (sources,) if isinstance(sources, str) else sources, dest, guards)


STEPS: tuple[Step, ...] = (
    _step("campaign.created", "draft", "intake", "spec_complete"),
    _step("preflight.passed", "intake", "knowledge", "lease_held", "workspace_clean", "competitor_probed"),
    _step("preflight.failed", "intake", "blocked"),
    _step(
        "workload.frozen",
        "knowledge",
        "searching",
        "history_consulted",
        "open_prs_scanned",
        "workload_of_spec",
        "heldout_drawn",
    ),
    _step("search.exhausted", "searching", "baseline", "framework_known", "candidates_settled", "last_to_exhaust"),
    _step("search.exhausted", "searching", "searching", "framework_known", "candidates_settled"),
    _step("winner.selected", "baseline", "baseline", "winner_is_best"),
    _step("goodput.found", "baseline", "baseline", "goodput_adds_up"),
    _step(
        "baseline.frozen",
        "baseline",
        "planning",
        "winners_complete",
        "goodput_known",
        "competitor_passes_sla",
        "target_measured",
        "baseline_digest_matches",
    ),
    _step("plan.recorded", "planning", "planning", "plan_valid"),
    _step("loop.started", "planning", "round.gap", "starts_at_checked_commit", "plan_on_record", "decisions_made"),
    _step("fairness.checked", "round.gap", "round.gap", "this_round", "fairness_adds_up"),
    _step("fairness.violated", "round.gap", "searching", "this_round", "fairness_failed"),
    _step("aa.checked", "round.gap", "round.gap", "aa_adds_up"),
    _step("heldout.checked", "round.gap", "round.gap", "this_round", "heldout_adds_up", "heldout_passed"),
    _step("heldout.checked", "round.gap", "blocked", "this_round", "heldout_adds_up"),
    _step(
        "gap.decided",
        "round.gap",
        "round.finalizing",
        "gap_adds_up",
        "comparison_trusted",
        "target_not_behind",
        "heldout_confirmed",
        "issues_settled",
        "finalize_owed",
    ),
    _step(
        "gap.decided",
        "round.gap",
        "stopping",
        "gap_adds_up",
        "comparison_trusted",
        "target_not_behind",
        "heldout_confirmed",
        "issues_settled",
    ),
    _step("gap.decided", "round.gap", "stopping", "gap_adds_up", "comparison_trusted", "behind", "only_comparing"),
    _step("gap.decided", "round.gap", "stopping", "gap_adds_up", "comparison_trusted", "behind", "rounds_used_up"),
    _step("gap.decided", "round.gap", "round.profiling", "gap_adds_up", "comparison_trusted", "behind"),
    _step("gap.decided", "round.gap", "blocked", "gap_adds_up", "no_call"),
    _step("finalize.opened", "round.finalizing", "round.patching", "this_round", "attempt_new"),
    _step("finalize.unchanged", "round.patching", "stopping", "attempt_under_way", "finalizing", "nothing_applied"),
    _step("profile.captured", "round.profiling", "round.profiling", "profile_of_compared_commit"),
    _step("tables.produced", "round.profiling", "round.profiling", "this_round", "at_champion", "profiles_fresh"),
    _step(
        "pipeline.written",
        "round.profiling",
        "round.profiling",
        "this_round",
        "at_champion",
        "tables_fresh",
        "limit_adds_up",
    ),
    _step(
        "rootcause.written",
        "round.profiling",
        "round.selecting",
        "this_round",
        "at_champion",
        "profiles_fresh",
        "tables_fresh",
        "pipeline_fresh",
        "stage_is_slow",
        "cited_rows_count",
    ),
    _step("idea.rejected", "round.selecting", "round.selecting", "this_round", "rows_of_rootcause"),
    _step("patch.refused", "round.selecting", "round.selecting"),
    _step(
        "patch.proposed",
        "round.selecting",
        "round.patching",
        "this_round",
        "citations_resolve",
        "history_consulted",
        "history_of_rows",
        "contract_valid",
        "research_done",
    ),
    _step("stop.proposed", "round.selecting", "stopping", "no_open_row", "near_the_limit"),
    _step(
        "patch.applied",
        "round.patching",
        "round.revalidating",
        "attempt_under_way",
        "based_on_champion",
        "summary_on_record",
        "commit_gates_passed",
    ),
    _step(
        "patch.reverted",
        ("round.patching", "round.revalidating"),
        "stopping",
        "attempt_under_way",
        "finalizing",
        "refusal_on_record",
        "champion_restored",
    ),
    _step(
        "patch.reverted",
        ("round.patching", "round.revalidating"),
        "round.recording",
        "attempt_under_way",
        "refusal_on_record",
        "champion_restored",
    ),
    _step(
        "patch.accepted",
        "round.revalidating",
        "round.recording",
        "attempt_under_way",
        "tests_passed",
        "outputs_equal",
        "accuracy_held",
        "improvement_adds_up",
        "timed_outputs_equal",
        "gain_plausible",
    ),
    _step(
        "patch.quarantined",
        "round.revalidating",
        "blocked",
        "attempt_under_way",
        "tests_passed",
        "outputs_equal",
        "quarantine_adds_up",
    ),
    _step("checkpoint.written", "round.recording", "round.reviewing", "this_round", "at_champion", "attempt_closed"),
    _step(
        "review.passed",
        "round.reviewing",
        "round.gap",
        "verdict_on_record",
        "verdict_clean",
        "reviews_done",
        "issues_settled",
        "self_review_approved",
    ),
    _step("review.findings", "round.reviewing", "round.patching", "verdict_on_record", "findings_block", "fixes_left"),
    _step("review.findings", "round.reviewing", "stopping", "verdict_on_record", "findings_block"),
    _step(
        "review.findings",
        "round.reviewing",
        "round.gap",
        "verdict_on_record",
        "findings_recorded",
        "reviews_done",
        "self_review_approved",
    ),
    _step("review.stalled", "round.reviewing", "stopping", "verdict_on_record", "verdict_stalled", "third_stall"),
    _step("review.stalled", "round.reviewing", "round.gap", "verdict_on_record", "verdict_stalled"),
    _step("review.stopped", "round.reviewing", "stopping", "verdict_on_record", "reviewer_stops"),
    _step("review.failed", "round.reviewing", "round.reviewing", "this_round"),
    _step("resource.wait_expired", LIVE, "blocked", "lease_absent"),
    _step("budget.exhausted", LIVE, "stopping", "budget_used_up"),
    _step("campaign.paused", LIVE, "paused"),
    _step("campaign.blocked", (*LIVE, "stopping"), "blocked"),
    _step("campaign.resumed", HALTED, "stopping", "halted_in stopping"),
    _step("campaign.resumed", HALTED, "intake", "something_mismatched"),
    *(_step("campaign.resumed", HALTED, phase, f"halted_in {phase}") for phase in LIVE),
    _step("campaign.cancel_requested", (*LIVE, *HALTED), "stopping"),
    _step("campaign.cancel_requested", "stopping", "stopping", "cancel_confirmed"),
    _step("stop.rejected", "stopping", "round.gap", "stop_lacks_evidence"),
    _step(
        "campaign.closed",
        "stopping",
        "closed",
        "terminal_is_the_stop",
        "report_published",
        "cleaned_up",
        "lease_absent",
    ),
)

FACTS: dict[str, tuple[str, ...]] = {
    "job.dispatched": ("not_closed", "next_attempt_of_job"),
    "job.finished": ("job_is_running",),
    "job.lost": ("job_is_running",),
    "job.timed_out": ("job_is_running",),
    "lease.granted": ("lease_asked_for", "lease_absent", "host_free", "lease_of_spec"),
    "lease.released": ("lease_held",),
    "resource.wait_started": ("waits_for_something",),
    "resource.wait_ended": (),
    "workspace.checked": ("framework_known", "identity_open"),
    "framework.probed": ("framework_known", "identity_open"),
    "framework.unsupported": ("framework_known", "identity_open"),
    "history.noted": (),
    "history.unavailable": (),
    "openpr.scanned": (),
    "plan.amendment_proposed": ("amendment_valid",),
    "plan.amended": ("amendment_approved",),
    "idea.recorded": (),
    "summary.recorded": ("attempt_known",),
    "agent.finished": ("agent_called",),
    "human.question": ("not_answered",),
    "human.answered": ("by_operator", "waited_for"),
    "human.approved": ("by_operator", "waited_for"),
    "candidate.launched": (
        "launch_is_next_attempt",
        "launched_as_dispatched",
        "competitor_as_frozen",
        "gpus_given_back",
        "caches_as_used",
    ),
    "candidate.ready": ("launch_known",),
    "candidate.failed": ("launch_known",),
    "candidate.lost": ("launch_known",),
    "candidate.stopped": ("launch_known",),
    "candidate.skipped": ("framework_known", "skip_adds_up"),
    "candidate.curtailed": ("launch_known", "curtailment_adds_up"),
    "benchmark.started": ("launch_known", "run_as_dispatched", "run_is_wanted"),
    "benchmark.disturbed": ("launch_known", "run_as_dispatched"),
    "benchmark.finished": (
        "launch_known",
        "run_as_dispatched",
        "measured_once",
        "rate_as_searched",
        "row_sla_recomputed",
        "gpus_watched",
    ),
    "sla.failed": ("sla_failure_recomputed",),
    "sla.passed": ("sla_pass_recomputed",),
    "profile.rejected": (),
    "gate.evaluated": ("attempt_known", "gate_stands"),
    "base.tested": ("base_tested_once",),
    "tests.finished": ("attempt_applied", "tested_once", "as_many_pass"),
    "equivalence.finished": ("attempt_applied", "compared_once", "equivalence_adds_up"),
    "accuracy.finished": ("attempt_applied", "accuracy_adds_up"),
    "review.requested": (),
    "verdict.recorded": ("review_requested", "complete_is_complete", "resolved_are_known", "issues_addressed"),
    "report.published": (),
    "downloads.listed": (),
    "cleanup.started": (),
    "cleanup.finished": (),
    "resume.mismatch": (),
    "note.recorded": (),
}

DAEMON_FACTS = frozenset(
    {
        "daemon.started",
        "daemon.stopped",
        "config.reloaded",
        "config.rejected",
        "inbox.accepted",
        "inbox.rejected",
        "humanize.reported",
        "note.recorded",
    }
)


def digest() -> str:
    """SHA-256 of this declaration: names the rules under which a range of a ledger was written."""
    text = json.dumps([[asdict(step) for step in STEPS], FACTS, sorted(DAEMON_FACTS)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
