"""State directories that are full, read-only, damaged or foreign; configuration; the folder for campaigns."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest
import yaml
from rig.audit import audit
from rig.campaign import Rig
from rig.fixtures import Rigs

from ledger.events import Draft
from ledger.store import Ledger


@pytest.fixture
def mounted(rig: Rig) -> Iterator[Path]:
    """The state directory on a file system of its own, 1 MiB; what is large lies elsewhere."""
    rig.paths.root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(rig.paths.root)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting needs root")
    for name in ("runs", "artifacts", "worktrees", "reports", "log"):
        (rig.home / "elsewhere" / name).mkdir(parents=True)
        (rig.paths.root / name).symlink_to(rig.home / "elsewhere" / name)
    yield rig.paths.root
    rig.end()
    subprocess.run(["umount", str(rig.paths.root)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes every byte that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return path


def test_a_full_disk_stops_the_daemon_and_costs_nothing(rig: Rig, mounted: Path) -> None:
    """One line that says what and where; with room again the campaign goes on where it was."""
    rig.start()
    rig.submit()
    rig.seen("benchmark.started")
    filler = fill(mounted)
    assert rig.ended() == 2
    message = rig.said().splitlines()[-1]
    assert str(rig.paths.ledger) in message
    assert "full" in message
    assert "Traceback" not in (rig.home / "daemon.err").read_text()
    last = rig.events()[-1]
    assert rig.launch() and rig.ended() == 2
    filler.unlink()
    rig.start()
    assert rig.events()[-1].seq >= last.seq + 1
    rig.seen("candidate.stopped", count=2)
    assert [launch.attempt for launch in rig.c.launches.values()] == [1, 1]
    rig.client.post("/v1/campaigns/small/cancel")
    rig.seen("campaign.closed")
    audit(rig)


def test_a_read_only_state_directory_is_refused(rig: Rig, mounted: Path) -> None:
    """Exit 2 and one line that names the place."""
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    rig.launch()
    assert rig.ended() == 2
    (line,) = (rig.home / "daemon.err").read_text().splitlines()
    assert str(mounted) in line
    assert "Read-only file system" in line


def a_ledger(path: Path) -> Path:
    """A ledger with a few events."""
    with Ledger.open(path) as ledger:
        ledger.claim_epoch()
        note = Draft(campaign="", type="note.recorded", payload={"text": "x" * 3000}, actor="operator:test")
        for _ in range(20):
            ledger.append([note])
    return path


def damage(rig: Rig, how: str) -> None:
    """Spoil the state directory in one way."""
    rig.paths.root.mkdir()
    if how.startswith("config"):
        rig.paths.config.write_text("log_levle: info\n" if how == "config key" else "log_level: [\n")
        return
    path = a_ledger(rig.paths.ledger)
    if how == "foreign":
        path.unlink()
        with closing(connect(path)) as other:
            other.execute("CREATE TABLE somebody_elses (x)")
    elif how == "truncated":
        os.truncate(path, path.stat().st_size * 2 // 3)
    elif how == "altered":
        content = path.read_bytes()
        path.write_bytes(content.replace(b"x" * 100, b"y" * 100, 1))
    elif how == "newer":
        with closing(connect(path)) as newer:
            newer.execute("PRAGMA user_version=99")


EXPECTED = {
    "foreign": (2, "not a ledger"),
    "truncated": (1, "ledger"),
    "altered": (1, "the chain breaks at event"),
    "newer": (2, "use the release that wrote it"),
    "config key": (2, "log_levle: unknown key; did you mean 'log_level'?"),
    "config yaml": (2, "not YAML"),
}


def test_what_cannot_be_used_is_refused_in_one_line_and_left_as_it_is(rigs: Rigs) -> None:
    """Foreign, cut, altered and newer ledgers, and bad configurations: which file, why, and what to do."""
    made = {how: rigs(how.replace(" ", "-")) for how in EXPECTED}
    for how, rig in made.items():
        damage(rig, how)
    before = {how: _content(rig) for how, rig in made.items()}
    for rig in made.values():
        rig.launch()
    for how, (status, words) in EXPECTED.items():
        rig = made[how]
        assert rig.ended() == status, how
        said = (rig.home / "daemon.err").read_text().splitlines()
        assert (len(said), words in said[0], str(rig.paths.root) in said[0]) == (1, True, True), said
        if how != "altered":  # its events are as they were, but the writer's epoch is claimed before they are read
            assert _content(rig) == before[how], how


def _content(rig: Rig) -> bytes:
    return (rig.paths.config if rig.paths.config.exists() else rig.paths.ledger).read_bytes()


def test_the_configuration_is_reloaded_and_a_bad_one_is_not(rig: Rig) -> None:
    """A change takes effect; a mistake is on record and the configuration in force stays."""
    rig.paths.root.mkdir()
    rig.paths.config.write_text("log_level: info\n")
    rig.start()
    rig.paths.config.write_text("log_level: [")
    assert "not YAML" in rig.seen("config.rejected").payload["error"]
    rig.paths.config.write_text("[" * 3000)
    assert rig.seen("config.rejected", count=2).payload["error"]
    rig.paths.config.write_text("log_level: debug\ninbox: false\n")
    assert rig.seen("config.reloaded").payload["changed"] == ["log_level", "inbox"]
    drop(rig, "closed.yaml", rig.spec())
    rig.paths.config.write_text("log_level: warning\ninbox: true\n")
    assert rig.seen("inbox.accepted").payload["name"] == "closed.yaml"
    assert rig.events("config.reloaded")[-1].seq < rig.events("inbox.accepted")[0].seq
    assert rig.stop() == 0


def drop(rig: Rig, name: str, spec: object) -> None:
    """A campaign file in the folder, whole at once."""
    draft = rig.home / name
    draft.write_text(spec if isinstance(spec, str) else yaml.safe_dump(spec, sort_keys=False))
    draft.rename(rig.paths.inbox / name)


def test_a_dropped_file_is_taken_once_and_a_bad_one_refused_once(rig: Rig) -> None:
    """Whatever lies there, and across a restart; nothing that is dropped can stop the daemon."""
    rig.start()
    spec = rig.spec(frameworks__fork__checkout=str(rig.home / "nowhere"))
    (rig.paths.inbox / "dangling.yaml").symlink_to(rig.home / "nothing")
    os.mkfifo(rig.paths.inbox / "pipe.yaml")
    (rig.paths.inbox / "folder.yaml").mkdir()
    drop(rig, os.fsdecode(b"\xff.yaml"), "- no mapping")
    drop(rig, "bad.yaml", {**spec, "modle": 1})
    drop(rig, "deep.yaml", "[" * 3000)
    drop(rig, "endless.yaml", {**spec, "budget": {"wall_clock_s": float("inf")}})
    drop(rig, "good.yaml", spec)
    rig.seen("inbox.accepted")
    rig.seen("inbox.rejected", count=4)
    rejected = {event.payload["name"]: event.payload["error"] for event in rig.events("inbox.rejected")}
    assert sorted(rejected) == ["bad.yaml", "deep.yaml", "endless.yaml", "\ufffd.yaml"]
    assert "modle: unknown key; did you mean 'model'?" in rejected["bad.yaml"]
    rig.seen("preflight.failed")
    rig.kill()
    rig.start()
    drop(rig, "later.yaml", {**spec, "campaign": "later"})
    rig.seen("inbox.accepted", count=2)
    assert sorted(rig.world.campaigns) == ["later", "small"]
    assert len(rig.events("inbox.rejected")) == 4
    assert rig.stop() == 0


def test_a_half_written_file_is_not_taken(rig: Rig) -> None:
    """While somebody writes to it, it is left alone; then it is taken, once, as a whole."""
    rig.start()
    text = yaml.safe_dump(rig.spec(frameworks__fork__checkout=str(rig.home / "nowhere")), sort_keys=False)
    with (rig.paths.inbox / "slow.yaml").open("w") as file:
        for part in range(16):  # the writing is what is slow here: nothing is waited for
            file.write(text[len(text) * part // 16 : len(text) * (part + 1) // 16])
            file.flush()
            assert rig.events("inbox.accepted", "inbox.rejected") == []
            time.sleep(0.1)
    assert rig.seen("inbox.accepted").payload["name"] == "slow.yaml"
    assert rig.events("inbox.rejected") == []
    assert rig.stop() == 0
