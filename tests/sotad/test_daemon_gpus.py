"""GPUs in real campaigns: leased, watched, waited for and given back. The machine has none: see `rig.gpus`."""

from __future__ import annotations

import gzip
import json

import pytest
from rig.audit import audit
from rig.campaign import JSON, Rig
from rig.gpus import TRAINING, Card, StandInSmi

from ledger.artifacts import Artifacts

IDLE = Card(used=500)
TAKEN = Card(used=40_500, processes=(TRAINING,))
SHORT = {"wall_clock_s": 3600, "rounds": 3, "job_s": 60, "ready_s": 20, "resource_wait_s": 1}


def submitted(rig: Rig, *ids: int, **changes: object) -> str:
    return rig.submit(goal="compare", hardware={"gpu_type": "card", "gpu_ids": list(ids)}, **changes)


def cancelled(rig: Rig, *names: str) -> None:
    for name in names:
        rig.client.post(f"/v1/campaigns/{name}/cancel")
        rig.seen("campaign.closed", campaign=name)


def readings(rig: Rig, evidence: JSON) -> list[JSON]:
    """What the ledger's digest names, line by line."""
    text = gzip.decompress(Artifacts(rig.paths.artifacts).read(evidence["raw"]["sha256"])).decode()
    return [json.loads(line) for line in text.splitlines()]


def test_a_lease_waits_for_idle_gpus_and_a_disturbed_sample_is_repeated(rig: Rig) -> None:
    """Somebody else's process: no lease while it is there, and what it disturbed is thrown out and measured again."""
    smi = StandInSmi(rig.home, TAKEN)
    rig.start(PATH=smi.path)
    submitted(rig, 0)
    waiting = rig.seen("resource.wait_started").payload
    assert waiting["holder"] == "GPU 0 has a foreign process: pid 4242 training, 40000 MiB"
    (shown,) = rig.client.get("/v1/status")["campaigns"]
    assert shown["reason"] == f"waits: {waiting['holder']}"
    assert rig.events("lease.granted") == []
    smi.says(IDLE)
    leased = rig.seen("lease.granted").payload
    known = {"index": 0, "uuid": "GPU-a", "name": "Stand-in Card", "memory_total_mib": 143_771}
    assert leased["gpus"] == [{**known, "level_mib": 500}]
    launched = rig.seen("candidate.launched").payload
    assert launched["gpus"] == [{"index": 0, "uuid": "GPU-a", "memory_mib": 500, "level_mib": 500}]
    rig.until(lambda: any(rig.paths.runs.rglob("bench-chat-0-gpus/stdout.log")), "the GPUs are watched")
    smi.says(TAKEN)
    disturbed = rig.seen("benchmark.disturbed").payload
    smi.says(IDLE)
    assert any("foreign process" in reason and "4242 training" in reason for reason in disturbed["reasons"])
    assert 4242 in disturbed["gpus"]["gpus"][0]["foreign_pids"]
    finished = rig.seen("benchmark.finished").payload
    assert (finished["launch"], finished["run"]) == (disturbed["launch"], disturbed["run"])
    raw, summary = readings(rig, finished["gpus"]), finished["gpus"]["gpus"][0]
    assert len(raw) >= finished["gpus"]["readings"] >= 2
    assert summary["memory_mib"] == [500, 500, 500] and summary["foreign_pids"] == []
    assert finished["gpus"]["cpu"]["busy_cores"] > 0, "the load generator and its server worked here"
    of_launch = rig.paths.runs / "small" / finished["launch"] / "1"
    bench = json.loads((of_launch / "bench-chat-0/pid.json").read_text())
    first = json.loads((of_launch / "bench-chat-0-gpus/stdout.log").read_text().splitlines()[0])
    assert first["time_ns"] < bench["started_ns"], "the reading before the sample is taken before it"
    asked = [json.loads(path.read_text()) for path in of_launch.glob("bench-chat-0*/spec.json.in")]
    seeds = {spec["scenario"]["seed"] for spec in asked}
    assert len(seeds) == len(asked) > 1, "the same prompts again would come from the server's prefix cache"
    cancelled(rig, "small")
    audit(rig)


@pytest.mark.slow
def test_campaigns_on_other_gpus_run_at_once_and_overlapping_ones_wait(rig: Rig) -> None:
    """Each sees its own GPUs only and is not disturbed by the other's; the third waits for the first."""
    smi = StandInSmi(rig.home, IDLE, Card(uuid="GPU-b"))
    rig.start(PATH=smi.path)
    first, second = submitted(rig, 0), submitted(rig, 1)
    rig.seen("benchmark.started", campaign=first)
    rig.seen("benchmark.started", campaign=second)
    assert rig.events("lease.released") == [], "both measure, and neither gave its lease back"
    third = submitted(rig, 1, 0)
    holder = rig.seen("resource.wait_started", campaign=third).payload["holder"]
    assert holder in (f"campaign {first}", f"campaign {second}")
    for name, index in ((first, "0"), (second, "1")):
        specs = [json.loads(path.read_text()) for path in (rig.paths.runs / name).rglob("server/spec.json")]
        assert {spec["env"]["CUDA_VISIBLE_DEVICES"] for spec in specs} == {index}
        assert {spec["env"]["CUDA_DEVICE_ORDER"] for spec in specs} == {"PCI_BUS_ID"}
    cancelled(rig, first)
    assert rig.events("lease.granted", campaign=third) == []
    cancelled(rig, second)
    leased = rig.seen("lease.granted", campaign=third).payload
    assert {gpu["index"]: gpu["uuid"] for gpu in leased["gpus"]} == {0: "GPU-a", 1: "GPU-b"}
    cancelled(rig, third)
    audit(rig)


def test_no_idle_gpus_block_the_campaign_until_it_is_resumed(rig: Rig) -> None:
    """The wait ends in blocked(resources) that names who has them; resumed, the campaign begins."""
    smi = StandInSmi(rig.home, IDLE, TAKEN)
    rig.start(PATH=smi.path)
    submitted(rig, 0, 1, budget=SHORT)
    rig.until(lambda: rig.c.phase == "blocked", "the wait is over")
    assert rig.c.blocked["kind"] == "resources" and "pid 4242 training" in rig.c.blocked["reason"]
    smi.says(IDLE)
    rig.client.post("/v1/campaigns/small/resume")
    rig.until(lambda: len(rig.events("resource.wait_expired")) == 2, "one of two GPUs is not enough")
    assert "GPU 1 is missing" in rig.c.blocked["reason"]
    smi.says(IDLE, Card(uuid="GPU-b"))
    rig.client.post("/v1/campaigns/small/resume")
    assert [gpu["uuid"] for gpu in rig.seen("lease.granted").payload["gpus"]] == ["GPU-a", "GPU-b"]
    cancelled(rig, "small")
    audit(rig)


@pytest.mark.slow
def test_the_next_candidate_waits_until_the_memory_is_back(rig: Rig) -> None:
    """Memory above its level: nothing is launched, and the campaign is blocked with the name of who holds it."""
    smi = StandInSmi(rig.home, IDLE)
    rig.start(PATH=smi.path)
    submitted(rig, 0, budget=SHORT)
    rig.seen("candidate.ready")
    smi.says(Card(used=1600, processes=((77, "Xorg", 20),)))
    rig.until(lambda: rig.c.phase == "blocked" and not rig.c.lease, "the campaign is blocked")
    why = "GPU 0 holds 1600 MiB, 500 MiB before the campaign's first launch: pid 77 Xorg 20 MiB"
    assert rig.c.blocked["kind"] == "resources" and why in rig.c.blocked["reason"]
    launches = len(rig.events("candidate.launched"))
    assert why in rig.events("resource.wait_started")[-1].payload["holder"]
    smi.says(IDLE)
    rig.client.post("/v1/campaigns/small/resume")
    rig.until(lambda: len(rig.events("candidate.launched")) > launches, "it goes on")
    assert rig.events("lease.granted")[-1].payload["gpus"][0]["level_mib"] == 500
    cancelled(rig, "small")
    audit(rig)


def test_a_daemon_that_died_while_it_waited_looks_again(rig: Rig) -> None:
    """What was seen before the kill is old: the next daemon looks itself, and waits no longer than was promised."""
    smi = StandInSmi(rig.home, TAKEN)
    rig.start("--kill", "after:resource.wait_started", PATH=smi.path)
    submitted(rig, 0)
    assert rig.ended() == -9
    smi.says(IDLE)
    rig.start(PATH=smi.path)
    assert rig.seen("lease.granted").payload["gpus"][0]["uuid"] == "GPU-a"
    assert len(rig.events("resource.wait_started")) == 1
    cancelled(rig, "small")
    audit(rig)


@pytest.mark.slow
def test_what_happens_while_no_daemon_runs_disturbs_no_sample_that_is_over(rig: Rig) -> None:
    """The watcher outlives the daemon: readings after the end of the load generator say nothing about its run."""
    smi = StandInSmi(rig.home, IDLE)
    rig.start(PATH=smi.path)
    submitted(rig, 0)
    run = rig.until(lambda: next(iter(rig.paths.runs.rglob("bench-chat-0/pid.json")), None), "a sample runs").parent
    rig.kill()
    rig.until(lambda: (run / "exit.json").exists(), "the load generator is done")
    log = run.with_name("bench-chat-0-gpus") / "stdout.log"
    for card in (IDLE, TAKEN):
        smi.says(card)
        lines = log.read_text().count("\n")
        rig.until(lambda lines=lines: log.read_text().count("\n") > lines + 2, "the watcher goes on")
    rig.start(PATH=smi.path)
    finished = rig.seen("benchmark.finished").payload
    assert rig.events("benchmark.disturbed") == [] and finished["gpus"]["gpus"][0]["foreign_pids"] == []
    assert any(each["gpus"][0]["processes"] for each in readings(rig, finished["gpus"])), "all of them are kept"
    smi.says(IDLE)
    cancelled(rig, "small")
    audit(rig)


def test_another_card_under_the_same_number_is_found_at_a_resume(rig: Rig) -> None:
    """What was measured on the other card does not count: the campaign starts over, and says why."""
    smi = StandInSmi(rig.home, IDLE)
    rig.start(PATH=smi.path)
    submitted(rig, 0)
    rig.seen("preflight.passed")
    rig.client.post("/v1/campaigns/small/pause", {"reason": "a new card"})
    rig.until(lambda: rig.c.phase == "paused" and not rig.c.lease, "the lease is back")
    smi.says(Card(uuid="GPU-new"))
    rig.client.post("/v1/campaigns/small/resume")
    found = rig.seen("resume.mismatch").payload
    assert found == {"what": "leased GPUs", "expected": "0: GPU-a", "found": "0: GPU-new"}
    assert rig.seen("lease.granted", count=2).payload["gpus"][0]["uuid"] == "GPU-new"
    cancelled(rig, "small")
    audit(rig)


@pytest.mark.slow
def test_a_throttled_sample_is_measured_again(rig: Rig) -> None:
    """Clocks that heat held down, by the driver's own counter, and errors that came up make a sample void."""
    smi = StandInSmi(rig.home, IDLE)
    rig.start(PATH=smi.path)
    submitted(rig, 0)
    rig.until(lambda: any(rig.paths.runs.rglob("bench-chat-0-gpus/stdout.log")), "the GPUs are watched")
    rig.until(lambda: any(p.stat().st_size for p in rig.paths.runs.rglob("bench-chat-0-gpus/stdout.log")), "read")
    smi.says(Card(used=500, hot_us=900_000, corrected=3))
    disturbed = rig.seen("benchmark.disturbed").payload
    assert "GPU 0 was held down (hw thermal slowdown) for 900 ms" in disturbed["reasons"]
    assert "GPU 0: corrected ECC errors grew from 0 to 3" in disturbed["reasons"]
    figures = disturbed["gpus"]["gpus"][0]
    assert (figures["throttled_ms"], figures["ecc_corrected"]) == ({"hw_thermal_slowdown": 900.0}, 3)
    assert rig.seen("benchmark.finished").payload["gpus"]["gpus"][0]["ecc_corrected"] == 0
    cancelled(rig, "small")
    audit(rig)
