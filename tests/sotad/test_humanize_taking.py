"""``sotactl humanize import`` and ``follow``, with a real daemon and files that other processes write."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sotad.client import Client
from sotad.errors import SotadError, Unreachable
from sotad.humanize import taking
from sotad.humanize.looking import MAX_BYTES
from sotad.humanize.taking import AWAY_S, Taker, follow, loop_folder
from sotad.paths import StateDir

JSON = dict[str, Any]
SOTACTL = """
import sys
from sotad.cli import humanize
from sotad.cli.entry import Parser, main
from sotad.cli.options import add_dir
top = Parser(prog="sotactl")
add_dir(top)
humanize.add(top.add_subparsers(required=True))
sys.exit(main(top, sys.argv[1:]))
"""
STATE = """---
current_round: {round}
max_iterations: 42
plan_tracked: false
start_branch: work
base_branch: main
review_started: {reviewing}
drift_status: normal
---
"""
GOOD: dict[str, str] = {
    "plan.md": "# Plan\n\nfaster\n",
    "goal-tracker.md": "## IMMUTABLE SECTION\n- AC-1: faster\n---\n## MUTABLE SECTION\n",
    "round-0-prompt.md": "do it",
    "round-0-contract.md": "one objective for AC-1",
    "round-0-summary.md": "done\n## BitLesson Delta\n- Action: none\n",
    "round-0-review-prompt.md": "look",
    "round-0-review-result.md": "## Mainline Gaps\n- [P2] slow\n\nMainline Progress Verdict: STALLED\n",
    "round-1-prompt.md": "again",
    "round-1-contract.md": "AC-1",
    "round-1-summary.md": "done, größer\n## BitLesson Delta\n- Action: none\n",
    "round-1-review-prompt.md": "look",
    "round-1-review-result.md": "Mainline Progress Verdict: ADVANCED\n\nCOMPLETE\n",
    ".review-phase-started": "build_finish_round=1\n",
    "finalize-summary.md": "simpler",
    "complete-state.md": STATE.format(round=1, reviewing="true"),
}
FIRST = ["plan.md", "round-0-prompt.md", "round-0-contract.md", "round-0-summary.md", "round-0-review-prompt.md"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDir]:
    """A daemon of its own, as it is started by hand."""
    state = StateDir(tmp_path_factory.mktemp("daemon") / "state")
    argv = [sys.executable, "-m", "sotad.cli.daemon", "start", "--dir", str(state.root)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _until(lambda: _answers(state))
            yield state
        finally:
            process.terminate()
            process.wait(30)


def _answers(state: StateDir) -> bool:
    try:
        return bool(Client(state.socket).get("/v1/status"))
    except Unreachable:
        return False


def _until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.02)


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """A finished loop as the plugin leaves it."""
    folder = tmp_path / "project" / ".humanize" / "rlcr" / "2026-11-22_08-00-00"
    folder.mkdir(parents=True)
    for name, text in GOOD.items():
        (folder / name).write_text(text)
    return folder


def sotactl(daemon: StateDir, *argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SOTACTL, "humanize", *argv, "--dir", str(daemon.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def reported(daemon: StateDir, loop: Path) -> list[JSON]:
    """The events of a loop, in order."""
    events: list[JSON] = Client(daemon.socket).get("/v1/events?limit=5000")["events"]
    return [e for e in events if e["type"] == "humanize.reported" and e["payload"]["loop"] == str(loop.resolve())]


def test_a_finished_loop_is_on_record_file_by_file(daemon: StateDir, loop: Path) -> None:
    """In the order in which it went, as reported by the operator, with the text as an artifact; then its rounds."""
    done = sotactl(daemon, "import", str(loop))
    assert (done.returncode, done.stderr) == (0, "")
    events = reported(daemon, loop)
    files = [event["payload"]["file"] for event in events]
    assert files[:5] == FIRST
    assert files[-1] == "complete-state.md"
    assert sorted(files) == sorted(GOOD)
    assert all(event["payload"]["trust"] == "reported" for event in events)
    assert all(event["actor"].startswith("operator") for event in events)
    by_file = {event["payload"]["file"]: event["payload"] for event in events}
    assert by_file["round-0-review-result.md"]["fields"]["verdict"] == "STALLED"
    digest = by_file["round-1-summary.md"]["document"]["sha256"]
    assert (daemon.artifacts / digest[:2] / digest).read_text() == GOOD["round-1-summary.md"]
    lines = done.stdout.splitlines()
    assert lines[1].split()[:3] == ["0", "STALLED", "P2:1"]
    assert lines[2].split()[:3] == ["1", "ADVANCED", "COMPLETE"]
    assert lines[-1].endswith(f"complete, {len(GOOD)} files reported")


def test_the_same_again_is_no_event_and_a_change_is_one(daemon: StateDir, loop: Path) -> None:
    """Telling is idempotent by content."""
    sotactl(daemon, "import", str(loop))
    first = reported(daemon, loop)
    assert sotactl(daemon, "import", str(loop)).returncode == 0
    assert reported(daemon, loop) == first
    (loop / "goal-tracker.md").write_text(GOOD["goal-tracker.md"] + "more\n")
    sotactl(daemon, "import", str(loop))
    assert [e["payload"]["file"] for e in reported(daemon, loop)[len(first) :]] == ["goal-tracker.md"]


def test_a_planted_end_is_recorded_as_what_it_is(daemon: StateDir, loop: Path) -> None:
    """A COMPLETE without a verdict, in a review that nobody asked for: on record with its problems, and status 1."""
    for name in ("complete-state.md", "finalize-summary.md", "round-1-review-prompt.md"):
        (loop / name).unlink()
    (loop / "state.md").write_text(STATE.format(round=1, reviewing="false"))
    (loop / "round-1-review-result.md").write_text("everything is fine\nCOMPLETE\n")
    done = sotactl(daemon, "import", str(loop), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["terminal"], found["status"]) == (None, "active")
    said = {entry["problem"] for entry in found["problems"] if entry["file"] == "round-1-review-result.md"}
    assert said == {"COMPLETE without a verdict: completes nothing", "a result of a review that nobody asked for"}
    (event,) = [e for e in reported(daemon, loop) if e["payload"]["file"] == "round-1-review-result.md"]
    assert event["payload"]["fields"]["verdict"] == ""
    assert event["payload"]["fields"]["problems"] == ["COMPLETE without a verdict: completes nothing"]


def test_what_cannot_be_read_costs_one_line_each(daemon: StateDir, loop: Path) -> None:
    """A link, a pipe, a folder, other bytes, NUL, too much: left out, and all the rest is taken."""
    odd = ["round-0-prompt.md", "round-0-contract.md", "round-0-summary.md", "round-1-prompt.md", "round-1-contract.md"]
    for name in (*odd, "plan.md"):
        (loop / name).unlink()
    (loop / odd[0]).symlink_to(loop / "goal-tracker.md")
    os.mkfifo(loop / odd[1])
    (loop / odd[2]).mkdir()
    (loop / odd[3]).write_bytes(b"\xff\xfe half")
    (loop / odd[4]).write_bytes(b"AC-1\0")
    (loop / "plan.md").write_bytes(b"x" * (MAX_BYTES + 1))
    (loop / os.fsdecode(b"round-2-prompt\xff.md")).write_text("no name of the layout")
    done = sotactl(daemon, "import", str(loop))
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert len(said) == 6
    assert all("left out" in line for line in said)
    assert {part for line in said for part in ("link", "no plain file", "UTF-8", "NUL", "bytes") if part in line} == {
        *("link", "no plain file", "UTF-8", "NUL", "bytes")
    }
    assert len(reported(daemon, loop)) == len(GOOD) - 6


@pytest.mark.parametrize("where", ["nowhere", "empty", "project"])
def test_a_folder_that_is_no_loop_is_one_line(daemon: StateDir, loop: Path, tmp_path: Path, where: str) -> None:
    """What is meant is named where it is known."""
    (tmp_path / "empty").mkdir()
    done = sotactl(daemon, "import", str(tmp_path / where))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert (str(loop) in done.stderr) == (where == "project")


def test_without_a_daemon_nothing_is_read(tmp_path: Path, loop: Path) -> None:
    """Status 3, one line."""
    done = sotactl(StateDir(tmp_path / "none"), "import", str(loop))
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)


# --- follow -----------------------------------------------------------------------------------------------------

WRITER = """
import os, sys, time
folder = sys.argv[1]
def write(name, text):
    with open(os.path.join(folder, name), "w") as file:
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            file.write(part)
            file.flush()
            time.sleep(0.05)
def state(number, name="state.md"):
    text = STATE.format(round=number, reviewing="false")
    write("state.md.tmp", text)
    os.rename(os.path.join(folder, "state.md.tmp"), os.path.join(folder, "state.md"))
state(0)
write("plan.md", "# Plan")
for number in (0, 1):
    write(f"round-{number}-prompt.md", f"round {number}")
    write(f"round-{number}-contract.md", "AC-1")
    write(f"round-{number}-summary.md", "done\\n## BitLesson Delta\\n- Action: none\\n")
    write(f"round-{number}-review-prompt.md", "look")
    write(f"round-{number}-review-result.md", f"round {number}\\nMainline Progress Verdict: ADVANCED\\n\\nSTOP\\n")
    state(number + 1)
    time.sleep(0.4)
os.rename(os.path.join(folder, "state.md"), os.path.join(folder, "stop-state.md"))
"""


def start(daemon: StateDir, loop: Path, *argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SOTACTL, "humanize", "follow", str(loop), *argv, "--dir", str(daemon.root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_loop_is_followed_to_its_end(daemon: StateDir, loop: Path) -> None:
    """While another process writes it: every file that stayed, no half of one, the states one after the other."""
    shutil.rmtree(loop)
    loop.mkdir()
    with start(daemon, loop, "--json") as following:
        writer = f"STATE = {STATE!r}\n{WRITER}"
        subprocess.run([sys.executable, "-c", writer, str(loop)], check=True, timeout=60)
        out, err = following.communicate(timeout=60)
    assert (following.returncode, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["overview"]["terminal"] == "stop"
    assert [entry["verdict"] for entry in lines[-1]["overview"]["rounds"]] == ["ADVANCED", "ADVANCED"]
    events = reported(daemon, loop)
    assert [line["seq"] for line in lines[:-1]] == [event["seq"] for event in events]
    texts = {e["payload"]["file"]: e["payload"]["document"]["sha256"] for e in events}
    for path in loop.iterdir():
        digest = texts[path.name]
        assert (daemon.artifacts / digest[:2] / digest).read_bytes() == path.read_bytes()
    rounds = [e["payload"]["fields"]["current_round"] for e in events if e["payload"]["kind"] == "state"]
    assert rounds == sorted(rounds)
    assert events[-1]["payload"]["file"] == "stop-state.md"


def test_ctrl_c_ends_following_and_loses_nothing(daemon: StateDir, loop: Path) -> None:
    """What was taken is on record; following again adds only what is new."""
    (loop / "complete-state.md").rename(loop / "state.md")
    with start(daemon, loop) as following:
        _until(lambda: len(reported(daemon, loop)) == len(GOOD))
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=30)
    assert (following.returncode, err) == (130, "")
    assert "active" in out.splitlines()[-1]
    (loop / "state.md").rename(loop / "complete-state.md")
    with start(daemon, loop) as following:
        following.communicate(timeout=60)
    assert following.returncode == 0
    assert len(reported(daemon, loop)) == len(GOOD) + 1


class Door:
    """A daemon that is away some of the time."""

    def __init__(self, fails: Callable[[int], SotadError | None]) -> None:
        self.asked: list[str] = []
        self._fails = fails

    def post(self, target: str, body: JSON | None = None) -> Any:
        assert body is not None
        self.asked.append(body["file"])
        if error := self._fails(len(self.asked)):
            raise error
        return {"seq": len(self.asked)}


def test_a_daemon_that_is_away_is_waited_for(loop: Path) -> None:
    """What it did not hear is told again, in order, and said once."""
    said: list[str] = []
    door = Door(lambda number: Unreachable("nobody") if 3 <= number <= 6 else None)
    taker = Taker(door, loop, lambda told: None, said.append)
    follow(taker, lambda seconds: None, said.append)
    assert said == ["nobody; waiting for it"]
    assert door.asked[:7] == ["plan.md", "round-0-prompt.md", *["round-0-contract.md"] * 5]
    assert len(door.asked) == len(GOOD) + 4


def test_a_file_that_still_changes_is_not_taken(loop: Path) -> None:
    """Only what two looks find alike: no half of a file is told."""
    door = Door(lambda number: None)
    taker = Taker(door, loop, lambda told: None, print)
    (loop / "round-1-summary.md").write_text("ha")
    assert taker.take_settled() is True
    assert door.asked == []
    (loop / "round-1-summary.md").write_text("half of it")
    assert taker.take_settled() is True
    assert "round-1-summary.md" not in door.asked
    assert taker.take_settled() is False
    assert door.asked.count("round-1-summary.md") == 1
    assert sorted(door.asked) == sorted(GOOD)


def test_a_daemon_that_stays_away_ends_it(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute."""
    now = iter(range(0, 10**6, 7))
    monkeypatch.setattr(taking, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    waits: list[float] = []
    with pytest.raises(Unreachable):
        follow(Taker(Door(lambda number: Unreachable("gone")), loop, print, print), waits.append, print)
    assert len(waits) >= AWAY_S / 7


def test_a_file_that_goes_while_it_is_looked_at_is_one_line(loop: Path) -> None:
    """And the others are taken; a loop whose folder goes ends the following."""
    said: list[str] = []
    taker = Taker(Door(lambda number: None), loop, lambda told: (loop / "round-0-summary.md").unlink(True), said.append)
    taker.take_all()
    assert said == [f"{loop / 'round-0-summary.md'}: vanished; left out"]
    assert taker.posted == len(GOOD) - 1
    gone = threading.Event()

    def wait(seconds: float) -> None:
        shutil.rmtree(loop, ignore_errors=True)
        gone.set()

    (loop / "complete-state.md").unlink()
    with pytest.raises(SotadError, match="folder is gone"):
        follow(Taker(Door(lambda number: None), loop_folder(loop), lambda told: None, said.append), wait, print)
    assert gone.is_set()
