"""YAML text into a checked section, every problem told in a line of its own."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import JsonValue, ValidationError

from sotad.config.section import Section, one_line
from sotad.errors import BadConfig

M = TypeVar("M", bound=Section)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice: the first value would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in written:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is written twice", key.start_mark)
            written.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        BadConfig: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig([f"{path}: cannot be read: {error}"]) from None


def check(model: type[M], text: str, source: str) -> M:
    """Parse YAML and check it; ``source`` names it in problems.

    Raises:
        BadConfig: with one line per problem, each naming source and key.
    """
    data = _parse(text, source)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise BadConfig([f"{source}: a mapping of keys was expected, found {type(data).__name__}"])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [one_line(_problem(source, model, each)) for each in found]
        raise BadConfig(list(dict.fromkeys(problems))) from None


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise BadConfig([one_line(f"{where}: not YAML: {getattr(error, 'problem', error)}")]) from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a date or number that is none
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BadConfig([f"{source}: not YAML: {why}"]) from None


def _problem(source: str, model: type[Section], found: Any) -> str:
    path, section = _place(model, found["loc"])
    where = path or "(whole file)"
    if found["type"] == "extra_forbidden":
        return f"{source}: {where}: unknown key{_hint(section, str(found['loc'][-1]))}"
    if found["type"] == "missing":
        return f"{source}: {where}: is missing"
    return f"{source}: {where}: {found['msg'].removeprefix('Value error, ')}"


def _place(model: type[Section], loc: Sequence[Any]) -> tuple[str, type[Section] | None]:
    """The written path of a problem, and the section that its last key is in; free JSON below a key is left out."""
    here: Any = model
    parts: list[str] = []
    section: type[Section] | None = None
    for part in loc:
        if here in (JsonValue, None) or part == "[key]":
            break
        parts.append(str(part))
        section = here if _is_section(here) else None
        here = _below(here, str(part))
    return ".".join(parts), section


def _below(annotation: Any, part: str) -> Any:
    """The annotation of what a key or an index leads to, or None when that is unknown."""
    if _is_section(annotation):
        field = annotation.model_fields.get(part)
        annotation = field.annotation if field else None
        inside = [member for member in get_args(annotation) if _is_section(member)]
        return inside[0] if inside and type(None) in get_args(annotation) else annotation
    arguments = get_args(annotation)
    return arguments[-1] if arguments else None


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _hint(section: type[Section] | None, key: str) -> str:
    if section is None:
        return ""
    if key in section.replaced:
        return f"; {section.replaced[key]}"
    near = difflib.get_close_matches(key, sorted(section.model_fields), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
