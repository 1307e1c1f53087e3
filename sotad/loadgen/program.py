"""What the programs that read a specification, talk to a server and write one file have in common."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import orjson

from sotad.loadgen.spec import SpecError, SpecT, read_spec
from sotad.shim import write_atomically

T = TypeVar("T")
Outcome = tuple[dict[str, Any], bool]  # the output, and whether the work was cut short
STOPPED = 128 + signal.SIGTERM


def run(
    module: str,
    argv: list[str],
    kind: type[SpecT],
    work: Callable[[SpecT], Coroutine[object, object, Outcome]],
) -> int:
    """The exit code, after `work` wrote its output: 0; 2 for bad input; 143 when it was told to stop."""
    if len(argv) != 2:
        print(f"usage: python -m {module} SPEC.json OUT.json", file=sys.stderr)
        return 2
    source, target = Path(argv[0]), Path(argv[1]).absolute()
    try:
        spec = read_spec(source, kind)
        if not target.parent.is_dir():
            raise SpecError(f"{target}: its directory does not exist; make it first")
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    output, interrupted = _until_sigterm(work(spec))
    write_atomically(target, orjson.dumps(output))
    return STOPPED if interrupted else 0


def _until_sigterm(work: Coroutine[object, object, T]) -> T:
    """The result of `work`, which is cancelled on SIGTERM and SIGINT and then has to end by itself."""

    async def main() -> T:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    return asyncio.run(main())
