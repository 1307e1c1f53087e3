"""Server-sent events: each once, in order, across reconnects; a sign of life; an end with the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from sotad.api import streams
from sotad.api.app import make_app
from sotad.api.server import serving
from sotad.client import Client
from sotad.errors import SotadError, Unreachable

JSON = dict[str, Any]


async def take(stream: Iterator[JSON], count: int) -> list[JSON]:
    """That many events of a blocking stream."""
    return [await asyncio.to_thread(next, stream) for _ in range(count)]


async def test_a_stream_has_the_past_and_then_the_present(service: Any, door: Client) -> None:
    """What is written while a stream is open arrives without being asked for."""
    service.record("", "note.recorded", {"text": "one"})
    stream = door.stream("/v1/events")
    assert [event["seq"] for event in await take(stream, 2)] == [1, 2]
    following = asyncio.create_task(take(stream, 2))
    await asyncio.sleep(0)
    service.record("", "note.recorded", {"text": "two"})
    service.record("", "note.recorded", {"text": "three"})
    assert [event["payload"]["text"] for event in await asyncio.wait_for(following, 10)] == ["two", "three"]
    stream.close()


async def test_a_stream_of_one_campaign_has_only_its_events(service: Any, door: Client) -> None:
    """Other campaigns move the head, not the stream."""
    name = service.create()
    service.record("", "note.recorded", {"text": "not yours"})
    service.record(name, "note.recorded", {"text": "yours"})
    stream = door.stream(f"/v1/events?after=2&campaign={name}")
    assert [event["seq"] for event in await take(stream, 1)] == [4]
    stream.close()


async def test_last_event_id_resumes_where_the_caller_left_off(service: Any, door: Client) -> None:
    """A browser that reconnects misses nothing and gets nothing twice; the header wins over the query."""
    for number in range(5):
        service.record("", "note.recorded", {"text": str(number)})
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "4"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(door.path))) as http,
        http.get("http://sotad/v1/events?after=0", headers=headers) as response,
    ):
        assert response.headers["Content-Type"] == "text/event-stream"
        lines = [await response.content.readline() for _ in range(4)]
    assert lines[:2] == [b"id: 5\n", b"event: note.recorded\n"]
    assert lines[3] == b"\n"


async def test_more_events_than_a_batch_all_arrive(service: Any, door: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long past is sent in parts, none of which is lost at the seams."""
    monkeypatch.setattr(streams, "BATCH", 3)
    for number in range(10):
        service.record("", "note.recorded", {"text": str(number)})
    stream = door.stream("/v1/events")
    assert [event["seq"] for event in await take(stream, 11)] == list(range(1, 12))
    stream.close()


async def test_a_silent_stream_shows_a_sign_of_life(
    service: Any, door: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment line, which readers of events skip."""
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(door.path))) as http,
        http.get("http://sotad/v1/events?after=1", headers={"Accept": "text/event-stream"}) as response,
    ):
        assert await asyncio.wait_for(response.content.readline(), 10) == b": still here\n"


async def test_a_stopping_daemon_ends_its_streams(service: Any) -> None:
    """Nobody's open stream holds up the stop."""
    async with serving(make_app(service), service.here.socket):
        stream = Client(service.here.socket).stream("/v1/events?after=0")
        assert len(await take(stream, 1)) == 1
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3
    assert await asyncio.to_thread(lambda: list(stream)) == []


async def test_too_many_streams_are_refused(service: Any, door: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is told, not felt."""
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    first = door.stream("/v1/events")
    await take(first, 1)
    with pytest.raises(SotadError, match="streams are open"):
        await take(door.stream("/v1/events"), 1)
    first.close()


async def test_a_stream_from_a_place_that_is_no_number_is_refused(door: Client) -> None:
    """As for every other endpoint."""
    with pytest.raises(SotadError) as caught:
        await take(door.stream("/v1/events?after=x"), 1)
    assert caught.value.code == "bad_input"


async def test_a_stream_to_nobody_is_unreachable(service: Any) -> None:
    """The client says so at once."""
    with pytest.raises(Unreachable):
        await take(Client(service.here.socket).stream("/v1/events"), 1)
