"""nvidia-smi's memory figures: the CSV of a query, the table it prints, or ``nvidia-smi -q``."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from sotad.capacity.errors import CapacityError
from sotad.capacity.units import MIB

_TABLE = re.compile(r"\|\s*(\d+)MiB\s*/\s*(\d+)MiB\s*\|")
_MEBIBYTES = re.compile(r"\s*(\d+)\s*(?:MiB)?\s*")
_BLOCK = re.compile(r"FB Memory Usage(?P<body>(?:\n\s+\w+\s*:\s*\d+ MiB)+)")
_FIELD = re.compile(r"(\w+)\s*:\s*(\d+) MiB")
HEADERLESS = ("index", "memory.used", "memory.free")


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory of one GPU in bytes; ``total`` is without what the driver keeps for itself, if the file tells how much."""

    index: int
    used: int
    free: int | None
    total: int
    line: int


def read_smi(path: Path) -> list[Gpu]:
    """The GPUs in the file.

    Raises:
        CapacityError: it cannot be read, or holds no memory figures.
    """
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        raise CapacityError(f"{path}: {error.strerror or error}; leave out --nvidia-smi or name a file") from None
    found = _table(text) or _query(text) or _csv(text)
    if not found:
        wanted = "nvidia-smi --query-gpu=index,memory.used,memory.free,memory.total --format=csv"
        raise CapacityError(f"{path}: no GPU's memory in it; write it with: {wanted}")
    return found


def _table(text: str) -> list[Gpu]:
    rows = [(number, found) for number, line in enumerate(text.split("\n"), 1) if (found := _TABLE.search(line))]
    return [
        Gpu(index, int(found[1]) * MIB, None, int(found[2]) * MIB, number) for index, (number, found) in enumerate(rows)
    ]


def _query(text: str) -> list[Gpu]:
    gpus: list[Gpu] = []
    for index, block in enumerate(_BLOCK.finditer(text)):
        fields = {name.lower(): int(value) * MIB for name, value in _FIELD.findall(block["body"])}
        if "total" in fields and "used" in fields:
            line = text.count("\n", 0, block.start()) + 1
            usable = fields["total"] - fields.get("reserved", 0)
            gpus.append(Gpu(index, fields["used"], fields.get("free"), usable, line))
    return gpus


def _csv(text: str) -> list[Gpu]:
    """Rows with other than numbers are passed over; without a header the columns are index, used, free."""
    columns: tuple[str, ...] = HEADERLESS
    gpus: list[Gpu] = []
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        if any("memory." in cell for cell in row):
            columns = tuple(cell.split("[")[0].strip().lower() for cell in row)
            continue
        cells = [_MEBIBYTES.fullmatch(cell) for cell in row]
        fields = {name: int(cell[1]) for name, cell in zip(columns, cells, strict=False) if cell}
        used, free, whole = (fields.get(f"memory.{name}") for name in ("used", "free", "total"))
        if used is None or (free is None and whole is None):
            continue
        size = used + free if free is not None else whole or 0
        index = fields.get("index")
        gpus.append(
            Gpu(
                len(gpus) if index is None else index,
                used * MIB,
                None if free is None else free * MIB,
                size * MIB,
                number,
            )
        )
    return gpus
