"""The report and artifact tree: what they say about a campaign, and what they must never say."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from ledger.catalogue import validate
from ledger.events import Event
from sotad.report import build, summary
from sotad.report.costs import union_ns
from sotad.report.document import fenced
from sotad.report.facts import file_name
from statemachine import evidence
from statemachine.decide import Do, Record, decide
from statemachine.fold import advance
from statemachine.state import Campaign, World

EVIL = "boom </td><script>alert(1)</script> ](http://evil.example/x.png) | <img src=x>"
START_NS = 1_760_000_000_000_000_000
JSON = dict[str, Any]

SPEC: JSON = {
    "campaign": "demo",
    "model": {
        "id": "tiny",
        "precision": "fp32",
        "tokenizer": "bytes",
        "quantization": "none",
        "max_context": 256,
    },
    "hardware": {"host": "local", "gpu_type": "cpu", "gpu_ids": []},
    "frameworks": {
        "ours": {
            "kind": "reference",
            "role": "target",
            "candidates": [
                {"id": "base", "flags": {}},
                {"id": "slow", "flags": {}},
                {"id": "huge", "flags": {}},
            ],
        },
        "rival": {"kind": "reference", "role": "competitor", "candidates": [{"id": "base", "flags": {}}]},
        "absent": {"kind": "reference", "role": "competitor", "candidates": [{"id": "base", "flags": {}}]},
    },
    "excluded": {"other": "not asked for"},
    "workload": {
        "kind": "random",
        "endpoint": "/v1/completions",
        "seed": 7,
        "scenarios": [{"name": "chat", "num_prompts": 24, "input_len": 32, "output_len": 16, "max_concurrency": 4}],
    },
    "sla": {"max_p50_ttft_ms": 100.0, "max_p50_tpot_ms": 9.0, "min_success_rate": 1.0},
    "search": {"runs": 1},
    "decision": {
        "metric": "request_throughput",
        "runs": 2,
        "tau_pct": 1.0,
        "alpha": 0.01,
        "first_look": 4,
        "cap": 20,
        "noise_limit_pct": 5.0,
    },
    "implementer": {"driver": "scripted"},
    "reviewer": {"driver": "scripted"},
    "budget": {"wall_clock_s": 86400, "rounds": 5, "job_s": 60, "ready_s": 60, "resource_wait_s": 60},
}
SPEED = {("ours", "c0"): 10.0, ("ours", "c1"): 10.0, ("ours", "c2"): 11.5, ("rival", "r0"): 11.0}


class Story:
    """A campaign told by its own state machine: conclusions are the machine's, effects are made up here."""

    def __init__(self, equal: bool = False) -> None:
        self.world, self.events, self.blobs = World(), [], {}
        self.equal = equal
        self.now = START_NS
        spec = json.loads(json.dumps(SPEC))
        self.add("campaign.created", spec=spec, spec_digest=evidence.digest(spec), source="demo.yaml")

    @property
    def c(self) -> Campaign:
        return self.world.campaigns["demo"]

    def add(self, type_: str, /, actor: str = "daemon", **payload: Any) -> None:
        version, stored = validate(type_, payload)
        seq = len(self.events) + 1
        self.now += 250_000_000
        event = Event(seq, "demo", seq, self.now, 1, type_, version, actor, None, None, stored, f"{seq:064x}")
        advance(self.world, event)
        self.events.append(event)

    def blob(self, data: bytes | str) -> JSON:
        data = data.encode() if isinstance(data, str) else data
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"sha256": digest, "bytes": len(data)}

    def tell(self, limit: int = 3000) -> Story:
        """Go on until the machine wants nothing more."""
        for _ in range(limit):
            commands = decide(self.c)
            if not commands:
                return self
            command = commands[0]
            if isinstance(command, Record):
                self.add(command.type, **command.payload)
            else:
                self.work(command)
        raise AssertionError("the story does not end")

    def work(self, do: Do) -> None:
        known = {"job": do.job, "activity": do.activity, "attempt": do.attempt, "params": do.params}
        self.add("job.dispatched", **known, deadline_ns=self.now + 10**12)
        getattr(self, do.activity)(do.params)
        self.add("job.finished", job=do.job, attempt=do.attempt, ok=True)

    # --- activities, as the daemon's would record them ---

    def lease(self, p: JSON) -> None:
        self.add("lease.granted", host="local", gpu_ids=[])

    def preflight(self, p: JSON) -> None:
        for name, commit in (("ours", "c0"), ("rival", "r0")):
            self.add(
                "workspace.checked",
                framework=name,
                repo=f"/src/{name}",
                commit=commit,
                branch="main",
                clean=True,
            )
            text = self.blob(f"usage: {name} [--max-batch N]")
            self.add(
                "framework.probed",
                framework=name,
                kind="reference",
                version="0.1",
                commit=commit,
                help=text,
                flags=["--max-batch"],
            )
        self.add("framework.unsupported", framework="absent", reason="no wheel for this CPU")
        self.add("preflight.passed", host={"cpus": 2, "kernel": "6.1"})

    def consult_history(self, p: JSON) -> None:
        self.add(
            "history.noted",
            query="tiny decode",
            documents=[{"title": "PR 12", "symbol": "attend"}],
            notes=self.blob("Attention was slow before."),
            decision="look at attention first",
        )
        self.add("openpr.scanned", available=False, reason="no network")

    def freeze_workload(self, p: JSON) -> None:
        self.add("workload.frozen", digest="d" * 64, scenarios=["chat"], sla=SPEC["sla"])

    def launch(self, p: JSON) -> None:
        name = next(c.job for c in decide(self.c) if isinstance(c, Do))
        known = self.c.launches.get(name)
        who = {"launch": name, "attempt": known.attempt + 1 if known else 1}
        self.add(
            "candidate.launched",
            **who,
            purpose=p["purpose"],
            framework=p["framework"],
            candidate=p["candidate"],
            commit=p["commit"],
            command=["serve", p["framework"], "--id", p["candidate"]],
        )
        if p["candidate"] == "huge":
            self.add("candidate.failed", **who, status="oom", reason=EVIL, log=self.blob("oom"))
            return
        if name == "gap/r0/b1/rival.base" and who["attempt"] == 1:
            self.measure(who, p)
            self.add("candidate.lost", **who, reason="the server vanished")
            return
        self.add("candidate.ready", **who, startup_s=1.5)
        self.measure(who, p)
        self.add("candidate.stopped", **who)

    def measure(self, who: JSON, p: JSON) -> None:
        for scenario, seeds in p["seeds"].items():
            for run, seed in enumerate(seeds):
                noise = hashlib.sha256(f"{who}{run}".encode()).digest()[0] / 255 - 0.5
                speed = 10.0 if self.equal else SPEED[p["framework"], p["commit"]]
                ttft = 250.0 if p["candidate"] == "slow" else 40.0
                metrics = {
                    "request_throughput": speed * (1 + 0.002 * noise),
                    "output_token_throughput": 160.0,
                    "p50_ttft_ms": ttft,
                    "p50_tpot_ms": 3.0,
                    "success_rate": 1.0,
                }
                row = {
                    "status": "ok",
                    "metrics": metrics,
                    "sla": {**SPEC["sla"], "passed": ttft <= 100},
                    "cache": {"prefix_cache_hit_rate": 0.25 if p["candidate"] == "slow" else 0.0},
                    "benchmark_command": f"load --seed {seed} {EVIL}",
                }
                self.add(
                    "benchmark.finished",
                    **who,
                    scenario=scenario,
                    run=run,
                    seed=seed,
                    row=row,
                    raw=self.blob(json.dumps(metrics)),
                )

    def write_plan(self, p: JSON) -> None:
        self.add(
            "loop.started",
            plan=self.blob("plan"),
            plan_digest="e" * 64,
            base_commit="c0",
            branch="sotad/demo",
        )

    def profile(self, p: JSON) -> None:
        trace = self.blob(gzip.compress(json.dumps({"side": p["side"], "round": self.c.round}).encode(), mtime=0))
        self.add(
            "profile.captured",
            round=self.c.round,
            side=p["side"],
            framework=p["framework"],
            commit=p["commit"],
            trace=trace,
        )

    def explain(self, p: JSON) -> None:
        where = {"round": self.c.round, "commit": self.c.champion}
        rows = [
            {
                "row_id": f"decode/aten::{name}",
                "stage": "decode",
                "name": f"aten::{name}",
                "share": share,
                "time_ms": share,
                "leader_time_ms": other,
                "us_per_token": 10 * share,
                "leader_us_per_token": 10 * other,
                "extra_ms": share - other,
            }
            for name, share, other in (("bmm", 60.0, 30.0), ("copy_", 25.0, 20.0), ("gelu", 15.0, 15.5))
        ]
        self.add("tables.produced", **where, rows=rows, tables=self.blob(json.dumps(rows)))
        self.add("pipeline.written", **where, document=self.blob("Layer 3 is representative."))
        self.add(
            "rootcause.written",
            **where,
            stage="decode",
            rows=["decode/aten::bmm", "decode/aten::copy_"],
            statement=f"attention repeats work {EVIL}",
            document=self.blob("# Cause\nsrc/attend.py"),
        )

    def propose(self, p: JSON) -> None:
        if self.c.round == 1 and not self.c.rejected_rows:
            self.add("idea.rejected", round=1, rows=p["rows"][1:], reason="within the noise")
            return
        number = len(self.c.attempts) + 1
        self.add(
            "patch.proposed",
            round=self.c.round,
            attempt_id=f"a{number}",
            citations=p["rows"][:1],
            hypothesis=f"reuse the cache {EVIL}",
        )

    def implement(self, p: JSON) -> None:
        attempt = self.c.current_attempt
        for gate in evidence.COMMIT_GATES:
            self.add("gate.evaluated", attempt_id=attempt, gate=gate, passed=True, detail="checked")
        self.add(
            "patch.applied",
            attempt_id=attempt,
            base=self.c.champion,
            commit=f"c{len(self.c.attempts)}",
            branch=f"sotad/demo/{attempt}",
            files=["src/attend.py"],
            diff=self.blob(f"--- {attempt}\n+++ b\n"),
            subject="Reuse the cache",
        )

    def run_tests(self, p: JSON) -> None:
        self.add(
            "tests.finished",
            attempt_id=self.c.current_attempt,
            passed=True,
            command=["pytest", "-q"],
            exit_code=0,
            log=self.blob("12 passed"),
        )

    def compare_outputs(self, p: JSON) -> None:
        attempt = self.c.current_attempt
        differing = 2 if attempt == "a1" else 0
        self.add(
            "equivalence.finished",
            attempt_id=attempt,
            passed=not differing,
            prompts=8,
            differing=differing,
            detail="token ids",
            evidence=self.blob(f"{differing}"),
        )
        self.add(
            "gate.evaluated",
            attempt_id=attempt,
            gate="equivalence",
            passed=not differing,
            detail=f"{differing} of 8 prompts differ",
        )

    def checkpoint(self, p: JSON) -> None:
        self.add(
            "checkpoint.written",
            round=self.c.round,
            commit=self.c.champion,
            document=self.blob(f"checkpoint of round {self.c.round}"),
        )

    def review(self, p: JSON) -> None:
        at = self.c.round
        self.add("review.requested", round=at, attempt_id=self.c.current_attempt, inputs=self.blob("inputs"))
        mainline = "ADVANCED" if self.c.attempt.status == "accepted" else "STALLED"
        self.add(
            "verdict.recorded",
            actor="reviewer:scripted",
            round=at,
            mainline=mainline,
            control="CONTINUE",
            findings=[],
            summary=f"read it {EVIL}",
            result=self.blob("verdict"),
        )

    def clean_up(self, p: JSON) -> None:
        self.add("cleanup.finished", before=[{"pid": 41, "command": "serve"}], after=[])

    def report(self, p: JSON) -> None:
        files = build(self.c, self.events, self.blobs.__getitem__)
        self.add("report.published", files=[self.blob(data) | {"path": name} for name, data in files.items()])


@pytest.fixture(scope="module")
def story() -> Story:
    return Story().tell()


@pytest.fixture(scope="module")
def files(story: Story) -> dict[str, bytes]:
    return build(story.c, story.events, story.blobs.__getitem__)


def text(files: dict[str, bytes], name: str = "final_report.md") -> str:
    return files[name].decode()


def seq_of(story: Story, type_: str, which: Callable[[JSON], bool] = lambda p: True) -> int:
    return next(e.seq for e in story.events if e.type == type_ and which(e.payload))


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps tags, attributes and text."""

    VOID = frozenset({"meta"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_story_ends_level_after_one_refused_and_one_accepted_patch(story: Story) -> None:
    """The story that the other tests read is the one they think it is."""
    assert story.c.phase == "closed"
    assert [(a.status, a.refused_by) for a in story.c.attempts.values()] == [
        ("reverted", "equivalence"),
        ("accepted", ""),
    ]


def test_tree_has_every_file_of_the_layout(files: dict[str, bytes]) -> None:
    """The artifact layout is complete, and copied artifacts keep their bytes."""
    expected = """manifest.md events.md help/ours.txt help/rival.txt
        benchmark/candidates.jsonl benchmark/summary.md
        benchmark/winning-commands.md benchmark/fairness/diagnostics.md history/model-pr-history-notes.md
        profiles/target-r0.json.gz profiles/leader-r1.json.gz
        analysis/root-cause.md analysis/layer-pipeline.md
        analysis/kernel-table.md analysis/capacity.md patches/a1.diff patches/a2.diff humanize/model-loop-checkpoint.md
        humanize/attempt-ledger.md humanize/optimization-ledger.md humanize/source-idea-ledger.md
        humanize/lineage.jsonl final_report.md final_report.html"""
    assert set(expected.split()) <= files.keys()
    assert any(name.startswith("humanize/profile-digests/r0") for name in files)
    assert json.loads(gzip.decompress(files["profiles/target-r0.json.gz"])) == {"side": "target", "round": 0}
    assert files["patches/a2.diff"] == b"--- a2\n+++ b\n"


def test_candidates_hold_every_row_and_every_failure(story: Story, files: dict[str, bytes]) -> None:
    """No measurement is dropped; failed and lost launches stay, void rows say that they do not count."""
    rows = [json.loads(line) for line in files["benchmark/candidates.jsonl"].splitlines()]
    measured = [e for e in story.events if e.type == "benchmark.finished"]
    assert len([row for row in rows if row["metrics"]]) == len(measured)
    oom = next(row for row in rows if row["status"] == "oom")
    assert (oom["candidate_id"], oom["failure_reason"], oom["metrics"]) == ("huge", EVIL, None)
    assert [row["launch"] for row in rows if row["status"] == "lost"] == ["gap/r0/b1/rival.base"]
    void = [row for row in rows if row["metrics"] and not row["counts"]]
    assert {(row["launch"], row["attempt"]) for row in void} == {("gap/r0/b1/rival.base", 1)}
    assert {row["sla"]["passed"] for row in rows if row["candidate_id"] == "slow"} == {False}


def test_verdict_line_is_yes_only_for_an_established_success(story: Story) -> None:
    """SOTA is yes when the comparison says so, and no at every earlier moment."""
    world, seen = World(), []
    for event in story.events:
        advance(world, event)
        c = world.campaigns["demo"]
        if event.type in (
            "gap.decided",
            "patch.accepted",
            "review.passed",
            "campaign.closed",
            "preflight.passed",
        ):
            report = build(c, story.events[: event.seq], story.blobs.__getitem__)["final_report.md"].decode()
            line = re.search(r"SOTA under the recorded conditions: (yes|no)", report)
            assert line and "best result that was observed" in report
            seen.append((event.type, line[1], summary(c)["success"]))
    assert seen[-1] == ("campaign.closed", "yes", True)
    assert [answer for type_, answer, _ in seen if type_ == "gap.decided"] == ["no", "no", "yes"]
    assert {answer for type_, answer, _ in seen if type_ not in ("gap.decided", "campaign.closed")} == {"no"}
    assert not any(success for type_, _, success in seen if type_ != "campaign.closed")


def test_cancelled_campaign_is_never_sota() -> None:
    """A campaign that was cancelled while it was stopping with a success claims nothing."""
    story = Story()
    while story.c.phase != "stopping":
        command = decide(story.c)[0]
        story.add(command.type, **command.payload) if isinstance(command, Record) else story.work(command)
    story.add("campaign.cancel_requested", by="operator", confirmed=True)
    story.tell()
    assert summary(story.c)["verdict"] == "cancelled"
    assert "SOTA under the recorded conditions: no" in text(build(story.c, story.events, story.blobs.__getitem__))


def test_target_that_is_not_behind_needs_no_patch() -> None:
    """When nothing had to be patched, the report says so and cites the decision."""
    story = Story(equal=True).tell()
    report = text(build(story.c, story.events, story.blobs.__getitem__))
    assert summary(story.c)["verdict"] == "success_tied"
    assert f"None was needed: the target was not behind [#{seq_of(story, 'gap.decided')}]" in report


def test_report_cites_the_events_of_its_figures(story: Story, files: dict[str, bytes]) -> None:
    """Every cited seq exists; the gap, the gain and the refused gate cite the event that recorded them."""
    report = text(files)
    cited = {int(number) for group in re.findall(r"\[#[\d,# -]+\]", report) for number in re.findall(r"\d+", group)}
    assert cited <= {event.seq for event in story.events}
    for line, type_, which in (
        ("| 0 | chat | rival |", "gap.decided", lambda p: p["round"] == 0),
        ("| a2 | accepted | chat |", "patch.accepted", lambda p: True),
        ("refused by gate equivalence", "patch.reverted", lambda p: True),
        ("| ours | huge | oom |", "candidate.failed", lambda p: True),
    ):
        found = next(each for each in report.splitlines() if line in each)
        assert f"[#{seq_of(story, type_, which)}]" in found


def test_report_states_figures_as_the_events_hold_them(story: Story, files: dict[str, bytes]) -> None:
    """Gap and gain are the decision's own numbers; a gain is the gap with its sign turned."""
    report = text(files)
    gap = next(e for e in story.events if e.type == "gap.decided").payload["decisions"]["chat"]
    assert f"| {gap['g_pct']:.2f} | [{gap['lo_pct']:.2f}, {gap['hi_pct']:.2f}] |" in report
    gain = next(e for e in story.events if e.type == "patch.accepted").payload["decisions"]["chat"]
    assert f"| {-gain['g_pct']:.2f} | [{-gain['hi_pct']:.2f}, {-gain['lo_pct']:.2f}] |" in report
    assert gain["g_pct"] < 0 < gap["g_pct"]


def test_report_keeps_the_failures_and_the_exclusions(files: dict[str, bytes]) -> None:
    """Failed attempts, SLA misses, excluded frameworks and caveats are in the final report."""
    report = text(files)
    for words in (
        "misses max_p50_ttft_ms 100: 250.00",
        "absent is unsupported: no wheel",
        "other was excluded",
        "a1: reverted by equivalence",
        "within the noise",
        "reference engine",
        "No GPU was used",
        "Open pull requests were not scanned",
        "2 measured rows became void",
        "up to 25% of the prompts' tokens came from a prefix cache, 0% were meant to be shared",
        "pid: 41",
    ):
        assert words in report, words
    assert "not recorded" in report


def test_ledgers_admit_what_they_should(story: Story, files: dict[str, bytes]) -> None:
    """Only the accepted patch is an optimization; both attempts are in the attempt ledger and the lineage."""
    optimizations = text(files, "humanize/optimization-ledger.md")
    assert "opt-1 | a2" in optimizations and "a1" not in optimizations
    assert {"a1: reverted", "a2: accepted"} <= set(re.findall(r"a\d: \w+", text(files, "humanize/attempt-ledger.md")))
    versions = [json.loads(line) for line in files["humanize/lineage.jsonl"].splitlines()]
    assert [(v["version_id"], v["parent_id"], v["result"], v["selected"]) for v in versions] == [
        ("c0", None, "base", False),
        ("c1", "c0", "reverted", False),
        ("c2", "c0", "accepted", True),
    ]


def test_html_is_well_formed_escaped_and_needs_nothing_else(files: dict[str, bytes]) -> None:
    """What servers and agents say stays text; nothing is loaded from anywhere."""
    page = Page(text(files, "final_report.html"))
    assert [tag for tag in page.open if tag not in Page.VOID] == []
    assert not {"script", "img", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#")
        assert "url(#" in (attributes.get("clip-path") or "url(#")
    assert page.text.count("<script>alert(1)</script>") >= 3
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "ids of different charts collide"


def test_charts_show_candidates_gap_and_kernels(files: dict[str, bytes]) -> None:
    """Three charts; the failed and the SLA-missing candidate are in the first, both rounds in the second."""
    charts = re.findall(r"<svg.*?</svg>", text(files, "final_report.html"), re.S)
    assert len(charts) == 3
    assert "ours/huge" in charts[0] and "oom" in charts[0] and "misses the SLA" in charts[0]
    assert "round 0, chat" in charts[1] and "round 1, chat" in charts[1] and "round 2, chat" in charts[1]
    assert "decode/aten::bmm" in charts[2] and "600.00" in charts[2] and "300.00" in charts[2]


def test_markdown_holds_no_html_and_no_picture_of_others(files: dict[str, bytes]) -> None:
    """Planted tags, links, fences and table cells cannot act in the Markdown either."""
    for name in ("final_report.md", "benchmark/summary.md", "humanize/attempt-ledger.md", "events.md"):
        outside_code = re.sub(r"^(```+)\n.*?^\1$", "", text(files, name), flags=re.S | re.M)
        assert "<script" not in outside_code and "](http" not in outside_code, name
    assert fenced("a\n```\n<b>").splitlines()[::4] == ["````", "````"]
    row = next(line for line in text(files, "benchmark/summary.md").splitlines() if "| huge |" in line)
    assert len(re.split(r"(?<!\\)\|", row)) == 7


def test_same_events_give_the_same_bytes(story: Story, files: dict[str, bytes]) -> None:
    """The projection is deterministic and leaves the campaign as it was."""
    before = repr(story.c)
    assert build(story.c, story.events, story.blobs.__getitem__) == files
    assert repr(story.c) == before


def test_every_moment_of_a_campaign_gives_a_report(story: Story) -> None:
    """Wherever a campaign stops, its report can be built and says where it is."""
    world, phases = World(), set()
    for event in story.events:
        before = world.campaigns["demo"].phase if world.campaigns else "draft"
        advance(world, event)
        c = world.campaigns["demo"]
        if c.phase != before or event.type not in (
            "benchmark.finished",
            "job.dispatched",
            "job.finished",
            "candidate.launched",
            "candidate.ready",
            "candidate.stopped",
        ):
            phases.add(c.phase)
            report = text(build(c, story.events[: event.seq], story.blobs.__getitem__))
            assert f"State: {c.stop['condition'] if c.phase in ('stopping', 'closed') else c.phase}" in report
            assert summary(c)["campaign"] == "demo"
    assert {
        "intake",
        "searching",
        "round.gap",
        "round.patching",
        "round.reviewing",
        "stopping",
        "closed",
    } <= phases


def test_empty_and_halted_campaigns_give_a_report() -> None:
    """A campaign without any event, and one that is blocked, are reported; nothing is invented for them."""
    assert "not recorded" in text(build(Campaign("none"), [], {}.__getitem__))
    story = Story()
    story.add("campaign.blocked", kind="human", reason="which model?", next="answer")
    found = summary(story.c)
    assert (found["verdict"], found["reason"], found["success"]) == ("blocked", "which model?", False)
    assert "which model?" in text(build(story.c, story.events, {}.__getitem__))


def test_missing_artifacts_are_named_not_fatal(story: Story) -> None:
    """An artifact that cannot be read is left out of the tree and named in the report."""
    gone = next(e for e in story.events if e.type == "patch.applied").payload["diff"]["sha256"]
    found = build(story.c, story.events, {k: v for k, v in story.blobs.items() if k != gone}.__getitem__)
    assert "patches/a1.diff" not in found
    assert f"{gone} could not be read" in text(found)


def test_without_the_chart_library_the_report_says_so(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are optional: their absence is a caveat, never a failure."""
    monkeypatch.setitem(sys.modules, "ziaplot", None)
    found = build(story.c, story.events, story.blobs.__getitem__)
    assert "<svg" not in text(found, "final_report.html")
    assert "Charts were left out" in text(found)


def test_other_campaigns_do_not_leak_in(story: Story, files: dict[str, bytes]) -> None:
    """Only the campaign's own events count, and the daemon's version."""
    other = story.events[5]._replace(campaign="other", seq=9001)
    started = validate(
        "daemon.started",
        {"version": "9.9", "machine_digest": "m", "pid": 1, "boot_id": "b", "host": "h", "sqlite": "3"},
    )[1]
    daemon = story.events[0]._replace(campaign="", seq=9000, type="daemon.started", payload=started)
    found = build(story.c, [*story.events, daemon, other], story.blobs.__getitem__)
    assert found["final_report.md"] == files["final_report.md"]
    assert "sotad 9.9 [#9000]" in text(found, "manifest.md")


def test_cost_is_the_time_between_events(story: Story, files: dict[str, bytes]) -> None:
    """Wall clock runs from creation to closing; the share outside jobs is what no job covers."""
    wall = (len(story.events) - 1) * 0.25
    assert f"Wall clock {wall:.1f} s" in text(files)
    assert union_ns([(0, 4), (2, 6), (8, 9), (8, 9)]) == 7
    assert union_ns([(0, 10), (2, 3), (4, 5)]) == 10
    assert union_ns([]) == 0


def test_cost_of_launches_is_split_into_starts_runs_and_the_rest() -> None:
    """What took longest comes first, with its share; before the first launch there is no table."""
    new = Story()
    assert "of launches" not in text(build(new.c, new.events, new.blobs.__getitem__))
    new.c.pace = {
        "startup/ours/warm": [4, 120.0],
        "run/ours/chat": [8, 40.0],
        "rest/ours": [4, 20.0],
        "rate": [1, 20.0],
    }
    lines = text(build(new.c, new.events, new.blobs.__getitem__)).split("| of launches |")[1].splitlines()[2:6]
    assert lines == [
        "| ours starts, caches warm | 4 | 30.0 | 120.0 | 60.0% |",
        "| ours runs chat | 8 | 5.0 | 40.0 | 20.0% |",
        "| ours: waiting, stop, log | 4 | 5.0 | 20.0 | 10.0% |",
        "| runs at a rate | 1 | 20.0 | 20.0 | 10.0% |",
    ]


def test_file_names_cannot_leave_the_folder() -> None:
    """Names that a campaign chose become one harmless path part."""
    assert "/" not in file_name("../../etc/passwd") and not file_name("..").startswith(".")
    assert file_name("a1-fix1") == "a1-fix1"


def test_summary_lists_gaps_and_attempts(story: Story) -> None:
    """The JSON summary carries the outcome, every gap and every attempt."""
    found = summary(story.c)
    assert (found["verdict"], found["success"], found["champion"]) == (story.c.stop["condition"], True, "c2")
    assert found["gaps"][0]["verdict"] == "behind"
    assert [a["status"] for a in found["attempts"]] == ["reverted", "accepted"]
    assert json.loads(json.dumps(found)) == found
