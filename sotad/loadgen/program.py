"""What the programs that read a specification, talk to a server and write one file have in common."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import orjson

from sotad.benchmark.tokens import TokenizerError
from sotad.benchmark.workload import WorkloadError
from sotad.loadgen.meter import MeteredLoop
from sotad.loadgen.run import WorkerDied
from sotad.loadgen.spec import SpecError, SpecT, read_spec
from sotad.shim import write_atomically

T = TypeVar("T")
Outcome = tuple[dict[str, Any], bool]  # the output, and whether the work was cut short
STOPPED = 128 + signal.SIGTERM
BAD_INPUT = (SpecError, WorkloadError, TokenizerError)


def run(
    module: str,
    argv: list[str],
    kind: type[SpecT],
    work: Callable[[SpecT], Coroutine[object, object, Outcome]],
) -> int:
    """The exit code, after `work` wrote its output: 0; 2 for bad input; 143 when it was told to stop.

    The SHA-256 of the output is printed, so that whoever reads it from afar can tell that it is whole.
    """
    if len(argv) != 2:
        print(f"usage: python -m {module} SPEC.json OUT.json", file=sys.stderr)
        return 2
    source, target = Path(argv[0]), Path(argv[1]).absolute()
    try:
        spec = read_spec(source, kind)
        if not target.parent.is_dir():
            raise SpecError(f"{target}: its directory does not exist; make it first")
        output, interrupted = until_told_to_stop(work(spec))
    except BAD_INPUT as error:
        print(error, file=sys.stderr)
        return 2
    except WorkerDied as error:
        print(error, file=sys.stderr)
        return 1
    data = orjson.dumps(output)
    write_atomically(target, data)
    print(sha256(data).hexdigest())
    return STOPPED if interrupted else 0


def until_told_to_stop(work: Coroutine[object, object, T]) -> T:
    """The result of `work`, which is cancelled on SIGTERM and SIGINT and then has to end by itself."""

    async def main() -> T:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    with asyncio.Runner(loop_factory=MeteredLoop) as runner:
        return runner.run(main())
