"""A server that answers at once with a fixed stream, one event per token: what a load generator is held against.

``python bench_loadgen_server.py PAUSE_MS STAMPS`` serves on a free port of 127.0.0.1, which it prints. A
request's ``max_tokens`` is the number of events; with PAUSE_MS 0 every event is written on its own as fast as
the socket takes it, else one each PAUSE_MS. Before each write it notes the time (``CLOCK_MONOTONIC``, the clock
of the clients). On SIGTERM it writes ``{prompt: [received, token times...]}`` to STAMPS: prompts are unique.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import signal
import sys
from pathlib import Path
from time import perf_counter_ns

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


def chunk(event: str) -> bytes:
    """One event in a chunk of its own."""
    data = f"data: {event}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def token_event() -> bytes:
    """An event of about 190 bytes, as serving engines send them."""
    choice = {"index": 0, "text": " tok", "logprobs": None, "finish_reason": None, "stop_reason": None}
    event = {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1760000000, "model": "m"}
    return chunk(json.dumps({**event, "choices": [choice]}))


TOKEN = token_event()


def ending(tokens: int) -> bytes:
    """Usage, [DONE] and the last chunk."""
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    return chunk(json.dumps({"id": "c", "object": "text_completion", "choices": [], "usage": usage})) + (
        b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    )


class Stream(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, pause_s: float, stamps: dict[str, list[int]]) -> None:
        self._pause_s, self._all_stamps = pause_s, stamps
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._loop = transport, asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._buffer, 0, end)
            body_end = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < body_end:
                return
            body, self._buffer = self._buffer[end + 4 : body_end], self._buffer[body_end:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        now = perf_counter_ns()
        if not body:
            self._models()
            return
        asked = json.loads(body)
        self._stamps = self._all_stamps[str(asked["prompt"])] = [now]
        self._left = self._count = asked.get("max_tokens", 16)  # vLLM's client first asks without
        self._transport.write(HEAD)
        self._next = self._loop.time()
        self._token()

    def _models(self) -> None:
        body = b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    def _token(self) -> None:
        if self._transport.is_closing():
            return
        self._stamps.append(perf_counter_ns())
        self._transport.write(TOKEN)
        self._left -= 1
        if not self._left:
            self._transport.write(ending(self._count))
        elif self._pause_s:
            self._next += self._pause_s
            self._loop.call_at(self._next, self._token)
        else:
            self._loop.call_soon(self._token)


async def serve(pause_s: float, stamps: dict[str, list[int]]) -> None:
    """Serve until SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Stream(pause_s, stamps), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()


if __name__ == "__main__":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    seen: dict[str, list[int]] = {}
    asyncio.run(serve(float(sys.argv[1]) / 1e3, seen))
    Path(sys.argv[2]).write_text(json.dumps(seen))
