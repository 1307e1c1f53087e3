"""The mirror of a whole campaign that a real daemon ran."""

from __future__ import annotations

import pytest
from rig.campaign import Rig

from ledger.artifacts import Artifacts
from sotad.humanize.mirror import tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
]  # the first to ask for the session's campaign waits for all of it


def test_a_campaign_through_kills_leaves_its_mirror(killed: Rig) -> None:
    """Whatever was half done when the daemon died, the files are the projection of the ledger, and no others."""
    killed.back_to("end")
    c = killed.c
    root = killed.paths.root / "humanize" / c.id
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert found == tree(c, killed.events(), Artifacts(killed.paths.artifacts).read)
    assert any(name.endswith("/complete-state.md") for name in found)
    assert any(name.endswith("/round-0-review-result.md") for name in found)
