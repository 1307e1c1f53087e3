"""A whole campaign played without processes: `decide` asks, a scripted world answers with the real events.

Every event goes the way that it goes in the daemon: checked against the catalogue, admitted by the compiled table
and by the `transitions` machine, folded. What happens in the world is a script: for each named point (POINTS)
which outcome its n-th time has; everything not scripted takes the usual one, so that the empty script is a
campaign in which nothing goes wrong. The same script and seed give the same events.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

from ledger.catalogue import validate
from ledger.events import Event
from statemachine import evidence
from statemachine.decide import Abort, Do, Record, decide
from statemachine.fold import advance
from statemachine.guards import Ask
from statemachine.machine import IllegalEvent, admit
from statemachine.ranking import passes, sla_failures
from statemachine.shell import CampaignMachine
from statemachine.state import Campaign, Job, World
from statemachine.table import FACTS, HALTED, LIVE

JSON = dict[str, Any]
Draft = tuple[str, JSON]
Effect = Generator[Draft, None, str]
Script = Mapping[str, "str | Mapping[int, str]"]

START_NS = 1_760_000_000_000_000_000
TICK_NS = 50_000_000
PATIENCE = 3  # how often a person resumes a blocked campaign that is scripted no other way

POINTS: dict[str, tuple[str, ...]] = {
    "workspace": ("clean", "dirty"),
    "probe": ("probed", "unsupported"),
    "lease": ("granted", "kept", "fails"),
    "history": ("noted", "unavailable"),
    "launch": ("serves", "failed", "oom", "timeout", "vanishes", "misses_sla", "stalls", "broken_row"),
    "profile": ("captured", "rejected"),
    "explain": ("explained", "other_stage"),
    "propose": ("cites", "declines", "declines_one", "garbage"),
    "gates": ("pass", "fail"),
    "tests": ("pass", "fail", "half"),
    "outputs": ("equal", "differ", "half"),
    "patch": ("faster", "leap", "same", "slower"),
    "review": ("advanced", "stalled", "regressed", "blocking", "queued", "stalled_queued", "unusable"),
    "clean_up": ("clean", "fails"),
    "report": ("published", "fails"),
    "interrupt": ("", "lost", "fails", "times_out"),
    "operator": ("", "pause", "human", "cancel", "cancel!", "overdue"),
    "person": ("resume", "mismatch", "cancel", "leave"),
    "late": ("", "candidate.stopped", "candidate.ready", "candidate.lost", "benchmark.finished", "lease.granted",
             "job.dispatched", "framework.unsupported", "workspace.checked", "gate.evaluated", "tests.finished",
             "verdict.recorded", "review.requested", "resume.mismatch", "note.recorded", "lease.released"),
}
GAIN = {"faster": 1.05, "leap": 1.3, "same": 1.0, "slower": 0.95}

SPEC: JSON = {
    "campaign": "demo",
    "model": {"id": "tiny", "precision": "fp32"},
    "hardware": {"host": "local", "gpu_type": "cpu", "gpu_ids": []},
    "frameworks": {
        "ours": {
            "kind": "reference",
            "role": "target",
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
    },
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


class Failed(Exception):
    """The activity ended without what it was for."""


class Lost(Exception):
    """A process of the activity vanished."""


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


class Simulation:
    """One campaign in a world; ``watch`` is called with it and each event that was folded."""

    _machine = CampaignMachine()

    def __init__(
        self,
        script: Script | None = None,
        *,
        seed: int = 1,
        spec: JSON | None = None,
        speeds: Mapping[str, float] = SPEEDS,
        noise: float = 0.002,
        name: str = "demo",
        world: World | None = None,
        events: list[Event] | None = None,
        watch: Callable[[Simulation, Event], None] | None = None,
        before: Callable[[Simulation, str, JSON], None] | None = None,
    ) -> None:
        self.world, self.events = world or World(), events if events is not None else []
        self.name, self.outcomes, self.noise = name, Outcomes(script or {}), noise
        self.refused: list[IllegalEvent] = []
        self.now_ns = START_NS
        self.speed = {(framework, f"{framework}-0"): speed for framework, speed in speeds.items()}
        self._random, self._watch, self._before = Random(seed), watch, before
        self._under_way: dict[str, Effect] = {}
        self._held: dict[str, Draft] = {}
        self._moved = self._resumed = self._commits = 0
        spec = spec or spec_with()
        self.record("campaign.created", {"spec": spec, "spec_digest": evidence.digest(spec), "source": "demo.yaml"})

    @property
    def c(self) -> Campaign:
        return self.world.campaigns[self.name]

    # --- the way of an event -----------------------------------------------------------------------------

    def record(self, type_: str, payload: JSON, actor: str = "daemon") -> Event:
        """Check, admit twice, fold. Raises IllegalEvent, and then nothing has changed."""
        version, stored = validate(type_, payload)
        self.now_ns += TICK_NS
        if self._before is not None:
            self._before(self, type_, stored)
        dest = self.admitted(type_, stored)
        known = self.world.campaigns.get(self.name)
        seq, own = self.world.seq + 1, (known.campaign_seq if known else 0) + 1
        event = Event(seq, self.name, own, self.now_ns, 1, type_, version, actor, None, None, stored, f"{seq:064x}")
        advance(self.world, event)
        assert self.c.phase == dest
        self.events.append(event)
        if self._watch is not None:
            self._watch(self, event)
        return event

    def admitted(self, type_: str, payload: JSON) -> str:
        """The phase after an event; the table and the machine must say the same. Raises IllegalEvent."""
        dest = admit(self.world, self.name, type_, payload, self.now_ns)
        if type_ not in FACTS:
            assert self._fire(type_, payload) == dest
        return dest

    def _fire(self, type_: str, payload: JSON) -> str:
        c = self.world.campaigns.get(self.name) or Campaign(self.name, created_ns=self.now_ns)
        return self._machine.fire(Ask(self.world, c, payload, self.now_ns), type_)

    # --- the loop -------------------------------------------------------------------------------------------

    def run(self, turns: int = 6000, until: Callable[[Simulation], bool] = lambda sim: False) -> Simulation:
        """Go on until nothing is left to do, or ``until`` holds; fail when that takes too many turns."""
        for _ in range(turns):
            if until(self) or not self.turn():
                return self
        raise AssertionError(f"no end after {turns} turns, in phase {self.c.phase}")

    def turn(self) -> bool:
        """One turn of the daemon's loop; False when nothing is left to do, for now or for ever."""
        self._disturb()
        limit = self.c.spec["budget"]["wall_clock_s"]
        if self.c.phase in LIVE and (used := (self.now_ns - self.c.created_ns) / 1e9) >= limit:
            self.record("budget.exhausted", {"kind": "wall_clock", "limit": limit, "used": used})
        commands = decide(self.c)
        if self.c.phase in HALTED and all(isinstance(c, Do) and c.job in self._held for c in commands):
            return self._person()
        for command in commands:
            if isinstance(command, Do):
                self._work(command)
            elif isinstance(command, Abort):
                self._end(command, "job.lost", reason="aborted: the campaign is stopping")
        records = [command for command in commands if isinstance(command, Record)]
        if records:
            self.record(records[0].type, records[0].payload)
        return bool(commands)

    def _work(self, do: Do) -> None:
        """Begin an activity, or let it record one more event."""
        job = self.c.jobs.get(do.job)
        if job is None or job.status != "running":
            intent = {"job": do.job, "activity": do.activity, "attempt": do.attempt, "params": do.params}
            self.record("job.dispatched", {**intent, "deadline_ns": self.now_ns + 60 * 10**9})
            self._under_way[do.job] = getattr(self, do.activity)(do)
            return
        ending = self.outcomes.at("interrupt")
        if ending == "times_out":
            self._end(job, "job.timed_out", deadline_ns=job.deadline_ns)
        elif ending == "lost" or do.job not in self._under_way:
            self._end(job, "job.lost", reason="vanished")
        else:
            self._go_on(job, ending)

    def _go_on(self, job: Job, ending: str) -> None:
        try:
            if ending == "fails":
                raise Failed("disk full")
            self._next_event(job, self._under_way[job.job])
        except StopIteration as done:
            self._end(job, "job.finished", ok=True, detail=done.value or "")
        except IllegalEvent as refusal:
            self.refused.append(refusal)
            self._end(job, "job.finished", ok=False, detail=str(refusal))
        except Failed as failure:
            self._end(job, "job.finished", ok=False, detail=str(failure))
        except Lost as lost:
            self._end(job, "job.lost", reason=str(lost))

    def _next_event(self, job: Job, effect: Effect) -> None:
        """A step waits while the campaign is halted; the activity hears of a refusal."""
        type_, payload = self._held.pop(job.job, None) or next(effect)
        if type_ not in FACTS and self.c.phase in HALTED:
            self._held[job.job] = (type_, payload)
            return
        try:
            self.record(type_, payload)
        except IllegalEvent as refusal:
            self._held[job.job] = effect.throw(refusal)

    def _end(self, job: Job | Abort, type_: str, **more: Any) -> None:
        self._under_way.pop(job.job, None)
        self._held.pop(job.job, None)
        self.record(type_, {"job": job.job, "attempt": job.attempt, **more})

    # --- people, the clock, and what comes late -------------------------------------------------------------

    def _disturb(self) -> None:
        operator, late = self.outcomes.at("operator"), self.outcomes.at("late")
        if operator == "overdue":
            self.now_ns += 2 * 10**9 * self.c.spec["budget"]["wall_clock_s"]
        elif operator:
            self._try(*_ORDERS[operator])
        if late:
            self._try(late, self._late(late))

    def _try(self, type_: str, payload: JSON | None) -> None:
        """Somebody wants an event that may come at the wrong moment."""
        if payload is not None:
            try:
                self.record(type_, payload)
            except IllegalEvent:
                pass

    def _person(self) -> bool:
        """What a person does with a campaign that waits for one; False when they leave it."""
        wish = self.outcomes.at("person")
        if (wish == "leave" and self.c.phase == "blocked") or (self.c.phase == "blocked" and self._resumed >= PATIENCE):
            return False
        self._resumed += 1
        if wish == "cancel":
            self._try("campaign.cancel_requested", {"by": "operator"})
            return True
        if wish == "mismatch":
            self._moved += 1
            expected, found = f"ours-{self._moved - 1}", f"ours-{self._moved}"
            self.speed["ours", found] = self.speed["ours", "ours-0"]
            self.record("resume.mismatch", {"what": "checkout ours", "expected": expected, "found": found})
        self.record("campaign.resumed", {"checks": []})
        return True

    def _late(self, type_: str) -> JSON | None:
        """A fact about something that may long be over; None when there is nothing yet to say it of."""
        attempts = list(self.c.attempts)
        plain: dict[str, JSON] = {
            "lease.granted": {"host": "local", "gpu_ids": []},
            "lease.released": {"host": "local", "reason": "late"},
            "job.dispatched": {"job": "late", "activity": "launch", "attempt": 1, "deadline_ns": 1, "params": {}},
            "framework.unsupported": {"framework": "rival", "reason": "late"},
            "workspace.checked": self._checkout("ours", commit="elsewhere", clean=True),
            "verdict.recorded": self._verdict("ADVANCED", []),
            "resume.mismatch": {"what": "late", "expected": "a", "found": "b"},
            "note.recorded": {"text": "late"},
        }
        if type_ in plain:
            return plain[type_]
        if type_ in ("candidate.stopped", "candidate.ready", "candidate.lost", "benchmark.finished"):
            return self._late_launch(type_)
        if not attempts:
            return None
        about = {"attempt_id": attempts[self._random.randrange(len(attempts))]}
        known = {
            "gate.evaluated": {**about, "gate": "tests", "passed": True, "detail": "late"},
            "tests.finished": {**about, "passed": True, "command": [], "log": artifact("")},
            "review.requested": {**about, "round": self.c.round, "inputs": artifact("")},
        }
        return known[type_]

    def _late_launch(self, type_: str) -> JSON | None:
        launches = list(self.c.launches.values())
        if not launches:
            return None
        launch = launches[self._random.randrange(len(launches))]
        who = {"launch": launch.launch, "attempt": launch.attempt}
        if type_ == "candidate.ready":
            return {**who, "startup_s": 1.0}
        if type_ == "candidate.lost":
            return {**who, "reason": "late"}
        if type_ == "candidate.stopped":
            return who
        row = self._row(99.0, 1.0)
        return {**who, "scenario": self.c.scenarios[0], "run": 9, "seed": 9, "row": row, "raw": artifact("")}

    # --- activities: what each records, see sotad/activities --------------------------------------------------

    def lease(self, do: Do) -> Effect:
        hardware, outcome = self.c.spec["hardware"], self.outcomes.at("lease")
        if outcome == "fails":
            raise Failed("no host")
        if outcome == "granted":
            try:
                yield "lease.granted", {"host": hardware["host"], "gpu_ids": hardware["gpu_ids"]}
                return "granted"
            except IllegalEvent as taken:
                if taken.guard != "host_free":
                    raise
        yield "resource.wait_started", {"holder": "another campaign", "deadline_ns": self.now_ns}
        yield "resource.wait_expired", {"deadline_ns": self.now_ns}
        return "another campaign kept the host"

    def _checkout(self, framework: str, commit: str, clean: bool) -> JSON:
        where = {"framework": framework, "repo": f"/src/{framework}", "branch": "main"}
        return {**where, "commit": commit, "clean": clean}

    def preflight(self, do: Do) -> Effect:
        for name in self.c.spec["frameworks"]:
            commit = f"{name}-{self._moved if name == 'ours' else 0}"
            clean = self.outcomes.at("workspace") == "clean"
            yield "workspace.checked", self._checkout(name, commit, clean)
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
        yield "workload.frozen", {"digest": digest, "scenarios": self.c.scenarios, "sla": self.c.spec["sla"]}
        return digest

    def launch(self, do: Do) -> Effect:
        p, outcome = do.params, self.outcomes.at("launch")
        who = {"launch": do.job, "attempt": do.attempt}
        about = {key: p[key] for key in ("purpose", "framework", "candidate", "commit")}
        yield "candidate.launched", {**who, **about, "command": ["serve", p["framework"], json.dumps(p["flags"])]}
        if outcome in ("failed", "oom", "timeout"):
            yield "candidate.failed", {**who, "status": outcome, "reason": "the server ended", "log": artifact("")}
            return outcome
        yield "candidate.ready", {**who, "startup_s": 1.0}
        for scenario, seeds in p["seeds"].items():
            for run, seed in enumerate(seeds):
                yield from self._measure(do, outcome, {**who, "scenario": scenario, "run": run, "seed": seed})
        if outcome == "vanishes":
            yield "candidate.lost", {**who, "reason": "the server vanished"}
            raise Lost("the server vanished")
        yield "candidate.stopped", {**who, "log": artifact("")}
        return "measured"

    def _measure(self, do: Do, outcome: str, which: JSON) -> Effect:
        p = do.params
        yield "benchmark.started", which
        speed = self.speed.get((p["framework"], p["commit"]), 10.0) * (1.01 if p["candidate"] == "wide" else 1.0)
        speed *= self._random.gauss(1.0, self.noise) * (0.5 if outcome == "stalls" else 1.0)
        row = self._row(speed, 250.0 if outcome == "misses_sla" else 40.0)
        if outcome == "broken_row":
            row["metrics"]["request_throughput"] = 0.0
        yield "benchmark.finished", {**which, "row": row, "raw": artifact("")}
        if p["purpose"] != "search":
            return ""
        about = {key: which[key] for key in ("launch", "scenario")}
        failures = sla_failures(row["metrics"], self.c.spec["sla"])
        for failure in failures:
            yield "sla.failed", {**about, **failure._asdict()}
        if not failures:
            yield "sla.passed", about
        return ""

    def _row(self, speed: float, ttft: float) -> JSON:
        metrics = {"request_throughput": speed, "p50_ttft_ms": ttft, "p50_tpot_ms": 3.0, "success_rate": 1.0}
        row = {"status": "ok", "metrics": metrics, "hardware": {"gpu_count": 0}}
        return {**row, "sla": {"passed": passes(row, self.c.spec["sla"])}}

    def write_plan(self, do: Do) -> Effect:
        base = self.c.workspaces["ours"]["commit"]
        started = {"plan": artifact("plan"), "plan_digest": "e" * 64, "base_commit": base, "branch": "sotad/demo"}
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
            {"row_id": f"{stage_}/{name}", "stage": stage_, "name": name, "share": share}
            for stage_, name, share in (
                *(("decode", "bmm", 60.0), ("decode", "copy", 25.0), ("decode", "tiny", 0.5)),
                ("prefill", "mm", 90.0),
            )
        ]
        yield "tables.produced", {**about, "rows": rows, "tables": artifact("tables")}
        yield "pipeline.written", {**about, "document": artifact("layers")}
        cited = {"stage": stage, "rows": ["decode/bmm", "decode/copy"], "statement": "attention repeats work"}
        yield "rootcause.written", {**about, **cited, "document": artifact("cause")}
        return "explained"

    def propose(self, do: Do) -> Effect:
        rows, outcome = do.params["rows"], self.outcomes.at("propose")
        if outcome == "garbage":
            raise Failed("the implementer left no JSON object")
        if outcome.startswith("declines"):
            given_up = rows[:1] if outcome == "declines_one" else rows
            yield "idea.rejected", {"round": self.c.round, "rows": given_up, "reason": "no idea"}
            return "declined"
        number = len(self.c.attempts) + 1
        proposal = {"attempt_id": f"a{number}", "citations": rows[:1], "hypothesis": "reuse the cache"}
        yield "patch.proposed", {"round": self.c.round, **proposal}
        return "proposed"

    def implement(self, do: Do) -> Effect:
        attempt, fine = self.c.attempt, self.outcomes.at("gates") == "pass"
        for gate in evidence.COMMIT_GATES:
            passed = fine or gate != "path_boundary"
            yield "gate.evaluated", {"attempt_id": attempt.attempt_id, "gate": gate, "passed": passed, "detail": ""}
        if not fine:
            return "refused by path_boundary"
        self._commits += 1
        commit = f"patch-{self._commits}"
        self.speed["ours", commit] = self.speed["ours", attempt.base] * GAIN[self.outcomes.at("patch")]
        applied = {"attempt_id": attempt.attempt_id, "base": attempt.base, "commit": commit, "files": ["a.py"]}
        more = {"branch": f"sotad/demo-{attempt.attempt_id}", "diff": artifact(commit), "subject": "Reuse the cache"}
        yield "patch.applied", {**applied, **more}
        return "applied"

    def run_tests(self, do: Do) -> Effect:
        outcome = self.outcomes.at("tests")
        about = {"attempt_id": self.c.current_attempt, "passed": outcome == "pass"}
        yield "tests.finished", {**about, "command": ["pytest"], "exit_code": 0, "log": artifact("log")}
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

    def checkpoint(self, do: Do) -> Effect:
        written = {"round": self.c.round, "commit": self.c.champion, "document": artifact("checkpoint")}
        yield "checkpoint.written", written
        return self.c.champion

    def review(self, do: Do) -> Effect:
        at, outcome = self.c.round, self.outcomes.at("review")
        yield "review.requested", {"round": at, "attempt_id": self.c.current_attempt, "inputs": artifact("inputs")}
        if outcome == "unusable":
            yield "review.failed", {"round": at, "reason": "no verdict"}
            return "failed"
        lane = {"blocking": "blocking", "queued": "queued", "stalled_queued": "queued"}.get(outcome)
        findings = [{"severity": "P1", "lane": lane, "text": "a leak"}] if lane else []
        mainline = {"stalled": "STALLED", "stalled_queued": "STALLED", "regressed": "REGRESSED"}
        yield "verdict.recorded", self._verdict(mainline.get(outcome, "ADVANCED"), findings)
        return outcome

    def _verdict(self, mainline: str, findings: list[JSON]) -> JSON:
        said = {"mainline": mainline, "control": "CONTINUE", "findings": findings, "summary": "read it"}
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


_ORDERS: dict[str, Draft] = {
    "pause": ("campaign.paused", {"reason": "lunch"}),
    "human": ("campaign.blocked", {"kind": "human", "reason": "which model?", "next": "answer"}),
    "cancel": ("campaign.cancel_requested", {"by": "operator"}),
    "cancel!": ("campaign.cancel_requested", {"by": "operator", "confirmed": True}),
}
