"""GPUs around a measurement, in a real campaign. The machine has none: a fake nvidia-smi prints what a file says."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rig.audit import audit
from rig.campaign import Rig

CARD = """
==============NVSMI LOG==============

Driver Version                            : 580.0
Attached GPUs                             : 1
GPU 00000000:3B:00.0
    Product Name                          : Fake Card
    GPU UUID                              : GPU-fake
    FB Memory Usage
        Total                             : 81920 MiB
        Used                              : {used} MiB
    Utilization
        Gpu                               : 0 %
    Processes{processes}
"""
IDLE = CARD.format(used=500, processes="                             : None")
TRAINING = """
        Process ID                        : 4242
            Type                          : C
            Name                          : training
            Used GPU Memory               : 40000 MiB"""
TAKEN = CARD.format(used=40500, processes=TRAINING)


class FakeGpu:
    """What nvidia-smi says from now on; changed at once, so that no reader sees half of it."""

    def __init__(self, home: Path) -> None:
        self._text, folder = home / "nvidia-smi.txt", home / "bin"
        folder.mkdir()
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nexec cat {self._text}\n")
        program.chmod(0o755)
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def says(self, text: str) -> None:
        draft = self._text.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self._text)


def test_a_launch_waits_for_idle_gpus_and_a_disturbed_sample_is_repeated(rig: Rig) -> None:
    """Somebody else's process: no launch while it is there, and what it disturbed is thrown out and measured again."""
    gpu = FakeGpu(rig.home)
    gpu.says(TAKEN)
    rig.start(PATH=gpu.path)
    rig.submit(goal="compare", hardware={"gpu_type": "fake", "gpu_ids": [0]})
    rig.until(lambda: any(rig.paths.runs.rglob("gpus-idle-1/exit.json")), "the GPUs were looked at twice")
    assert rig.events("candidate.launched") == []
    gpu.says(IDLE)
    rig.seen("candidate.launched")
    rig.until(lambda: any(rig.paths.runs.rglob("bench-chat-0-gpus/stdout.log")), "the GPUs are watched")
    gpu.says(TAKEN)
    disturbed = rig.seen("benchmark.disturbed").payload
    gpu.says(IDLE)
    assert any("foreign process" in reason and "4242 training" in reason for reason in disturbed["reasons"])
    finished = rig.seen("benchmark.finished").payload
    assert (finished["launch"], finished["run"]) == (disturbed["launch"], disturbed["run"])
    asked = [json.loads(path.read_text()) for path in rig.paths.runs.rglob("bench-chat-0*/spec.json.in")]
    seeds = {spec["scenario"]["seed"] for spec in asked}
    assert len(seeds) == len(asked) > 1, "the same prompts again would come from the server's prefix cache"
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)
