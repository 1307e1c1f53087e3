"""What a campaign records of histories and open pull requests: a real ledger, git corpora, real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from ledger.artifacts import Artifacts
from ledger.store import Ledger
from ledger.writer import Writer
from sotad.activities.context import Context
from sotad.activities.knowledge import consult_history, notes_for
from sotad.config import parse_campaign
from sotad.daemon.journal import Journal
from sotad.hosts.local import LocalHost
from statemachine.evidence import digest
from statemachine.state import World

JSON = dict[str, Any]
TOKEN = "not-a-real-token-4711"
KIMI = """# Kimi in sglang

### #101 faster gate

- `python/sglang/srt/layers/moe/topk.py`: `select_experts` without a copy
- Risk: routing must stay bit-exact
"""
RIVAL = "# Kimi in vllm\n\n#202 fused `select_experts` into `vllm/model_executor/layers/moe/topk.py`\n"
ROW = {"row_id": "decode/k", "name": "copy", "annotation": "moe"}
ROW |= {"locations": [{"location": "/x/site-packages/sglang/srt/layers/moe/topk.py:12 select_experts"}]}
UNKNOWN = {"row_id": "decode/u", "name": "never_written_kernel", "annotation": ""}


def git(folder: Path, *argv: str, date: str = "") -> str:
    """Run git under an identity of the tests'."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@sotad.invalid", "-c", "commit.gpgsign=false")
    env = {**os.environ, **({"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date} if date else {})}
    command = ["git", *identity, "-C", str(folder), *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30, env=env).stdout.strip()


def committed(folder: Path, date: str) -> str:
    """Make a repository of a folder; return its commit."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "x", date=date)
    return git(folder, "rev-parse", "HEAD")


class Bench:
    """A campaign whose knowledge activities are run by hand."""

    def __init__(self, folder: Path, journal: Journal, example: str) -> None:
        self.folder, self.journal, self.example = folder, journal, example
        self.histories = folder / "histories"
        for name, text in (("sglang", KIMI), ("vllm", RIVAL)):
            (self.histories / name / "kimi").mkdir(parents=True)
            (self.histories / name / "kimi" / "README.md").write_text(text)
        self.target = folder / "mine"
        self.target.mkdir()
        self.commit = committed(self.target, "2026-02-01T12:00:00Z")

    async def campaign(self, name: str = "a", **knowledge: Any) -> Context:
        """A campaign of Kimi on sglang against vllm, and an attempt of an activity."""
        spec = parse_campaign(yaml.safe_dump(yaml.safe_load(self.example)), "test.yaml", self.folder)
        spec["model"]["id"] = "moonshotai/Kimi-K2-Instruct"
        spec["frameworks"]["mine"]["kind"], spec["frameworks"]["rival"]["kind"] = "sglang", "vllm"
        spec["knowledge"] |= {"folder": str(self.histories), **knowledge}
        await self.journal.record(
            name, "campaign.created", {"spec": spec, "spec_digest": digest(spec), "source": "test"}
        )
        self.journal.world.campaigns[name].probes["mine"] = {"commit": self.commit}
        host = LocalHost(self.folder / "runs")
        artifacts = Artifacts(self.folder / "artifacts")
        return Context(name, "job", 1, {}, 2**62, self.journal, host, artifacts, self.folder)


@pytest.fixture
async def bench(tmp_path: Path, example: str) -> AsyncIterator[Bench]:
    """A ledger of its own."""
    ledger = Ledger.open(tmp_path / "ledger.db")
    ledger.claim_epoch()
    writer = Writer(ledger)
    journal = Journal(ledger, writer, World())
    yield Bench(tmp_path, journal, example)
    journal.close()
    await writer.close()


def payload(context: Context, name: str) -> JSON:
    """What the attempt recorded under a name."""
    event = context.recorded(name)
    assert event is not None
    return dict(event.payload)


async def test_both_frameworks_are_read_and_each_note_names_a_decision(bench: Bench) -> None:
    """The target's dossier and the competitor's, with the corpus' commit, and nothing stale about a newer corpus."""
    commit = committed(bench.histories, "2026-03-01T12:00:00Z")
    context = await bench.campaign()
    await consult_history(context)
    noted = payload(context, "history")
    documents = {entry["document"]: entry for entry in noted["documents"]}
    assert documents["sglang/kimi/README.md"]["decision"].startswith("bears on the target's model (family)")
    assert documents["vllm/kimi/README.md"]["decision"].startswith("read for what the competitor rival did")
    assert (documents["sglang/kimi/README.md"]["prs"], documents["vllm/kimi/README.md"]["prs"]) == ([101], [202])
    text = context.artifacts.read(noted["notes"]["sha256"]).decode()
    assert f"commit {commit}, as of 2026-03-01" in text
    assert "1. `sglang mine moonshotai/Kimi-K2-Instruct` (en): sglang/kimi/README.md" in text
    assert "STALE" not in text
    assert context.recorded("history-of-target") is None
    assert payload(context, "prs") == {
        "available": False,
        "found": [],
        "reason": "no pull-request source is configured",
    }


async def test_a_corpus_older_than_the_target_is_stale(bench: Bench) -> None:
    """Flagged in the decision, in the notes and in every entry; changed files are said."""
    committed(bench.histories, "2026-01-01T12:00:00Z")
    (bench.histories / "new.md").write_text("# other\n")
    context = await bench.campaign()
    await consult_history(context)
    noted = payload(context, "history")
    assert "the corpus is stale: as of 2026-01-01, the target's commit" in noted["decision"]
    assert all(entry["stale"] for entry in noted["documents"])
    text = context.artifacts.read(noted["notes"]["sha256"]).decode()
    assert "STALE: as of 2026-01-01" in text and ", changed since, as of" in text


@pytest.mark.parametrize(("dated", "stale"), [("2026-05-01", False), ("2026-01-01", True), ("", True)])
async def test_without_git_a_corpus_is_as_old_as_its_newest_backfill(bench: Bench, dated: str, stale: bool) -> None:
    """And of unknown age, which is not trusted, when it dates none."""
    dossier = bench.histories / "sglang" / "kimi" / "README.md"
    dossier.write_text(KIMI + (f"\n## {dated} Backfill\n\n#105\n" if dated else ""))
    context = await bench.campaign()
    await consult_history(context)
    noted = payload(context, "history")
    assert ("stale" in noted["decision"]) is stale
    assert "no git repository" in context.artifacts.read(noted["notes"]["sha256"]).decode()


async def test_a_corpus_without_the_targets_model_is_unavailable_for_it(bench: Bench) -> None:
    """What the competitor has is noted all the same, and what could not be read stands in the notes."""
    (bench.histories / "sglang" / "kimi" / "README.md").write_bytes(b"\0\0")
    context = await bench.campaign()
    await consult_history(context)
    assert (
        "none of 1 documents is of moonshotai/Kimi-K2-Instruct in mine"
        in payload(context, "history-of-target")["reason"]
    )
    noted = payload(context, "history")
    assert [entry["document"] for entry in noted["documents"]] == ["vllm/kimi/README.md"]
    text = context.artifacts.read(noted["notes"]["sha256"]).decode()
    assert "- sglang/kimi/README.md: left out: binary, not text" in text


@pytest.mark.parametrize("folder", [None, "absent", "empty"])
async def test_no_corpus_is_said_with_its_reason(bench: Bench, folder: str | None) -> None:
    """Not configured, not there, nothing in it."""
    (bench.folder / "empty").mkdir()
    context = await bench.campaign(folder=str(bench.folder / folder) if folder else None)
    await consult_history(context)
    expected = {None: "configured", "absent": "is not there", "empty": "holds no Markdown that can be read"}[folder]
    assert expected in payload(context, "history")["reason"]
    assert (await notes_for(context, [ROW]))["available"] is False


async def test_notes_for_rows_bear_on_those_rows(bench: Bench) -> None:
    """Queries with the row's paths and functions; the leader's history too; what nobody changed before is named."""
    context = await bench.campaign()
    context.c.gaps.append({"round": 0, "verdict": "behind", "leader": "rival", "seq": 1})
    found = await notes_for(context, [ROW, UNKNOWN], ["python/sglang/srt/layers/moe/topk.py", "csrc/other.cu"])
    assert [entry["document"] for entry in found["notes"]] == ["sglang/kimi/README.md", "vllm/kimi/README.md"]
    ours = found["notes"][0]
    assert ours["prs"] == [101] and ours["risks"] == ["sglang/kimi/README.md:6: - Risk: routing must stay bit-exact"]
    assert ours["decision"].startswith("row decode/k: shown to the implementer before it patches; file python/")
    assert found["no_prior_change"] == ["row decode/u", "file csrc/other.cu"]
    assert found["queries"][0]["terms"] == ["moe/topk.py", "select_experts", "copy"]
    again = await notes_for(context, [ROW, UNKNOWN], ["python/sglang/srt/layers/moe/topk.py", "csrc/other.cu"])
    assert again == found
    assert sum(event.type == "history.noted" for event in bench.journal._reader.events()) == 1


async def test_notes_fit_into_an_event_and_a_request(bench: Bench) -> None:
    """Of a hundred huge dossiers as many as fit, the nearest first; the others are named in the text."""
    for number in range(100):
        (bench.histories / "sglang" / f"kimi-k{number}").mkdir()
        text = "".join(f"- `select_experts` {'風' * 300} `a/file_{n}.py` validation\n" for n in range(50))
        (bench.histories / "sglang" / f"kimi-k{number}" / "README.md").write_text(text)
    context = await bench.campaign()
    await consult_history(context)
    files = [f"moe/file_{n}.py" for n in range(60)]
    rows = [{**ROW, "row_id": f"decode/{n}", "name": f"kernel_{n}"} for n in range(20)]
    found = await notes_for(context, rows, files)
    assert 0 < len(json.dumps(found["notes"])) < 70_000
    events = [event for event in bench.journal._reader.events() if event.type == "history.noted"]
    assert len(events) == 2
    assert events[0].payload["documents"][0]["document"] == "sglang/kimi-k2/README.md"
    text = context.artifacts.read(events[1].payload["notes"]["sha256"]).decode()
    assert ": bears on this too, but the notes are full" in text


async def test_an_entry_that_is_repeated_records_nothing_twice(bench: Bench) -> None:
    """Even when the corpus changed in between: the first reading counts."""
    context = await bench.campaign()
    await consult_history(context)
    first = payload(context, "history")
    (bench.histories / "sglang" / "kimi" / "README.md").unlink()
    await consult_history(context)
    assert payload(context, "history") == first


async def test_rest_is_asked_with_the_token_of_the_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token reaches the service, and nothing that the campaign keeps; without it the reason names the variable."""
    tokens = []

    async def on_search(http: web.Request) -> web.StreamResponse:
        tokens.append(http.headers["Authorization"])
        found = [{"number": 9, "title": "Kimi-K2 topk", "html_url": "u", "updated_at": "2026-02-02T00:00:00Z"}]
        return web.json_response({"items": found})

    async def on_files(_: web.Request) -> web.StreamResponse:
        return web.json_response([{"filename": "moe/topk.py"}])

    app = web.Application()
    app.router.add_get("/search/issues", on_search)
    app.router.add_get("/repos/o/r/pulls/9/files", on_files)
    async with TestServer(app) as server:
        asked = {
            "pulls": "rest",
            "repositories": ["o/r"],
            "api_url": str(server.make_url("")),
            "token_from": "PULLS_CRED",
        }
        without = await bench.campaign("without", **asked)
        await consult_history(without)
        monkeypatch.setenv("PULLS_CRED", TOKEN)
        context = await bench.campaign("with", **asked)
        await consult_history(context)
    assert "PULLS_CRED is not set" in payload(without, "prs")["reason"]
    assert payload(context, "prs") == {
        "available": True,
        "found": [
            {"repo": "o/r", "number": 9, "title": "Kimi-K2 topk", "url": "u", "updated": "2026-02-02T00:00:00Z"}
            | {"relevant": ["kimi", "kimi-k2"], "files": ["moe/topk.py"]}
        ],
        "reason": "",
    }
    assert set(tokens) == {f"Bearer {TOKEN}"}
    kept_nowhere(bench.folder)


STANDIN_GH = """#!{python}
# A stand-in for the command line gh: it answers from `answers.json` beside it and writes down what it was asked.
import json, os, pathlib, sys

here = pathlib.Path(__file__).parent
asked = dict(zip(sys.argv[3::2], sys.argv[4::2]))
with (here / "asked.jsonl").open("a") as log:
    log.write(json.dumps({{"argv": sys.argv[1:], "token": os.environ.get("GH_TOKEN") == here.name + "-token"}}) + "\\n")
answer = json.loads((here / "answers.json").read_text())[asked["--search"].strip('"')]
if answer.get("error"):
    sys.exit(answer["error"] + " " + os.environ.get("GH_TOKEN", ""))
print(json.dumps(answer["found"]))
"""


def standin_gh(folder: Path, monkeypatch: pytest.MonkeyPatch, answers: JSON) -> Path:
    """A stand-in named gh, first in PATH; the file of what it was asked."""
    place = folder / "standin"
    place.mkdir()
    (place / "gh").write_text(STANDIN_GH.format(python=sys.executable))
    (place / "gh").chmod(0o755)
    (place / "answers.json").write_text(json.dumps(answers))
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return place / "asked.jsonl"


async def test_gh_is_run_by_the_host_and_its_token_stays_in_the_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process per search; the secret is handed over by name; one search fails and is said, twice tried."""
    monkeypatch.setenv("PULLS_CRED", "standin-token")
    found = [{"number": 4, "title": "Kimi", "url": "u", "updatedAt": "2026", "body": "", "files": [{"path": "a.py"}]}]
    answers = {"kimi": {"found": found}, "kimi-k2": {"error": "HTTP 403: rate limit exceeded"}}
    log = standin_gh(bench.folder, monkeypatch, answers)
    context = await bench.campaign(pulls="gh", repositories=["o/r"], token_from="PULLS_CRED")
    await consult_history(context)
    scanned = payload(context, "prs")
    assert scanned["available"]
    assert scanned["found"] == [
        {
            "repo": "o/r",
            "number": 4,
            "title": "Kimi",
            "url": "u",
            "updated": "2026",
            "relevant": ["kimi"],
            "files": ["a.py"],
        }
    ]
    assert scanned["reason"].startswith("1 of 2 searches failed: o/r 'kimi-k2': gh: HTTP 403: rate limit exceeded")
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert [call["token"] for call in asked] == [True, True, True]
    assert asked[0]["argv"][:6] == ["pr", "list", "--repo", "o/r", "--state", "open"]
    kept_nowhere(bench.folder, "standin-token")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, "no search was answered"),
        ({"kimi": {"found": {}}, "kimi-k2": {"found": 3}}, "gh printed no list of pull requests"),
    ],
)
async def test_gh_that_fails_altogether_is_unavailable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answers: JSON, reason: str
) -> None:
    """Whether it ends badly or talks nonsense."""
    standin_gh(bench.folder, monkeypatch, answers)
    context = await bench.campaign(pulls="gh", repositories=["o/r"])
    await consult_history(context)
    assert not payload(context, "prs")["available"] and reason in payload(context, "prs")["reason"]


async def test_a_host_without_gh_or_without_the_token_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names what is missing."""
    monkeypatch.setenv("PATH", str(bench.folder))
    context = await bench.campaign("without", pulls="gh", repositories=["o/r"])
    await consult_history(context)
    assert "gh" in payload(context, "prs")["reason"] and not payload(context, "prs")["available"]
    context = await bench.campaign("token", pulls="gh", repositories=["o/r"], token_from="ABSENT_CRED")
    await consult_history(context)
    assert "secret ABSENT_CRED is not set" in payload(context, "prs")["reason"]


def kept_nowhere(folder: Path, token: str = TOKEN) -> None:
    """No file of the campaign holds the token: ledger, artifacts, run directories."""
    holding = [path for path in folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holding == []
