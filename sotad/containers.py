"""A run in a container: the same command, as arguments of docker or podman.

A pure rendering: `contained` turns a RunSpec into one whose program is `sotad.contained`, which starts the runtime's
client, hands it the secrets on its standard input, and ends the container when the run ends, however it ends. Nothing
is put together by a shell. docs/containers.md says what was run for real.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from sotad.config.container import Container
from sotad.hosts.base import RunSpec
from sotad.shim import TOKEN_VARIABLE

OF_THE_HOST = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"})
"""Variables that say how the host is laid out: the runtime's client gets them, the container has its own."""
CHOICE = frozenset({"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"})
"""Numbers of GPUs on the host: a container that was given some of them counts them from 0."""
LABEL = "sotad.campaign"
"""Says whose a container is: the value is the folder of the campaign's runs on the host, which only one daemon has."""
REMOVAL_S = 20.0
"""Seconds on top of a run's grace in which its container is removed."""

TAKE_SECRETS = 'while IFS= read -r line && [ "$line" != . ]; do export "$line"; done; exec "$@" </dev/null'
SIGNAL_ALL = (
    "for each in /proc/[0-9]*; do "
    'if tr "\\0" "\\n" 2>/dev/null <"$each/environ" | grep -qxF "$2" && [ "${each#/proc/}" != $$ ]; '
    'then kill -s "$1" "${each#/proc/}" 2>/dev/null; fi; done; true'
)
"""Constant scripts of the container's own /bin/sh; what varies reaches them as arguments, never as text."""


def container_name(run_id: str) -> str:
    """The name of a run's container: the same after a crash."""
    return f"sotad-{sha256(run_id.encode()).hexdigest()[:24]}"


def removal(container: Container, *names: str) -> list[str]:
    """The command that ends and removes containers, whether or not they are there."""
    now = ["--time", "0"] if container.runtime == "podman" else []
    return [*_client(container), "rm", "--force", *now, *names]


def listing(container: Container, campaign: str) -> list[str]:
    """The command that names a campaign's containers, running or not, a line each; ``campaign`` as in `contained`."""
    return [*_client(container), "ps", "--all", "--filter", f"label={LABEL}={campaign}", "--format", "{{.Names}}"]


def contained(
    spec: RunSpec,
    container: Container,
    *,
    run_id: str,
    campaign: str,
    python: str,
    supervisor: str,
    folders: Sequence[str] = (),
    gpu_ids: Sequence[int] = (),
) -> RunSpec:
    """The run that does the same in a container.

    ``campaign`` is the folder of the campaign's runs on the host; ``python`` and ``supervisor`` are paths there, too:
    an interpreter and `sotad/contained.py`. ``folders`` are mounted at their own paths, for writing; ``gpu_ids`` are
    the leased ones.
    """
    name = ["--name", container_name(run_id), "--label", f"{LABEL}={campaign}"]
    client = _run(spec, container, name, folders, gpu_ids) if container.mode == "run" else _exec(spec, container)
    settings: dict[str, object] = {"secrets": list(spec.secrets), "grace_s": spec.grace_s, **_ends(container, run_id)}
    settings["folders"] = list(folders) if container.mode == "run" else []
    argv = (python, "-I", "-S", supervisor, json.dumps(settings, sort_keys=True), *client)
    own = {name: value for name, value in spec.env.items() if name in OF_THE_HOST}
    return replace(spec, argv=argv, cwd="/", env=own, grace_s=spec.grace_s + REMOVAL_S)


def _client(container: Container) -> list[str]:
    return list(container.command) or [container.runtime]


def _ends(container: Container, run_id: str) -> dict[str, list[str]]:
    """The commands of the supervisor: ``ask`` ends what runs gently (empty: SIGTERM to the client is passed on),
    ``end`` at once."""
    if container.mode == "run":
        return {"ask": [], "end": removal(container, container_name(run_id))}
    inside = [*_client(container), "exec", container.name, "/bin/sh", "-c", SIGNAL_ALL, "sh"]
    return {"ask": [*inside, "TERM"], "end": [*inside, "KILL"]}


def _run(
    spec: RunSpec, container: Container, name: Sequence[str], folders: Sequence[str], gpu_ids: Sequence[int]
) -> list[str]:
    words = [*_client(container), "run", "--rm", *name, "--pull", "never"]
    words += ["--init"] if container.init else []
    words += ["--network", container.network, "--workdir", spec.cwd]
    words += ["--user", container.user] if container.user else []
    words += _gpus(container, gpu_ids)
    words += [word for device in container.devices for word in ("--device", device)]
    words += ["--shm-size", container.shm_size] if container.shm_size else []
    words += [word for name, limit in container.ulimits.items() for word in ("--ulimit", f"{name}={limit}")]
    words += [word for mount in _mounts(container, folders) for word in ("--volume", mount)]
    words += _environment(spec, CHOICE if _gpus(container, gpu_ids) else frozenset())
    words += ["--interactive"] if spec.secrets else []
    program, *arguments = _program(spec)
    return [*words, "--entrypoint", program, container.image, *arguments]


def _exec(spec: RunSpec, container: Container) -> list[str]:
    words = [*_client(container), "exec", "--workdir", spec.cwd]
    words += ["--user", container.user] if container.user else []
    words += _environment(spec)
    words += ["--interactive"] if spec.secrets else []
    return [*words, container.name, *_program(spec)]


def _program(spec: RunSpec) -> list[str]:
    """The command; behind a reader of the secrets when there are any."""
    return ["/bin/sh", "-c", TAKE_SECRETS, "sh", *spec.argv] if spec.secrets else list(spec.argv)


def _environment(spec: RunSpec, without: frozenset[str] = frozenset()) -> list[str]:
    """Variables with their values; the run's token by name, so that the shim knows the run's processes."""
    values = [f"{name}={value}" for name, value in spec.env.items() if name not in OF_THE_HOST | without]
    return [word for variable in (*values, TOKEN_VARIABLE) for word in ("--env", variable)]


def _gpus(container: Container, gpu_ids: Sequence[int]) -> list[str]:
    """docker takes them in one option, podman as CDI devices (nvidia-ctk cdi generate)."""
    ids = ["all"] if container.gpus == "all" else [str(gpu) for gpu in gpu_ids] if container.gpus == "leased" else []
    if not ids:
        return []
    if container.runtime == "podman":
        return [word for gpu in ids for word in ("--device", f"nvidia.com/gpu={gpu}")]
    return ["--gpus", "all" if ids == ["all"] else f'"device={",".join(ids)}"']


def _mounts(container: Container, folders: Sequence[str]) -> list[str]:
    own = [f"{folder}:{folder}" for folder in folders]
    given = [
        f"{mount.source}:{mount.target or mount.source}{':ro' if mount.read_only else ''}" for mount in container.mounts
    ]
    return list(dict.fromkeys([*own, *given]))
