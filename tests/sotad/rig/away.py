"""A host that is treated as another machine, without one: what only works where the daemon is fails here."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from sotad.hosts.base import HostError, HostUnreachable
from sotad.hosts.local import LocalHost

ASKED = (
    *("probe", "put", "start", "status", "wait", "stop", "read", "processes", "list_runs"),
    *("place", "holds", "environment", "free_port", "forward", "offset_ns"),
)


class AwayHost(LocalHost):
    """Runs below a root of its own with ``here`` false; does not answer while the file ``switch`` is there,
    or refuses when that says ``refuse``.

    ``elsewhere``: runs that name a path below it in their argv or folder are refused, since it is not there.
    """

    here = False

    def __init__(self, root: Path, name: str, switch: Path, elsewhere: tuple[Path, ...] = ()) -> None:
        super().__init__(root, name)
        self.switch, self.elsewhere = switch, elsewhere
        self.skew_ns = 0
        self.facts: dict[str, Any] = {}
        self.secrets: Mapping[str, str] = os.environ
        for asked in ASKED:
            setattr(self, asked, self._answering(getattr(self, asked)))

    def _answering(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **more: Any) -> Any:
            if self.switch.exists():
                refuses = self.switch.read_text() == "refuse"
                raise (HostError if refuses else HostUnreachable)(f"{self.name} does not answer: the switch is off")
            self._look(args)
            return await method(*args, **more)

        return ask

    def _look(self, args: tuple[Any, ...]) -> None:
        said = " ".join(map(str, args))
        if any(str(place) in said for place in self.elsewhere):
            raise HostError(f"{self.name} was told a path of another machine: {said[:500]}")

    async def probe(self) -> dict[str, Any]:
        """Another machine than before once the file ``exchanged`` is beside the switch."""
        facts = await super().probe()
        return facts | self.facts | ({"cores": 4096} if self.switch.with_name("exchanged").exists() else {})

    async def offset_ns(self) -> tuple[int, int]:
        return self.skew_ns, 1000
