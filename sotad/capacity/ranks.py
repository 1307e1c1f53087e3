"""Which process of a server wrote a line: its place in data, pipeline, tensor and expert parallelism."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"(?<![A-Za-z])(ATTN_TP|MOE_EP|DP|TP|PP|EP)(\d+)(?![A-Za-z0-9])", re.I)
_JOINED = re.compile(r"(?<=\d)(?=[A-Za-z])")  # DP1TP3
# SGLang: [2027-01-04 11:02:15 DP0 TP3 EP3]; some builds leave the time out.
_BRACKET = re.compile(r"\[(?:[^\[\]<]*\d{2}:\d{2}[^\[\]<]*|(?:\s*(?:ATTN_TP|MOE_EP|DP|TP|PP|EP)\d+)+\s*)\]")
# vLLM: (Worker_DP0_TP1_EP1 pid=12), (EngineCore_DP0 pid=9), (VllmWorker rank=1 pid=7), (VllmWorker TP1 pid=7).
_PROCESS = re.compile(
    r"\((?P<name>(?:Vllm)?(?:Ray)?(?:Worker|EngineCore|APIServer)\w*)(?P<more>[^()]*?)(?:\bpid=(?P<pid>\d+))[^()]*\)",
    re.I,
)
_GLOBAL = re.compile(r"\brank=(\d+)|^-(\d+)")  # (VllmWorker rank=1 ...), (VllmWorker-1 ...)
_ENGINE = re.compile(r"EngineCore[_-](\d+)$", re.I)  # the engine's number is its data-parallel rank
_TRT = re.compile(r"\[RANK (\d+)\]")
_ASSIGNED = re.compile(r"\brank \d+ in world size \d+ is assigned as (?P<places>.*)")
_PLACE = re.compile(r"(?<![A-Z])(DP|PP|TP|EP) rank (\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """A process's place. None: the line does not say; a missing place means 0 when ranks are compared."""

    dp: int | None = None
    pp: int | None = None
    tp: int | None = None
    ep: int | None = None
    pid: int | None = None  # only where a worker says neither place nor number

    @property
    def key(self) -> tuple[int, int, int, int]:
        """What identifies the GPU: expert parallelism shares the GPUs of the others."""
        return (self.dp or 0, self.pp or 0, self.tp or 0, self.pid or 0)

    @property
    def pool(self) -> int:
        """Which KV pool: each data-parallel rank has its own."""
        return self.dp or 0

    def __str__(self) -> str:
        if self.pid is not None:
            return f"pid {self.pid}"
        named = (("DP", self.dp), ("PP", self.pp), ("TP", self.tp), ("EP", self.ep))
        return " ".join(f"{name}{place}" for name, place in named if place is not None) or "TP0"


def of(text: str) -> Rank:
    """The rank of all tokens such as ``TP1``, in any order; the process-wide number comes before the attention one."""
    places = {name.upper(): int(number) for name, number in _TOKEN.findall(_JOINED.sub(" ", text))}
    tp = places.get("TP", places.get("ATTN_TP"))
    return Rank(places.get("DP"), places.get("PP"), tp, places.get("EP", places.get("MOE_EP")))


class Ranks:
    """Ranks line by line; remembers which process said that it is which rank."""

    def __init__(self) -> None:
        self._pids: dict[int, Rank] = {}

    def learn(self, line: str) -> None:
        """Note a vLLM worker's line that says where it was placed."""
        assigned, process = _ASSIGNED.search(line), _PROCESS.search(line)
        if assigned is None or process is None:
            return
        places = {name: int(number) for name, number in _PLACE.findall(assigned["places"])}
        self._pids[int(process["pid"])] = Rank(places.get("DP"), places.get("PP"), places.get("TP"), places.get("EP"))

    def before(self, line: str, end: int) -> Rank:
        """The rank of the message that starts at ``end``: its nearest prefix counts, since lines run together."""
        processes = list(_PROCESS.finditer(line, 0, end))
        if processes:
            return self._of_process(processes[-1])
        if trt := list(_TRT.finditer(line, 0, end)):
            return Rank(tp=int(trt[-1][1]))
        brackets = list(_BRACKET.finditer(line, 0, end))
        return of(brackets[-1][0]) if brackets else Rank()

    def _of_process(self, found: re.Match[str]) -> Rank:
        text = found["name"].replace("_", " ").replace("ATTN TP", "ATTN_TP") + " " + found["more"]
        named, known = of(text), self._pids.get(int(found["pid"]))
        if named != Rank():
            return named
        if engine := _ENGINE.search(found["name"]):
            return Rank(dp=int(engine[1]))
        if number := _GLOBAL.search(found["more"]):
            return known or Rank(tp=int(number[1] or number[2]))
        if known is not None or "worker" not in found["name"].lower():
            return known or Rank()
        return (
            Rank(pid=int(found["pid"]))
            if found["name"].lower() in ("vllmworkerprocess", "rayworkerwrapper")
            else Rank()
        )
