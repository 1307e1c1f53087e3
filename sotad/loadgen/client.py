"""Sends one request and keeps the bytes that come back, with their times of arrival, unread."""

import asyncio
import time
from dataclasses import dataclass, field

import aiohttp

from sotad.loadgen.spec import Target

CONNECT_S = 30.0
LARGEST_REPLY = 64 * 2**20  # bytes; a server that sends more than this for one request does not stop


@dataclass(frozen=True)
class Failure:
    """Why a request did not count. `kind` is one of a closed set:

    connect, http_status, timeout, stalled, closed_early, garbage, server_error, no_usage, short_output,
    cancelled.
    """

    kind: str
    detail: str


CANCELLED = Failure("cancelled", "the load generator was told to stop")


@dataclass
class Exchange:
    """One request as the wire showed it; times are `time.perf_counter_ns`, 0 for never.

    `due_ns` is the schedule's moment; `planned_ns` is later when every slot was taken then. What lies
    between `planned_ns` and `sent_ns` is this program's own delay.
    """

    due_ns: int
    planned_ns: int = 0
    sent_ns: int = 0
    ended_ns: int = 0
    http_status: int | None = None
    arrivals: list[tuple[int, bytes]] = field(default_factory=list)
    failure: Failure | None = None


def open_session(target: Target) -> aiohttp.ClientSession:
    """A session without a limit of its own on connections, and without compression."""
    timeout = aiohttp.ClientTimeout(total=target.timeout_s, sock_connect=CONNECT_S, sock_read=target.stall_s)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=timeout,
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
    )


async def send(session: aiohttp.ClientSession, url: str, body: bytes, exchange: Exchange) -> None:
    """Fills in `exchange`; also when the request fails, and when the calling task is cancelled."""
    exchange.sent_ns = time.perf_counter_ns()
    try:
        await _receive(session, url, body, exchange)
    except asyncio.CancelledError:
        exchange.failure = CANCELLED
        raise
    except aiohttp.SocketTimeoutError:
        exchange.failure = Failure("stalled", "no byte arrived for stall_s seconds")
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        exchange.failure = Failure("connect", str(error))
    except TimeoutError:
        exchange.failure = Failure("timeout", "not complete after timeout_s seconds")
    except (aiohttp.ClientPayloadError, aiohttp.ServerConnectionError, aiohttp.ClientOSError) as error:
        exchange.failure = Failure("closed_early", str(error) or type(error).__name__)
    except aiohttp.ClientError as error:
        exchange.failure = Failure("garbage", f"{type(error).__name__}: {error}"[:500])
    finally:
        exchange.ended_ns = time.perf_counter_ns()


async def _receive(session: aiohttp.ClientSession, url: str, body: bytes, exchange: Exchange) -> None:
    size, clock, arrivals = 0, time.perf_counter_ns, exchange.arrivals
    async with session.post(url, data=body) as response:
        exchange.http_status = response.status
        if response.status != 200:
            text = (await response.content.read(500)).decode("utf-8", "replace")
            exchange.failure = Failure("http_status", f"{response.status}: {text}")
            return
        async for chunk in response.content.iter_any():
            arrivals.append((clock(), chunk))
            size += len(chunk)
            if size > LARGEST_REPLY:
                exchange.failure = Failure("garbage", f"the reply is larger than {LARGEST_REPLY} bytes")
                return
