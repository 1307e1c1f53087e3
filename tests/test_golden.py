"""Ledgers of every release replay for ever: same chain, same state, every guard still satisfied."""

import gzip
from pathlib import Path

import pytest

from ledger.verify import verify
from statemachine.judge import Judge
from statemachine.state import to_json

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.jsonl.gz"))


@pytest.mark.parametrize("golden", GOLDEN, ids=[path.name.removesuffix(".jsonl.gz") for path in GOLDEN])
def test_a_golden_ledger_replays(golden: Path, tmp_path: Path) -> None:
    """Verify finds nothing but the artifacts, which are not kept, and the fold is the same to the byte."""
    export = tmp_path / "golden.jsonl"
    export.write_bytes(gzip.decompress(golden.read_bytes()))
    judge = Judge()
    report = verify(export, judge=judge)
    assert report.events > 400
    assert {problem.kind for problem in report.problems} <= {"artifact_missing"}
    state = golden.with_name(golden.name.replace(".jsonl.gz", ".state.json.gz"))
    assert to_json(judge.world).encode() == gzip.decompress(state.read_bytes())


def test_every_release_has_its_golden_ledger() -> None:
    """At least this release's."""
    assert GOLDEN
