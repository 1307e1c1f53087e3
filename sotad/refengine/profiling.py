"""Torch-profiler captures of engine steps, written as Chrome traces that can be split by stage."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

_OFF: AbstractContextManager[None] = nullcontext()


def span(name: str) -> AbstractContextManager[object]:
    """A named range in the trace; costs next to nothing while no capture is running."""
    return record_function(name) if torch._C._autograd._profiler_enabled() else _OFF


class CaptureRefused(ValueError):
    """The capture that was asked for cannot be made."""


@dataclass
class Capture:
    """One capture: what is recorded (`stage` None: every step), and the file once it is written."""

    path: Path
    stage: str | None
    num_steps: int | None
    profiler: profile
    recording: bool = True
    steps: int = 0
    files: list[str] = field(default_factory=list)


class StepProfiler:
    """Wraps engine steps; every method belongs to the engine's thread, as torch collects per thread."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._active: Capture | None = None
        self._last: Capture | None = None

    def start(self, stage: str | None, num_steps: int | None, name: str, with_stack: bool) -> None:
        """Begin a capture that ends after `num_steps` steps of `stage`, or at `stop`.

        Raises:
            CaptureRefused: no folder was configured, or a capture is already running.
        """
        if self._folder is None:
            raise CaptureRefused("profiling is off: start the server with --profile-dir DIR")
        if self._active is not None:
            raise CaptureRefused("a capture is already running: POST /stop_profile first")
        path = self._folder / f"{name}-{stage or 'all'}-{time.time_ns()}.trace.json.gz"
        profiler = profile(activities=[ProfilerActivity.CPU], with_stack=with_stack)
        self._folder.mkdir(parents=True, exist_ok=True)
        profiler.start()
        self._active = Capture(path, stage, num_steps, profiler)

    def stop(self) -> dict[str, object]:
        """End the running capture, if there is one, and describe the latest.

        Raises:
            CaptureRefused: no capture was ever started.
        """
        if self._active is not None:
            self._finish(self._active)
        if self._last is None:
            raise CaptureRefused("no capture to stop: POST /start_profile first")
        return self.state()

    def state(self) -> dict[str, object]:
        """Whether a capture runs, and the steps and files of the latest one."""
        capture = self._active or self._last
        if capture is None:
            return {"active": False, "stage": None, "steps": 0, "files": []}
        return {
            "active": capture is self._active,
            "stage": capture.stage,
            "steps": capture.steps,
            "files": capture.files,
        }

    def step(self, stage: str, sequences: int, tokens: int) -> AbstractContextManager[object]:
        """The range of one step, named `step[DECODE bs=8 toks=8]`; off-stage steps are not recorded."""
        capture = self._active
        if capture is None:
            return _OFF
        wanted = capture.stage in (None, stage)
        if wanted != capture.recording:
            capture.profiler.toggle_collection_dynamic(wanted, [ProfilerActivity.CPU])
            capture.recording = wanted
        if not wanted:
            return _OFF
        capture.steps += 1
        return record_function(f"step[{stage.upper()} bs={sequences} toks={tokens}]")

    def settle(self) -> None:
        """End the capture if it has all its steps; called after each step."""
        capture = self._active
        if capture and capture.num_steps is not None and capture.steps >= capture.num_steps:
            self._finish(capture)

    def _finish(self, capture: Capture) -> None:
        capture.profiler.stop()
        if capture.steps:
            part = capture.path.with_name(f".{capture.path.name}")
            capture.profiler.export_chrome_trace(str(part))
            part.rename(capture.path)
            capture.files.append(str(capture.path.absolute()))
        self._active, self._last = None, capture
