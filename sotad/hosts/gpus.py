"""A look at this host's GPUs: `python -m sotad.hosts.gpus --ids 0,1 [--watch SECONDS --out FILE]` prints JSON.

NVML is asked first (extra ``gpu``), `nvidia-smi -q` where that is not possible; a host with neither has no GPUs, and
the reading says why. With `--watch` one reading a line is appended to FILE until the process is told to stop.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TextIO

import psutil

from sotad.hosts.gpus_judge import Limits, disturbances, occupied
from sotad.hosts.gpus_nvml import Nvml, NvmlError
from sotad.hosts.gpus_reading import Gpu, Process, Reading
from sotad.hosts.gpus_smi import SmiError, parse, query

__all__ = ["Gpu", "Limits", "Process", "Reading", "disturbances", "look", "looking", "occupied"]

SOURCES = ("auto", "nvml", "nvidia-smi")
ASKED_AGAIN = 3  # times: a run that is stopped signals its group, and then each process once more


class Look(Protocol):
    """One look at the GPUs with these indices, or at all."""

    def __call__(self, ids: Collection[int] | None = None) -> Reading: ...


def look(ids: Collection[int] | None = None) -> Reading:
    """The GPUs of this host with these indices (default: all) as they are now; never raises for want of any."""
    with looking() as now:
        return now(ids)


@contextmanager
def looking(source: str = "auto", module: Any = None) -> Iterator[Look]:
    """A function for many looks: NVML is initialised once. ``module`` stands in for pynvml."""
    problem = ""
    if source != "nvidia-smi":
        try:
            nvml = Nvml(module)
        except NvmlError as error:
            problem = str(error)
        else:
            with closing(nvml):
                yield lambda ids=None: _by_nvml(ids, nvml)
            return
    yield lambda ids=None: _nothing(ids, problem) if source == "nvml" else _by_smi(ids, problem)


def _by_nvml(ids: Collection[int] | None, nvml: Nvml) -> Reading:
    try:
        return _chosen(ids, _reading(source="nvml", driver=nvml.driver, gpus=nvml.gpus()))
    except NvmlError as error:
        return _nothing(ids, str(error))


def _by_smi(ids: Collection[int] | None, problem: str) -> Reading:
    try:
        driver, gpus = parse(query())
    except SmiError as error:
        return _nothing(ids, "; ".join(filter(None, (problem, str(error)))))
    return _chosen(ids, _reading(source="nvidia-smi", driver=driver, problem=problem, gpus=gpus))


def _nothing(ids: Collection[int] | None, problem: str) -> Reading:
    return _chosen(ids, _reading(source="none", problem=problem))


def _reading(**shown: Any) -> Reading:
    return Reading(time_ns=time.time_ns(), cpu=_cpu(), **shown)


def _cpu() -> dict[str, float]:
    """See `Reading`; user time counts that of guests already."""
    times = psutil.cpu_times()._asdict()
    busy = sum(times.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))
    stolen = {"stolen_s": round(times["steal"], 2)} if "steal" in times else {}
    return {"busy_s": round(busy, 2), **stolen}


def _chosen(ids: Collection[int] | None, found: Reading) -> Reading:
    if ids is None:
        return found
    kept = tuple(gpu for gpu in found.gpus if gpu.index in ids)
    return replace(found, gpus=kept, missing=tuple(sorted(set(ids) - {gpu.index for gpu in kept})))


def watch(now: Look, ids: Collection[int] | None, seconds: float, out: TextIO, stop: threading.Event) -> None:
    """Write a reading a line: at once, every ``seconds``, and a last one when ``stop`` is set.

    Who tells a watcher to stop may tell its nvidia-smi, too: what that did not get to say is asked for again.
    """
    stopped, again = False, ASKED_AGAIN
    while True:
        reading = now(ids)
        if stop.is_set() and reading.source == "none" and again:
            again -= 1
            continue
        out.write(json.dumps(reading.to_json(), sort_keys=True) + "\n")
        out.flush()
        if stopped:
            return
        stopped = stop.wait(seconds)


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, 1 when an asked-for GPU is missing, 2 for bad usage."""
    given = _parser().parse_args(argv)
    with looking(given.source) as now:
        if given.watch is not None:
            _watch(now, given)
            return 0
        found = now(given.ids)
    print(json.dumps(found.to_json(), indent=1, sort_keys=True))
    return 1 if found.missing else 0


def _watch(now: Look, given: argparse.Namespace) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if given.out is None:
        watch(now, given.ids, given.watch, sys.stdout, stop)
        return
    with given.out.open("a") as out:
        watch(now, given.ids, given.watch, out, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sotad.hosts.gpus", description="Print this host's GPUs as JSON.")
    parser.add_argument("--ids", type=_ids, help="indices as nvidia-smi numbers them, such as 0,1 (default: all)")
    parser.add_argument("--watch", type=_seconds, metavar="SECONDS", help="go on, one reading a line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="append to FILE instead of standard output")
    parser.add_argument("--source", choices=SOURCES, default="auto", help="whom to ask (default: %(default)s)")
    return parser


def _ids(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give GPU indices joined by commas, such as 0,1")
    return [int(part) for part in parts]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of seconds above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
