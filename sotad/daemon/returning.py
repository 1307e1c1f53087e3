"""Campaigns whose host did not answer go on by themselves when it answers again in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sotad.daemon.driver import is_away
from sotad.daemon.journal import is_fatal
from sotad.hosts.base import Host, HostUnreachable

if TYPE_CHECKING:
    from sotad.daemon.service import Daemon

log = structlog.get_logger()
Wait = tuple[str, int]  # a campaign, and until when it is waited for
CATCH_UP_S = 20.0  # for a host to answer at the start: other campaigns wait meanwhile
PAUSE_S = 5.0  # between two tries, beside what a try takes


async def returns(daemon: Daemon) -> None:
    """Try the host of every campaign that waits for one, until its deadline; then a person resumes it."""
    trying: dict[Wait, asyncio.Task[None]] = {}
    try:
        while True:
            waiting = _waiting(daemon)
            for wait in waiting - trying.keys():
                trying[wait] = asyncio.create_task(_wait(daemon, wait), name=f"{wait[0]} returns")
            for wait in trying.keys() - waiting:
                trying.pop(wait).cancel()
            await asyncio.sleep(PAUSE_S)
    finally:
        for task in trying.values():
            task.cancel()
        await asyncio.gather(*trying.values(), return_exceptions=True)


def _waiting(daemon: Daemon) -> set[Wait]:
    """Campaigns that may still go on by themselves, each with its deadline."""
    now, all_ = daemon.now(), daemon.world.campaigns.values()
    return {(c.id, c.blocked["deadline_ns"]) for c in all_ if is_away(c) and c.blocked["deadline_ns"] > now}


async def _wait(daemon: Daemon, wait: Wait) -> None:
    """Until the host answers; what is then found to be another world is for a person to look at."""
    campaign, _ = wait
    while True:
        try:
            went_on = await daemon.reappeared(campaign)
        except Exception as reason:  # one campaign's world must not keep the daemon from the others
            if is_fatal(reason):
                raise
            log.info("host.still_away", campaign=campaign, reason=str(reason))
        else:
            log.info("host.back", campaign=campaign, goes_on=went_on)
            return
        await asyncio.sleep(PAUSE_S)


async def answering(host: Host) -> None:
    """Raises: HostUnreachable when the host does not answer soon."""
    try:
        async with asyncio.timeout(None if host.here else CATCH_UP_S):
            await host.offset_ns()
    except TimeoutError:
        raise HostUnreachable(f"{host.name} does not answer within {CATCH_UP_S:g} s") from None
