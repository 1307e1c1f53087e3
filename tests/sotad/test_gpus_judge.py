"""Which readings of GPUs make a sample untrusted, and in which words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.hosts.gpus import Gpu, Limits, Process, Reading, disturbances, occupied

DATA = Path(os.environ.get("SOTAD_DATA") or Path(__file__).parents[3] / "shared" / "data")
OURS = {100, 101}
IDLE = Gpu(
    index=0,
    uuid="GPU-a",
    name="Card",
    memory_used_mib=4,
    utilization_pct=0,
    sm_clock_mhz=345,
    memory_clock_mhz=405,
    power_limit_w=700.0,
    application_sm_clock_mhz=1980,
    throttled_us={"sw_power_cap": 1000, "hw_thermal_slowdown": 0},
    ecc_corrected=2,
    ecc_uncorrected=0,
    mig=False,
)
BUSY = replace(
    IDLE,
    memory_used_mib=120_000,
    utilization_pct=100,
    sm_clock_mhz=1980,
    memory_clock_mhz=3201,
    throttles=("sw_power_cap",),
    processes=(Process(100, "server", 119_000),),
)


def reading(*gpus: Gpu, **more: Any) -> Reading:
    return Reading(time_ns=0, source="nvml", gpus=gpus, **more)


def judged(
    during: Mapping[str, Any] | None = None, after: Mapping[str, Any] | None = None, limits: Limits | None = None
) -> list[str]:
    """What is found when an idle GPU is measured on, with these values changed during or after."""
    readings = (reading(BUSY), reading(replace(BUSY, **(during or {}))))
    return disturbances(reading(IDLE), readings, reading(replace(IDLE, **(after or {}))), OURS, limits or Limits())


def test_an_undisturbed_sample_counts() -> None:
    """Load, our own processes, idle clocks before and after, and a power cap under load are all ordinary."""
    later = {"sw_power_cap": 9_000_000, "hw_thermal_slowdown": 40_000}
    assert judged({"sm_clock_mhz": 1575}, {"memory_used_mib": 504, "throttled_us": later}) == []
    assert judged({"memory_clock_mhz": 3199}) == []


def test_our_own_server_may_take_more_memory() -> None:
    """An H200's servers grew by 650 to 1130 MiB under their first load; that is no other process."""
    before = replace(BUSY, memory_used_mib=122_509, processes=(Process(100, "server", 122_000),))
    grown = replace(before, memory_used_mib=123_639, processes=(Process(100, "server", 123_130),))
    assert disturbances(reading(before), (), reading(grown), OURS) == []
    beside = replace(grown, memory_used_mib=124_639)
    assert "memory of others" in disturbances(reading(before), (), reading(beside), OURS)[0]


def test_memory_whose_owner_nobody_shows_may_grow_a_little() -> None:
    """In a container the driver shows no process: then only growth that a server does not explain counts."""
    unseen = replace(BUSY, memory_used_mib=122_509, memory_total_mib=143_771, processes=())
    assert disturbances(reading(unseen), (), reading(replace(unseen, memory_used_mib=124_000)), OURS) == []
    assert disturbances(reading(unseen), (), reading(replace(unseen, memory_used_mib=132_000)), OURS)
    silent = replace(BUSY, processes=(Process(100, "server"),))
    assert disturbances(reading(silent), (), reading(replace(silent, memory_used_mib=130_000)), OURS) == []


@pytest.mark.parametrize(
    ("during", "after", "words"),
    [
        ({"processes": (Process(7, "train.py", 900),)}, {}, "foreign process during: pid 7 train.py, 900 MiB"),
        ({}, {"processes": (Process(7),)}, "foreign process after: pid 7"),
        ({}, {"memory_used_mib": 505}, "memory of others is not back to its level: 4 MiB before, 505 MiB after"),
        ({}, {"throttled_us": {"hw_thermal_slowdown": 51_000}}, "held down (hw thermal slowdown) for 51 ms"),
        ({"throttles": ("sw_thermal_slowdown",)}, {}, "held down (sw thermal slowdown) in 1 of 4 readings"),
        ({"throttles": ("hw_power_brake_slowdown",)}, {}, "held down (hw power brake slowdown)"),
        ({}, {"ecc_corrected": 3}, "corrected ECC errors grew from 2 to 3"),
        ({}, {"ecc_uncorrected": 1}, "uncorrected ECC errors grew from 0 to 1"),
        ({"power_limit_w": 500.0}, {}, "power limit (W) changed from 700.0 to 500.0"),
        ({}, {"application_sm_clock_mhz": 1200}, "SM clock setting (MHz) changed from 1980 to 1200"),
        ({}, {"mig": True}, "MIG mode changed from False to True"),
        ({"memory_clock_mhz": 2619}, {}, "memory clock changed under load, 2619 to 3201 MHz"),
        ({"sm_clock_mhz": 1200}, {}, "SM clock changed under load, 1200 to 1980 MHz"),
    ],
)
def test_each_disturbance_has_its_words(during: Mapping[str, Any], after: Mapping[str, Any], words: str) -> None:
    """One cause gives one reason, which names GPU, cause and figures."""
    (found,) = judged(during, after)
    assert found.startswith("GPU 0") and words in found


def test_a_power_cap_counts_when_asked_to() -> None:
    """Who holds clocks fixed may want a power cap to spoil the sample."""
    (found,) = judged({}, {"throttled_us": {"sw_power_cap": 500_000}}, Limits(power_cap=True))
    assert "held down (sw power cap) for 499 ms" in found


def test_a_gpu_that_vanishes_is_named() -> None:
    """A card that falls off the bus, or a reader that fails, spoils the sample; each is said once."""
    other = replace(IDLE, index=1, uuid="GPU-b")
    gone = reading(IDLE, missing=(1,))
    assert disturbances(reading(IDLE, other), [gone, gone], gone, OURS) == [
        "GPU 1 (GPU-b) is missing during",
        "GPU 1 (GPU-b) is missing after",
    ]
    dead = Reading(time_ns=0, source="none", problem="NVML does not answer: GPU is lost")
    assert disturbances(reading(IDLE), [], dead, OURS) == [
        "GPU 0 (GPU-a) is missing after: NVML does not answer: GPU is lost"
    ]
    assert disturbances(gone, [], gone, OURS) == ["GPU 1 is missing before", "GPU 1 is missing after"]
    blind = replace(dead, problem="nvidia-smi does not answer")
    assert disturbances(blind, [], reading(IDLE), OURS) == [
        "GPU 0 (GPU-a) is missing before: nvidia-smi does not answer"
    ]


def test_a_host_without_gpus_is_never_disturbed() -> None:
    """Nothing is asked of a host that has no GPU and was asked for none."""
    none = Reading(time_ns=0, source="none", problem="no nvidia-smi on PATH")
    assert disturbances(none, [none], none, OURS) == [] == occupied(none)


def test_occupied_gpus_are_found_before_a_launch() -> None:
    """A foreign process, and memory or load that no visible process explains; a display server's few MiB are let be."""
    assert occupied(reading(IDLE)) == []
    assert occupied(reading(replace(IDLE, processes=(Process(7, "Xorg", 20),)))) == []
    assert occupied(reading(BUSY)) == ["GPU 0 has a foreign process: pid 100 server, 119000 MiB"]
    assert occupied(reading(BUSY), OURS) == []
    hidden = replace(BUSY, processes=())
    assert occupied(reading(hidden)) == [
        "GPU 0 has 120000 MiB in use by a process that is not visible here",
        "GPU 0 is busy (100%) with a process that is not visible here",
    ]
    assert occupied(reading(missing=(3,))) == ["GPU 3 is missing"]


@pytest.mark.parametrize("framework", ["vllm", "sgl"])
def test_real_benchmarks_of_an_h200_were_undisturbed(framework: str) -> None:
    """Clocks as `nvidia-smi dmon` recorded them second by second under real load pass with the default limits."""
    path = DATA / "h200" / framework / "dmon-1000-1000.txt"
    if not path.exists():
        pytest.skip(f"no {path}")
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    assert any(row[4] == "100" for row in rows)
    during = [
        reading(replace(BUSY, utilization_pct=int(row[4]), memory_clock_mhz=int(row[10]), sm_clock_mhz=int(row[11])))
        for row in rows
    ]
    assert disturbances(reading(IDLE), during, reading(IDLE), OURS) == []


@given(st.sets(st.integers(1, 50), max_size=6), st.sets(st.integers(1, 50), max_size=6))
def test_foreign_is_what_is_not_ours(present: set[int], ours: set[int]) -> None:
    """Exactly the heavy processes outside our set are named."""
    crowd = replace(IDLE, processes=tuple(Process(pid, "p", 64) for pid in sorted(present)))
    found = occupied(reading(crowd), ours)
    assert [int(reason.split("pid ")[1].split()[0]) for reason in found] == sorted(present - ours)
