"""Whole campaigns on real engines: vLLM and SGLang, installed from their packages, serving a tiny model on the CPU.

Minutes to an hour each, on two cores. The daemon is the real one; nothing between the campaign file and the verdict
is replaced. Every server prints its whole environment when it starts, with a token in it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ledger.artifacts import Artifacts
from ledger.events import Event
from ledger.reader import Reader
from ledger.verify import verify
from sotad.demo.run import Daemon
from sotad.errors import SotadError
from sotad.paths import StateDir
from statemachine.judge import Judge

pytestmark = [pytest.mark.engines, pytest.mark.timeout(6000)]

HERE = Path(__file__).parent
TOKEN = "hf_PlantedForTheEngineTests0123456789"
MODULES = {"vllm": ["vllm.entrypoints.cli.main", "serve"], "sglang": ["sglang.launch_server"]}
A_FLAG = {"vllm": "--max-num-seqs", "sglang": "--max-running-requests"}
NO_CALL = ("undecided", "untrusted")
POLL_S = 1.0
LEFT_S = 15.0


@dataclass
class Campaign:
    """A campaign that ran to its end: what the ledger holds, and where the token was seen meanwhile."""

    state: StateDir
    spec: dict[str, Any]
    leaks: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return str(self.spec["campaign"])

    def events(self, *types: str) -> list[Event]:
        with Reader(self.state.ledger) as reader:
            return [event for event in reader.events(campaign=self.name) if event.type in types or not types]

    def payloads(self, type_: str) -> list[dict[str, Any]]:
        return [event.payload for event in self.events(type_)]

    def text(self, artifact: dict[str, Any]) -> str:
        return Artifacts(self.state.artifacts).read(artifact["sha256"]).decode(errors="replace")

    def look_for_the_token(self) -> None:
        """Note every file that holds it; the daemon may move or remove files meanwhile."""
        for path in self.state.root.rglob("*"):
            try:
                if path.is_file() and TOKEN.encode() in path.read_bytes():
                    self.leaks.add(str(path.relative_to(self.state.root)))
            except FileNotFoundError:
                continue


def prepared(name: str, folder: Path, model: Path, engine: Callable[[str], Path]) -> tuple[Path, dict[str, Any]]:
    """The campaign file with model and engines filled in; each server starts by printing its environment."""
    spec = yaml.safe_load((HERE / "configs" / f"{name}.yaml").read_text())
    spec["model"]["id"] = str(model)
    for framework in spec["frameworks"].values():
        python = engine(framework["kind"])
        echo = [str(python), str(HERE / "echo_environment.py")]
        framework |= {"python": str(python), "command": [*echo, *MODULES[framework["kind"]]]}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path, spec


def run(path: Path, spec: dict[str, Any], state: StateDir) -> Campaign:
    """Start the daemon, submit the file, wait for the verdict, stop the daemon."""
    campaign, daemon = Campaign(state, spec), Daemon(state)
    try:
        daemon.ensure()
        daemon.client.post("/v1/campaigns", {"text": path.read_text(), "source": str(path)})
        for event in until_over(daemon, campaign.name):
            print(f"{event['seq']:5} {event['type']:22} {json.dumps(event['payload'])[:300]}", file=sys.stderr)
            if event["type"] in ("candidate.ready", "candidate.failed", "candidate.stopped", "framework.probed"):
                campaign.look_for_the_token()
    finally:
        end(daemon, campaign.name)
    campaign.look_for_the_token()
    return campaign


def until_over(daemon: Daemon, name: str) -> Iterator[dict[str, Any]]:
    """The events of a campaign as they come, up to the one that ends it or asks for a person."""
    after = 0
    while True:
        for event in daemon.client.get(f"/v1/events?after={after}&campaign={name}&limit=500")["events"]:
            after = event["seq"]
            yield event
            if event["type"] in ("campaign.closed", "campaign.blocked", "preflight.failed", "budget.exhausted"):
                return
            if event["type"] == "gap.decided" and event["payload"]["verdict"] in NO_CALL:
                return
        time.sleep(POLL_S)


def end(daemon: Daemon, name: str) -> None:
    """Stop the daemon; before that cancel a campaign that is under way: its servers would outlive the daemon."""
    try:
        if daemon.client.get(f"/v1/campaigns/{name}")["phase"] not in ("closed", "blocked"):
            daemon.client.post(f"/v1/campaigns/{name}/cancel")
            for _ in until_over(daemon, name):
                pass
    except SotadError as error:
        print(f"{name} could not be cancelled: {error}", file=sys.stderr)
    finally:
        daemon.stop()


def left_behind() -> list[str]:
    """Processes that outlived the daemon which started them; what is merely on its way out gets a little time."""
    deadline = time.monotonic() + LEFT_S
    while True:
        alive = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
        if not alive or time.monotonic() > deadline:
            return [f"{p.pid} {' '.join(p.cmdline())}" for p in alive]
        time.sleep(0.2)


@pytest.fixture
def campaign_of(
    tmp_path: Path, model: Path, engine: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, adopting_orphans: None
) -> Callable[[str], Campaign]:
    """Run a campaign of `configs/` by name, with what holds for every one of them checked."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def go(name: str) -> Campaign:
        path, spec = prepared(name, tmp_path, model, engine)
        campaign = run(path, spec, StateDir(tmp_path / "state"))
        assert left_behind() == []
        sound(campaign)
        token_stayed_away(campaign)
        helped(campaign)
        if not campaign.events("baseline.frozen"):
            blocked = campaign.payloads("campaign.blocked")[-1]["reason"]
            pytest.skip(f"this machine is too busy for the search to end: {blocked}")
        accounted_for(campaign)
        return campaign

    return go


def sound(campaign: Campaign) -> None:
    """The ledger verifies with every guard asked again, and the campaign got as far as a verdict, or to the finding
    that on this machine none is possible: the target's command differs from itself, or every sample is disturbed."""
    report = verify(campaign.state.ledger, judge=Judge())
    assert report.ok, report.problems
    stopped = campaign.payloads("preflight.failed") + campaign.payloads("campaign.blocked")
    too_noisy = [p for p in stopped if "A/A check failed" in p["reason"] or ": disturbed " in p["reason"]]
    assert campaign.payloads("gap.decided") or too_noisy, stopped


def verdict_of(campaign: Campaign) -> str:
    """The gap decision; no call where the A/A check already forbade one."""
    gaps = campaign.payloads("gap.decided")
    return str(gaps[-1]["verdict"]) if gaps else "untrusted"


def token_stayed_away(campaign: Campaign) -> None:
    """No file ever held the token, although the logs that were kept show that the servers printed it."""
    assert campaign.leaks == set()
    logs = [campaign.text(payload["log"]) for payload in campaign.payloads("candidate.stopped")]
    assert logs and all("environment: HF_TOKEN=[redacted" in log for log in logs)


def helped(campaign: Campaign) -> None:
    """The help of each engine is kept whole, with its real flags."""
    kinds = {name: framework["kind"] for name, framework in campaign.spec["frameworks"].items()}
    probed = {payload["framework"]: payload for payload in campaign.payloads("framework.probed")}
    assert set(probed) == set(kinds)
    for name, payload in probed.items():
        flag = A_FLAG[kinds[name]]
        assert flag in payload["flags"] and len(payload["flags"]) > 200
        assert flag in campaign.text(payload["help"])


def accounted_for(campaign: Campaign) -> None:
    """Every candidate of every framework has a measured row, or a reason why not."""
    search = {e["launch"]: e for e in campaign.payloads("candidate.launched") if e["purpose"] == "search"}
    told = {(p["framework"], p["candidate"]) for p in campaign.payloads("candidate.skipped") if p["reason"]}
    for type_ in ("benchmark.finished", "candidate.failed"):
        for payload in campaign.payloads(type_):
            if launch := search.get(payload["launch"]):
                told.add((launch["framework"], launch["candidate"]))
                assert payload.get("reason") or payload["row"]["metrics"]["request_throughput"] > 0
    frameworks = campaign.spec["frameworks"]
    assert told == {(name, c["id"]) for name, framework in frameworks.items() for c in framework["candidates"]}


def test_vllm_against_itself_is_no_gap(campaign_of: Callable[[str], Campaign]) -> None:
    """The same engine with the same flags is never called ahead or behind: a tie, or an honest no-call."""
    campaign = campaign_of("vllm-itself")
    verdict = verdict_of(campaign)
    assert verdict in ("par_or_better", *NO_CALL)
    closed = campaign.payloads("campaign.closed")
    assert [payload["terminal"] for payload in closed] == (["success_tied"] if verdict == "par_or_better" else [])


def test_sglang_against_vllm_ends_with_a_verdict(campaign_of: Callable[[str], Campaign]) -> None:
    """Search, comparison and gap decision over two real engines; nothing is profiled or patched for goal compare."""
    campaign = campaign_of("sglang-vllm")
    assert verdict_of(campaign) in NO_CALL or campaign.payloads("campaign.closed")
    assert campaign.events("profile.captured", "patch.proposed") == []
    (failed,) = campaign.payloads("candidate.failed")
    assert "max_num_batched_tokens" in failed["reason"]
    left_out(campaign, {"sglang": "enable_flashinfer_mla", "vllm": "num_scheduler_steps"})


def left_out(campaign: Campaign, unknown: dict[str, str]) -> None:
    """A flag of another version never reaches the command, and each launch records that it was dropped."""
    for launched in campaign.payloads("candidate.launched"):
        flag = unknown[launched["framework"]]
        assert flag in launched["dropped_flags"]
        assert not any(flag.replace("_", "-") in word for word in launched["command"])
