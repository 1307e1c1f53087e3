"""Stand-in for a host's GPUs: an nvidia-smi that prints what a file says, and texts in the form of `nvidia-smi -q`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HEAD = """
==============NVSMI LOG==============

Timestamp                                              : Thu Jan  1 10:00:00 2026
Driver Version                                         : 580.0
CUDA Version                                           : 13.0

Attached GPUs                                          : {count}"""
CARD = """
GPU 00000000:{bus:02X}:00.0
    Product Name                                       : Stand-in Card
    MIG Mode
        Current                                        : Disabled
        Pending                                        : Disabled
    GPU UUID                                           : {uuid}
    Clocks Event Reasons
        Idle                                           : Not Active
        SW Power Cap                                   : Not Active
        HW Slowdown                                    : Not Active
            HW Thermal Slowdown                        : Not Active
            HW Power Brake Slowdown                    : Not Active
        Sync Boost                                     : Not Active
        SW Thermal Slowdown                            : Not Active
    Clocks Event Reasons Counters
        SW Power Capping                               : 8252617 us
        Sync Boost                                     : 0 us
        SW Thermal Slowdown                            : 0 us
        HW Thermal Slowdown                            : {hot_us} us
        HW Power Braking                               : 0 us
    FB Memory Usage
        Total                                          : 143771 MiB
        Reserved                                       : 616 MiB
        Used                                           : {used} MiB
        Free                                           : 100000 MiB
    BAR1 Memory Usage
        Used                                           : 693 MiB
    Utilization
        GPU                                            : {busy} %
        Memory                                         : 0 %
    ECC Errors
        Volatile
            SRAM Correctable                           : 0
            SRAM Uncorrectable Parity                  : 0
            DRAM Correctable                           : {corrected}
            DRAM Uncorrectable                         : 0
        Aggregate
            DRAM Correctable                           : 7
    Temperature
        GPU Current Temp                               : 40 C
        Memory Current Temp                            : 38 C
    GPU Power Readings
        Average Power Draw                             : 119.29 W
        Instantaneous Power Draw                       : 127.43 W
        Current Power Limit                            : 700.00 W
    GPU Memory Power Readings
        Average Power Draw                             : 33.82 W
    Clocks
        Graphics                                       : 1980 MHz
        SM                                             : 1980 MHz
        Memory                                         : 3201 MHz
    Applications Clocks
        Graphics                                       : 1980 MHz
        Memory                                         : 3201 MHz
    Processes{processes}"""
PROCESS = """
        GPU instance ID                                : N/A
        Compute instance ID                            : N/A
        Process ID                                     : {pid}
            Type                                       : C
            Name                                       : {name}
            Used GPU Memory                            : {mib} MiB"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card as it is now; ``processes`` are (pid, name, MiB)."""

    uuid: str = "GPU-a"
    used: int = 4
    busy: int = 0
    hot_us: int = 0
    corrected: int = 0
    processes: tuple[tuple[int, str, int], ...] = ()

    def text(self, index: int) -> str:
        blocks = "".join(PROCESS.format(pid=pid, name=name, mib=mib) for pid, name, mib in self.processes)
        known = {key: getattr(self, key) for key in ("uuid", "used", "busy", "hot_us", "corrected")}
        return CARD.format(bus=0x3B + index, processes=blocks or " : None", **known)


TRAINING = (4242, "training", 40_000)


def said(*cards: Card) -> str:
    """What `nvidia-smi -q` prints of these cards."""
    texts = "".join(card.text(index) for index, card in enumerate(cards))
    return HEAD.format(count=len(cards)) + texts + "\n"


class StandInSmi:
    """What nvidia-smi says from now on; changed at once, so that no reader sees half of it."""

    def __init__(self, home: Path, *cards: Card) -> None:
        self._text, folder = home / "nvidia-smi.txt", home / "bin"
        folder.mkdir()
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nexec cat {self._text}\n")
        program.chmod(0o755)
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        self.says(*cards)

    def says(self, *cards: Card) -> None:
        draft = self._text.with_suffix(".new")
        draft.write_text(said(*cards))
        draft.replace(self._text)
