"""Families of models as data (profiles.yaml): their anchor kernel, blocks in a layer and names of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Anchor:
    """Which kernels open a block: by category or by a part of the name, lower case."""

    categories: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def matches(self, name: str, category: str) -> bool:
        """Whether a kernel of this name and category is an anchor."""
        lower = name.lower()
        wanted = category in self.categories or any(part in lower for part in self.any)
        return wanted and not any(part in lower for part in self.exclude)


@dataclass(frozen=True, slots=True)
class Profile:
    """One family; see the head of profiles.yaml for what the fields mean."""

    name: str
    anchor: Anchor
    about: str = ""
    when: Mapping[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()
    merge: bool = False
    blocks_per_layer: int = 1
    halves: tuple[str, ...] = ("full",)
    layers: int | None = None
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    simplify: tuple[tuple[str, str], ...] = ()

    def category(self, name: str) -> str | None:
        """The family's own category of a kernel name, None when the shared ones decide."""
        lower = name.lower()
        return next((key for key, parts in self.labels if any(part in lower for part in parts)), None)

    def short(self, name: str) -> str | None:
        """The family's own short name of a kernel, None when the shared rule decides."""
        return next((short for part, short in self.simplify if part in name), None)

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether a model configuration is of this family."""
        return any(_TESTS[test](config, keys) for test, keys in self.when.items())


_TESTS: dict[str, Callable[[Mapping[str, Any], Any], bool]] = {
    "always": lambda config, keys: bool(keys),
    "nonempty": lambda config, keys: any(config.get(key) for key in keys),
    "positive": lambda config, keys: any(_number(config.get(key)) > 0 for key in keys),
    "layer_types": lambda config, kinds: any(kind in (config.get("layer_types") or ()) for kind in kinds),
}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


@cache
def profiles() -> tuple[Profile, ...]:
    """All shipped profiles, in the order in which they are tried."""
    import yaml

    text = files("sotad.pipeline").joinpath("profiles.yaml").read_text()
    return tuple(_profile(entry) for entry in yaml.safe_load(text))


def _profile(entry: Mapping[str, Any]) -> Profile:
    anchor = {key: tuple(part.lower() for part in parts) for key, parts in entry["anchor"].items()}
    labels = tuple((key, tuple(part.lower() for part in parts)) for key, parts in entry.get("labels", ()))
    return Profile(
        name=entry["name"],
        anchor=Anchor(**anchor),
        about=entry.get("about", ""),
        when=entry.get("when", {}),
        seen=tuple(entry.get("seen", ())),
        merge=entry.get("merge", False),
        blocks_per_layer=entry.get("blocks_per_layer", 1),
        halves=tuple(entry.get("halves", ("full",))),
        layers=entry.get("layers"),
        labels=labels,
        simplify=tuple((part, short) for part, short in entry.get("simplify", ())),
    )


def named(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ValueError: there is none; the text lists those there are.
    """
    for profile in profiles():
        if profile.name == name:
            return profile
    raise ValueError(f"no profile {name!r}; there is {', '.join(profile.name for profile in profiles())}")


def infer(config: Mapping[str, Any]) -> Profile:
    """The family that a model configuration tells; the last one, `generic`, when it tells none."""
    return next(profile for profile in profiles() if profile.fits(config))


def recognised(names: Iterable[str]) -> Profile:
    """The family whose kernels are in a trace; `generic` when none are known."""
    lower = [name.lower() for name in names]
    return next(profile for profile in profiles() if _any_part(profile.seen, lower))


def _any_part(parts: Sequence[str], names: Sequence[str]) -> bool:
    return any(part in name for part in parts for name in names) or "" in parts
