"""Activities on a host that is not the daemon's machine: nothing of the daemon's paths is named there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rig.away import AwayHost
from rig.campaign import Rig, git
from rig.records import Records

from ledger.artifacts import Artifacts
from sotad import sandbox
from sotad.activities import cleanup
from sotad.activities.context import Context, RunLost
from sotad.activities.gpu_look import look
from sotad.activities.guard import guarded
from sotad.activities.intake import preflight
from sotad.activities.launch import launch
from sotad.activities.toolbox import Settings, equip, packed
from sotad.activities.traffic import TOKENIZER, files_here, files_there
from sotad.activities.trees import lay_out
from sotad.config import parse_campaign
from sotad.config.container import Container
from sotad.harness import files
from sotad.hosts.base import HostUnreachable
from sotad.hosts.local import LocalHost
from statemachine.state import Campaign, Job

JSON = dict[str, Any]
HOUR_NS = 3_600_000_000_000


class Bench:
    """A campaign on a host with a root of its own, to which the checkouts and the state directory are another world."""

    def __init__(self, home: Path, **changes: Any) -> None:
        self.home, self.rig, self.state = home, Rig(home / "rig"), home / "state"
        self.state.mkdir()
        spec = parse_campaign(yaml.safe_dump(self.rig.spec(**changes)), "test.yaml", home)
        self.c = Campaign("small", spec=spec)
        self.journal, self.artifacts = Records(self.c), Artifacts(self.state / "artifacts")
        elsewhere = (self.state, self.rig.target, self.rig.leader, home / "data")
        self.switch = home / "switch"
        self.host = AwayHost(home / "host", "gpu1", self.switch, elsewhere)

    async def context(self, job: str, attempt: int = 1, settings: Settings | None = None, **params: Any) -> Context:
        self.c.jobs[job] = Job(job, job.partition("/")[0], attempt, "running", 0, 1, params=params)
        deadline, tools = time.time_ns() + 60 * 10**9, await equip(self.host, settings or Settings())
        known = ("small", job, attempt, params, deadline, self.journal, self.host, self.artifacts, self.state)
        return Context(*known, tools)  # type: ignore[arg-type]

    async def intake(self, **more: Any) -> str:
        return await preflight(await self.context("preflight", **more))

    def failed(self) -> JSON:
        (found,) = self.journal.of("preflight.failed")
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# --- our code there -----------------------------------------------------------------------------------------


def test_our_code_is_one_file_of_the_same_bytes() -> None:
    """What is sent is every file that the harness' digest covers, and the same code is the same file."""
    made = packed()
    packed.cache_clear()
    assert packed() == made and len(list(files())) > 300


async def test_programs_run_from_that_file_alone(bench: Bench) -> None:
    """Standard-library programs need nothing else; those that measure import the sent code, not an installed one."""
    tools = await equip(bench.host, Settings(env={"PYTHONPATH": "/theirs"}))
    asked = bench.home / "asked"
    asked.write_bytes(b"abc")
    done = ended(tools.program("sotad.there.digests", str(asked)))
    assert json.loads(done.stdout)[str(asked)] == {"sha256": digest_of(b"abc"), "bytes": 3}, done.stderr
    code = "import sys, sotad.loadgen.program as p; print(p.__file__, '/theirs' in sys.path)"
    argv, env = tools.measuring(("-c", code))
    said = ended(argv, **env)
    assert said.stdout == f"{tools.code}/sotad/loadgen/program.py True\n", said.stderr


def ended(argv: tuple[str, ...], **env: str) -> subprocess.CompletedProcess[str]:
    """A program that was run from nowhere in particular."""
    return subprocess.run(argv, capture_output=True, text=True, cwd="/", env={**os.environ, **env}, timeout=60)


def digest_of(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


# --- preflight ----------------------------------------------------------------------------------------------


async def test_preflight_sends_the_commits_and_tells_of_the_host(bench: Bench) -> None:
    """Help and version come from the commit as it is laid out there; clock and name go on record."""
    assert await bench.intake() == "passed"
    (passed,) = bench.journal.of("preflight.passed")
    assert (passed["host"]["name"], passed["host"]["clock_offset_ms"]) == ("gpu1", 0.0)
    assert {each["version"] for each in bench.journal.of("framework.probed")} != {""}
    assert {path.parent.name for path in (bench.home / "host").rglob("refengine")} >= {
        f"{name}-{bench.c.workspaces[name]['commit'][:12]}" for name in ("fork", "upstream")
    }


async def test_the_frameworks_are_asked_all_at_once(tmp_path: Path) -> None:
    """Real ones import for seconds before they say a word: here each of four commands waits for the other three."""
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    waits = 'n=0; until [ $(ls "$0".* | wc -l) -ge 4 ]; do n=$((n+1)); [ $n -lt 400 ] || exit 9; sleep 0.05; done'
    python.write_text(f'#!/bin/sh\n: > "$0.$$"\n{waits}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    bench = Bench(tmp_path / "bench", **{f"frameworks__{name}__python": str(python) for name in ("fork", "upstream")})
    assert await bench.intake() == "passed"
    assert [each["framework"] for each in bench.journal.of("framework.probed")] == ["fork", "upstream"]


@pytest.mark.parametrize(("skew", "way"), [(HOUR_NS, "ahead of"), (-HOUR_NS, "behind")])
async def test_a_clock_an_hour_off_is_one_clear_message(bench: Bench, skew: int, way: str) -> None:
    """Nothing is measured; whoever wants it so allows more in the host's definition, and a note tells of it."""
    bench.host.skew_ns = skew
    await bench.intake()
    assert bench.failed()["check"] == "clock"
    assert f"the clock of gpu1 is 3600.0 s {way} ours" in bench.failed()["reason"]
    assert await bench.intake(attempt=2, settings=Settings(max_clock_offset_s=4000)) == "passed"
    assert "3600.0 s" in bench.journal.of("note.recorded")[0]["text"]


@pytest.mark.parametrize("tools", ["/usr/bin/env", "/no/such/python"])
async def test_an_interpreter_that_cannot_measure_is_one_clear_message(bench: Bench, tools: str) -> None:
    """It says which interpreter, what it said, and what to set."""
    await bench.intake(settings=Settings(tools=tools))
    assert bench.failed()["check"] == "tools"
    reason = bench.failed()["reason"]
    assert f"on gpu1 under {tools}" in reason and "pydantic, orjson and aiohttp" in reason and "\n" not in reason


async def test_a_python_that_is_too_old_is_one_clear_message(bench: Bench) -> None:
    """What needs only the standard library needs 3.9 all the same."""
    bench.host.facts["python"] = "3.8.18"
    await bench.intake()
    assert bench.failed()["check"] == "python" and "on gpu1 is 3.8.18" in bench.failed()["reason"]


async def test_the_model_is_looked_at_where_it_is_served(tmp_path: Path) -> None:
    """Its small files come over by digest for lengths and limits; requests there name the files that are there."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text('{"hf": "hf_abcdefghijklmnopqrstuvwx"}')
    (model / "config.json").write_text('{"hidden_size": 8}')
    bench = Bench(tmp_path, model__id=str(model))
    assert await bench.intake() == "passed"
    context = await bench.context("launch/1")
    here, there = files_here(bench.c, bench.artifacts), await files_there(context)
    assert there[TOKENIZER] == str(model / "tokenizer.json") != here[TOKENIZER]
    assert {name: Path(here[name]).read_bytes() for name in here} == {
        name: (model / name).read_bytes() for name in ("tokenizer.json", "config.json")
    }


async def test_a_dataset_is_sent_once(tmp_path: Path) -> None:
    """The load generator reads a copy by digest there, the daemon its own file."""
    (tmp_path / "data").mkdir()
    data = tmp_path / "data" / "rows.jsonl"
    data.write_text('{"prompt": "hello", "output_len": 4}\n' * 8)
    bench = Bench(tmp_path)
    bench.c.spec["workload"] |= {"kind": "jsonl", "dataset": str(data)}
    bench.c.host = {"model_files": {}}
    places = [(await files_there(await bench.context(f"launch/{n}")))["dataset"] for n in range(2)]
    assert places[0] == places[1] and places[0].endswith("/rows.jsonl")
    assert Path(places[0]).read_bytes() == data.read_bytes()
    assert files_here(bench.c, bench.artifacts) == {"dataset": str(data)}


# --- launches -----------------------------------------------------------------------------------------------


async def test_a_patch_costs_what_it_changes(bench: Bench) -> None:
    """The first commit is sent whole, another one as what it adds to that; neither is sent twice."""
    await bench.intake()
    (bench.rig.target / "refengine" / "new.py").write_text("ADDED = 1\n")
    git(bench.rig.target, "add", "--all")
    git(bench.rig.target, "commit", "--quiet", "-m", "Add")
    commit = git(bench.rig.target, "rev-parse", "HEAD")
    place = Path(await lay_out(await bench.context("launch/1"), bench.rig.target, "fork", commit))
    assert (place / "refengine" / "new.py").read_text() == "ADDED = 1\n"
    sizes = sorted(path.stat().st_size for path in (bench.home / "host" / "files").glob("*/objects.zip"))
    assert len(sizes) == 3 and sizes[0] < 400 < sizes[1]  # of two frameworks whole, and one file
    before = time.time_ns()
    assert str(place) == await lay_out(await bench.context("launch/2"), bench.rig.target, "fork", commit)
    assert all(path.stat().st_mtime_ns < before for path in (bench.home / "host" / "files").glob("*/objects.zip"))


def launched(bench: Bench) -> JSON:
    commit = bench.c.workspaces["upstream"]["commit"]
    return {"purpose": "gap", "framework": "upstream", "candidate": "only", "commit": commit, "flags": {}}


async def test_a_launch_is_measured_beside_its_server(bench: Bench) -> None:
    """Server, load generator and their files are the host's; the row and its raw report come over."""
    await bench.intake()
    context = await bench.context("launch/1", seeds={"chat": [1]}, **launched(bench))
    assert await launch(context) == "measured"
    (finished,) = bench.journal.of("benchmark.finished")
    raw = json.loads(bench.artifacts.read(finished["raw"]["sha256"]))
    assert finished["row"]["status"] == "ok" and raw["spec"]["base_url"].startswith("http://127.0.0.1:")
    assert not list(bench.state.glob("runs/**/spec.json"))


async def test_a_host_that_vanishes_fails_no_candidate(bench: Bench) -> None:
    """The launch is neither failed nor lost; entered again it finds its server and goes on, and measures once."""
    await bench.intake()
    params = {"seeds": {"chat": [1]}, **launched(bench)}
    context = await bench.context("launch/1", **params)
    started = bench.host.start

    async def cut_after(run_id: str, spec: Any) -> Any:
        status = await started(run_id, spec)
        if run_id.endswith("/bench-chat-0"):
            bench.switch.touch()
        return status

    bench.host.start = cut_after  # type: ignore[method-assign]
    with pytest.raises(HostUnreachable, match="gpu1 does not answer"):
        await launch(context)
    assert not bench.journal.of("candidate.failed") + bench.journal.of("candidate.lost")
    bench.switch.unlink()
    assert await launch(replace(context, holding=False)) == "measured"
    assert (len(bench.journal.of("candidate.launched")), len(bench.journal.of("benchmark.finished"))) == (1, 1)
    assert len(await bench.host.list_runs("small/launch/1/1/bench-")) == 1


async def test_a_report_that_did_not_arrive_whole_is_no_measurement(bench: Bench) -> None:
    """What differs from the digest that its writer printed is void."""
    context = await bench.context("job")
    await context.run("other", context.command(("true",), timeout_s=20, cwd=str(bench.home)))
    (Path(context.path("other")) / "out.json").write_bytes(b"hell")
    with pytest.raises(RunLost, match="not what was written"):
        await context.fetch("other", "out.json", digest_of(b"hello\n"))
    assert await context.fetch("other", "out.json", digest_of(b"hell")) == b"hell"
    assert await context.find("other", "nothing") is None


# --- what a patch may do there ------------------------------------------------------------------------------

SPY = """
import os, pathlib, sys
for name in sys.argv[2:]:
    try: print(name, len(pathlib.Path(name).read_text()))
    except OSError as error: print(name, error.strerror)
try: pathlib.Path(sys.argv[1], "own").write_text("x"); print("wrote")
except OSError as error: print(error.strerror)
"""


@pytest.mark.skipif(bool(sandbox.available()), reason=sandbox.available() or "guarded")
async def test_a_patch_sees_nothing_of_our_root_there(bench: Bench) -> None:
    """Other runs, whose specs hold seeds, and what was placed are hidden; its worktree is read, its folder written."""
    context = await bench.context("job")
    tree = bench.home / "host" / "files" / "trees" / "x"
    secret, own = bench.home / "host" / "small" / "other" / "spec.json", context.path("served", "traces")
    for place in (secret, tree / "code.py"):
        place.parent.mkdir(parents=True)
        place.write_text("SEED = 1")
    await bench.host.put(context.run_id("served"), "note", b"")
    spy = (sys.executable, "-c", SPY, own, str(secret), str(tree / "code.py"), context.tools.code)
    argv = guarded(context, "fork", spy, writable=[own], readable=[str(tree)])
    assert guarded(context, "upstream", spy, writable=[own]) == spy
    status = await context.run("served", context.command(argv, timeout_s=30, cwd=str(tree)))
    assert status.succeeded, await context.tail("served")
    said = (await context.output("served")).decode().splitlines()
    assert said == [
        f"{secret} Permission denied",
        f"{tree / 'code.py'} 8",
        f"{context.tools.code} Permission denied",
        "wrote",
    ]


# --- containers -----------------------------------------------------------------------------------------------


async def test_frameworks_run_in_the_container_of_their_host(bench: Bench) -> None:
    """Servers and what is asked of frameworks do, with their folders mounted; the load generator runs beside it."""
    image = f"registry.example/engine@sha256:{'0' * 64}"
    box = Container.model_validate({"runtime": "podman", "image": image})
    context = await bench.context("job", settings=Settings(container=box))
    plain = context.command(("engine", "serve"), timeout_s=20, cwd="/srv/tree")
    spec = await context.serving("server", plain, "/srv/tree")
    words = " ".join(spec.argv)
    assert image in words and f"/srv/tree:/srv/tree --volume {context.path('server')}" in words
    assert await (await bench.context("other")).serving("server", plain) == plain
    assert guarded(context, "fork", ("engine",), writable=[]) == ("engine",)


RUNTIME = """#!/bin/sh
echo "$@" >> said
case "$1" in
ps) cat there ;;
rm) if [ -e stuck ]; then echo "it is busy" >&2; exit 1; fi; : > there ;;
esac
"""
"""In place of podman: a list of containers in a file, of which none can be removed while ``stuck`` is there."""


@pytest.fixture
def runtime(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a runtime that has two containers of the campaign."""
    monkeypatch.setattr(cleanup, "REMOVAL_PAUSE_S", 0.01)
    folder = bench.home / "runtime"
    folder.mkdir()
    (folder / "there").write_text("sotad-1\nsotad-2\n")
    (folder / "run").write_text(RUNTIME.replace("#!/bin/sh\n", f"#!/bin/sh\ncd {folder}\n"))
    (folder / "run").chmod(0o755)
    return folder


async def clearing(bench: Bench, runtime: Path) -> tuple[JSON, list[str]]:
    image = f"registry.example/engine@sha256:{'0' * 64}"
    box = Container.model_validate({"runtime": "podman", "image": image, "command": [str(runtime / "run")]})
    return await cleanup._ended_runs(await bench.context("clean_up", settings=Settings(container=box)))


async def test_a_campaigns_containers_are_removed(bench: Bench, runtime: Path) -> None:
    """After its runs have ended; whoever enters the clean-up again looks again."""
    served = await bench.context("launch/1")
    await served.run("bench", served.command(("true",), timeout_s=20))
    await served.start("server", served.command(("sleep", "60"), timeout_s=60))
    assert await clearing(bench, runtime) == ({"exited": 1, "stopped": 1}, [])
    listed = f"ps --all --filter label=sotad.campaign={bench.host.path('small')} --format {{{{.Names}}}}"
    assert (runtime / "said").read_text().splitlines() == [listed, "rm --force --time 0 sotad-1 sotad-2", listed]
    (runtime / "there").write_text("sotad-3\n")
    assert (await clearing(bench, runtime))[1] == [] and (runtime / "there").read_text() == ""


async def test_a_container_that_stays_is_named(bench: Bench, runtime: Path) -> None:
    """With what the runtime said, once it was asked often enough; a runtime that is gone is named, too."""
    (runtime / "stuck").touch()
    left = (await clearing(bench, runtime))[1]
    assert left == [f"container sotad-{number} is still there: it is busy" for number in (1, 2)]
    assert (runtime / "said").read_text().count("rm --force") == cleanup.REMOVALS
    (runtime / "run").unlink()
    (gone,) = (await clearing(bench, runtime))[1]
    assert gone.startswith("containers could not be listed: ") and "run" in gone


# --- GPUs -----------------------------------------------------------------------------------------------------


async def test_leased_gpus_are_shown_where_they_are(bench: Bench) -> None:
    """What runs on the daemon's machine beside it sees none of that one's: nobody leased them."""
    bench.c.spec["hardware"] |= {"host": "gpu1", "gpu_ids": [2]}
    there = replace(await bench.context("job"), home=LocalHost(bench.state / "runs"))
    assert there.command(("x",), timeout_s=1).env["CUDA_VISIBLE_DEVICES"] == "2"
    assert there.at_home().command(("x",), timeout_s=1).env["CUDA_VISIBLE_DEVICES"] == ""


async def test_gpus_that_no_interpreter_can_look_at_are_one_clear_message(bench: Bench) -> None:
    """The lease comes before the preflight: it, too, says which interpreter it was and what to set."""
    context = await bench.context("lease/0", settings=Settings(tools="/usr/bin/env"))
    with pytest.raises(RunLost, match=r"no reading of the GPUs under /usr/bin/env: .*; tools in the host's definition"):
        await look(context, "gpus-lease")


# --- traces ---------------------------------------------------------------------------------------------------


def test_traces_are_judged_where_they_can_be_read(tmp_path: Path) -> None:
    """A host that lacks what reads traces leaves the judging to the daemon's machine, which does it apart."""
    lacking = "import sys; sys.modules['isal'] = None; from sotad.capture.__main__ import _judge; "
    left = ended((sys.executable, "-c", lacking + "found = {'stages': [{}]}; _judge(found, None); print(found)"))
    assert left.stdout == "{'stages': [{}]}\n" and "not judged here: " in left.stderr
    (tmp_path / "t.json").write_text('{"traceEvents": []}')
    stage = {"stage": "decode", "streams": 1, "input_len": 8, "output_len": 9, "warmup": 1, "active": 3}
    asked = {"stage": stage, "expected": {"gpu": True, "graphs": True}, "files": [str(tmp_path / "t.json")]}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    judged = ended((sys.executable, "-m", "sotad.capture.check", str(tmp_path / "asked.json")))
    assert any("no GPU kernel" in problem or "event" in problem for problem in json.loads(judged.stdout)), judged
