"""Clean-up of real campaigns: what they started, made and downloaded goes, other people's stays, all on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rig.audit import audit
from rig.campaign import JSON, Rig
from rig.gpus import Card, StandInSmi

FETCHING = (
    'mkdir -p "$HF_HOME/hub/models--standin" && echo weights > "$HF_HOME/hub/models--standin/blob" && '
    f"exec {sys.executable} -m refengine --host 127.0.0.1 --port {{port}} --model-name standin"
)


def fates(rig: Rig) -> dict[str, str]:
    """What became of each folder, by its last part."""
    (cleaned,) = rig.events("cleanup.finished")
    return {Path(each["path"]).parent.name: each["fate"] for each in cleaned.payload["folders"]}


@pytest.mark.parametrize(
    "kill", ["", "after:cleanup.started", pytest.param("before:cleanup.finished", marks=pytest.mark.slow)]
)
def test_what_a_campaign_started_ends_and_nothing_else_does(rig: Rig, kill: str) -> None:
    """A leftover of a run is ended and named, whoever died meanwhile; a stranger in the same folder lives on."""
    smi = StandInSmi(rig.home, Card(used=300))
    rig.start(*(("--kill", kill) if kill else ()), PATH=smi.path)
    hardware = {"gpu_type": "card", "gpu_ids": [0]}
    rig.submit(hardware=hardware, frameworks__fork__candidates=[{"id": "only", "flags": {"slow": 200.0}}])
    rig.seen("benchmark.started")
    run = next(rig.paths.runs.rglob("server/pid.json")).parent
    token = json.loads((run / "pid.json").read_text())["token"]
    with (
        subprocess.Popen(["sleep", "300"], env={**os.environ, "SOTAD_RUN": token}) as leftover,
        subprocess.Popen(["tail", "-f", str(run / "stdout.log")], cwd=run, stdout=subprocess.DEVNULL) as stranger,
    ):
        try:
            smi.says(Card(used=300, processes=((stranger.pid, "viewer", 30),)))
            rig.client.post("/v1/campaigns/small/cancel")
            if kill:
                assert rig.ended() == -9
                assert rig.events("cleanup.finished") == []
                rig.start(PATH=smi.path)
            rig.seen("campaign.closed")
            assert leftover.wait(5) == -9 and stranger.poll() is None
        finally:
            leftover.kill()
            stranger.kill()
    cleaned: JSON = rig.events("cleanup.finished")[0].payload
    assert leftover.pid in [each["pid"] for each in cleaned["before"]]
    assert stranger.pid not in [each["pid"] for each in cleaned["before"]]
    assert cleaned["after"] == [] == cleaned["left"]
    gpu = {"index": 0, "uuid": "GPU-a", "level_mib": 300, "before_mib": 300, "after_mib": 300}
    assert cleaned["gpus"] == [{**gpu, "holders": f"pid {stranger.pid} viewer 30 MiB"}]
    assert fates(rig)["worktrees"] == "removed" and fates(rig)["runs"] == "kept: the record of its runs"
    assert not (rig.paths.root / "worktrees" / "small").exists() and cleaned["runs"]["stopped"] >= 2
    text = (rig.paths.root / "reports" / "small" / "final_report.md").read_text()
    assert f"pid: {leftover.pid}" in text and "| 0 | GPU-a | 300 | 300 | 300 |" in text
    audit(rig)


@pytest.mark.parametrize("there_before", [False, True])
def test_a_model_that_was_not_there_before_goes_with_the_campaign(rig: Rig, there_before: bool) -> None:
    """What its servers fetched is removed; a model that somebody had already is not touched."""
    hub = rig.home / "hf" / "hub"
    (hub / "models--other").mkdir(parents=True)
    if there_before:
        (hub / "models--standin").mkdir()
    env = {"HF_HOME": str(hub.parent), "PYTHONPATH": str(rig.leader)}
    upstream = {"kind": "openai", "role": "competitor", "command": ["sh", "-c", FETCHING], "env": env}
    rig.start()
    rig.submit(goal="compare", frameworks__upstream={**upstream, "candidates": [{"id": "only"}]})
    assert rig.seen("downloads.listed").payload["folders"] == [
        {"path": str(hub / "models--standin"), "there": there_before}
    ]
    rig.until(lambda: (hub / "models--standin" / "blob").exists(), "the model is there")
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    assert (hub / "models--standin").exists() == there_before and (hub / "models--other").exists()
    assert fates(rig)["hub"] == ("kept: it was there before" if there_before else "removed")
    audit(rig)
