"""The step from a run to the same run in its host's container; what is rendered is in :mod:`sotad.containers`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sotad import contained as supervisor
from sotad.config.container import Container
from sotad.containers import contained
from sotad.hosts.base import Host, RunSpec


async def in_container(
    host: Host,
    spec: RunSpec,
    container: Container | None,
    *,
    run_id: str,
    folders: Sequence[str] = (),
    gpu_ids: Sequence[int] = (),
) -> RunSpec:
    """The run as its host carries it out: in the host's container when it has one, else as it is.

    ``folders`` are what the command reads and writes (its folder, its run's, its caches): mounted at their own paths.
    """
    if container is None:
        return spec
    program = await asyncio.to_thread(Path(supervisor.__file__).read_bytes)
    return contained(
        spec,
        container,
        run_id=run_id,
        campaign=host.path(run_id.partition("/")[0]),
        python=host.python,
        supervisor=await host.place("contained.py", program),
        folders=folders,
        gpu_ids=gpu_ids,
    )
