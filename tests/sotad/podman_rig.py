"""A real podman with a storage of its own, and an image of busybox, named by digest."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sotad.config.container import Container

LIMITS: dict[str, str | int] = {"nofile": "512:512", "nproc": "512:512"}  # allowed to whoever may not raise limits
LIMITED = [word for name, limit in LIMITS.items() for word in ("--ulimit", f"{name}={limit}")]


def ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


def said(command: list[str]) -> str:
    return ran(command).stdout


def containers(container: Container) -> list[str]:
    return said([*container.command, "ps", "--all", "--format", "{{.Names}}"]).split()


@contextmanager
def podman() -> Iterator[Mapping[str, Any]]:
    """What a ``container`` section says of it; skips where it cannot run. Its folder is short: sockets lie in it."""
    program, busybox = shutil.which("podman"), shutil.which("busybox")
    if program is None or busybox is None:
        pytest.skip("needs podman and busybox: apt-get install podman runc catatonit busybox-static")
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        client = [program, "--storage-driver", "vfs", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
        image = _image(folder, Path(busybox), client)
        client += ["--runtime", _runtime(client, image)]
        init = Path("/usr/libexec/podman/catatonit").exists()
        yield {"runtime": "podman", "image": image, "command": client, "gpus": "none", "ulimits": LIMITS, "init": init}
        ran([*client, "rm", "--all", "--force"])


def _runtime(client: list[str], image: str) -> str:
    why = ""
    for runtime in filter(shutil.which, ("crun", "runc")):
        tried = ran([*client, "--runtime", runtime, "run", "--rm", "--network", "host", *LIMITED, image, "true"])
        if tried.returncode == 0:
            return runtime
        why += f"{runtime}: {tried.stderr.strip()[:200]}; "
    pytest.skip(f"podman runs no container here: {why}")


def _image(folder: Path, busybox: Path, client: list[str]) -> str:
    rootfs = folder / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    (rootfs / "tmp").mkdir()
    shutil.copy(busybox, rootfs / "bin/busybox")
    for name in ("sh", "sleep", "cat", "true", "tr", "grep", "kill"):
        (rootfs / "bin" / name).symlink_to("busybox")
    with tarfile.open(folder / "rootfs.tar", "w") as tar:
        tar.add(rootfs, ".")
    made = subprocess.run(
        [*client, "import", str(folder / "rootfs.tar"), "sotad-test"], capture_output=True, timeout=90
    )
    digest = said([*client, "images", "--digests", "--format", "{{.Digest}}"]).split()
    if made.returncode or not digest:
        pytest.skip(f"podman imports no image here: {made.stderr[:200]}")
    return f"localhost/sotad-test@{digest[0]}"
