"""What a campaign has on its host: its processes by their tokens, its folders, what its servers downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sotad import shim
from sotad.activities import cleanup
from sotad.activities.belongings import download_places, downloaded
from sotad.activities.context import RunLost
from sotad.there import belongings

JSON = dict[str, Any]
SPEC: JSON = {
    "hardware": {"host": "local"},
    "model": {"id": "acme/Acme-9B", "tokenizer": "acme/Acme-9B"},
    "frameworks": {"one": {"kind": "vllm", "env": {}, "env_from": ["HF_TOKEN"]}},
    "cleanup": {"downloads": "remove"},
}
PLACE = "~/.cache/huggingface/hub/models--acme--Acme-9B"


@pytest.fixture
def sleepers() -> Iterator[Any]:
    """Starts real processes with an environment and a working directory; ends them all."""
    with ExitStack() as stack:

        def start(cwd: Path, **env: str) -> subprocess.Popen[bytes]:
            process = stack.enter_context(subprocess.Popen(["sleep", "300"], cwd=cwd, env={**os.environ, **env}))
            stack.callback(process.kill)
            return process

        yield start


def claimed(runs: Path, run: str, token: str, shim_pid: int = 0, **more: Any) -> Path:
    """A run directory with its claim."""
    folder = runs / run
    folder.mkdir(parents=True)
    ticks = belongings._start_ticks(shim_pid)
    claim = {"token": token, "boot_id": shim.boot_id(), "shim_pid": shim_pid, "shim_start_ticks": ticks, **more}
    (folder / "pid.json").write_text(json.dumps(claim))
    return folder


def test_processes_are_told_by_the_token_of_their_run(tmp_path: Path, sleepers: Any) -> None:
    """Ours is what carries a token, and the shim that the claim names; whose folder a process is in says nothing."""
    folder = claimed(tmp_path, "launch/1/server", "token-a")
    ours, strange = sleepers(Path("/"), SOTAD_RUN="token-a"), sleepers(folder, SOTAD_RUN="token-b")
    shim_of = sleepers(Path("/"))
    claimed(tmp_path, "launch/1/bench", "token-c", shim_of.pid)
    claimed(tmp_path, "launch/2/server", "token-b", boot_id="before the last boot")
    found = belongings.processes(tmp_path)
    assert found == sorted(
        (
            {"pid": ours.pid, "command": "sleep 300", "run": "launch/1/server", "shim": False},
            {"pid": shim_of.pid, "command": "sleep 300", "run": "launch/1/bench", "shim": True},
        ),
        key=lambda each: int(str(each["pid"])),
    )
    belongings.end(tmp_path, 2.0)
    assert ours.wait(5) == -9
    assert strange.poll() is None and shim_of.poll() is None, "shims go by themselves, and others are not ours"


def test_the_question_itself_is_no_process_of_the_campaign(tmp_path: Path, sleepers: Any) -> None:
    """Who asks carries a token, too, and must not end itself."""
    claimed(tmp_path, "clean_up/1/after", "asking")
    ours = sleepers(Path("/"), SOTAD_RUN="token-a")
    claimed(tmp_path, "launch/1/server", "token-a")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"runs": str(tmp_path), "end": True, "patience_s": 5}))
    command = [sys.executable, "-I", "-S", belongings.__file__, str(request)]
    done = subprocess.run(command, capture_output=True, timeout=30, env={**os.environ, "SOTAD_RUN": "asking"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == {"processes": [], "folders": [], "problems": []}
    assert ours.wait(5) == -9


def test_folders_are_measured_and_removed_and_links_are_let_be(tmp_path: Path) -> None:
    """Read-only folders go, too; what a link leads to is neither counted nor removed, inside a folder or as one."""
    outside, folder = tmp_path / "outside", tmp_path / "mine"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 100_000)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"x" * 5000)
    (folder / "again").hardlink_to(folder / "deep" / "file")
    (folder / "way-out").symlink_to(outside)
    (folder / "deep").chmod(0o500)
    link = tmp_path / "link"
    link.symlink_to(outside)
    before = belongings.answer({"runs": str(tmp_path), "folders": [str(folder), str(tmp_path / "none")]})["folders"]
    assert before[0]["files"] == 2 and 5000 <= before[0]["bytes"] < 100_000, "each inode counts once"
    assert before[1] == {"path": str(tmp_path / "none"), "there": False, "files": 0, "bytes": 0}
    after = belongings.answer({"runs": str(tmp_path), "folders": [str(folder)], "remove": [str(folder), str(link)]})
    assert after["folders"][0]["there"] is False and after["problems"] == [f"{link} is a link: left alone"]
    assert (outside / "precious").stat().st_size == 100_000


@pytest.mark.parametrize(
    ("model", "framework", "places"),
    [
        ({}, {}, {PLACE}),
        ({"tokenizer": "acme/words"}, {}, {PLACE, "~/.cache/huggingface/hub/models--acme--words"}),
        ({"id": "/models/acme", "tokenizer": "./words"}, {}, set()),
        ({}, {"env": {"HF_HOME": "/hf"}}, {"/hf/hub/models--acme--Acme-9B"}),
        ({}, {"env": {"HF_HUB_CACHE": "/hub", "HF_HOME": "/hf"}}, {"/hub/models--acme--Acme-9B"}),
        ({}, {"env": {"XDG_CACHE_HOME": "/x"}}, {"/x/huggingface/hub/models--acme--Acme-9B"}),
        ({}, {"env_from": ["HF_HOME"]}, set()),
        ({}, {"kind": "reference"}, set()),
    ],
)
def test_downloads_are_looked_for_where_the_engines_put_them(model: JSON, framework: JSON, places: set[str]) -> None:
    """The hub's folder of the model and of its tokenizer; a path of the user's is never one."""
    spec = {**SPEC, "model": SPEC["model"] | model, "frameworks": {"one": SPEC["frameworks"]["one"] | framework}}
    assert set(download_places(spec)) == places


def context(
    there_before: bool, downloads: str = "remove", other_phase: str = "closed", other_host: str = "local"
) -> Any:
    mine = SimpleNamespace(id="mine", downloads=[{"path": PLACE, "there": there_before}])
    other = SimpleNamespace(id="other", phase=other_phase, spec={**SPEC, "hardware": {"host": other_host}})
    world = SimpleNamespace(campaigns={"mine": mine, "other": other})
    spec = {**SPEC, "cleanup": {"downloads": downloads}}
    return SimpleNamespace(campaign="mine", c=mine, spec=spec, journal=SimpleNamespace(world=world))


@pytest.mark.parametrize(
    ("ctx", "there", "expected"),
    [
        (context(False), True, ([PLACE], {})),
        (context(False), False, ([], {})),
        (context(True), True, ([], {})),
        (context(False, downloads="keep"), True, ([], {PLACE: "kept: cleanup.downloads"})),
        (context(False, other_phase="searching", other_host="gpu1"), True, ([PLACE], {})),
        (context(False, other_phase="searching"), True, ([], {PLACE: "kept: campaign other uses it"})),
    ],
)
def test_only_what_was_not_there_before_is_a_download_of_ours(ctx: Any, there: bool, expected: Any) -> None:
    """What was there stays, and what another campaign needs on this host, and everything when the file says so."""
    assert downloaded(ctx, [{"path": PLACE, "there": there}]) == expected


async def test_a_driver_that_does_not_answer_keeps_no_campaign_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """That its GPUs could not be read is on record as what is left."""

    async def dead(ctx: Any, name: str) -> Any:
        raise RunLost("gpus-after-0: no reading of the GPUs")

    monkeypatch.setattr(cleanup, "look", dead)
    monkeypatch.setattr(cleanup, "RELEASE_S", -1.0)
    gpu = {"index": 0, "uuid": "GPU-a", "level_mib": 4}
    mine = SimpleNamespace(gpus={"GPU-a": gpu}, lease={"host": "local"})
    ctx: Any = SimpleNamespace(c=mine, journal=SimpleNamespace(clock=time.time_ns))
    left = ["GPU 0 could not be read: gpus-after-0: no reading of the GPUs"]
    assert await cleanup._given_back(ctx, [], set()) == ([], left)
