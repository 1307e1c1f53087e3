"""What each activity records, as `sotad/activities` does it, with the world's part played by a script."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from random import Random

from script import GAIN, JSON, PLAN, TESTS_PASS, Outcomes, artifact

from statemachine import caches, evidence, goodput, loop, sweep
from statemachine.decide import Do
from statemachine.machine import IllegalEvent
from statemachine.plan_template import baseline
from statemachine.ranking import passes, sla_failures
from statemachine.state import Campaign

Draft = tuple[str, JSON]
FLAGGED = {"wide": 1.01, "slow": 0.5}  # what a candidate's flags do to the speed
Effect = Generator[Draft, None, str]


class Failed(Exception):
    """The activity ended without what it was for."""


class Lost(Exception):
    """A process of the activity vanished."""


class Effects:
    """The activities of one campaign: each yields the events that it wants recorded, and hears of refusals.

    ``speed`` is requests per second by framework and commit; ``moved`` counts how often the target's checkout was
    found at another commit.
    """

    outcomes: Outcomes
    now_ns: int
    kv_dtypes: Mapping[str, str | None] | None
    hit_rates: Mapping[str, float] | None

    def __init__(self, seed: int, noise: float, speeds: dict[tuple[str, str], float]) -> None:
        self.speed, self.noise, self.moved = speeds, noise, 0
        self._random, self._commits = Random(seed), 0

    @property
    def c(self) -> Campaign:
        """The campaign as it is now."""
        raise NotImplementedError

    def lease(self, do: Do) -> Effect:
        hardware, outcome = self.c.spec["hardware"], self.outcomes.at("lease")
        if outcome == "fails":
            raise Failed("no host")
        if outcome == "granted":
            try:
                wanted = {"host": hardware["host"], "gpu_ids": hardware["gpu_ids"]}
                yield "lease.granted", {**wanted, "gpus": self.gpus() or None}
                return "granted"
            except IllegalEvent as taken:
                if taken.guard != "host_free":
                    raise
        yield "resource.wait_started", {"holder": "another campaign", "deadline_ns": self.now_ns}
        yield "resource.wait_expired", {"deadline_ns": self.now_ns}
        return "another campaign kept the host"

    def gpus(self) -> list[JSON]:
        """The GPUs of the spec as they are found, idle; none where it names none."""
        ids = self.c.spec["hardware"]["gpu_ids"]
        return [{"index": n, "uuid": f"GPU-{n}", "memory_mib": 4, "level_mib": 4} for n in ids]

    def checked(self, framework: str, commit: str, clean: bool) -> JSON:
        where = {"framework": framework, "repo": f"/src/{framework}", "branch": "main"}
        return {**where, "commit": commit, "clean": clean}

    def preflight(self, do: Do) -> Effect:
        for name in self.c.spec["frameworks"]:
            commit = f"{name}-{self.moved if name == 'ours' else 0}"
            clean = self.outcomes.at("workspace") == "clean"
            yield "workspace.checked", self.checked(name, commit, clean)
            if not clean:
                yield "preflight.failed", {"check": f"workspace {name}", "reason": "uncommitted changes"}
                return "uncommitted changes"
            if name != "ours" and self.outcomes.at("probe") == "unsupported":
                yield "framework.unsupported", {"framework": name, "reason": "does not start"}
                continue
            probed = {"framework": name, "kind": "reference", "version": "1", "commit": commit, "flags": []}
            yield "framework.probed", {**probed, "help": artifact(name)}
        try:
            yield "preflight.passed", {"host": {"cpu": "x", "cores": 2}}
        except IllegalEvent as refusal:
            yield "preflight.failed", {"check": refusal.guard, "reason": refusal.missing}
        return "passed"

    def consult_history(self, do: Do) -> Effect:
        if self.outcomes.at("history") == "noted":
            notes = {"query": "tiny", "documents": [], "notes": artifact("notes"), "decision": "nothing bears on it"}
            yield "history.noted", notes
        else:
            yield "history.unavailable", {"reason": "no folder"}
        yield "openpr.scanned", {"available": False, "reason": "no source"}
        return "consulted"

    def freeze_workload(self, do: Do) -> Effect:
        digest = evidence.digest(self.c.spec["workload"])
        heldout = {name: {"input_len": 7, "output_len": 3, "seed": 99} for name in self.c.scenarios}
        frozen = {"digest": digest, "scenarios": self.c.scenarios, "sla": self.c.spec["sla"]}
        yield "workload.frozen", {**frozen, "heldout": heldout}
        return digest

    def launch(self, do: Do) -> Effect:
        p, outcome = do.params, self.outcomes.at("launch")
        who = {"launch": do.job, "attempt": do.attempt}
        about = {key: p[key] for key in ("purpose", "framework", "candidate", "commit")}
        command = ["serve", p["framework"], json.dumps(p["flags"])]
        launched = {**who, **about, "command": command, "gpus": self.gpus() or None}
        yield "candidate.launched", {**launched, **self._caches(do)}
        if outcome in ("failed", "oom", "timeout"):
            yield "candidate.failed", {**who, "status": outcome, "reason": "the server ended", "log": artifact("")}
            return outcome
        yield "candidate.ready", {**who, "startup_s": 1.0}
        runs = [(scenario, run, seed) for scenario, seeds in p["seeds"].items() for run, seed in enumerate(seeds)]
        for scenario, run, seed in sweep.in_order(self.c, runs, p["purpose"]):
            if p["purpose"] == "rate" and goodput.next_rate(self.c, p["framework"], scenario) is None:
                break
            if scenario not in self.c.launches[do.job].curtailed:
                yield from self._measure(do, outcome, {**who, "scenario": scenario, "run": run, "seed": seed})
                for found in sweep.curtailments(self.c, do.job):
                    yield "candidate.curtailed", found
        if outcome == "vanishes":
            yield "candidate.lost", {**who, "reason": "the server vanished"}
            raise Lost("the server vanished")
        yield "candidate.stopped", {**who, "log": artifact("")}
        return "measured"

    def _caches(self, do: Do) -> JSON:
        """Where the launch finds compiled code, in a campaign that looks after it."""
        p = do.params
        if "caches" not in self.c.spec:
            return {}
        shared = caches.shares(self.c, p["purpose"])
        folder = f"/caches/{p['framework']}-{p['commit']}" if shared else f"/caches/once/{do.job}-{do.attempt}"
        return {"caches": {"state": caches.state_of(self.c, folder, p["candidate"]), "folder": folder}}

    def _measure(self, do: Do, outcome: str, which: JSON) -> Effect:
        p = do.params
        yield "benchmark.started", which
        gone = p["purpose"] == "heldout" and self.outcomes.at("heldout") == "gone"
        speed = self.speed.get((p["framework"], "" if gone else p["commit"]), 10.0) * FLAGGED.get(p["candidate"], 1.0)
        speed *= self._random.gauss(1.0, self.noise) * (0.5 if outcome == "stalls" else 1.0)
        rate = goodput.next_rate(self.c, p["framework"], which["scenario"]) if p["purpose"] == "rate" else None
        row = self.row(speed, 250.0 if outcome == "misses_sla" or (rate or 0.0) > speed else 40.0)
        row["workload"] = {"request_rate": rate}
        if self.kv_dtypes:
            row["conditions"] = {"kv_cache_dtype": self.kv_dtypes[p["framework"]], "quantization": None}
        if self.hit_rates:
            row["cache"] = {"prefix_cache_hit_rate": self.hit_rates[p["framework"]]}
        if outcome == "broken_row":
            row["metrics"]["request_throughput"] = 0.0
        watched = {"raw": artifact("readings"), "readings": 3, "gpus": self.gpus()} if self.gpus() else None
        yield "benchmark.finished", {**which, "row": row, "raw": artifact(""), "gpus": watched}
        if p["purpose"] != "search":
            return ""
        about = {key: which[key] for key in ("launch", "scenario")}
        failures = sla_failures(row["metrics"], self.c.spec["sla"])
        for failure in failures:
            yield "sla.failed", {**about, **failure._asdict()}
        if not failures:
            yield "sla.passed", about
        return ""

    def row(self, speed: float, ttft: float) -> JSON:
        metrics = {"request_throughput": speed, "p50_ttft_ms": ttft, "p50_tpot_ms": 3.0, "success_rate": 1.0}
        row = {"status": "ok", "metrics": metrics, "hardware": {"gpu_count": 0}}
        return {**row, "sla": {"passed": passes(row, self.c.spec["sla"])}}

    def write_plan(self, do: Do) -> Effect:
        base = self.c.workspaces["ours"]["commit"]
        known = self.c.plan.get("plan", PLAN)
        plan = {**known, "baseline": baseline(self.c)}
        if plan != known:
            written = {"version": self.c.plan.get("version", 0) + 1, "plan": plan, "digest": evidence.digest(plan)}
            yield "plan.recorded", {**written, "source": "template", "document": artifact("plan")}
        digest = self.c.plan["digest"]
        started = {"plan": artifact("plan"), "plan_digest": digest, "base_commit": base, "branch": "sotad/demo"}
        yield "loop.started", started
        return "planned"

    def profile(self, do: Do) -> Effect:
        side = {"round": self.c.round, "side": do.params["side"]}
        if self.outcomes.at("profile") == "rejected":
            yield "profile.rejected", {**side, "reason": "no trace"}
            raise Failed("no trace")
        known = {key: do.params[key] for key in ("framework", "commit")}
        yield "profile.captured", {**side, **known, "trace": artifact(str(do))}
        return "captured"

    def explain(self, do: Do) -> Effect:
        about = {"round": self.c.round, "commit": self.c.champion}
        stage = "prefill" if self.outcomes.at("explain") == "other_stage" else "decode"
        rows = [
            {"row_id": f"{stage_}/{name}", "stage": stage_, "name": name, "share": share, "extra_ms": extra}
            for stage_, name, share, extra in (
                *(("decode", "step", 100.0, 9.0), ("decode", "bmm", 60.0, 8.0), ("decode", "copy", 25.0, 1.0)),
                *(("decode", "tiny", 0.5, 0.0), ("prefill", "step", 100.0, 2.0), ("prefill", "mm", 90.0, 2.0)),
            )
        ]
        yield "tables.produced", {**about, "rows": rows, "tables": artifact("tables")}
        near = self.outcomes.at("explain") == "at_limit"
        limit = {"stage": "decode", "limit_ms": 4.7, "measured_ms": 5.0, "fraction": 0.94} if near else None
        yield "pipeline.written", {**about, "document": artifact("layers"), "limit": limit}
        cited = {"stage": stage, "rows": ["decode/bmm", "decode/copy"], "statement": "attention repeats work"}
        yield "rootcause.written", {**about, **cited, "document": artifact("cause")}
        return "explained"

    def propose(self, do: Do) -> Effect:
        rows, outcome = do.params["rows"], self.outcomes.at("propose")
        yield "agent.finished", self.called("implementer", do)
        if outcome == "asks" and "question:1" not in self.c.answers:
            yield "human.question", {"subject": "question:1", "text": "which backend?", "by": "implementer"}
            return "asked"
        if outcome == "garbage":
            raise Failed("the implementer left no JSON object")
        if outcome.startswith("declines"):
            given_up = rows[:1] if outcome == "declines_one" else rows
            yield "idea.rejected", {"round": self.c.round, "rows": given_up, "reason": "no idea"}
            return "declined"
        number = len(self.c.attempts) + 1
        if self.c.history == "noted" and self.outcomes.at("history_of_rows") == "asked":
            notes = {"query": "rows", "documents": [], "notes": artifact("more"), "decision": "shown"}
            yield "history.noted", {**notes, "subjects": rows}
        if self.outcomes.at("ideas") == "some":
            ideas = [{"origin": "profile row", "reference": rows[0], "licence": "", "applicability": "here"}]
            yield "idea.recorded", {"round": self.c.round, "ideas": ideas}
        proposal = {"attempt_id": f"a{number}", "citations": rows[:1], "hypothesis": "reuse the cache"}
        yield "patch.proposed", {"round": self.c.round, **proposal, "contract": self._contract()}
        return "proposed"

    def _contract(self) -> JSON:
        outcome = self.outcomes.at("contract")
        contract = {
            "objective": "" if outcome == "without_objective" else "one thing",
            "criteria": ["AC-9" if outcome == "unknown_criterion" else "AC-1"],
            "success": "the row is gone",
        }
        return {**contract, "recovery": {"cause": "the wrong row"}} if self.c.recovery else contract

    def called(self, role: str, do: Do) -> JSON:
        """One call of an agent."""
        about = {"role": role, "driver": "scripted", "job": do.job, "attempt": do.attempt, "outcome": "exited"}
        used = {"input_tokens": 100, "output_tokens": 10, "cost_usd": 0.5}
        usage = used if self.outcomes.at("usage") == "some" else None
        return {**about, "wall_s": 1.0, "usage": usage, "transcript": artifact("said")}

    def implement(self, do: Do) -> Effect:
        attempt, fine = self.c.attempt, self.outcomes.at("gates") == "pass"
        yield "agent.finished", self.called("implementer", do)
        if attempt.kind == "finalize" and self.outcomes.at("finalize") == "unchanged":
            gate = {"attempt_id": attempt.attempt_id, "gate": "commit_exists", "passed": False, "detail": "none"}
            yield "gate.evaluated", gate
            return "unchanged"
        said = {"attempt_id": attempt.attempt_id, "text": "done", "files": ["a.py"], "tests": []}
        yield "summary.recorded", {**said, "document": artifact("summary")}
        for gate in loop.commit_gates(self.c):
            passed = fine or gate != "path_boundary"
            yield "gate.evaluated", {"attempt_id": attempt.attempt_id, "gate": gate, "passed": passed, "detail": ""}
        if not fine:
            return "refused by path_boundary"
        self._commits += 1
        commit = f"patch-{self._commits}"
        self.speed["ours", commit] = self.speed.get(("ours", attempt.base), 10.0) * GAIN[self.outcomes.at("patch")]
        applied = {"attempt_id": attempt.attempt_id, "base": attempt.base, "commit": commit, "files": ["a.py"]}
        more = {"branch": f"sotad/demo-{attempt.attempt_id}", "diff": artifact(commit), "subject": "Reuse the cache"}
        yield "patch.applied", {**applied, **more}
        return "applied"

    def run_base_tests(self, do: Do) -> Effect:
        run = {"command": ["pytest"], "exit_code": 0, "counted": TESTS_PASS, "log": artifact("log")}
        yield "base.tested", {"commit": self.c.base, **run}
        return "counted"

    def run_tests(self, do: Do) -> Effect:
        outcome = self.outcomes.at("tests")
        about = {"attempt_id": self.c.current_attempt, "passed": outcome == "pass"}
        yield (
            "tests.finished",
            {**about, "command": ["pytest"], "exit_code": 0, "counted": TESTS_PASS, "log": artifact("log")},
        )
        if outcome == "half":  # the daemon's disk is full before the gate is written
            raise Failed("disk full")
        yield "gate.evaluated", {**about, "gate": "tests", "detail": "run by the daemon"}
        return "tested"

    def compare_outputs(self, do: Do) -> Effect:
        outcome = self.outcomes.at("outputs")
        about = {"attempt_id": self.c.current_attempt, "passed": outcome == "equal"}
        counts = {"prompts": 8, "differing": 0 if outcome == "equal" else 2}
        yield "equivalence.finished", {**about, **counts, "detail": "", "evidence": artifact("outputs")}
        if outcome == "half":
            raise Failed("disk full")
        yield "gate.evaluated", {**about, "gate": "output_equivalence", "detail": ""}
        return "compared"

    def measure_accuracy(self, do: Do) -> Effect:
        score = {"held": 80.0, "lost": 79.0, "none": None}[self.outcomes.at("accuracy")]
        about = {"attempt_id": self.c.current_attempt, "passed": score == 80.0}
        found = {"score": score, "baseline": 80.25, "max_drop": 0.5, "command": ["score", "{url}"]}
        yield "accuracy.finished", {**about, **found, "detail": "", "log": artifact("score")}
        yield "gate.evaluated", {**about, "gate": "accuracy", "detail": ""}
        return "scored"

    def compare_timed(self, do: Do) -> Effect:
        passed = self.outcomes.at("timed") == "equal"
        about = {"attempt_id": self.c.current_attempt, "gate": "timed_outputs", "detail": ""}
        yield "gate.evaluated", {**about, "passed": passed}
        return "compared"

    def checkpoint(self, do: Do) -> Effect:
        written = {"round": self.c.round, "commit": self.c.champion, "document": artifact("checkpoint")}
        yield "checkpoint.written", written
        return self.c.champion

    def review(self, do: Do) -> Effect:
        at, outcome, kind = self.c.round, self.outcomes.at("review"), do.params["kind"]
        asked = {"round": at, "attempt_id": self.c.current_attempt, "inputs": artifact("inputs")}
        yield "review.requested", {**asked, "kind": kind}
        yield "agent.finished", self.called("reviewer", do)
        if outcome == "unusable":
            yield "review.failed", {"round": at, "reason": "no verdict"}
            return "failed"
        lane = {"blocking": "blocking", "queued": "queued", "stalled_queued": "queued"}.get(outcome)
        findings = [{"severity": "P1", "lane": lane, "text": "a leak"}] if lane else []
        mainline = {"stalled": "STALLED", "stalled_queued": "STALLED", "regressed": "REGRESSED"}
        said = self.verdict(mainline.get(outcome, "ADVANCED"), findings, kind)
        said["control"] = {"stop": "STOP", "complete": "COMPLETE"}.get(outcome, "CONTINUE")
        if outcome == "complete":
            said["criteria"] = [{"id": "AC-1", "status": "NOT MET", "evidence": "behind"}]
        if outcome != "silent_on_issues":
            said["resolved"] = [issue["id"] for issue in loop.open_issues(self.c)]
        try:
            yield "verdict.recorded", said
        except IllegalEvent as refusal:
            yield "review.failed", {"round": at, "reason": str(refusal)}
        return outcome

    def verdict(self, mainline: str, findings: list[JSON], kind: str = "summary") -> JSON:
        said = {"mainline": mainline, "control": "CONTINUE", "findings": findings, "summary": "read it", "kind": kind}
        return {**said, "round": self.c.round, "result": artifact("verdict")}

    def clean_up(self, do: Do) -> Effect:
        if self.outcomes.at("clean_up") == "fails":
            raise Failed("cannot list processes")
        yield "cleanup.finished", {"before": [], "after": []}
        return "clean"

    def report(self, do: Do) -> Effect:
        if self.outcomes.at("report") == "fails":
            raise Failed("disk full")
        yield "report.published", {"files": [artifact("report")]}
        return "published"
