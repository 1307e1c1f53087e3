"""Leased GPUs in recorded answers of NVML and nvidia-smi, and what the readings of a sample come to."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.gpus import TRAINING, Card, said
from rig.nvml import StandInNvml

from sotad.activities.gpu_watch import _readings
from sotad.hosts.gpus import Reading, looking
from sotad.hosts.gpus_judge import disturbances
from sotad.hosts.gpus_lease import identities, leased, strayed, unfit, unreturned, visible
from sotad.hosts.gpus_sample import host_cpu, longest_gap_s, summary, until
from sotad.hosts.gpus_smi import parse

DATA = Path(os.environ.get("SOTAD_DATA") or Path(__file__).parents[3] / "shared" / "data")
REAL = DATA / "h200" / "meta" / "nvidia-smi-q.txt"
OURS = {100}
SERVER = (100, "VLLM::EngineCore", 119_000)
SERVING = Card(used=119_600, busy=100, processes=(SERVER,))


def read(*cards: Card, at_s: float = 0.0) -> Reading:
    """A reading of what nvidia-smi says of these cards."""
    driver, gpus = parse(said(*cards))
    return Reading(time_ns=int(at_s * 1e9), source="nvidia-smi", driver=driver, gpus=gpus)


BUSY = "GPU 0 is busy (60%) with a process that is not visible here"
LEVEL = identities(read(Card(used=500), Card(uuid="GPU-b")))


@pytest.mark.parametrize(
    ("cards", "reasons"),
    [
        ((Card(used=500), Card(uuid="GPU-b")), []),
        ((Card(used=1000), Card(uuid="GPU-b", processes=((7, "Xorg", 20),))), []),
        ((Card(used=500), Card(uuid="GPU-b"), Card(uuid="GPU-c", processes=(TRAINING,))), []),
        (
            (Card(used=40_500, processes=(TRAINING,)), Card(uuid="GPU-b")),
            ["GPU 0 has a foreign process: pid 4242 training, 40000 MiB"],
        ),
        (
            (Card(used=1001), Card(uuid="GPU-b")),
            ["GPU 0 holds 1001 MiB, 500 MiB before the campaign's first launch: no process that is visible here"],
        ),
        (
            (Card(used=500), Card(uuid="GPU-b", used=600, processes=((7, "Xorg", 20), (8, "shell", 30)))),
            ["GPU 1 holds 600 MiB, 4 MiB before the campaign's first launch: pid 7 Xorg 20 MiB, pid 8 shell 30 MiB"],
        ),
        (
            (Card(used=500), Card(uuid="GPU-b", used=30_000, processes=((7, "Xorg", 20),))),
            ["GPU 1 has 29980 MiB in use by a process that is not visible here"],
        ),
        (
            (Card(used=500, busy=60), Card(uuid="GPU-b")),
            ["GPU 0 is busy (60%) with a process that is not visible here"],
        ),
        ((Card(used=500), Card(uuid="GPU-new")), ["GPU 1 (GPU-b) is GPU-new now"]),
        ((Card(used=500),), ["GPU 1 (GPU-b) is missing"]),
        ((Card(uuid="GPU-b"), Card(used=500)), ["GPU 0 (GPU-a) is GPU-b now", "GPU 1 (GPU-b) is GPU-a now"]),
    ],
)
def test_why_nothing_may_be_launched(cards: tuple[Card, ...], reasons: list[str]) -> None:
    """Who is on a leased GPU, what it holds beyond its level, which card is gone; others' GPUs are no reason."""
    assert unfit(read(*cards), LEVEL) == reasons


def test_a_host_that_cannot_be_read_has_none_of_the_leased_gpus() -> None:
    """Why nothing could be read is said for each of them."""
    dead = Reading(time_ns=0, source="none", problem="NVML does not start: Driver Not Loaded")
    assert unfit(dead, LEVEL[:1]) == ["GPU 0 (GPU-a) is missing: NVML does not start: Driver Not Loaded"]


def test_somebody_elses_process_as_nvml_tells_of_it() -> None:
    """The stand-in module's answers: idle they can be leased, with a foreign process they cannot, level or not."""
    with looking("nvml", StandInNvml(processes=(), used=2**29)) as now:
        gpus = identities(now())
    known = {"index": 0, "uuid": "GPU-handle-0", "name": "Fake Card", "memory_total_mib": 81_920, "level_mib": 512}
    assert gpus == [known]
    with looking("nvml", StandInNvml(processes=((9, 2**30),), used=2**30 + 2**29)) as now:
        assert unfit(now(), gpus) == ["GPU 0 has a foreign process: pid 9 server, 1024 MiB"]
    with looking("nvml", StandInNvml(processes=((5, None),), used=2**29)) as now:
        assert unfit(now(), gpus) == ["GPU 0 has a foreign process: pid 5"]


def test_the_process_of_a_real_h200_is_somebody_elses_or_ours() -> None:
    """A recorded answer with an engine on the card: not to be launched upon, undisturbed when the engine is ours."""
    if not REAL.exists():
        pytest.skip(f"no {REAL}")
    driver, gpus = parse(REAL.read_text())
    found = Reading(time_ns=0, source="nvidia-smi", driver=driver, gpus=gpus)
    empty = [{**gpu, "level_mib": 4} for gpu in identities(found)]
    assert unfit(found, empty) == ["GPU 0 has a foreign process: pid 4137 sglang::scheduler, 682 MiB"]
    assert disturbances(found, [found], found, {4137}) == []
    (figures,) = summary([found, found], {4137})
    assert (figures["memory_mib"], figures["power_w"], figures["used"]) == ([692, 692, 692], 119.3, True)
    assert figures["foreign_pids"] == [] and figures["throttled_ms"] == {}
    assert summary([found, found], set())[0]["foreign_pids"] == [4137]


def test_what_a_sample_had_of_its_hosts_cpu() -> None:
    """Cores on the mean between first and last reading; what a system does not count is left out, never zero."""
    counts = (
        {"busy_s": 100.0, "stolen_s": 7.0},
        {"busy_s": 101.0, "stolen_s": 7.0},
        {"busy_s": 108.0, "stolen_s": 7.5},
    )
    found = [replace(read(at_s=at), cpu=cpu) for at, cpu in zip((0, 1, 4), counts, strict=True)]
    assert host_cpu(found) == {"busy_cores": 2.0, "stolen_cores": 0.12}
    assert host_cpu([replace(each, cpu={"busy_s": each.cpu["busy_s"]}) for each in found]) == {"busy_cores": 2.0}
    assert host_cpu(found[:1]) == host_cpu([read(at_s=0), read(at_s=1)]) == {}


def test_what_a_sample_comes_to() -> None:
    """A few figures for each card; a counter that stood still is no throttling, and unknown is null, never zero."""
    before, after = Card(used=500), replace(SERVING, hot_us=70_000, corrected=2, used=119_700)
    own = [leased(read(card), LEVEL[:1]) for card in (before, SERVING, after)]
    (figures,) = summary(own, OURS)
    assert figures == {
        "index": 0,
        "uuid": "GPU-a",
        "memory_mib": [500, 119_700, 119_700],
        "utilization_pct": 66.7,
        "power_w": 119.3,
        "power_w_most": 119.29,
        "temperature_c_most": 40,
        "sm_clock_mhz": [1980, 1980],
        "memory_clock_mhz": [3201, 3201],
        "throttles": [],
        "throttled_ms": {"hw_thermal_slowdown": 70.0},
        "ecc_corrected": 2,
        "ecc_uncorrected": 0,
        "used": True,
        "foreign_pids": [],
    }
    bare = Reading(time_ns=0, source="nvml", gpus=(replace(own[0].gpus[0], ecc_corrected=None, power_w=None),))
    (unknown,) = summary([bare, bare], OURS)
    assert (unknown["ecc_corrected"], unknown["power_w"], unknown["used"]) == (None, None, None)


def test_our_own_process_on_a_gpu_that_is_not_leased() -> None:
    """What a server does on another card is no measurement of this one; strangers there are nobody's business."""
    other = Card(uuid="GPU-c", processes=(SERVER, TRAINING))
    assert strayed([read(Card(used=500), other)], LEVEL[:1], OURS) == [
        "GPU 1 (GPU-c) is used by our own pid 100 VLLM::EngineCore and is not leased"
    ]
    assert strayed([read(SERVING)], LEVEL[:1], OURS) == []


def test_what_happens_after_a_sample_does_not_disturb_it() -> None:
    """A watcher goes on while no daemon runs: the first reading after the end of the run is the last that counts."""
    readings = [read(SERVING, at_s=second) for second in range(5)]
    readings.append(read(replace(SERVING, processes=(SERVER, TRAINING)), at_s=5))
    assert until(readings, int(3.5e9)) == readings[:5] and until(readings, None) == readings
    assert longest_gap_s([readings[0], readings[1], readings[4]]) == 3.0


@pytest.mark.parametrize(
    ("card", "ours", "left"),
    [
        (Card(used=1000), (), False),
        (Card(used=1001), (), True),
        (Card(used=40_900, processes=(TRAINING,)), (), False),
        (Card(used=42_000, processes=(TRAINING,)), (), True),
        (Card(used=40_500, processes=(TRAINING,)), (4242,), True),
    ],
)
def test_what_a_campaign_left_on_a_gpu(card: Card, ours: tuple[int, ...], left: bool) -> None:
    """More than before it, less what processes of others hold: their coming is not our leaving."""
    assert bool(unreturned(read(card), LEVEL[:1], ours)) == left


def test_half_a_line_of_a_watcher_is_no_reading() -> None:
    """A watcher that was killed in the middle of a line leaves the ones before it."""
    lines = [json.dumps(read(SERVING, at_s=second).to_json()) for second in range(3)]
    text = "\n".join(lines[:2]) + "\n" + lines[2][:100]
    assert [reading.time_ns for reading in _readings(text)] == [0, 1_000_000_000]


@given(st.lists(st.integers(0, 15), unique=True, max_size=8))
def test_a_server_sees_the_leased_gpus_alone(ids: list[int]) -> None:
    """By index, in the driver's order; without a lease of GPUs nothing is said."""
    found = visible(ids)
    assert found.get("CUDA_VISIBLE_DEVICES", "") == ",".join(map(str, ids))
    assert ("CUDA_DEVICE_ORDER" in found) == bool(ids)


def test_levels_are_those_of_the_lease() -> None:
    """What a lease says of each card is enough to know it again and to tell when its memory is back."""
    assert [(gpu["index"], gpu["uuid"], gpu["level_mib"]) for gpu in LEVEL] == [(0, "GPU-a", 500), (1, "GPU-b", 4)]
    again: Any = leased(read(Card(used=500), Card(uuid="GPU-b")), LEVEL)
    assert again.missing == () and len(again.gpus) == 2
