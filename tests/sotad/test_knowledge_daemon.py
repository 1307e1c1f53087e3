"""A daemon with a knowledge folder: what is known is in the ledger before anything is measured."""

from __future__ import annotations

from rig.campaign import Rig


def test_a_campaign_reads_its_histories_before_it_measures(rig: Rig) -> None:
    """The dossier is noted for target and competitor, and the machine goes on to freeze the workload."""
    folder = rig.home / "histories" / "reference" / "standin"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Stand-in\n\n### #12 less work\n\n- `refengine/work.py`: `token_work`\n")
    (folder / "circle.md").symlink_to(folder / "circle.md")
    rig.start()
    rig.submit(knowledge={"folder": str(rig.home / "histories")})
    noted = rig.seen("history.noted")
    rig.seen("workload.frozen")
    (document,) = noted.payload["documents"]
    assert (document["document"], document["prs"]) == ("reference/standin/README.md", [12])
    assert "bears on the target's model (slug)" in document["decision"]
    assert "stale: its age is unknown" in noted.payload["decision"]
