"""A port of ours that leads to a port of the host's loopback, whatever becomes of the connection in between."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh

_PIECE = 2**16


class Forward:
    """Listens on one port of our loopback for as long as it is open; each client gets a channel of the connection
    that there is at that moment. When the connection breaks, its clients see a reset, never a clean end."""

    def __init__(self, connection: Callable[[], Awaitable[asyncssh.SSHClientConnection]], port: int) -> None:
        self._connection = connection
        self._port = port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        """The port of our loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Nobody is listened to or served any more."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._join(reader, writer)
            writer.close()
        except (Exception, asyncio.CancelledError):  # whatever it was, the client has to notice
            writer.transport.abort()
        finally:
            self._clients.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions, until both have ended."""
        ssh = await self._connection()
        there_reader, there_writer = await ssh.open_connection("127.0.0.1", self._port, encoding=None)
        copies = [
            asyncio.create_task(_copy(reader, there_writer)),
            asyncio.create_task(_copy(there_reader, writer)),
        ]
        try:
            await asyncio.gather(*copies)
            if ssh.is_closed():
                raise ConnectionResetError("the connection broke: what arrived may not be all")
        finally:
            for copy in copies:
                copy.cancel()
            there_writer.close()


async def _copy(source: Any, sink: Any) -> None:
    while data := await source.read(_PIECE):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
