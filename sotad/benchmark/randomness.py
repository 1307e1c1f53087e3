"""Random numbers that are the same for ever and everywhere: SHAKE-256 over a label, no generator's state.

Neither the Python version nor the machine matters.
"""

import hashlib
import struct
from collections.abc import Iterator

BLOCK = 256  # numbers drawn at a time by `uniforms`


def numbers(label: str, count: int) -> tuple[int, ...]:
    """`count` uniform 32-bit numbers."""
    return struct.unpack(f"<{count}I", hashlib.shake_256(label.encode()).digest(4 * count))


def uniforms(label: str) -> Iterator[float]:
    """Numbers in (0, 1], without end."""
    block = 0
    while True:
        for number in numbers(f"{label}/{block}", BLOCK):
            yield (number + 1) / 2**32
        block += 1


def order(label: str, count: int) -> list[int]:
    """0 to `count` - 1 in an order that the label alone determines."""
    keys = hashlib.shake_256(label.encode()).digest(8 * count)
    return sorted(range(count), key=lambda index: (keys[8 * index : 8 * index + 8], index))
