"""Runs in containers as arguments of docker and podman, and what a ``container`` section may say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sotad import contained as program
from sotad.config.container import Container
from sotad.containers import LABEL, REMOVAL_S, contained, container_name, listing, removal
from sotad.hosts.base import RunSpec

IMAGE = "registry.example/vllm@sha256:" + "ab" * 32
SERVE = RunSpec(
    argv=("vllm", "serve", "/models/m; rm -rf /", "--port", "8000"),
    cwd="/srv/here",
    env={"PATH": "/usr/bin", "HOME": "/root", "LANG": "C", "VLLM_X": "a b$c", "CUDA_VISIBLE_DEVICES": "2,3"},
    secrets=("HF_TOKEN",),
    timeout_s=60,
    grace_s=10,
)


def rendered(
    spec: RunSpec = SERVE, gpu_ids: tuple[int, ...] = (2, 3), **section: Any
) -> tuple[RunSpec, list[str], Any]:
    """The run, the client's arguments, and the supervisor's settings."""
    container = Container(**{"runtime": "podman", "image": IMAGE, **section})
    run = contained(
        spec,
        container,
        run_id="c/l/1/server",
        campaign="/runs/c",
        python="/usr/bin/python3",
        supervisor="/srv/contained.py",
        folders=["/runs/c"],
        gpu_ids=gpu_ids,
    )
    assert run.argv[:4] == ("/usr/bin/python3", "-I", "-S", "/srv/contained.py")
    return run, list(run.argv[5:]), json.loads(run.argv[4])


def options(argv: list[str], name: str) -> list[str]:
    return [argv[number + 1] for number, word in enumerate(argv) if word == name]


def test_podman_runs_the_same_words() -> None:
    """Program, arguments, folder and variables arrive as they were, each as one argument."""
    _, argv, _ = rendered(RunSpec(argv=SERVE.argv, cwd="/srv/here", env=SERVE.env, timeout_s=60))
    at = argv.index("--entrypoint")
    assert argv[at:] == ["--entrypoint", "vllm", IMAGE, *SERVE.argv[1:]]
    assert argv[:3] == ["podman", "run", "--rm"] and "--init" in argv and "--interactive" not in argv
    assert options(argv, "--workdir") == ["/srv/here"] and options(argv, "--network") == ["host"]
    assert options(argv, "--pull") == ["never"] and options(argv, "--volume") == ["/runs/c:/runs/c"]
    assert options(argv, "--name") == [container_name("c/l/1/server")]


def test_the_host_keeps_its_own_variables() -> None:
    """PATH and HOME are the client's; the container gets the others, and the run's token by name only."""
    run, argv, _ = rendered(gpu_ids=())
    assert options(argv, "--env") == ["LANG=C", "VLLM_X=a b$c", "CUDA_VISIBLE_DEVICES=2,3", "SOTAD_RUN"]
    assert dict(run.env) == {"PATH": "/usr/bin", "HOME": "/root"}


@pytest.mark.parametrize(
    ("section", "flag", "values"),
    [
        ({"runtime": "podman"}, "--device", ["nvidia.com/gpu=2", "nvidia.com/gpu=3"]),
        ({"runtime": "docker"}, "--gpus", ['"device=2,3"']),
        ({"runtime": "docker", "gpus": "all"}, "--gpus", ["all"]),
        ({"runtime": "podman", "gpus": "all"}, "--device", ["nvidia.com/gpu=all"]),
        ({"runtime": "docker", "gpus": "none"}, "--gpus", []),
        ({"gpus": "none", "devices": ["/dev/infiniband"]}, "--device", ["/dev/infiniband"]),
        ({"shm_size": "16g"}, "--shm-size", ["16g"]),
        ({"ulimits": {"memlock": -1, "nofile": "1024:2048"}}, "--ulimit", ["memlock=-1", "nofile=1024:2048"]),
        ({"user": "1000:1000"}, "--user", ["1000:1000"]),
        (
            {"mounts": ["/models", {"source": "/a", "target": "/b", "read_only": True}]},
            "--volume",
            ["/runs/c:/runs/c", "/models:/models", "/a:/b:ro"],
        ),
    ],
)
def test_each_key_is_an_option(section: dict[str, Any], flag: str, values: list[str]) -> None:
    """Devices, limits and mounts in the words of each runtime."""
    assert options(rendered(**section)[1], flag) == values


def test_a_container_counts_its_gpus_from_zero() -> None:
    """Numbers of the host would name other GPUs, or none, among those that it was given."""
    assert "CUDA_VISIBLE_DEVICES=2,3" not in options(rendered()[1], "--env")
    assert "CUDA_VISIBLE_DEVICES=2,3" in options(rendered(gpus="none")[1], "--env")


def test_secrets_are_read_from_standard_input() -> None:
    """Their names are in the supervisor's settings, and nothing of them in the container's."""
    run, argv, settings = rendered()
    assert run.secrets == ("HF_TOKEN",) and settings["secrets"] == ["HF_TOKEN"]
    assert "--interactive" in argv and not any("HF_TOKEN" in word for word in argv)
    assert argv[argv.index("--entrypoint") + 1 :][:3] == ["/bin/sh", IMAGE, "-c"]
    assert argv[-len(SERVE.argv) :] == list(SERVE.argv)


def test_the_end_of_the_run_has_time_to_remove_the_container() -> None:
    """The supervisor ends it after the run's own grace, before the host kills the supervisor."""
    run, _, settings = rendered()
    assert settings["grace_s"] == 10 and run.grace_s == 10 + REMOVAL_S
    assert settings["end"] == ["podman", "rm", "--force", "--time", "0", container_name("c/l/1/server")]
    docker = Container(runtime="docker", image=IMAGE)
    assert removal(docker, "x", "y") == ["docker", "rm", "--force", "x", "y"]


def test_a_container_says_whose_it_is() -> None:
    """By the folder of its campaign's runs, which no other daemon has: that is what the clean-up asks for."""
    (label,) = options(rendered()[1], "--label")
    docker = Container(runtime="docker", image=IMAGE)
    asked = listing(docker, "/runs/c")
    assert label == f"{LABEL}=/runs/c" and options(asked, "--filter") == [f"label={label}"]
    assert asked[:3] == ["docker", "ps", "--all"]


def test_exec_enters_a_container_that_stays() -> None:
    """Only the run's own processes are ended in it, by the run's token."""
    _, argv, settings = rendered(mode="exec", image="", name="serving", command=["podman", "--root", "/r"])
    assert argv[:6] == ["podman", "--root", "/r", "exec", "--workdir", "/srv/here"]
    assert argv[argv.index("serving") + 1] == "/bin/sh"
    assert settings["ask"][-1] == "TERM" and settings["end"][-1] == "KILL"
    assert "rm" not in settings["end"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "runtime"),
        ({"runtime": "lxc", "image": IMAGE}, "'docker' or 'podman'"),
        ({"runtime": "podman"}, "mode run needs image"),
        ({"runtime": "podman", "image": "vllm:latest"}, "NAME@sha256:DIGEST"),
        ({"runtime": "podman", "image": "vllm@sha256:abc"}, "NAME@sha256:DIGEST"),
        ({"runtime": "podman", "mode": "exec"}, "mode exec needs name"),
        ({"runtime": "podman", "mode": "exec", "name": "a", "image": IMAGE}, "mode exec takes no image"),
        ({"runtime": "podman", "mode": "exec", "name": "--rm"}, "no container's name"),
        ({"runtime": "podman", "mode": "exec", "name": "a", "shm_size": "1g"}, "set them where it starts"),
        ({"runtime": "podman", "image": IMAGE, "shm_size": "lots"}, "such as 16g"),
        ({"runtime": "podman", "image": IMAGE, "ulimits": {"nofile": "many"}}, "SOFT or SOFT:HARD"),
        ({"runtime": "podman", "image": IMAGE, "mounts": ["models"]}, "absolute path"),
        ({"runtime": "podman", "image": IMAGE, "mounts": [{"source": "/a:/etc"}]}, "absolute path"),
        ({"runtime": "podman", "image": IMAGE, "devices": ["gpu"]}, "absolute path"),
        ({"runtime": "podman", "image": IMAGE, "env": {"HF_TOKEN": "x"}}, "env"),
    ],
)
def test_a_mistake_is_named(section: dict[str, Any], message: str) -> None:
    """What is wrong and what to write instead."""
    with pytest.raises(ValidationError, match=message.replace("(", "\\(")):
        Container.model_validate(section)


# --- the supervisor, with programs in the client's place ----------------------------------------------------


def supervise(tmp_path: Path, script: str, *, grace_s: float = 5.0, **env: str) -> subprocess.Popen[bytes]:
    """The supervisor around a small program; ``end`` leaves a mark."""
    settings = {
        "secrets": sorted(env),
        "grace_s": grace_s,
        "folders": [],
        "ask": [],
        "end": ["touch", str(tmp_path / "ended")],
    }
    argv = [sys.executable, "-I", "-S", program.__file__, json.dumps(settings), sys.executable, "-c", script]
    return subprocess.Popen(argv, env={"PATH": "/usr/bin:/bin", **env}, stdout=subprocess.PIPE)


def test_the_exit_status_is_the_clients(tmp_path: Path) -> None:
    """Also that of a client killed by a signal; the container is ended in both cases."""
    with supervise(tmp_path, "raise SystemExit(7)") as process:
        assert process.wait(30) == 7
    assert (tmp_path / "ended").exists()
    with supervise(tmp_path, "import os; os.kill(os.getpid(), 9)") as process:
        assert process.wait(30) == 137


def test_the_client_has_no_secret_in_its_environment(tmp_path: Path) -> None:
    """It gets them as lines, ended by a dot."""
    script = "import os, sys; print(sys.stdin.read().split(), 'HF_TOKEN' in os.environ)"
    with supervise(tmp_path, script, HF_TOKEN="hf_abc") as process:
        out, _ = process.communicate(timeout=30)
    assert out.decode().strip() == "['HF_TOKEN=hf_abc', '.'] False"


def test_sigterm_is_passed_on(tmp_path: Path) -> None:
    """A client that ends well on SIGTERM says so by its own status."""
    script = "import signal, time; signal.signal(15, lambda *_: exit(9)); print('up', flush=True); time.sleep(60)"
    with supervise(tmp_path, script) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(30) == 9 and (tmp_path / "ended").exists()


def test_a_client_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """After the grace the container is removed and the client killed."""
    script = "import signal, time; signal.signal(15, lambda *_: None); print('up', flush=True); time.sleep(60)"
    with supervise(tmp_path, script, grace_s=0.2) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(30) == 137 and (tmp_path / "ended").exists()
