"""The accuracy command of a target: what it prints is a score or none, and a patch that loses by it is reverted."""

from __future__ import annotations

import sys

import pytest
from rig.audit import audit
from rig.campaign import Rig

from sotad.activities.accuracy import score_in

PROGRAM = """
import json, sys, urllib.request
from pathlib import Path
models = json.load(urllib.request.urlopen(sys.argv[1] + "/v1/models", timeout=10))["data"]
assert [model["id"] for model in models] == [sys.argv[2]]
seen = Path(sys.argv[3])
print(json.dumps({"score": 0.9 if seen.exists() else FIRST}))
seen.touch()
"""


@pytest.mark.parametrize(
    ("printed", "score"),
    [
        ('50 of 100\n{"score": 0.5}\n\n', 0.5),
        ('{"score": 3}', 3.0),
        ('{"score": 1}\ndone', None),
        *(
            (text, None)
            for text in ("", "0.5", '{"score": NaN}', '{"score": true}', '{"score": "1"}', "[1]", "{" * 9000)
        ),
    ],
)
def test_the_score_is_a_number_on_the_last_line(printed: str, score: float | None) -> None:
    """Anything else is no score."""
    assert score_in(printed) == score


@pytest.mark.slow
@pytest.mark.parametrize(("first", "held"), [("0.85", True), ("0.5", False)])
def test_a_patch_is_held_to_the_champions_score(rig: Rig, first: str, held: bool) -> None:
    """The patched commit is scored first, then the champion: what it loses above ``max_drop`` refuses it."""
    program = rig.home / "score.py"
    program.write_text(PROGRAM.replace("FIRST", first))
    command = [sys.executable, str(program), "{url}", "{model}", str(rig.home / "seen")]
    fork = rig.spec()["frameworks"]["fork"] | {"accuracy": {"command": command, "max_drop": 0.1}}
    rig.start()
    rig.submit(frameworks__fork=fork)
    found = rig.seen("accuracy.finished", patience_s=200).payload
    assert (found["passed"], found["baseline"], found["score"]) == (held, 0.9, float(first))
    if not held:
        assert rig.seen("patch.reverted").payload["gate"] == "accuracy"
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)
