"""Facts out of a running server's answers: Prometheus metrics, the model list, the info page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """The samples of one scrape; a text that is not in the Prometheus format has none."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _samples(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        try:
            for family in text_string_to_metric_families(self._text):
                for sample in family.samples:
                    found.setdefault(sample.name, []).append((dict(sample.labels), float(sample.value)))
        except (ValueError, IndexError):
            return {}
        return found

    def values(self, name: str) -> list[float]:
        """Every finite sample of that name."""
        return [value for _, value in self._samples.get(name, []) if math.isfinite(value)]

    def total(self, name: str) -> float | None:
        """The sum over all label sets; None when there is no such sample."""
        values = self.values(name)
        return sum(values) if values else None

    def label(self, name: str, label: str) -> str | None:
        """A label of an info metric."""
        return next((labels[label] for labels, _ in self._samples.get(name, []) if label in labels), None)


class Reading(Protocol):
    """How one fact is read from the scrape of now and an earlier one."""

    def of(self, now: Metrics, before: Metrics) -> Any:
        """The fact, or None when the server does not tell it."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A present value: summed over ranks, or the largest of them. ``unset`` is what stands for no value."""

    name: str
    over: Callable[[Iterable[float]], float] = sum
    unset: float | None = None

    def of(self, now: Metrics, before: Metrics) -> float | None:
        values = now.values(self.name)
        found = self.over(values) if values else None
        return None if found == self.unset else found


@dataclass(frozen=True, slots=True)
class Counter:
    """What a counter rose by."""

    name: str

    def of(self, now: Metrics, before: Metrics) -> float | None:
        return rise(self.name, now, before)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The rise of one counter over the rise of another, times ``scale`` plus ``plus``; None for nothing counted."""

    part: str
    whole: str
    scale: float = 1.0
    plus: float = 0.0

    def of(self, now: Metrics, before: Metrics) -> float | None:
        part, whole = rise(self.part, now, before), rise(self.whole, now, before)
        return None if part is None or not whole else part / whole * self.scale + self.plus


@dataclass(frozen=True, slots=True)
class Label:
    """A label of an info metric, in a form that ``read`` makes of it."""

    name: str
    label: str
    read: Callable[[str], Any] = str

    def of(self, now: Metrics, before: Metrics) -> Any:
        found = now.label(self.name, self.label)
        try:
            return None if found in (None, "None") else self.read(str(found))
        except ValueError:
            return None


def rise(name: str, now: Metrics, before: Metrics) -> float | None:
    """How much a counter rose since an earlier scrape; a counter that fell was reset and counts from nothing."""
    end, start = now.total(name), before.total(name) or 0.0
    return None if end is None else end - start if end >= start else end


def is_true(text: str) -> bool:
    """A Python or JSON boolean in a label."""
    return text.lower() in ("true", "1")


def model_info(models: Any, info: Any = None) -> dict[str, Any]:
    """Served name, root and longest context, from ``/v1/models`` and the server's info page; None where not told."""
    listed = models.get("data") if isinstance(models, Mapping) else None
    entry = next((item for item in listed or () if isinstance(item, Mapping)), {})
    info = info if isinstance(info, Mapping) else {}
    return {
        "id": entry.get("id") or info.get("served_model_name"),
        "root": info.get("model_path") or entry.get("root"),
        "max_context": entry.get("max_model_len") or info.get("context_length"),
        "version": info.get("version"),
    }
