"""GPUs as `nvidia-smi -q` tells of them: its indented text, which holds all that NVML says, in one call.

The table that plain `nvidia-smi` prints will not do: it cuts memory figures short. Names of sections follow the
driver: "Clocks Event Reasons" was "Clocks Throttle Reasons" before driver 535; cards without ECC say N/A.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

from sotad.hosts.gpus_reading import THROTTLES, Gpu, Process

TIMEOUT_S = 30
Path = tuple[str, ...]
Facts = list[tuple[Path, str]]

_REASONS = re.compile(r"Clocks (Event|Throttle) Reasons")
_COUNTERS = {
    "SW Power Capping": "sw_power_cap",
    "Sync Boost": "sync_boost",
    "SW Thermal Slowdown": "sw_thermal_slowdown",
    "HW Thermal Slowdown": "hw_thermal_slowdown",
    "HW Power Braking": "hw_power_brake_slowdown",
}


class SmiError(Exception):
    """`nvidia-smi` is not there, or did not answer; the text says which."""


def query() -> str:
    """What `nvidia-smi -q` prints.

    Raises:
        SmiError: there is none, or it failed or took longer than ``TIMEOUT_S``.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise SmiError("no nvidia-smi on PATH")
    try:
        done = subprocess.run([program, "-q"], capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SmiError(f"nvidia-smi does not answer: {error}") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise SmiError(f"nvidia-smi exited with {done.returncode}: {(text + done.stderr.decode()).strip()[:300]}")
    return text


def parse(text: str) -> tuple[str, tuple[Gpu, ...]]:
    """The driver's version and the GPUs, numbered as they are listed, which is NVML's order too.

    Raises:
        SmiError: this is not the text of `nvidia-smi -q`.
    """
    head, sections = "", []
    for path, value in facts(text):
        if path == ("Driver Version",):
            head = value
        elif path[0].startswith("GPU ") and len(path) == 1:
            sections.append(Facts())
        elif path[0].startswith("GPU "):
            sections[-1].append((path[1:], value))
    if not head:
        raise SmiError(f"not the text of nvidia-smi -q: {text.strip()[:100]!r}")
    return head, tuple(_gpu(index, section) for index, section in enumerate(sections))


def facts(text: str) -> Iterator[tuple[Path, str]]:
    """Every line as its path of headings and its value, "" for a heading itself."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("="):
            continue
        indent = len(line) - len(line.lstrip())
        key, _, value = line.strip().partition(" : ")
        above = [*(entry for entry in above if entry[0] < indent), (indent, key.strip())]
        yield tuple(name for _, name in above), value.strip()


def _gpu(index: int, section: Facts) -> Gpu:
    known = dict(section)

    def integer(*path: str) -> int | None:
        number = _number(known.get(path, ""))
        return None if number is None else round(number)

    return Gpu(
        index=index,
        uuid=known.get(("GPU UUID",), ""),
        name=known.get(("Product Name",), ""),
        memory_total_mib=integer("FB Memory Usage", "Total"),
        memory_used_mib=integer("FB Memory Usage", "Used"),
        utilization_pct=_first(integer("Utilization", "GPU"), integer("Utilization", "Gpu")),
        temperature_c=integer("Temperature", "GPU Current Temp"),
        power_w=_power(known, "Average Power Draw", "Power Draw", "Instantaneous Power Draw"),
        power_limit_w=_power(known, "Current Power Limit", "Enforced Power Limit", "Power Limit"),
        sm_clock_mhz=integer("Clocks", "SM"),
        memory_clock_mhz=integer("Clocks", "Memory"),
        application_sm_clock_mhz=integer("Applications Clocks", "Graphics"),
        throttles=_throttles(section),
        throttled_us=_throttled(section),
        ecc_corrected=_ecc(section, "Correctable"),
        ecc_uncorrected=_ecc(section, "Uncorrectable"),
        mig={"Enabled": True, "Disabled": False}.get(known.get(("MIG Mode", "Current"), "")),
        processes=tuple(_processes(section)),
    )


def _number(value: str) -> float | None:
    """The number that "692 MiB" or "119.29 W" begins with; none for N/A and other words."""
    found = re.match(r"-?\d+(\.\d+)?", value)
    return float(found[0]) if found else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _power(known: dict[Path, str], *names: str) -> float | None:
    """The section was called "Power Readings" before driver 535."""
    paths = ((section, name) for name in names for section in ("GPU Power Readings", "Power Readings"))
    numbers = (_number(known.get(path, "")) for path in paths)
    return next((number for number in numbers if number is not None), None)


def _throttles(section: Facts) -> tuple[str, ...]:
    active = {
        path[-1].lower().replace(" ", "_")
        for path, value in section
        if _REASONS.fullmatch(path[0]) and value == "Active"
    }
    return tuple(name for name in THROTTLES if name in active)


def _throttled(section: Facts) -> dict[str, int]:
    counters = ((path, _number(value)) for path, value in section if path[0].endswith("Reasons Counters"))
    return {_COUNTERS[path[-1]]: int(n) for path, n in counters if path[-1] in _COUNTERS and n is not None}


def _ecc(section: Facts, kind: str) -> int | None:
    """Errors since the driver was loaded; an architecture's own split by memory and code is summed up."""
    counts = [
        _number(value) for path, value in section if path[:2] == ("ECC Errors", "Volatile") and kind in path[-1].split()
    ]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _processes(section: Facts) -> Iterator[Process]:
    blocks: list[dict[str, str]] = []
    for path, value in section:
        if path[0] != "Processes" or len(path) == 1:
            continue
        if path[-1] == "Process ID":
            blocks.append({})
        if blocks:
            blocks[-1][path[-1]] = value
    for block in blocks:
        memory = _number(block.get("Used GPU Memory", ""))
        yield Process(int(block["Process ID"]), block.get("Name", ""), None if memory is None else int(memory))
