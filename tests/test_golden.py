"""Ledgers of every release replay for ever: same chain, same state, every guard still satisfied."""

import gzip
import json
from pathlib import Path

import pytest

from ledger.events import Event
from ledger.verify import verify
from sotad.api.summary import summaries
from statemachine.judge import Judge
from statemachine.state import to_json

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.jsonl.gz"))


@pytest.mark.parametrize("golden", GOLDEN, ids=[path.name.removesuffix(".jsonl.gz") for path in GOLDEN])
def test_a_golden_ledger_replays(golden: Path, tmp_path: Path) -> None:
    """Verify finds nothing but the artifacts, which are not kept; all that its release knew folds to the same."""
    export = tmp_path / "golden.jsonl"
    export.write_bytes(gzip.decompress(golden.read_bytes()))
    judge = Judge()
    report = verify(export, judge=judge)
    assert report.events > 400
    assert {problem.kind for problem in report.problems} <= {"artifact_missing"}
    state = golden.with_name(golden.name.replace(".jsonl.gz", ".state.json.gz"))
    then, now = json.loads(gzip.decompress(state.read_bytes())), json.loads(to_json(judge.world))
    assert known_then(now, then) == then


def known_then(now: object, then: object) -> object:
    """The part of a value that an older one has keys for: later releases know more of the same events."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: known_then(value, then[key]) for key, value in now.items() if key in then}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [known_then(*pair) for pair in zip(now, then, strict=True)]
    return now


@pytest.mark.parametrize("golden", GOLDEN, ids=[path.name.removesuffix(".jsonl.gz") for path in GOLDEN])
def test_a_golden_campaign_can_be_shown_at_any_time(golden: Path, tmp_path: Path) -> None:
    """Its status, forecast included, after every event: specs of earlier releases lack keys of this one."""
    export = tmp_path / "golden.jsonl"
    export.write_bytes(gzip.decompress(golden.read_bytes()))
    judge, seen = Judge(), []

    def shown(event: Event) -> str | None:
        wrong = judge(event)
        if event.seq % 7 == 0:
            seen.extend(json.dumps(summary) for summary in summaries(judge.world))
        return wrong

    verify(export, judge=shown)
    assert len(seen) > 50


def test_every_release_has_its_golden_ledger() -> None:
    """At least this release's."""
    assert GOLDEN
