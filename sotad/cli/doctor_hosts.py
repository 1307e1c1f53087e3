"""``doctor`` of hosts, those of the daemon's file and of ``--ssh HOST:/ROOT``: can campaigns be served there?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sotad.config.hosts import HostConfig
    from sotad.hosts.base import Host

PATIENCE_S = 10.0


def place(text: str) -> tuple[str, str]:
    """Host and root of ``HOST:/ROOT``; HOST is what ``ssh`` would be given.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    host, _, root = text.rpartition(":")
    if not host or not root.startswith("/") or root == "/":
        raise argparse.ArgumentTypeError(f"{text!r}: give HOST:/ROOT, such as gpu1:/srv/sotad")
    return host, root


def examined(name: str, defined: HostConfig) -> tuple[str, str, str]:
    """State, what was found, and what to do next; the host is opened as the daemon opens it, with less patience.

    Raises:
        HostError: it cannot be used; the text says why.
    """
    import asyncio

    from sotad.daemon.hosts import opened

    hurried = defined.model_copy(update={"patience_s": min(PATIENCE_S, defined.patience_s)})
    return asyncio.run(_examined(opened(name, hurried)))


async def _examined(host: Host) -> tuple[str, str, str]:
    from sotad.hosts.base import clock_problem

    try:
        facts: dict[str, Any] = await host.probe()
        offset, uncertainty = await host.offset_ns()
        await host.forward(await host.free_port())
    finally:
        await host.close()
    clock = f"clock {offset / 1e6:+.1f} ms, measured to {uncertainty / 1e6:.1f}"
    found = f"Python {facts['python']}, {facts['cores']} cores, {len(facts['gpus'])} GPUs, {clock}"
    problem = clock_problem(host.name, offset, uncertainty)
    return ("warn", found, problem) if problem else ("ok", found, "")
