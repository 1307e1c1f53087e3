"""Folding: how each event changes what is known. What each type changes is in
:mod:`statemachine.changes`.

:func:`fold` is pure: it copies before it changes anything. :func:`advance` is the in-place step under it, for
owners of a state such as the daemon's loop and long replays.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from ledger.events import Event
from statemachine.changes import APPLY
from statemachine.machine import destination
from statemachine.state import Campaign, World
from statemachine.table import DAEMON_FACTS, FACTS, HALTED


def fold(world: World, events: Iterable[Event]) -> World:
    """The state after the events; the given state is left as it is."""
    after = copy.deepcopy(world)
    for event in events:
        advance(after, event)
    return after


def advance(world: World, event: Event) -> None:
    """Change the state in place by one event that the machine has admitted.

    Raises:
        IllegalEvent: the event is no fact, and no step leads on from the present phase.
    """
    if event.campaign:
        campaign = world.campaigns.get(event.campaign)
        if campaign is None:
            campaign = world.campaigns[event.campaign] = Campaign(event.campaign, created_ns=event.time_ns)
        _advance_campaign(world, campaign, event)
    else:
        _daemon(world, event)
    world.seq = event.seq
    world.epoch = max(world.epoch, event.epoch)


def _advance_campaign(world: World, c: Campaign, event: Event) -> None:
    if event.type not in FACTS:
        dest = destination(world, c, event.type, event.payload, event.time_ns, event.actor)
        if dest in HALTED and c.phase not in HALTED:
            c.back = c.phase
        if dest != "blocked":
            c.blocked = {}
        c.phase = dest
    apply = APPLY.get(event.type)
    if apply is not None:
        apply(c, event, event.payload)
    c.seq, c.campaign_seq, c.updated_ns = event.seq, event.campaign_seq, event.time_ns


def _daemon(world: World, event: Event) -> None:
    if event.type not in DAEMON_FACTS:
        raise ValueError(f"{event.type} needs a campaign")
    if event.type == "daemon.started":
        world.daemon = {**event.payload, "epoch": event.epoch, "running": True}
    elif event.type == "daemon.stopped":
        world.daemon = {**world.daemon, "running": False, "reason": event.payload["reason"]}
    elif event.type.startswith("inbox."):
        outcome = event.payload.get("campaign", "rejected")
        world.inbox[f"{event.payload['name']}@{event.payload['digest']}"] = outcome
