"""Campaign and daemon configuration: YAML in, checked plain data out.

Unknown keys are refused, with the nearest known key as a suggestion, because a mistyped SLA that is silently
ignored would make every later number wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sotad.config.campaign import CampaignConfig
from sotad.config.daemon import DaemonConfig
from sotad.config.expand import expand
from sotad.config.reading import check, read
from sotad.config.rules import errors
from sotad.errors import BadConfig

__all__ = ["DaemonConfig", "load_campaign", "load_daemon", "parse_campaign"]


def load_campaign(path: Path) -> dict[str, Any]:
    """Read a campaign file into the spec that the ledger records; relative paths are taken from the file.

    Raises:
        BadConfig: with one line per problem, each naming file and key.
    """
    return parse_campaign(read(path), str(path), path.parent)


def parse_campaign(text: str, source: str, base: Path) -> dict[str, Any]:
    """Check campaign YAML; ``source`` names it in problems, ``base`` anchors its relative paths.

    Raises:
        BadConfig: with one line per problem, each naming source and key.
    """
    spec = expand(check(CampaignConfig, text, source), base)
    if problems := errors(spec):
        raise BadConfig([f"{source}: {problem}" for problem in problems])
    return spec


def load_daemon(path: Path) -> DaemonConfig:
    """Read the daemon's file; defaults when there is none.

    Raises:
        BadConfig: with one line per problem.
    """
    return check(DaemonConfig, read(path), str(path)) if path.exists() else DaemonConfig()
