"""A campaign that only compares: two kinds of framework, goodput by rate search, a token that a server prints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rig.audit import audit
from rig.campaign import Rig

TOKEN = "hf_PlantedForTheComparison0123456789"
QPS = {"lower": 4.0, "upper": 40.0, "tolerance": 0.5, "max_rounds": 1, "min_duration_s": 0.0}
SERVE = "echo token $HF_TOKEN >&2; exec {python} -m refengine --host 127.0.0.1 --port {{port}} --model-name standin"


@pytest.fixture
def compared(rig: Rig) -> Rig:
    """The fork of the stand-in against "any command that serves the API", which is the stand-in itself."""
    rig.start(HF_TOKEN=TOKEN)
    spec = rig.spec()["frameworks"]["upstream"]
    command = ["sh", "-c", SERVE.format(python=sys.executable)]
    other = {"kind": "openai", "python": "", "command": command, "env_from": ["HF_TOKEN"]}
    rig.submit(goal="compare", search={"qps": QPS}, frameworks__upstream=spec | other)
    assert rig.finished(180) == "compared"
    return rig


@pytest.mark.slow
def test_a_comparison_of_two_kinds_of_framework_ends_with_its_decision(compared: Rig) -> None:
    """Who is behind is said, with goodput for each side; nothing is profiled; the token is nowhere on the disk."""
    audit(compared)
    assert "is behind upstream" in compared.c.stop["reason"]
    assert compared.events("profile.captured", "patch.proposed") == []
    tested = {e.payload["framework"]: e.payload for e in compared.events("goodput.found")}
    assert {name: found["tests"][0]["rate"] for name, found in tested.items()} == {"fork": 4.0, "upstream": 4.0}
    assert all(found["tests"][0]["passed"] and found["rate"] >= 4.0 for found in tested.values())
    rows = [e.payload["row"] for e in compared.events("benchmark.finished") if e.payload["launch"].startswith("rate/")]
    assert {row["workload"]["request_rate"] for row in rows} >= {4.0, 40.0}
    logs = [path.read_text() for path in compared.paths.runs.rglob("stderr.log")]
    assert sum("token [redacted:HF_TOKEN]" in log for log in logs) >= 6, "the server printed it at every launch"
    holders = [p for p in compared.paths.root.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    assert holders == []
    _its_rows_can_be_compared(compared)


def _its_rows_can_be_compared(rig: Rig) -> None:
    """The rows of the report are what ``bench compare`` reads; saturated and paced rows stay apart."""
    rows = rig.paths.root / "reports" / "small" / "benchmark" / "candidates.jsonl"
    command = [sys.executable, "-m", "sotad.cli.control", "bench", "compare", str(rows), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    first = {ranked[0]["workload"]["request_rate"]: ranked[0]["framework"] for ranked in found["ranking"].values()}
    assert first[None] == "upstream" and set(first) >= {4.0, 40.0} and len(first) == len(found["ranking"])
