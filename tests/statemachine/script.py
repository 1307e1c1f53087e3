"""The script of a simulated campaign: its spec, what may happen at which point, and what is to happen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from statemachine.plan import TESTS

JSON = dict[str, Any]
Script = Mapping[str, "str | Mapping[int, str]"]

POINTS: dict[str, tuple[str, ...]] = {
    "workspace": ("clean", "dirty"),
    "probe": ("probed", "unsupported"),
    "lease": ("granted", "kept", "fails"),
    "history_of_rows": ("asked", "not_asked"),
    "history": ("noted", "unavailable"),
    "launch": ("serves", "failed", "oom", "timeout", "vanishes", "misses_sla", "stalls", "broken_row"),
    "profile": ("captured", "rejected"),
    "explain": ("explained", "other_stage", "at_limit"),
    "propose": ("cites", "declines", "declines_one", "garbage", "asks"),
    "ideas": ("some", "none"),
    "contract": ("whole", "without_objective", "unknown_criterion"),
    "finalize": ("unchanged", "changed"),
    "timed": ("equal", "differ"),
    "heldout": ("there", "gone"),
    "usage": ("some", "unknown"),
    "gates": ("pass", "fail"),
    "tests": ("pass", "fail", "half"),
    "outputs": ("equal", "differ", "half"),
    "accuracy": ("held", "lost", "none"),
    "patch": ("faster", "leap", "same", "slower", "wonder"),
    "review": (
        *("advanced", "stalled", "regressed", "blocking", "queued", "stalled_queued", "unusable"),
        *("stop", "complete", "silent_on_issues"),
    ),
    "clean_up": ("clean", "fails"),
    "report": ("published", "fails"),
    "interrupt": ("", "lost", "fails", "times_out"),
    "word": ("yes", "no"),
    "operator": ("", "amend", "pause", "human", "cancel", "cancel!", "overdue"),
    "person": ("resume", "mismatch", "cancel", "leave"),
    "late": (
        "",
        "candidate.stopped",
        "candidate.ready",
        "candidate.lost",
        "benchmark.finished",
        "lease.granted",
        "job.dispatched",
        "framework.unsupported",
        "workspace.checked",
        "gate.evaluated",
        "tests.finished",
        "verdict.recorded",
        "review.requested",
        "resume.mismatch",
        "note.recorded",
        "lease.released",
    ),
}
PLAN: JSON = {
    "goal": "bring ours to par with rival",
    "criteria": [{"id": "AC-1", "text": "faster", "positive_tests": ["it is"], "negative_tests": ["it is not"]}],
    "boundary": {"upper": "all of it", "lower": "one line", "may_change": ["src/*"], "may_not_change": [*TESTS]},
    "hints": [],
    "milestones": [{"id": "M-1", "text": "done", "tasks": ["T-1"], "depends_on": []}],
    "tasks": [{"id": "T-1", "text": "patch", "criteria": ["AC-1"], "tag": "coding", "depends_on": []}],
    "deliberation": {"agreements": [], "resolved": [], "status": "converged"},
    "pending_decisions": [],
    "notes": [],
    "draft": "",
    "baseline": {"digest": "d", "winners": {}},
    "decision": {},
    "rounds": 4,
}
TESTS_PASS = 3
GAIN = {"faster": 1.05, "wonder": 3.0, "leap": 1.3, "same": 1.0, "slower": 0.95}

SPEC: JSON = {
    "campaign": "demo",
    "model": {"id": "tiny", "precision": "fp32"},
    "hardware": {"host": "local", "gpu_type": "cpu", "gpu_ids": []},
    "frameworks": {
        "ours": {
            "kind": "reference",
            "role": "target",
            "tests": ["-m", "pytest"],
            "accuracy": {"command": ["score", "{url}"], "max_drop": 0.5},
            "candidates": [{"id": "base", "flags": {}}, {"id": "wide", "flags": {"max_batch": 8}}],
        },
        "rival": {"kind": "reference", "role": "competitor", "candidates": [{"id": "base", "flags": {}}]},
        "third": {"kind": "reference", "role": "competitor", "candidates": [{"id": "base", "flags": {}}]},
    },
    "workload": {"endpoint": "/v1/completions", "seed": 7, "scenarios": [{"name": "chat"}]},
    "sla": {"max_p50_ttft_ms": 100.0, "max_p50_tpot_ms": 9.0, "min_success_rate": 1.0},
    "search": {"runs": 1},
    "decision": {
        "metric": "request_throughput",
        "runs": 1,
        "tau_pct": 1.0,
        "alpha": 0.01,
        "first_look": 4,
        "cap": 6,
        "noise_limit_pct": 5.0,
        "max_gain_pct": 100.0,
    },
    "implementer": {"driver": "scripted"},
    "reviewer": {"driver": "scripted"},
    "review": {"mode": "independent", "code": True, "alignment_every": 3, "approve_every": 2, "finalize": True},
    "loop": 2,
    "budget": {"wall_clock_s": 86400, "rounds": 4, "job_s": 60, "ready_s": 60, "resource_wait_s": 60},
}
SPEEDS = {"ours": 10.0, "rival": 11.0, "third": 9.0}


def spec_with(**changes: JSON) -> JSON:
    """SPEC with the keys of some sections changed; ``scenarios=N`` gives that many scenarios."""
    spec: JSON = json.loads(json.dumps(SPEC))
    if count := changes.pop("scenarios", None):
        spec["workload"]["scenarios"] = [{"name": f"s{number}"} for number in range(count)]
    for section, values in changes.items():
        spec[section].update(values)
    return spec


def artifact(text: str) -> JSON:
    """A reference to a text as an artifact."""
    return {"sha256": sha256(text.encode()).hexdigest(), "bytes": len(text)}


@dataclass(slots=True)
class Outcomes:
    """What happens at each point: the script's outcome for its n-th time, else the usual one."""

    script: Script
    times: Counter[str] = field(default_factory=Counter)

    def at(self, point: str) -> str:
        number, self.times[point] = self.times[point], self.times[point] + 1
        entry = self.script.get(point, {})
        chosen = entry if isinstance(entry, str) else entry.get(number, POINTS[point][0])
        assert chosen in POINTS[point], f"{chosen} is no outcome of {point}"
        return chosen
