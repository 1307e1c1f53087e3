"""What sotad needs to know about a serving framework, and what all of them share."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sotad.frameworks.facts import Metrics, Reading
from sotad.frameworks.help import Help, plain, static_help
from sotad.frameworks.interpreter import interpreter
from sotad.frameworks.logs import FELL_BACK, GRAPHS_LOST, Failure, Pattern, classify, fell_back
from sotad.frameworks.render import BadFlag, Rename, Rendered, Value, render

PORT = "{port}"  # stands for the port in recorded commands: the port is not part of the command's identity
HOST = "127.0.0.1"
CONDITIONS = (
    "tensor_parallel",
    "pipeline_parallel",
    "dtype",
    "kv_cache_dtype",
    "quantization",
    "prefix_cache",
    "speculative",
    "max_context",
    "tokenizer",
    "cpu_offload",
    "memory_fraction",
)
_DTYPES = {"half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "fp8_e4m3"}
_WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "half", "float")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP POST; ``body`` None is an empty one, ``may_fail`` an answer that says nothing."""

    path: str
    body: Mapping[str, Any] | None = None
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class Profiler:
    """How a server is made to write a torch trace into a folder.

    ``start`` and ``stop`` are None where the server decides by its own step counter; ``flags`` and ``env`` are needed
    at the launch; ``files`` is a glob below the folder, or empty when the answer to ``stop`` lists them;
    ``settle_s`` is how long files may take to appear after the stop.
    """

    start: Call | None
    stop: Call | None
    flags: Mapping[str, Value] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    files: str = "**/*.trace.json*"
    settle_s: float = 60.0


class Framework:
    """One framework's command line, endpoints and output. A subclass per framework, most of it data."""

    kind: ClassVar[str]
    default_command: ClassVar[tuple[str, ...]] = ()
    module: ClassVar[tuple[str, ...]] = ()  # the same program for a given interpreter: what follows `python`
    packages: ClassVar[tuple[str, ...]] = ()  # distributions that may hold it: the one with the most files counts
    help_flag: ClassVar[str] = "--help"
    help_hints: ClassVar[tuple[str, str]]  # both are in the name of a saved help text
    separator: ClassVar[str] = "-"
    known: ClassVar[tuple[str, ...]] = ()  # flags that may be passed when no help could be captured
    negatable: ClassVar[tuple[str, ...]] = ()
    renames: ClassVar[tuple[Rename, ...]] = ()
    owned: ClassVar[Mapping[str, str]] = {}  # flags that sotad sets itself: name -> the model's key, or ""
    context_flag: ClassVar[str] = ""
    dtype_flag: ClassVar[str] = ""
    tokenizer_flag: ClassVar[str] = ""
    always: ClassVar[Mapping[str, Value]] = {}  # flags of every launch, where the server knows them
    ready_path: ClassVar[str] = "/health"
    metrics_path: ClassVar[str] = "/metrics"
    info_paths: ClassVar[tuple[str, ...]] = ()  # the first that answers 200 describes the running server
    readings: ClassVar[Mapping[str, Reading]] = {}
    patterns: ClassVar[tuple[Pattern, ...]] = ()
    traces_whole_pass: ClassVar[bool] = False  # one trace of all of the scenario is small enough
    counts_own_steps: ClassVar[bool] = False  # its profiler cannot be told when: one server for each stage
    fallbacks: ClassVar[tuple[str, ...]] = ()  # log lines of a server that does not do what its flags say
    graphs_off: ClassVar[tuple[str, ...]] = ()  # flags with which decode is not replayed from CUDA graphs
    caches: ClassVar[Mapping[str, str]] = {}  # variable of each cache of compiled code -> its folder below ours
    used: ClassVar[Mapping[str, str]] = {}  # flag -> the words in the log that tell the value in use

    def command(self, given: str | Sequence[str] | None = None, python: str = "") -> list[str]:
        """The server's command prefix: as configured, else the interpreter's module, else the default program."""
        words = shlex.split(given) if isinstance(given, str) else list(given or ())
        if not words:
            words = ["python", *self.module] if python else list(self.default_command)
        return [python, *words[1:]] if python and words and words[0] in ("python", "python3") else words

    def help_commands(self, command: Sequence[str]) -> dict[str, list[str]]:
        """The commands that print the help of the server and, where there is one, of the benchmark client."""
        return {"server": [*command, self.help_flag]}

    def version_command(self, command: Sequence[str], python: str | None = None) -> list[str]:
        """The command that prints the version on its last line; a program's own, else its distribution's.

        ``python`` is what the command runs under, where that is known; this machine is asked otherwise.
        """
        code = f"from importlib.metadata import version as v; print(v({self.packages[0]!r}))"
        return [(interpreter(command) if python is None else python) or "python3", "-c", code]

    def unsupported(self, options: Mapping[str, Value]) -> str:
        """Why these options cannot be compared, or an empty string."""
        return ""

    def served_model(self, model: Mapping[str, Any]) -> str:
        """The model's name in requests."""
        return str(model.get("served_name") or model["id"])

    def launch(
        self, command: Sequence[str], model: Mapping[str, Any], flags: Mapping[str, Value], help: Help
    ) -> Rendered:
        """The server's argv with ``{port}`` where the port goes, and what was dropped or translated.

        Raises:
            BadFlag: a flag's value would be refused, or contradicts the campaign's model.
        """
        help = help if help.complete else self.fallback()
        kept, refused = self._free(flags, model)
        defaults = {key: value for key, value in self.defaults(model).items() if not self._given(key, kept, help)}
        rendered = render({**self._known(defaults, help), **kept}, help, self.renames)
        rendered.dropped += refused
        rendered.argv = [*command, *self.head(model), *rendered.argv]
        return rendered

    def fallback(self) -> Help:
        """The help to go by when none was captured: the static list."""
        return static_help(self.known, self.separator, self.negatable)

    def head(self, model: Mapping[str, Any]) -> list[str]:
        """What sotad sets itself: the model, its name in requests, the address."""
        raise NotImplementedError

    def defaults(self, model: Mapping[str, Any]) -> dict[str, Value]:
        """Flags that follow from the campaign's model, for every candidate that does not set them."""
        found: dict[str, Value] = dict(self.always)
        if self.context_flag and model.get("max_context"):
            found[self.context_flag] = model["max_context"]
        if self.dtype_flag and model.get("precision") in _WEIGHT_DTYPES:
            found[self.dtype_flag] = model["precision"]
        if self.tokenizer_flag and model.get("tokenizer") not in (None, "", model["id"]):
            found[self.tokenizer_flag] = model["tokenizer"]
        if model.get("trust_remote_code"):
            found["trust_remote_code"] = True
        return found

    def profiler(
        self, folder: str, help: Help, steps: int | None = None, name: str = "sotad", stacks: bool = False
    ) -> Profiler | None:
        """How to trace into a folder: all steps between start and stop, or ``steps`` of them; None: it cannot.

        ``stacks`` are for a trace that shows where kernels come from; they slow the CPU, so that its times say little.
        """
        return None

    def conditions(self, flags: Mapping[str, Value], model: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a comparison must hold equal, in terms that all frameworks share; None where it is not known."""
        return dict.fromkeys(CONDITIONS)

    def replays_graphs(self, flags: Mapping[str, Value]) -> bool:
        """Whether decode is to run from CUDA graphs with these flags."""
        return not any(first(flags, flag, default=False) not in (False, "false") for flag in self.graphs_off)

    def fell_back(self, log: str, flags: Mapping[str, Value]) -> list[str]:
        """What the log says the server did instead of what its flags ask for."""
        patterns = (*FELL_BACK, *self.fallbacks, *((GRAPHS_LOST,) if self.replays_graphs(flags) else ()))
        used = {flag: found[-1] for flag, words in self.used.items() if (found := re.findall(words, log))}
        asked = {flag: first(flags, flag) for flag in used}
        return fell_back(log, patterns, asked, used)

    def failure(self, log: str) -> Failure:
        """Why a server ended or did not come up, by its log, with the line that says so."""
        return classify(log, self.patterns)

    def observe(
        self, metrics_text: str, server_info: Mapping[str, Any] | None = None, before: str = ""
    ) -> dict[str, Any]:
        """Facts of the running server; what counts up is taken since ``before``. None where it is not told."""
        now, then = Metrics(metrics_text), Metrics(before)
        return {name: reading.of(now, then) for name, reading in self.readings.items()}

    def _free(self, flags: Mapping[str, Value], model: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
        """The flags that a candidate may set, and the names of those that only sotad sets."""
        kept: dict[str, Value] = {}
        refused: list[str] = []
        for key, value in flags.items():
            name = plain(key)
            if name not in self.owned:
                kept[key] = value
                continue
            source = self.owned[name]
            wanted = self.served_model(model) if source == "served_name" else model.get(source)
            if source and value is not None and value != wanted:
                raise BadFlag(
                    f"{key} is {value!r}, but the campaign's model.{source} is {wanted!r}: set only the model"
                )
            if not source:
                refused.append(key)
        return kept, refused

    def _given(self, key: str, flags: Mapping[str, Value], help: Help) -> bool:
        """Whether a flag is set already, under any of its names."""
        mine = help.flags.get(help.find(key) or "")
        names = {plain(name) for name in mine.spellings} if mine else {plain(key)}
        return any(plain(name) in names for name in flags)

    def _known(self, defaults: Mapping[str, Value], help: Help) -> dict[str, Value]:
        """Defaults of every launch that the server does not know are not missed."""
        return {key: value for key, value in defaults.items() if key not in self.always or help.find(key)}


def first(flags: Mapping[str, Value], *names: str, default: Any = None) -> Any:
    """The value of a flag under any of its names."""
    found = {plain(key): value for key, value in flags.items() if value is not None}
    return next((found[name] for name in names if name in found), default)


def dtype(value: Any) -> Any:
    """A dtype by its common name."""
    return _DTYPES.get(value, value) if isinstance(value, str) else value
