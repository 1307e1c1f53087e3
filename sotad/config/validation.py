"""Everything that can be said about a campaign file before it is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sotad.config.campaign import CampaignConfig
from sotad.config.expand import expand
from sotad.config.launches import Launch, captured, launches
from sotad.config.reading import check, read
from sotad.config.rules import Finding, findings
from sotad.config.rules.finding import JSON
from sotad.errors import BadConfig
from sotad.plan.draft import BadDraft, read_draft
from sotad.search.expected import of_spec


@dataclass(slots=True)
class Report:
    """Lines ``file: key: message``; with errors the campaign is refused. ``commands`` of all candidates.

    ``expected`` is what it will take, as :mod:`sotad.search.expected` forecasts it; empty with errors.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    commands: list[Launch] = field(default_factory=list)
    expected: JSON = field(default_factory=dict)


def validate(path: Path, help_dir: Path | None = None) -> Report:
    """Check a campaign file; with ``help_dir`` also its flags against the help texts saved there."""
    try:
        spec = expand(check(CampaignConfig, read(path), str(path)), path.parent)
    except BadConfig as error:
        return Report(error.problems)
    helps, missing = captured(spec, help_dir) if help_dir else ({}, [])
    found, ruled = launches(spec, helps), list(findings(spec))
    refused = tuple(f"frameworks.{name}." for name in spec["frameworks"] if _is_refused(ruled, name))
    rendering = [each for each in found.findings if not (each.level == "error" and each.key.startswith(refused))]
    report = Report(commands=found.commands)
    for each in dict.fromkeys([*ruled, *missing, *rendering, *_files(spec)]):
        lines = report.errors if each.level == "error" else report.warnings
        lines.append(f"{path}: {each}")
    report.expected = {} if report.errors else of_spec(spec)
    return report


def _is_refused(ruled: list[Finding], framework: str) -> bool:
    """Whether a rule refuses the framework: its driver would tell the same mistake again."""
    return any(each.level == "error" and each.key.startswith(f"frameworks.{framework}.") for each in ruled)


def _files(spec: JSON) -> Iterator[Finding]:
    dataset = spec["workload"]["dataset"]
    if dataset and not Path(dataset).is_file():
        yield Finding("workload.dataset", f"there is no file {dataset}")
    if draft := spec["plan"]["draft"]:
        try:
            read_draft(Path(draft))
        except BadDraft as error:
            yield Finding("plan.draft", str(error))
