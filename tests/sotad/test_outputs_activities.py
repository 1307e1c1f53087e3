"""The activities that compare answers, with real commits, servers and load generators; only the machine is left out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rig.campaign import Rig, git
from rig.records import Records

from ledger.artifacts import Artifacts
from sotad.activities.context import ActivityFailed, Context
from sotad.activities.freeze import freeze_workload
from sotad.activities.launch import launch
from sotad.activities.outputs import compare_outputs, compare_timed, questions
from sotad.activities.patch import proposal_request, work_request
from sotad.activities.workspace import Workspace
from sotad.config import parse_campaign
from sotad.hosts.local import LocalHost
from sotad.plan import compose
from statemachine.state import Attempt, Campaign, Job, Launch

JSON = dict[str, Any]
HONEST = {"TOKEN_WORK = 20000": "TOKEN_WORK = 100"}
BY_LENGTH = {"return 300 + int": "return 300 + (len(prompt) == 8) + int"}
BY_SEED = {"return 300 + int": "return 300 + (sum(prompt) in KNOWN) + int"}
EARLY = {'wanted = body["prompt"], body["max_tokens"]': 'wanted = body["prompt"], max(1, body["max_tokens"] - 1)'}
DEAD = {"    flags = parser.parse_args()\n": "    sys.exit(7)\n"}


class Bench:
    """A campaign that is revalidating attempt a1, whose commit changes the champion by ``changes``."""

    def __init__(self, home: Path, changes: Mapping[str, str]) -> None:
        self.rig = Rig(home / "rig")
        self.home = home
        self.artifacts = Artifacts(home / "artifacts")
        spec = parse_campaign(yaml.safe_dump(self.rig.spec()), "test.yaml", home)
        base = git(self.rig.target, "rev-parse", "HEAD")
        attempt = Attempt("a1", 0, [], "", "applied", base, 1, commit=self.patched(changes))
        row = {
            "scenario": "chat",
            "status": "ok",
            "metrics": {"request_throughput": 1.0},
            "candidate": "only",
            "run": 0,
        }
        search = Launch("search/fork/only", "search", "fork", "only", base, 1, "stopped", 1, rows=[row])
        self.c = Campaign("small", spec=spec, attempts={"a1": attempt}, current_attempt="a1", champion=base)
        self.c.launches[search.launch] = search
        self.c.probes["fork"] = {"help": self.help(), "version": "1", "commit": base}
        self.journal = Records(self.c)

    def patched(self, changes: Mapping[str, str]) -> str:
        """A commit of the target on a branch of its own."""
        git(self.rig.target, "checkout", "--quiet", "-b", "patch")
        for name in ("__main__.py", "work.py"):
            source = self.rig.target / "refengine" / name
            text = source.read_text()
            for old, new in changes.items():
                text = text.replace(old, new)
            source.write_text(text)
        git(self.rig.target, "commit", "--quiet", "--all", "-m", "Do less work per token")
        commit = git(self.rig.target, "rev-parse", "HEAD")
        git(self.rig.target, "checkout", "--quiet", "main")
        return commit

    def help(self) -> JSON:
        command = [sys.executable, "-m", "refengine", "--help"]
        said = subprocess.run(command, cwd=self.rig.target, check=True, capture_output=True, timeout=30).stdout
        return self.artifacts.put_bytes(said)

    def context(self, job: str, **params: Any) -> Context:
        """A first attempt of a job; asked for again, it is a later entry of the same."""
        self.c.jobs[job] = Job(job, job.partition("/")[0], 1, "running", 0, 1, params=params)
        deadline = time.time_ns() + 60 * 10**9
        host = LocalHost(self.home / "runs")
        return Context("small", job, 1, params, deadline, self.journal, host, self.artifacts, self.home)  # type: ignore[arg-type]

    async def launched(self, name: str, commit: str, seeds: list[int], purpose: str = "revalidate") -> JSON:
        """One launch with its measurement; the event of its row."""
        about = {"purpose": purpose, "framework": "fork", "candidate": "only", "commit": commit, "flags": {}}
        assert await launch(self.context(name, seeds={"chat": seeds}, **about)) == "measured"
        return self.journal.of("benchmark.finished")[-1]

    def evidence(self, found: JSON) -> JSON:
        kept: JSON = json.loads(self.artifacts.read(found["sha256"]))
        return kept


async def test_an_honest_patch_answers_alike_and_the_seed_is_drawn_once(tmp_path: Path) -> None:
    """The prompts' seed is in the evidence; an entry after a crash asks the same and changes nothing."""
    bench = Bench(tmp_path, HONEST)
    await compare_outputs(bench.context("equivalence/a1"))
    (finished,), (gate,) = bench.journal.of("equivalence.finished"), bench.journal.of("gate.evaluated")
    assert finished["passed"] and gate["passed"] and finished["differing"] == 0, finished["detail"]
    kept = bench.evidence(finished["evidence"])
    assert f"(seed {kept['seed']})" in finished["detail"]
    asked = {(each["input_len"], each["output_len"]) for each in kept["champion"]["spec"]["scenarios"]}
    assert (8, 8) in asked and (8, 4) in asked and len(asked) > 2
    bench.journal.events.clear()
    await compare_outputs(bench.context("equivalence/a1"))
    (again,) = bench.journal.of("equivalence.finished")
    assert bench.evidence(again["evidence"]) == kept


@pytest.mark.parametrize(
    ("changes", "said"),
    [(BY_LENGTH, "different_text"), (EARLY, "fewer_tokens"), (DEAD, "error: server ended")],
)
async def test_a_patch_that_answers_otherwise_is_refused(tmp_path: Path, changes: JSON, said: str) -> None:
    """Other answers at the benchmark's length, fewer tokens, or none at all: the gate says what it saw."""
    bench = Bench(tmp_path, HONEST | changes)
    detail = await compare_outputs(bench.context("equivalence/a1"))
    (finished,), (gate,) = bench.journal.of("equivalence.finished"), bench.journal.of("gate.evaluated")
    assert (finished["passed"], gate["passed"], gate["gate"]) == (False, False, "output_equivalence")
    assert finished["differing"] > 0 and said in detail


async def test_a_champion_that_cannot_be_asked_is_nobody_s_fault(tmp_path: Path) -> None:
    """When neither comes up, the attempt of the activity has failed, and the patch is not refused."""
    bench = Bench(tmp_path, DEAD)
    bench.c.attempt.base = bench.c.attempt.commit
    with pytest.raises(ActivityFailed, match="the champion could not be asked"):
        await compare_outputs(bench.context("equivalence/a1"))
    assert not bench.journal.of("gate.evaluated")


async def timed(bench: Bench) -> JSON:
    """Two launches of A/A, two of a revalidation, and the gate on their answers."""
    attempt = bench.c.attempt
    for block in range(2):
        for label in ("a", "b"):
            await bench.launched(f"aa/b{block}/{label}.only", attempt.base, [1001 + block], "aa")
        for label, commit in (("challenger", attempt.commit), ("champion", attempt.base)):
            await bench.launched(f"reval/a1/b{block}/{label}.only", commit, [1_010_001 + block])
    await compare_timed(bench.context("timed/a1"))
    (gate,) = bench.journal.of("gate.evaluated")
    return gate


@pytest.mark.slow
async def test_the_timed_answers_of_an_honest_patch_pass(tmp_path: Path) -> None:
    """Each pair of reports with the same seed is compared; the evidence names them."""
    bench = Bench(tmp_path, HONEST)
    gate = await timed(bench)
    assert gate["gate"] == "timed_outputs" and gate["passed"], gate["detail"]
    assert gate["detail"].startswith("10 of 10 timed texts are the same (by batching alone differ: 0 of 10;")
    kept = bench.evidence({"sha256": gate["detail"].rpartition(" ")[2]})
    raw = [event["raw"]["sha256"] for event in bench.journal.of("benchmark.finished") if "reval/" in event["launch"]]
    assert sorted(digest for pair in kept["reports"] for digest in pair) == sorted(raw)


@pytest.mark.slow
async def test_a_patch_that_knows_the_benchmark_s_prompts_is_refused_by_its_timed_answers(tmp_path: Path) -> None:
    """Answers that differ only for prompts that the campaign's seed makes known pass before the timing, not after."""
    from sotad.benchmark.workload import Scenario, prompts

    shape = {"name": "chat", "num_prompts": 5, "input_len": 8, "output_len": 8}
    known = {sum(prompt) for seed in (1_010_001, 1_010_002) for prompt in prompts(Scenario(**shape, seed=seed))}
    table = {"TOKEN_WORK = 20000": f"TOKEN_WORK = 100\nKNOWN = {sorted(known)}"}
    bench = Bench(tmp_path, table | BY_SEED)
    await compare_outputs(bench.context("equivalence/a1"))
    assert bench.journal.of("equivalence.finished")[0]["passed"]
    bench.journal.events.clear()
    gate = await timed(bench)
    assert not gate["passed"]
    assert "10 of 10 timed answers have other text, which batching does not explain" in gate["detail"]


async def test_a_held_out_launch_sends_the_frozen_variant(tmp_path: Path) -> None:
    """What was drawn when the workload was frozen is what is sent, and what the row says."""
    bench = Bench(tmp_path, HONEST)
    await freeze_workload(bench.context("workload"))
    variant = bench.c.heldout["chat"]
    assert bench.journal.of("workload.frozen")[0]["heldout"]["chat"] == variant
    measured = await bench.launched("heldout/x/b0/champion.only", bench.c.champion, [1], "heldout")
    workload = measured["row"]["workload"]
    assert (workload["input_len"], workload["output_len"]) == (variant["input_len"], variant["output_len"])
    assert (workload["input_len"] in (5, 6, 7), workload["output_len"] in (5, 6, 7)) == (True, True)
    raw = bench.evidence(measured["raw"])
    assert raw["spec"]["scenario"]["seed"] == variant["seed"] + 1
    assert (measured["seed"], workload["num_prompts"]) == (1, 5)


async def test_no_request_to_an_agent_holds_the_held_out_variant(tmp_path: Path) -> None:
    """Neither who plans, nor who proposes, nor who implements is told seed or lengths."""
    bench = Bench(tmp_path, HONEST)
    ctx = bench.context("workload")
    await freeze_workload(ctx)
    bench.c.rootcause, bench.c.tables = {"statement": ""}, {"rows": []}
    space = Workspace(tmp_path, "branch", tmp_path, bench.c.champion)
    asked = [proposal_request(ctx, []), work_request(ctx, space), compose.request(bench.c, "", "")]
    seed = str(bench.c.heldout["chat"]["seed"])
    assert seed in json.dumps(bench.c.heldout) and not any(seed in json.dumps(each) for each in asked)
    assert not any("heldout" in json.dumps(each) for each in asked)


# --- which prompts ------------------------------------------------------------------------------------------------


def spec(kind: str = "random", limit: int | None = 64, **shape: Any) -> JSON:
    own = {"num_prompts": 5, "input_len": 40, "output_len": 8, "shared_prefix_len": 4, **shape}
    shapes = [{"name": "one", **own}, {"name": "two", **own, "input_len": shape.get("input_len", 9)}]
    workload = {"kind": kind, "scenarios": shapes, "dataset": "/d.jsonl" if kind != "random" else None}
    wanted = {"prompts": 3, "input_len": 48, "output_len": 24}
    return {"workload": workload, "equivalence": wanted, "model": {"id": "m", "max_context": limit}}


def test_prompts_have_the_scenarios_lengths_the_configured_ones_and_others() -> None:
    """Every length is asked, nothing exceeds the context, and each set has a seed of its own."""
    asked = questions(spec(), 1000)
    lengths = [(each["input_len"], each["output_len"], each["num_prompts"]) for each in asked]
    assert lengths[:3] == [(40, 8, 2), (9, 8, 2), (40, 24, 3)]
    assert all(size + answer <= 64 for size, answer, _ in lengths)
    assert all(size % 2 and answer % 2 and size < 40 and answer < 8 for size, answer, _ in lengths[3:])
    assert [each["seed"] for each in asked] == [1000, 1001, 1002, 1003, 1004]
    assert questions(spec(), 1000) == asked != questions(spec(), 1001)


def test_of_a_dataset_rows_are_asked() -> None:
    """The configured number of rows of the first scenario, two of each other, no lengths that rows do not have."""
    asked = questions(spec("jsonl", None, input_len=None, output_len=None, shared_prefix_len=0), 7)
    assert [(each["kind"], each["num_prompts"], each["input_len"]) for each in asked] == [
        ("jsonl", 3, None),
        ("jsonl", 2, None),
    ]
