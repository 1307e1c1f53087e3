"""Leases of GPUs by number: which campaigns may run beside each other, and what a sample on GPUs owes."""

from __future__ import annotations

from typing import Any

import pytest
from script import JSON, spec_with
from simulation import Simulation

from statemachine.decide import Do, decide
from statemachine.machine import IllegalEvent, admit
from statemachine.state import from_json, to_json


def on_gpus(*ids: int, version: int | None = 1, **changes: JSON) -> JSON:
    """A spec of the present rules on these GPUs; ``version`` None is a spec of an earlier release."""
    spec = spec_with(hardware={"gpu_ids": list(ids)}, **changes)
    return spec | ({"leases": version} if version else {})


def asking(spec: JSON, **more: Any) -> Simulation:
    """A campaign that asks for its lease."""
    sim = Simulation(spec=spec, **more)
    sim.run(until=lambda s: isinstance(decide(s.c)[0], Do) and "lease/0" in s.c.jobs)
    return sim


def refused(sim: Simulation, type_: str, payload: JSON) -> IllegalEvent:
    with pytest.raises(IllegalEvent) as caught:
        admit(sim.world, sim.name, type_, payload, sim.now_ns)
    return caught.value


def lease_of(*found: tuple[int, str], host: str = "local") -> JSON:
    gpus = [{"index": index, "uuid": uuid, "level_mib": 4} for index, uuid in found]
    return {"host": host, "gpu_ids": [index for index, _ in found], "gpus": gpus}


@pytest.mark.parametrize(
    ("first", "second", "beside"),
    [((0,), (1,), True), ((0, 1), (1, 2), False), ((0,), (), False), ((), (3,), False), ((0,), (0,), False)],
)
def test_disjoint_gpus_of_a_host_are_leased_at_once(first: tuple[int], second: tuple[int], beside: bool) -> None:
    """Two campaigns run beside each other when no GPU is in both; none named is the whole host."""
    one = Simulation(spec=on_gpus(*first))
    one.run(until=lambda s: bool(s.c.lease))
    two = asking(on_gpus(*second), name="second", world=one.world, events=one.events)
    lease = lease_of(*((n, f"GPU-{n}") for n in second))
    if beside:
        two.record("lease.granted", lease)
        assert one.c.lease["gpu_ids"] == list(first) and two.c.lease["gpu_ids"] == list(second)
    else:
        found = refused(two, "lease.granted", lease)
        assert (found.guard, found.missing) == ("host_free", "lease.released by campaign demo")


@pytest.mark.parametrize(
    "lease",
    [
        lease_of((0, "GPU-0")),
        lease_of((0, "GPU-0"), (2, "GPU-2")),
        lease_of((0, "GPU-0"), (1, "GPU-1"), (2, "GPU-2")),
        {"host": "local", "gpu_ids": [0, 1]},
        {**lease_of((0, "GPU-0"), (1, "GPU-1")), "gpus": [{"index": 0, "uuid": "GPU-0", "level_mib": 4}]},
    ],
)
def test_never_fewer_or_other_gpus_than_the_spec_names(lease: JSON) -> None:
    """A lease is of all GPUs of the spec and of no others, each by its uuid."""
    sim = asking(on_gpus(0, 1))
    assert refused(sim, "lease.granted", lease).guard == "lease_of_spec"
    sim.record("lease.granted", lease_of((0, "GPU-0"), (1, "GPU-1")))
    assert set(sim.c.gpus) == {"GPU-0", "GPU-1"}


def test_a_later_lease_is_of_the_same_cards() -> None:
    """Another card under the same number is refused, and the first level stays; a resume that found it starts over."""
    sim = Simulation(spec=on_gpus(0))
    sim.run(until=lambda s: s.c.phase == "searching")
    sim.record("campaign.paused", {"reason": "a break"})
    sim.run(until=lambda s: not s.c.lease)
    assert sim.c.gpus["GPU-0"]["level_mib"] == 4
    sim.record("campaign.resumed", {"checks": []})
    sim.run(until=lambda s: isinstance(decide(s.c)[0], Do) and s.c.jobs.get("lease/1") is not None)
    found = refused(sim, "lease.granted", lease_of((0, "GPU-new")))
    assert (found.guard, found.missing) == ("lease_of_spec", "the GPUs that were leased first: GPU-0")
    higher = lease_of((0, "GPU-0"))
    higher["gpus"][0]["level_mib"] = 9000
    sim.record("lease.granted", higher)
    assert sim.c.gpus["GPU-0"]["level_mib"] == 4, "what the campaign left there is not its level"
    sim.record("campaign.paused", {"reason": "another card"})
    sim.record("resume.mismatch", {"what": "leased GPUs", "expected": "0: GPU-0", "found": "0: GPU-new"})
    sim.record("campaign.resumed", {"checks": []})
    assert (sim.c.phase, sim.c.gpus) == ("intake", {})


def test_a_lease_of_another_world_is_given_back_first() -> None:
    """Resumed before the halted campaign let go: its GPUs are not known any more, and are leased anew."""
    sim = Simulation(spec=on_gpus(0))
    sim.run(until=lambda s: s.c.phase == "searching" and any(j.status == "running" for j in s.c.jobs.values()))
    sim.record("campaign.paused", {"reason": "another card"})
    sim.record("resume.mismatch", {"what": "leased GPUs", "expected": "0: GPU-0", "found": "0: GPU-new"})
    sim.record("campaign.resumed", {"checks": []})
    assert sim.c.lease and not sim.c.gpus
    sim.run(until=lambda s: bool(s.c.gpus))
    tail = [event.type for event in sim.events]
    assert tail.index("lease.released") < len(tail) - 1 - tail[::-1].index("lease.granted")
    assert "benchmark.finished" not in tail[tail.index("campaign.resumed") :]


def test_a_launch_begins_at_the_level_of_its_gpus() -> None:
    """A launch that says what its GPUs hold is refused above their level, on others, and on fewer."""
    sim = Simulation(spec=on_gpus(0, 1))
    sim.run(until=lambda s: any(j.activity == "launch" and j.status == "running" for j in s.c.jobs.values()))
    launched = next(
        event.payload for event in Simulation(spec=on_gpus(0, 1)).run().events if event.type == "candidate.launched"
    )
    for gpus, missing in (
        ([(0, 4), (1, 505)], "GPU 1 at its level of 4 MiB, not at 505 MiB"),
        ([(0, 4), (1, None)], "GPU 1 at its level of 4 MiB, not at None MiB"),
        ([(0, 4)], "the leased GPUs: GPU-0, GPU-1"),
        ([(0, 4), (7, 4)], "the leased GPUs: GPU-0, GPU-1"),
    ):
        seen = [{"index": n, "uuid": f"GPU-{n}", "memory_mib": mib} for n, mib in gpus]
        found = refused(sim, "candidate.launched", {**launched, "gpus": seen})
        assert (found.guard, found.missing) == ("gpus_given_back", missing)
    seen = [{"index": n, "uuid": f"GPU-{n}", "memory_mib": 504} for n in (0, 1)]
    admit(sim.world, sim.name, "candidate.launched", {**launched, "gpus": seen}, sim.now_ns)


@pytest.mark.parametrize("version", [1, None])
def test_a_sample_on_gpus_counts_with_its_readings_only(version: int | None) -> None:
    """Without readings, with too few, or with those of other GPUs it is refused; older specs owe none."""
    sim = Simulation(spec=on_gpus(0, version=version))
    sim.run(until=lambda s: s.events[-1].type == "benchmark.started")
    finished = next(e.payload for e in Simulation(spec=on_gpus(0)).run().events if e.type == "benchmark.finished")
    watched = finished["gpus"]
    bad = [
        {key: value for key, value in finished.items() if key != "gpus"},
        {**finished, "gpus": {**watched, "readings": 1}},
        {**finished, "gpus": {**watched, "gpus": [{"uuid": "GPU-other"}]}},
    ]
    for payload in bad if version else ():
        assert refused(sim, "benchmark.finished", payload).guard == "gpus_watched"
    for payload in [finished] if version else [finished, *bad]:
        admit(sim.world, sim.name, "benchmark.finished", payload, sim.now_ns)
    assert from_json(to_json(sim.world)) == sim.world


def test_a_launch_that_nobody_saw_idle_measures_nothing() -> None:
    """The evidence of its launch is part of a sample's."""
    sim = Simulation(spec=on_gpus(0))
    sim.run(until=lambda s: s.events[-1].type == "benchmark.started")
    finished = next(e.payload for e in Simulation(spec=on_gpus(0)).run().events if e.type == "benchmark.finished")
    sim.c.launches[finished["launch"]].gpus = []
    found = refused(sim, "benchmark.finished", finished)
    assert (found.guard, found.missing) == ("gpus_watched", "a launch that found its GPUs idle")


def test_waiting_for_leased_gpus_is_on_record_and_ends() -> None:
    """Who holds a host without GPUs has nothing to wait for; who holds GPUs may, until the wait is said to be over."""
    sim = Simulation(spec=on_gpus(0))
    sim.run(until=lambda s: bool(s.c.lease))
    sim.record("resource.wait_started", {"holder": "pid 7 train", "deadline_ns": 9})
    assert sim.c.waiting["holder"] == "pid 7 train"
    sim.record("resource.wait_ended", {"waited_s": 1.5})
    assert sim.c.waiting == {}
    whole = Simulation(spec=on_gpus())
    whole.run(until=lambda s: bool(s.c.lease))
    found = refused(whole, "resource.wait_started", {"holder": "x", "deadline_ns": 9})
    assert found.guard == "waits_for_something"


def test_gpus_that_stay_in_use_block_for_want_of_resources() -> None:
    """The reason names who has them at the end of the wait, and a resume asks for the lease again."""
    sim = asking(on_gpus(0))
    sim.record("resource.wait_started", {"holder": "pid 7 train", "deadline_ns": 9})
    over = {"deadline_ns": 9, "reasons": ["GPU 0 has a foreign process: pid 8 other"]}
    sim.record("resource.wait_expired", over)
    assert sim.c.blocked["kind"] == "resources" and "pid 8 other" in sim.c.blocked["reason"]


def test_what_was_there_before_the_clean_up_is_said_once() -> None:
    """A daemon that dies half-way finds less than there was: the first account stands."""
    sim = Simulation()
    sim.run(until=lambda s: s.c.phase == "searching")
    first: JSON = {"processes": [{"pid": 7}], "gpus": [], "folders": []}
    sim.record("cleanup.started", first)
    sim.record("cleanup.started", {**first, "processes": []})
    assert sim.c.cleanup["processes"] == [{"pid": 7}]
