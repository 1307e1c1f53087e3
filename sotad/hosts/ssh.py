"""A machine that is reached over ssh: it only executes, the daemon stays where it is.

Everything is asked for by one small program there (`sotad.hosts.onhost`, sent by digest), one request a session. Every
request may be repeated: whatever breaks in between, it is sent again over a new connection, and a run is begun once
because its directory on the host says that it was.
"""

import asyncio
import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import asyncssh
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from sotad.hosts.base import HostError, HostUnreachable, RunSpec, RunStatus, check_run_id, secret_values
from sotad.hosts.onhost import MARK
from sotad.hosts.ssh_connect import Lost, Stale
from sotad.hosts.ssh_forward import Forward
from sotad.hosts.ssh_link import Connection, Link, Said, converse
from sotad.hosts.ssh_target import SshTarget

__all__ = ["SshHost", "SshTarget"]

_DEFAULT_LIMIT = 2**20
_PIECE = 2**23  # bytes of a file that one answer holds
_SESSIONS = 8  # at the same time; sshd's default MaxSessions is 10
_WAITS = 4  # of these, for those who wait for the end of a run
_WAIT_S = 20.0  # how long one request waits there for the end of a run
_WAIT_CROWDED_S = 1.0  # the same when others wait for their turn
_EXCHANGES = 8  # looks at the host's clock

_FLAKY = 10  # times the patience: the most for a call that breaks again and again while others are answered
_NO_SUCH_FILE = 2  # what Python exits with when it cannot open its program

Answer = TypeVar("Answer")


class SshHost:
    """Runs on `target`, in directories below its root. Opens its connection when first asked for something.

    `secrets_source` is where the values of secrets come from (default: this process's environment); they are sent
    on the standard input of the session that starts a run.
    """

    here = False

    def __init__(
        self, target: SshTarget, name: str | None = None, secrets_source: Mapping[str, str] = os.environ
    ) -> None:
        self.target = target
        self.name = name or target.host
        self.python = target.python
        self._secrets_source = secrets_source
        self._link = Link(target)
        self._sessions = asyncio.Semaphore(_SESSIONS)
        self._waits = asyncio.Semaphore(_WAITS)
        self._forwards: dict[int, tuple[Forward, int]] = {}

    def path(self, run_id: str) -> str:
        """Raises: HostError for an id that could lead out of the root."""
        return f"{self.target.root}/{check_run_id(run_id)}"

    # ------------------------------------------------------------------------- runs

    async def probe(self) -> dict[str, Any]:
        """What the machine is, its GPUs by what stays the same while they work."""
        facts: dict[str, Any] = await self._ask("probe")
        return facts

    async def put(self, run_id: str, name: str, data: bytes) -> None:
        """File `name` of the run holds `data`; repeating the same is fine at any time.

        Raises:
            HostError: the name is taken or no plain name, the run was started, or the disk refuses.
        """
        await self._ask("put", payload=data, run_id=run_id, name=name)

    async def start(self, run_id: str, spec: RunSpec) -> RunStatus:
        """The run was begun exactly once, by this call or an earlier one with the same spec.

        A program that cannot be executed is an outcome (`failed_to_start`), not an error.

        Raises:
            HostError: another spec has this id, a secret is missing, or the directory cannot be written.
        """
        secrets = secret_values(spec, self._secrets_source)
        return RunStatus.from_record(await self._ask("start", run_id=run_id, spec=spec.to_json(), secrets=secrets))

    async def status(self, run_id: str) -> RunStatus:
        """Where the run stands now."""
        return RunStatus.from_record(await self._ask("status", run_id=run_id))

    async def wait(self, run_id: str, timeout_s: float) -> RunStatus:
        """Where the run stands once it is over, or after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            crowded = self._waits.locked()
            async with self._waits:
                patience = min(_WAIT_CROWDED_S if crowded else _WAIT_S, max(deadline - time.monotonic(), 0.0))
                state = RunStatus.from_record(await self._ask("wait", run_id=run_id, timeout_s=patience))
            if state.over or time.monotonic() >= deadline:
                return state

    async def stop(self, run_id: str) -> RunStatus:
        """Where the run stands after it and everything it started was ended; a run that is over stays."""
        return RunStatus.from_record(await self._ask("stop", run_id=run_id))

    async def read(self, run_id: str, name: str, offset: int = 0, limit: int = _DEFAULT_LIMIT) -> bytes:
        """At most `limit` bytes of file `name` of the run, from byte `offset`.

        Raises:
            HostError: there is no such file in the run's directory.
        """
        pieces: list[bytes] = []
        while True:
            size = min(_PIECE, limit)
            piece: bytes = await self._ask("read", run_id=run_id, name=name, offset=offset, limit=size)
            pieces.append(piece)
            offset, limit = offset + len(piece), limit - len(piece)
            if len(piece) < size or limit == 0:
                return b"".join(pieces)

    async def processes(self, run_id: str) -> list[int]:
        """The pids there of the run's command and of everything below it; none when it is not running."""
        pids: list[int] = await self._ask("processes", run_id=run_id)
        return pids

    async def list_runs(self, prefix: str = "") -> list[str]:
        """The ids, sorted, of the runs that were ever asked for and begin with `prefix`."""
        runs: list[str] = await self._ask("list_runs", prefix=prefix)
        return runs

    # --------------------------------------------------------------- files, variables

    async def place(self, name: str, data: bytes) -> str:
        """Where a file `name` holds `data` on the host, below `files` by its SHA-256; sent only when it is not there.

        Raises:
            HostError: the name is no plain one, or the disk refuses.
        """
        what: dict[str, Any] = {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
        path: str | None = await self._ask("placed", **what)
        return path or str(await self._ask("place", payload=data, **what))

    async def holds(self, sha256: str) -> bool:
        """Whether a file with this content was placed."""
        return bool(await self._ask("holds", sha256=sha256))

    async def environment(self, *names: str) -> dict[str, str]:
        """The everyday variables of the user there, and `names`, as far as they are set."""
        known: dict[str, str] = await self._ask("environment", names=list(names))
        return known

    # ---------------------------------------------------------------- network, clock

    async def free_port(self) -> int:
        """A TCP port of the host's loopback that nothing listens on now."""
        return int(await self._ask("free_port"))

    async def forward(self, port: int) -> str:
        """The base URL by which this process reaches TCP `port` of the host's loopback; the same for ever.

        It outlives the connection: who connects to it gets the connection that there is then.

        Raises:
            HostError: the host's ssh server does not allow it.
        """
        if port not in self._forwards:
            await self._patiently(lambda link: self._may_forward(link, port))
            forward = Forward(self._ssh, port)
            self._forwards[port] = forward, await forward.open()
        return f"http://127.0.0.1:{self._forwards[port][1]}"

    async def offset_ns(self) -> tuple[int, int]:
        """The host's UTC clock minus ours, and half the shortest of several round trips, in nanoseconds."""
        return await self._patiently(self._compare_clocks)

    async def close(self) -> None:
        """Nothing of this process leads to the host any more; its runs go on."""
        for forward, _ in self._forwards.values():
            await forward.close()
        self._forwards.clear()
        await self._link.close()

    # ---------------------------------------------------------------------- details

    async def _ask(self, action: str, *, payload: bytes = b"", **arguments: Any) -> Any:
        """The program's answer to one request, however often it has to be sent."""
        return await self._patiently(lambda connection: self._request(connection, action, payload, arguments))

    async def _request(self, connection: Connection, action: str, payload: bytes, arguments: Mapping[str, Any]) -> Any:
        async with self._sessions:
            head = self._head(connection, action, len(payload), arguments)
            said = await converse(connection.ssh, connection.command, head + payload)
        return self._answer(said)

    def _head(self, connection: Connection, action: str, size: int, arguments: Mapping[str, Any]) -> bytes:
        fields = {"do": action, "root": self.target.root, "with": dict(arguments), "size": size}
        return json.dumps({**fields, "not_after": connection.deadline()}).encode() + b"\n"

    def _answer(self, said: Said) -> Any:
        """What the program answered.

        Raises:
            HostError: it refused, or fell over.
            Lost: no whole answer arrived.
        """
        _, mark, rest = said.out.partition(MARK)
        line, end, data = rest.partition(b"\n")
        if not mark or not end:
            if said.status in (None, 1) and not said.err:
                raise Lost("the connection broke")
            if said.status == _NO_SUCH_FILE:
                raise Stale("the host program was removed")
            raise HostError(f"{self.name}: the host program failed (status {said.status}): {said.words}; report it")
        answer = json.loads(line)
        if "refused" in answer:
            raise HostError(f"{self.name}: {answer['refused']}")
        if "late" in answer:
            raise Stale("the request came too late")
        if len(data) < answer.get("size", 0):
            raise Lost("the answer was cut off")
        return data if "size" in answer else answer["ok"]

    async def _patiently(self, do: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """What `do` makes of the connection; over and over with new ones while they break.

        Raises:
            HostUnreachable: the host said nothing to anybody for as long as the target's patience.
        """
        attempts = AsyncRetrying(
            stop=self._giving_up(),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception_type(Lost),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._once(do)
        except Lost as lost:
            raise HostUnreachable(
                f"{self.name} has not answered for {self.target.patience_s:g} s ({lost}); what runs there goes on. "
                f"Check it and the way there: `ssh {self.target.host} true`"
            ) from lost
        raise AssertionError("unreachable")

    def _giving_up(self) -> Callable[[RetryCallState], bool]:
        """Asked after each attempt that failed: is it time to stop?

        What counts is silence since the first of them, not how long the call takes: a transfer may outlast patience.
        """
        patience, begun = self.target.patience_s, math.inf

        def stop(state: RetryCallState) -> bool:
            nonlocal begun
            now = time.monotonic()
            begun = min(begun, now)
            return now - max(begun, self._link.heard_s) >= patience or now - begun >= _FLAKY * patience

        return stop

    async def _once(self, do: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        connection = await self._link.get()
        try:
            answer = await do(connection)
        except Lost as lost:
            if connection.ssh.is_closed() or isinstance(lost, Stale):
                self._link.drop(connection)
            raise
        self._link.heard_s = time.monotonic()
        return answer

    async def _ssh(self) -> asyncssh.SSHClientConnection:
        async def same(connection: Connection) -> asyncssh.SSHClientConnection:
            return connection.ssh

        return await self._patiently(same)

    async def _may_forward(self, connection: Connection, port: int) -> None:
        try:
            _, writer = await connection.ssh.open_connection("127.0.0.1", port, encoding=None)
            writer.close()
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise HostError(
                    f"{self.name} does not forward to its port {port} ({error.reason}); set AllowTcpForwarding to "
                    "local or yes in its sshd_config"
                ) from error
        except (asyncssh.Error, OSError) as error:
            raise Lost(f"the connection broke: {error}") from error

    async def _compare_clocks(self, connection: Connection) -> tuple[int, int]:
        async with self._sessions, self._conversation(connection) as process:
            process.stdin.write(self._head(connection, "clock", 0, {}))
            first = await process.stdout.readuntil(b"\n")
            self._answer(Said(0, first, b""))
            looks = [await _look(process) for _ in range(_EXCHANGES)]
        half, offset = min(looks)
        return offset, half

    @contextlib.asynccontextmanager
    async def _conversation(self, connection: Connection) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
        try:
            process = await connection.ssh.create_process(connection.command, encoding=None)
            try:
                yield process
            finally:
                process.close()
        except (asyncssh.Error, OSError, asyncio.IncompleteReadError) as error:
            raise Lost(f"the connection broke: {error}") from error


async def _look(process: asyncssh.SSHClientProcess[bytes]) -> tuple[int, int]:
    """Half the round trip, and the offset if the host's answer was written in the middle of it."""
    sent, begun = time.time_ns(), time.monotonic_ns()
    process.stdin.write(b"\n")
    there = int(await process.stdout.readuntil(b"\n"))
    half = (time.monotonic_ns() - begun) // 2 + 1
    return half, there - (sent + half)
