"""A whole campaign played without processes: `decide` asks, a scripted world answers with the real events.

Every event goes the way that it goes in the daemon: checked against the catalogue, admitted by the compiled table
and by the `transitions` machine, folded. What happens in the world is a script: for each named point (POINTS)
which outcome its n-th time has; everything not scripted takes the usual one, so that the empty script is a
campaign in which nothing goes wrong. The same script and seed give the same events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from effects import Draft, Effect, Effects, Failed, Lost
from script import JSON, SPEEDS, Outcomes, Script, artifact, spec_with

from ledger.catalogue import validate
from ledger.events import Event
from statemachine import evidence
from statemachine.decide import Abort, Do, Record, decide
from statemachine.fold import advance
from statemachine.guards import Ask
from statemachine.machine import IllegalEvent, admit
from statemachine.shell import CampaignMachine
from statemachine.state import Campaign, Job, World
from statemachine.table import FACTS, HALTED, LIVE

START_NS = 1_760_000_000_000_000_000
TICK_NS = 50_000_000
PATIENCE = 3  # how often a person resumes a blocked campaign that is scripted no other way
_ORDERS: dict[str, Draft] = {
    "pause": ("campaign.paused", {"reason": "lunch"}),
    "human": ("campaign.blocked", {"kind": "human", "reason": "which model?", "next": "answer"}),
    "cancel": ("campaign.cancel_requested", {"by": "operator"}),
    "cancel!": ("campaign.cancel_requested", {"by": "operator", "confirmed": True}),
}


class Simulation(Effects):
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
        kv_dtypes: Mapping[str, str | None] | None = None,
        hit_rates: Mapping[str, float] | None = None,
        watch: Callable[[Simulation, Event], None] | None = None,
        before: Callable[[Simulation, str, JSON], None] | None = None,
    ) -> None:
        self.world, self.events = world or World(), events if events is not None else []
        super().__init__(seed, noise, {(framework, f"{framework}-0"): speed for framework, speed in speeds.items()})
        self.kv_dtypes, self.hit_rates = kv_dtypes, hit_rates
        self.name, self.outcomes, self.now_ns = name, Outcomes(script or {}), START_NS
        self.refused: list[IllegalEvent] = []
        self._watch, self._before = watch, before
        self._under_way: dict[str, Effect] = {}
        self._held: dict[str, Draft] = {}
        self._resumed = 0
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
        dest = self.admitted(type_, stored, actor)
        known = self.world.campaigns.get(self.name)
        seq, own = self.world.seq + 1, (known.campaign_seq if known else 0) + 1
        event = Event(seq, self.name, own, self.now_ns, 1, type_, version, actor, None, None, stored, f"{seq:064x}")
        advance(self.world, event)
        assert self.c.phase == dest
        self.events.append(event)
        if self._watch is not None:
            self._watch(self, event)
        return event

    def admitted(self, type_: str, payload: JSON, actor: str = "daemon") -> str:
        """The phase after an event; the table and the machine must say the same. Raises IllegalEvent."""
        dest = admit(self.world, self.name, type_, payload, self.now_ns, actor)
        if type_ not in FACTS:
            assert self._fire(type_, payload, actor) == dest
        return dest

    def _fire(self, type_: str, payload: JSON, actor: str) -> str:
        c = self.world.campaigns.get(self.name) or Campaign(self.name, created_ns=self.now_ns)
        return self._machine.fire(Ask(self.world, c, payload, self.now_ns, actor), type_)

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
        elif operator == "amend":
            self._amend()
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
        self._speak()
        if wish == "cancel":
            self._try("campaign.cancel_requested", {"by": "operator"})
            return True
        if wish == "mismatch":
            self.moved += 1
            expected, found = f"ours-{self.moved - 1}", f"ours-{self.moved}"
            self.speed["ours", found] = self.speed["ours", "ours-0"]
            self.record("resume.mismatch", {"what": "checkout ours", "expected": expected, "found": found})
        self.record("campaign.resumed", {"checks": []})
        return True

    def _speak(self) -> None:
        """Say yes or no to whatever is waited for."""
        for subject in list(self.c.waits):
            yes = self.outcomes.at("word") == "yes"
            if subject.startswith("question:"):
                self.record("human.answered", {"subject": subject, "answer": "the first"}, "operator:test")
            else:
                self.record("human.approved", {"subject": subject, "approved": yes}, "operator:test")

    def _amend(self) -> None:
        if self.c.plan and not self.c.waits:
            changed = {**self.c.plan["plan"], "hints": [f"look twice {self.world.seq}"]}
            amendment = {"plan": changed, "digest": evidence.digest(changed), "reason": "a hint", "by": "operator"}
            self._try("plan.amendment_proposed", amendment)
            for subject in list(self.c.waits):
                self.record("human.approved", {"subject": subject, "approved": True}, "operator:test")

    def _late(self, type_: str) -> JSON | None:
        """A fact about something that may long be over; None when there is nothing yet to say it of."""
        attempts = list(self.c.attempts)
        plain: dict[str, JSON] = {
            "lease.granted": {"host": "local", "gpu_ids": []},
            "lease.released": {"host": "local", "reason": "late"},
            "job.dispatched": {"job": "late", "activity": "launch", "attempt": 1, "deadline_ns": 1, "params": {}},
            "framework.unsupported": {"framework": "rival", "reason": "late"},
            "workspace.checked": self.checked("ours", commit="elsewhere", clean=True),
            "verdict.recorded": self.verdict("ADVANCED", []),
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
            "tests.finished": {**about, "passed": True, "command": [], "counted": 9, "log": artifact("")},
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
        row = self.row(99.0, 1.0)
        return {**who, "scenario": self.c.scenarios[0], "run": 9, "seed": 9, "row": row, "raw": artifact("")}
