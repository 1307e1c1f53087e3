"""Opens connections to one server and keeps those that may be used again."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from errno import EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM
from time import perf_counter_ns
from urllib.parse import urlsplit

from sotad.loadgen.exchange import Exchange
from sotad.loadgen.wire import Connection, Patience

CONNECT_S = 30.0
STALE_NS = 3_000_000_000  # servers commonly close connections that were idle for 5 s; one that old is not used
OURS = (EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM)  # errors of connecting that are this machine's doing


class Pool:
    """The connections of one event loop. `opened` counts them, `exhausted` those that this machine refused."""

    def __init__(self, base_url: str, patience: Patience, done: Callable[[Connection, Exchange], None]) -> None:
        parts = urlsplit(base_url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._addresses: list[str] = []
        self._patience, self._done = patience, done
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self.opened = self.exhausted = 0

    def take(self) -> Connection | None:
        """A connection that is free and fit to be used, or None; the one used last comes first."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and perf_counter_ns() - connection.idle_since_ns < STALE_NS:
                return connection
            self.forget(connection)
        return None

    def put(self, connection: Connection) -> None:
        """Back from a request, or newly opened for one that is to come."""
        connection.fresh = False
        if connection.reusable:
            self._idle.append(connection)
        else:
            self._all.discard(connection)

    def forget(self, connection: Connection) -> None:
        """Close a connection for good."""
        connection.close()
        self._all.discard(connection)

    async def connect(self) -> Connection:
        """A new connection.

        Raises:
            OSError: nobody answered at any of the server's addresses.
            TimeoutError: nor within `CONNECT_S` seconds.
        """
        try:
            async with asyncio.timeout(min(CONNECT_S, self._patience.timeout_s)):
                connection = await self._first_that_answers()
        except OSError as error:
            self.exhausted += error.errno in OURS
            raise
        self.opened += 1
        self._all.add(connection)
        return connection

    async def _first_that_answers(self) -> Connection:
        addresses = self._addresses or await self._resolve()
        for address in addresses:
            try:
                connection = await self._open(address)
            except OSError as error:
                last = error
                continue
            self._addresses = [address, *(each for each in addresses if each != address)]
            return connection
        raise last

    async def _resolve(self) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def _open(self, address: str) -> Connection:
        name = self._host if self._tls else None
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._patience, self._done), address, self._port, ssl=self._tls, server_hostname=name
        )
        return connection

    async def open_ahead(self, count: int) -> None:
        """Have up to `count` connections ready, so that their making is not part of the first requests."""
        for first in range(0, count, 64):
            attempts = (self.connect() for _ in range(min(64, count - first)))
            made = await asyncio.gather(*attempts, return_exceptions=True)
            fresh = [each for each in made if isinstance(each, Connection)]
            for connection in fresh:
                self.put(connection)
            if len(fresh) < len(made):
                return  # the requests will find out what is wrong

    def open_connections(self) -> list[Connection]:
        """Every connection, idle or at work."""
        return list(self._all)

    def close(self) -> None:
        """Close all of them."""
        for connection in self.open_connections():
            self.forget(connection)
