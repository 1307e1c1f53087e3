"""The command of every candidate, and what a server's own help says against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sotad.config.rules.families import snake
from sotad.config.rules.finding import JSON, Finding, warning
from sotad.config.rules.written import written
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.help import Help, find_help
from sotad.frameworks.render import BadFlag, Rendered

NO_HELP = Help({}, "none")


class Launch(NamedTuple):
    """A candidate's command with ``{port}`` in it; the flags left out of it; the flags under a later name."""

    framework: str
    candidate: str
    argv: list[str]
    dropped: list[str]
    translated: dict[str, str]


class Launches(NamedTuple):
    """All commands that can be rendered, and the findings."""

    commands: list[Launch]
    findings: list[Finding]


def captured(spec: JSON, folder: Path) -> tuple[dict[str, Help], list[Finding]]:
    """The server's help of every framework among the texts of a folder; a warning for each that has none."""
    helps: dict[str, Help] = {}
    missing: list[Finding] = []
    for name, framework in spec["frameworks"].items():
        hints = FRAMEWORKS[framework["kind"]].help_hints
        found = find_help(folder, hints)
        if found is None or not found[1].complete:
            lacks = f"no help text of its server in {folder} (a *.txt with {' and '.join(hints)} in its name)"
            missing.append(warning(f"frameworks.{name}", f"{lacks}: flags are checked against a fixed list"))
        else:
            helps[name] = found[1]
    return helps, missing


def launches(spec: JSON, helps: Mapping[str, Help]) -> Launches:
    """Render every candidate of every framework; one without a help goes by the list that its driver has."""
    commands: list[Launch] = []
    findings: list[Finding] = []
    for name, framework in spec["frameworks"].items():
        help = helps.get(name, NO_HELP)
        refused: set[str] = set()
        for candidate in framework["candidates"]:
            try:
                rendered = _render(spec, framework, candidate["flags"], help)
                commands.append(Launch(name, candidate["id"], rendered.argv, rendered.dropped, rendered.translated))
            except BadFlag as error:
                if str(error) not in refused:
                    findings.append(Finding(f"frameworks.{name}.candidates.{candidate['id']}", str(error)))
                refused.add(str(error))
        dropped = {flag for launch in commands if launch.framework == name for flag in launch.dropped}
        findings += (found.under(f"frameworks.{name}") for found in _unknown(framework, dropped, name in helps))
    return Launches(commands, findings)


def _render(spec: JSON, framework: JSON, flags: JSON, help: Help) -> Rendered:
    driver = FRAMEWORKS[framework["kind"]]
    return driver.launch(framework["command"], spec["model"], {**framework["options"], **flags}, help)


def _unknown(framework: JSON, dropped: set[str], with_help: bool) -> Iterator[Finding]:
    """A flag that no version has is a mistake; one that this version lacks is left out of the command, and told."""
    driver = FRAMEWORKS[framework["kind"]]
    if framework["kind"] == "reference" and not with_help:  # its help is captured from the checkout, always
        return
    keys = {found.flag: found.key for found in reversed(list(written(framework)))}
    for flag in sorted(dropped - {flag for flag in dropped if snake(flag) in driver.owned}):
        if not with_help:
            yield warning(keys[flag], "is not in the list of known flags: check it with --help-dir")
        elif snake(flag) in driver.known:
            yield warning(keys[flag], "this version of the server does not have it: it is left out of the command")
        else:
            yield Finding(keys[flag], "the server's help does not have this flag")
