"""Configuration files that come with sotad: beside the packages in a checkout, else where a wheel puts them."""

from __future__ import annotations

import sys
from pathlib import Path


def shipped(name: str) -> Path:
    """Path of a file of ``configs/``.

    Raises:
        FileNotFoundError: this installation lacks it.
    """
    places = (Path(__file__).resolve().parent.parent / "configs", Path(sys.prefix) / "share" / "sotad" / "configs")
    for place in places:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, places))}: install sotad again")
