"""Whole campaigns whose servers run in containers of a real podman, and a container that nobody watches any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from podman_rig import LIMITED, containers, podman, said
from rig.audit import audit
from rig.campaign import Rig

from sotad.config.container import Container

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG_S = 600.0
PYTHON = ("/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix)
"""The image is busybox alone: the interpreter is this machine's own, seen at the same paths, for reading."""


@pytest.fixture(scope="module")
def section() -> Iterator[Mapping[str, Any]]:
    with podman() as found:
        mounts = [{"source": path, "read_only": True} for path in PYTHON if Path(path).exists()]
        yield {**found, "mounts": mounts}


@pytest.fixture
def boxed(tmp_path: Path, section: Mapping[str, Any]) -> Iterator[Rig]:
    """A rig whose daemon knows the host ``boxed``: this machine, where frameworks run in containers."""
    rig = Rig(tmp_path / "rig")
    root = tmp_path / "boxed"
    rig.paths.root.mkdir()
    rig.paths.config.write_text(
        yaml.safe_dump({"hosts": {"boxed": {"kind": "local", "root": str(root), "container": dict(section)}}})
    )
    rig.roots.append(root)
    yield rig
    rig.end()


def test_a_campaign_in_containers(boxed: Rig, section: Mapping[str, Any]) -> None:
    """The verdict is that of processes, the daemon may die meanwhile, and no container is left."""
    box = Container(**section)
    boxed.start()
    boxed.submit(hardware={"host": "boxed", "gpu_type": "cpu"}, decision__first_look=6)  # short runs are noisy
    boxed.seen("benchmark.started")
    assert containers(box)
    boxed.kill()
    boxed.start()
    assert boxed.finished(LONG_S) == "success_ahead"
    (cleaned,) = boxed.events("cleanup.finished")
    assert cleaned.payload["left"] == [] == containers(box)
    assert not boxed.events("candidate.lost", "job.lost")
    audit(boxed)


def test_an_orphaned_container_goes_with_its_campaign(boxed: Rig, section: Mapping[str, Any]) -> None:
    """Whoever watched it was killed; another daemon's container on the same podman stays."""
    box = Container(**section)
    other = ["run", "--detach", "--label", "sotad.campaign=/elsewhere/small", "--name", "theirs", "--network", "host"]
    said([*box.command, *other, *LIMITED, box.image, "sleep", "600"])
    boxed.start()
    hardware = {"host": "boxed", "gpu_type": "cpu"}
    boxed.submit(hardware=hardware, frameworks__fork__candidates=[{"id": "only", "flags": {"slow": 200.0}}])
    boxed.seen("benchmark.started")
    (served,) = set(containers(box)) - {"theirs"}
    for pid in said(["pgrep", "-f", served]).split():
        os.kill(int(pid), 9)
    assert served in containers(box)
    boxed.client.post("/v1/campaigns/small/cancel")
    boxed.seen("campaign.closed", LONG_S)
    (cleaned,) = boxed.events("cleanup.finished")
    assert cleaned.payload["left"] == [] and containers(box) == ["theirs"]
    said([*box.command, "rm", "--force", "--time", "0", "theirs"])
