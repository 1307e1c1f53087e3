"""``sotactl`` as people run it: a process of its own, its output, its exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sotad.client import Client
from sotad.paths import StateDir

HEAVY = (
    "pydantic",
    "aiohttp",
    "asyncssh",
    "sqlite_utils",
    "transitions",
    "torch",
    "asyncio",
    "orjson",
    "sqlite3",
)
LOADED = "import sys, sotad.cli.control as c; c.main(sys.argv[1:]); print(' '.join(sys.modules), file=sys.stderr)"


async def test_status_loads_nothing_heavy(service: Any, door: Client, here: StateDir) -> None:
    """The daemon's answer needs sockets and JSON; ``status`` feels instant because it loads no more."""
    service.create()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LOADED, "status", "--dir", str(here.root)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert b"example" in out
    assert not set(HEAVY) & {name.split(".")[0] for name in err.decode().split()}


async def test_status_of_everything_and_of_one(service: Any, door: Client, run: Any) -> None:
    """One line per campaign; for one campaign its facts; JSON on request."""
    name = service.create()
    every = await run("status")
    assert every.status == 0
    assert "ready" in every.out.splitlines()[0]
    assert every.out.splitlines()[3].split()[:3] == [name, "intake", "0"]
    one = await run("status", name)
    assert f"campaign    {name}" in one.out
    as_json = json.loads((await run("status", "--json")).out)
    assert as_json["daemon"]["running"] is True
    assert as_json["campaigns"][0]["campaign"] == name
    assert json.loads((await run("status", name, "--json")).out)["phase"] == "intake"


async def test_status_without_a_daemon_reads_the_ledger_and_says_so(service: Any, run: Any) -> None:
    """What is known is shown; that nobody works on it is told."""
    name = service.create()
    found = await run("status")
    assert (found.status, name in found.out) == (0, True)
    assert "not running" in found.out
    assert "the daemon is down" in found.err
    as_json = json.loads((await run("status", "--json")).out)
    assert (as_json["daemon"]["running"], as_json["daemon"]["seq"]) == (False, 2)
    assert json.loads((await run("status", name, "--json")).out)["phase"] == "intake"


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["status"], 3),
        (["submit", "nope.yaml"], 2),
        (["pause", "x"], 3),
        (["events", "--follow"], 3),
        (["events", "--after", "-1"], 2),
        (["why", "0"], 2),
        (["why", "x"], 2),
        (["frobnicate"], 2),
        ([], 2),
        (["status", "--nonsense"], 2),
        (["ledger", "verify", "/nope/at/all"], 2),
        (["ledger", "replay", "/dev/null"], 2),
        (["report", "x"], 2),
    ],
)
async def test_every_failure_is_one_line_with_its_status(run: Any, argv: list[str], status: int) -> None:
    """What, where and what to do, on stderr; never a traceback."""
    found = await run(*argv)
    assert (found.status, found.out) == (status, "")
    assert len(found.err.splitlines()) == 1
    assert found.err.startswith("sotactl")
    assert ";" in found.err


async def test_json_errors_are_json_too(run: Any) -> None:
    """A program that asked for JSON gets the code and the exit status as JSON."""
    found = await run("status", "--json")
    assert found.status == 3
    assert json.loads(found.out)["error"]["code"] == "unreachable"


async def test_a_bug_is_told_as_one(service: Any, door: Client, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 4 when the daemon fails in a way that nobody expected."""
    monkeypatch.setattr(service, "status", lambda: 1 / 0)
    found = await run("status")
    assert found.status == 4
    assert "please report it" in found.err
    assert "Traceback" not in found.err


async def test_a_campaign_from_file_to_cancel(
    service: Any, door: Client, run: Any, tmp_path: Path, example: str
) -> None:
    """submit, pause, resume, cancel; the machine's no is status 2 and says why."""
    file = tmp_path / "campaign.yaml"
    file.write_text(example)
    assert (await run("submit", str(file))).out == "example\n"
    assert (await run("pause", "example", "--reason", "lunch")).status == 0
    assert service.events(2, None, 1)[0].payload == {"reason": "lunch"}
    again = await run("pause", "example")
    assert again.status == 2
    assert "campaign.paused is illegal for campaign 'example' in phase paused" in again.err
    assert (await run("resume", "example", "--json")).out
    assert (await run("cancel", "example")).status == 0
    refused = await run("cancel", "example")
    assert (refused.status, "confirmed" in refused.err) == (2, True)
    assert (await run("cancel", "example", "--confirm")).status == 0
    unknown = await run("cancel", "nobody")
    assert (unknown.status, "no campaign 'nobody'" in unknown.err) == (2, True)


async def test_a_bad_campaign_file_is_told_line_by_line(service: Any, door: Client, run: Any, tmp_path: Path) -> None:
    """The daemon's problems arrive where the file was submitted."""
    file = tmp_path / "campaign.yaml"
    file.write_text("campaign: x\nfrobs: 3\n")
    found = await run("submit", str(file))
    assert found.status == 2
    assert "frobs" in found.err
    file.write_bytes(b"\xff\xfe\x00")
    assert (await run("submit", str(file))).status == 2


@pytest.mark.parametrize("up", [True, False])
async def test_events_are_the_same_with_and_without_a_daemon(service: Any, run: Any, up: bool) -> None:
    """Filters work either way; one JSON object per line."""
    from contextlib import AsyncExitStack

    from sotad.api.app import make_app
    from sotad.api.server import serving

    name = service.create()
    service.record("", "note.recorded", {"text": "bell \x07 and\nnewline"})
    async with AsyncExitStack() as stack:
        if up:
            await stack.enter_async_context(serving(make_app(service), service.here.socket))
        lines = (await run("events")).out.splitlines()
        assert [line.split()[0] for line in lines] == ["1", "2", "3"]
        assert "\x07" not in lines[2]
        chosen = await run("events", "--json", "--campaign", name)
        assert [json.loads(line)["seq"] for line in chosen.out.splitlines()] == [2]
        assert len((await run("events", "--type", "note.*")).out.splitlines()) == 1
        assert len((await run("events", "--after", "2")).out.splitlines()) == 1
        why = await run("why", "2")
        assert "draft -> intake" in why.out
        assert "spec_complete held" in why.out
        assert json.loads((await run("why", "2", "--json")).out)["kind"] == "step"
        assert (await run("why", "99")).status == 2


async def test_watch_ends_with_the_campaign(service: Any, door: Client, here: StateDir, run: Any) -> None:
    """It shows each event as it happens and says no when the campaign closed without success."""
    name = service.create()
    watching = asyncio.create_task(run("watch", name))
    for _ in range(600):
        await asyncio.sleep(0.02)
        if service._waiters:
            break
    service.close_campaign(name)
    found = await watching
    assert found.status == 1
    assert [line.split()[3] for line in found.out.splitlines()][-1] == "campaign.closed"
    assert f"{name}: closed, cancelled" in found.err
    assert (await run("watch", name)).status == 1
    assert (await run("watch")).status == 2
    assert (await run("watch", "nobody")).status == 2


async def test_ctrl_c_is_quiet(service: Any, door: Client, here: StateDir) -> None:
    """Status 130 and not a word."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sotad.cli.control", "events", "--follow", "--dir", str(here.root)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    assert process.stdout
    await asyncio.wait_for(process.stdout.readline(), 30)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (130, b"")


async def test_a_closed_pipe_is_quiet(service: Any, here: StateDir) -> None:
    """``sotactl events | head`` ends without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sotad.cli.control", "ledger", "export", str(here.root)),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


async def test_doctor_finds_a_healthy_machine_and_a_sick_ledger(service: Any, door: Client, run: Any) -> None:
    """Each check is a line; something to mend is status 1."""
    found = json.loads((await run("doctor", "--json")).out)["checks"]
    states = {check["check"]: check["state"] for check in found}
    assert states["daemon"] == states["ledger"] == states["fsync"] == states["sqlite"] == "ok"
    service.ledger.close()
    service.here.ledger.write_bytes(b"not a ledger at all" * 1000)
    for leftover in service.here.root.glob("ledger.db-*"):
        leftover.unlink()
    sick = await run("doctor")
    assert sick.status == 1
    assert "not a ledger" in sick.out


async def test_doctor_looks_at_the_hosts_of_the_daemons_file(here: StateDir, run: Any, tmp_path: Path) -> None:
    """Each is a line of its own, one that cannot be reached too; a file that is wrong is a line of its own as well."""
    gone = {"kind": "ssh", "address": "nowhere.invalid", "root": "/srv", "config": "/dev/null", "patience_s": 0.5}
    hosts = {"beside": {"kind": "local", "root": str(tmp_path / "beside")}, "gone": gone}
    here.root.mkdir(exist_ok=True)
    here.config.write_text(yaml.safe_dump({"hosts": hosts}))
    asked = await run("doctor", "--json")
    found = {check["check"]: check for check in json.loads(asked.out)["checks"]}
    assert asked.status == 1 and "beside, gone" in found["configuration"]["detail"]
    assert found["host beside"]["state"] == "ok" and "cores" in found["host beside"]["detail"]
    assert found["host gone"]["state"] == "fail" and "nowhere.invalid" in found["host gone"]["detail"]
    here.config.write_text("hosts: [")
    found = {check["check"]: check for check in json.loads((await run("doctor", "--json")).out)["checks"]}
    assert found["configuration"]["state"] == "fail" and str(here.config) in found["configuration"]["detail"]
    assert not [name for name in found if name.startswith("host ")]


@pytest.mark.parametrize("module", ["sotad.cli.control", "sotad.cli.daemon"])
async def test_help_teaches(run: Any, module: str) -> None:
    """Examples and the exit statuses stand in --help."""
    found = await run("--help", module=module)
    assert found.status == 0
    assert "examples:" in found.out
    assert "exit status: 0 fine, 1 the answer is no" in found.out
