"""The connection to an ssh host: opened when it is needed, shared by all who need it, opened again when it broke."""

import asyncio
import json
import shlex
import time
from dataclasses import dataclass
from typing import Any

import asyncssh

from sotad.hosts.base import HostError
from sotad.hosts.onhost import MARK
from sotad.hosts.ssh_connect import Chain, Lost, connect, hang_up
from sotad.hosts.ssh_program import program
from sotad.hosts.ssh_target import SshTarget

NO_SUCH_PROGRAM = (126, 127)  # what a POSIX shell exits with
OUTDATED_S = 30.0  # a request that arrives later than this is not carried out any more


@dataclass(frozen=True, eq=False)
class Connection:
    """One connection, and the program that was found or put on its other side."""

    chain: Chain
    command: str
    there_s: float  # the host's monotonic clock when
    here_s: float  # ours was this

    @property
    def ssh(self) -> asyncssh.SSHClientConnection:
        return self.chain[-1]

    def deadline(self) -> float:
        """The host's monotonic time after which a request of now must not be carried out.

        What waited in a buffer while the link was down must not begin after we gave up.
        """
        return self.there_s + time.monotonic() - self.here_s + OUTDATED_S


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status: None when that did not arrive."""

    status: int | None
    out: bytes
    err: bytes

    @property
    def words(self) -> str:
        """For people: the last lines of what it complained about."""
        text = (self.err or self.out).decode("utf-8", "replace").strip()
        return " / ".join(text.splitlines()[-3:]) or "nothing"


class Link:
    """At most one connection at a time."""

    def __init__(self, target: SshTarget) -> None:
        self.target = target
        self.heard_s = 0.0  # our monotonic time of the last sign of life
        self._current: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None

    async def get(self) -> Connection:
        """The connection, opened now if there is none; everybody who asks meanwhile waits for the same attempt.

        Raises:
            HostError: a person has to mend something.
            Lost: the attempt failed; another may succeed.
        """
        if self._current is not None and not self._current.ssh.is_closed():
            return self._current
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name=f"ssh {self.target.host}")
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def drop(self, connection: Connection) -> None:
        """This connection is not used any more."""
        hang_up(connection.chain)
        if self._current is connection:
            self._current = None

    async def close(self) -> None:
        """Hang up."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._current is not None:
            chain = self._current.chain
            self.drop(self._current)
            await asyncio.gather(*(connection.wait_closed() for connection in chain))

    def _opened(self, task: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not task.cancelled() and task.exception() is None:
            self._current = task.result()

    async def _open(self) -> Connection:
        chain = await connect(self.target)
        try:
            answer, here_s = await self._boot(chain[-1])
        except BaseException:
            hang_up(chain)
            raise
        self.heard_s = here_s
        command = shlex.join([self.target.python, "-I", "-S", answer["path"]])
        return Connection(chain, command, answer["monotonic"], here_s)

    async def _boot(self, ssh: asyncssh.SSHClientConnection) -> tuple[dict[str, Any], float]:
        """The program is on the host: what was said about it, and when (monotonic).

        Raises:
            HostError: it cannot be placed or executed there.
        """
        for send in (False, True):
            source = program().boot_source(self.target.root, send=send)
            said = await converse(ssh, shlex.join([self.target.python, "-I", "-S", "-"]), source)
            answer = self._understood(said)
            if answer["held"]:
                return answer, time.monotonic()
        raise Lost(f"{self.target.host}: what was sent did not arrive whole")

    def _understood(self, said: Said) -> dict[str, Any]:
        host, python, root = self.target.host, self.target.python, self.target.root
        _, mark, text = said.out.partition(MARK)
        if said.status is None and not mark:
            raise Lost(f"{host}: the connection broke")
        if said.status in NO_SUCH_PROGRAM:
            raise HostError(
                f"{host} has no Python at {python} ({said.words}); install Python 3.8 or later there, "
                "or name the one it has with `python`"
            )
        if not mark or not text.endswith(b"\n"):
            raise HostError(
                f"{python} on {host} does not work (exit status {said.status}, it says: {said.words}); "
                f"look at `ssh {host} {shlex.quote(python)} --version`: Python 3.8 or later is needed"
            )
        answer: dict[str, Any] = json.loads(text)
        if answer["version"] < [3, 8]:
            version = ".".join(map(str, answer["version"]))
            raise HostError(f"{python} on {host} is Python {version}; install 3.8 or later, or name one with `python`")
        if "error" in answer:
            then = "free some space there" if answer["full"] else f"check who may write to {root}"
            raise HostError(f"cannot place the host program on {host}: {answer['error']} {answer['file']}; {then}")
        return answer


async def converse(ssh: asyncssh.SSHClientConnection, command: str, data: bytes) -> Said:
    """What `command` says to `data` on its stdin.

    Raises:
        Lost: it could not be asked.
    """
    try:
        process = await ssh.create_process(command, encoding=None)
        try:
            process.stdin.write(data)
            process.stdin.write_eof()
            out, err = await process.communicate()
        finally:
            process.close()
    except (asyncssh.Error, OSError) as error:
        raise Lost(f"the connection broke: {error}") from error
    status = None if process.exit_signal else process.exit_status
    return Said(status, bytes(out or b""), bytes(err or b""))
