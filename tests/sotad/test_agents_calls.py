"""Calls of agents as processes: what they are given, how each way to end is recorded, and what is no answer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.artifacts import Artifacts
from ledger.events import Event
from ledger.reader import Reader
from ledger.store import Ledger
from ledger.writer import Writer
from sotad import sandbox
from sotad.activities.agents import ask_agent, finish_all
from sotad.activities.context import ActivityFailed, Context
from sotad.agents.examine import examine
from sotad.agents.flags import BadTool
from sotad.config import parse_campaign
from sotad.config.sections import Agent
from sotad.daemon.journal import Journal
from sotad.hosts.local import LocalHost
from sotad.redact import scrubber
from statemachine.evidence import digest
from statemachine.state import Job, World

HERE = Path(__file__).parent
KEY = "sk-PlantedForTheAgentTests0123456789"
JSON = dict[str, Any]
HELPS = {
    "claude": """Usage: claude [options] [prompt]

Options:
  --allowedTools, --allowed-tools <tools...>  Tools
  --effort <level>                Effort, as in
                                  --made-up of a description
  --json-schema <schema>          Schema
  --max-budget-usd <amount>       Limit
  --model <model>                 Model
  --output-format <format>        Format
  --permission-mode <mode>        Mode
  -p, --print                     Print
  -r, --resume [value]            Resume
  --setting-sources <sources>     Sources
  --strict-mcp-config             Strict
  --tools <tools...>              Tools
  --verbose                       Verbose
""",
    "codex": """Usage: codex exec [OPTIONS] [PROMPT]

Commands:
  resume  Resume a previous session
  help    Print this message

Options:
  -c, --config <key=value>
          Override; see --made-up
  -m, --model <MODEL>
  -s, --sandbox <SANDBOX_MODE>
  -C, --cd <DIR>
      --skip-git-repo-check
      --output-schema <FILE>
      --json
  -o, --output-last-message <FILE>
""",
}
THREAD = ["print", {"type": "thread.started", "thread_id": "t-1"}]
INIT = ["print", {"type": "system", "subtype": "init", "session_id": "s-1"}]


def message(number: int, tokens: int) -> list[Any]:
    """A step: one of Claude's messages, with its usage."""
    usage = {"input_tokens": tokens, "cache_read_input_tokens": 5, "output_tokens": 10}
    return ["print", {"type": "assistant", "message": {"id": f"m{number}", "usage": usage}, "session_id": "s-1"}]


def result(**more: Any) -> list[Any]:
    """A step: Claude's last line."""
    usage = {"input_tokens": 100, "cache_read_input_tokens": 20, "output_tokens": 30}
    line = {"type": "result", "subtype": "success", "is_error": False, "result": "", "session_id": "s-1"}
    return ["print", {**line, "usage": usage, "total_cost_usd": 0.5, **more}]


def turn(tokens: int) -> list[Any]:
    """A step: the end of one of Codex's turns."""
    usage = {"input_tokens": tokens, "cached_input_tokens": 1, "output_tokens": 2}
    return ["print", {"type": "turn.completed", "usage": usage}]


@dataclass
class Bench:
    """A campaign of whose implementer only calls are made."""

    home: Path
    journal: Journal
    host: LocalHost
    artifacts: Artifacts
    spec: JSON

    def context(self, attempt: int = 1) -> Context:
        parts = (self.journal, self.host, self.artifacts, self.home / "state")
        dispatched = Job("propose/1", "propose", attempt, "running", 2**62, 1)
        self.journal.world.campaigns["a"].jobs["propose/1"] = dispatched
        return Context("a", "propose/1", attempt, {}, 2**62, *parts)

    def does(self, *steps: list[Any]) -> None:
        (self.home / "tool" / "steps").write_text(json.dumps(steps))

    async def ask(self, attempt: int = 1, action: str = "propose", **agent: Any) -> JSON:
        driver = agent.setdefault("driver", "claude")
        agent.setdefault("argv", [sys.executable, str(HERE / "agent_standin.py"), str(self.home / "tool")])
        self.spec["implementer"] = Agent(**{"timeout_s": 30, "writable": [self.home / "tool"], **agent}).model_dump(
            mode="json"
        )
        (self.home / "tool" / "help").write_text(HELPS.get(driver, ""))
        request = {"action": action, "rows": [{"row_id": "k1"}]}
        return await ask_agent(self.context(attempt), "implementer", request, self.home / "work")

    def finished(self, attempt: int = 1) -> JSON:
        event = self.context(attempt).recorded("agent-implementer")
        assert event is not None
        return event.payload

    def events(self) -> list[Event]:
        with Reader(self.home / "state" / "ledger.db") as reader:
            return list(reader.events())

    def run(self, attempt: int = 1) -> Path:
        return Path(self.host.path(f"a/propose/1/{attempt}/implementer"))

    def given(self) -> JSON:
        found: JSON = json.loads((self.home / "tool" / "given.json").read_text())
        return found


async def under_way(bench: Bench) -> None:
    """Wait until the call has printed something."""
    log = bench.run() / "stdout.log"
    while not (log.exists() and log.stat().st_size):  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0.02)


@pytest.fixture
async def bench(tmp_path: Path, example: str) -> AsyncIterator[Bench]:
    for name in ("tool", "work", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "tool" / "version").write_text("9.8.7 (a stand-in)")
    ledger = Ledger.open(tmp_path / "state" / "ledger.db")
    ledger.claim_epoch()
    writer = Writer(ledger)
    journal = Journal(ledger, writer, World())
    spec = parse_campaign(example, "test.yaml", Path("/"))
    await journal.record("a", "campaign.created", {"spec": spec, "spec_digest": digest(spec), "source": "test"})
    host = LocalHost(tmp_path / "state" / "runs", secrets_source={"MODEL_KEY": KEY, "OTHER": "not for it"})
    artifacts = Artifacts(tmp_path / "state" / "artifacts", redact=scrubber({"MODEL_KEY": KEY}))
    yield Bench(tmp_path, journal, host, artifacts, journal.world.campaigns["a"].spec)
    journal.close()
    await writer.close()


async def test_claude_answers_in_its_structured_output(bench: Bench) -> None:
    """The answer, its usage and its session are those that the tool printed; the prompt came on its input."""
    bench.does(INIT, message(1, 50), message(1, 60), result(structured_output={"decline": "no"}))
    assert await bench.ask(model="m", effort="high", budget={"money_usd": 2.5}) == {"decline": "no"}
    done, given = bench.finished(), bench.given()
    assert done["usage"] == {
        "input_tokens": 120,
        "cached_input_tokens": 20,
        "output_tokens": 30,
        "cost_usd": 0.5,
    }
    assert [done[key] for key in ("outcome", "version", "session", "resumed")] == ["exited", "9.8.7", "s-1", False]
    for pair in (("--model", "m"), ("--effort", "high"), ("--max-budget-usd", "2.5"), ("--permission-mode", "dontAsk")):
        assert given["argv"][given["argv"].index(pair[0]) + 1] == pair[1]
    assert given["cwd"] == str(bench.home / "work")
    assert '"row_id": "k1"' in given["prompt"]


async def test_codex_answers_in_its_last_message(bench: Bench) -> None:
    """Its lines count the whole thread, so the last one is the usage; cost that it does not report is unknown."""
    bench.does(THREAD, turn(100), turn(150), ["answer", '\n {"decline": "no"}\n'])
    assert await bench.ask(driver="codex") == {"decline": "no"}
    done = bench.finished()
    assert done["usage"] == {
        "input_tokens": 150,
        "cached_input_tokens": 1,
        "output_tokens": 2,
        "cost_usd": None,
    }
    assert done["session"] == "t-1"


async def test_nothing_is_inherited_but_what_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH and the named secret are there, the daemon's other variables are not; no file keeps the secret."""
    monkeypatch.setenv("OTHER", "not for it")
    notes = [["write", [f"{bench.run()}/desk/{name}/notes", KEY]] for name in ("home", "tmp")]
    bench.does(["print", f"the key is {KEY}"], *notes, result(structured_output={}))
    await bench.ask(env_from=["MODEL_KEY"])
    env = bench.given()["env"]
    assert (env["MODEL_KEY"], "OTHER" in env, env["HOME"]) == (KEY, False, str(bench.run() / "desk" / "home"))
    known = {"PATH", "LANG", "HOME", "TMPDIR", "MODEL_KEY", "SOTAD_RUN", "PYTHONDONTWRITEBYTECODE"}
    assert {name for name in env if not name.startswith("GIT_")} <= known | {"LC_CTYPE", "PWD"}
    kept = [path for path in (bench.home / "state").rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert kept == []
    transcript = bench.artifacts.read(bench.finished()["transcript"]["sha256"])
    assert b"the key is [redacted" in transcript


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (
            json.dumps({"decline": KEY}).replace("Planted", "\\u0050lanted"),
            '{"decline": "[redacted]"}',
        ),  # as JSON may say it
        (f"Here you are: {KEY}", None),
        (f'{{"decline": "{KEY}"}}' * 2, None),
    ],
)
async def test_what_a_program_left_on_its_desk_holds_no_secret(bench: Bench, said: str, left: str | None) -> None:
    """An answer stays as it was taken, one that is none goes; its notes go, and what it was asked stays."""
    desk = bench.run() / "desk"
    notes = [["write", [f"{desk}/{name}", KEY]] for name in ("notes", "prompt.md", "home/notes")]
    bench.does(*notes, ["result", said])
    with suppress(ActivityFailed):
        assert await bench.ask(driver="command", env_from=["MODEL_KEY"]) == {"decline": "[redacted]"}
    assert [path for path in desk.rglob("*") if path.is_file() and "Planted" in path.read_text()] == (
        [] if left else [desk / "home" / "notes"]  # stays for a session to go on with
    )
    assert json.loads((desk / "request.json").read_text())["action"] == "propose"
    result = desk / "result.json"
    assert (result.read_text() if result.exists() else None) == left
    if left:  # as a daemon that died right here would find it
        assert await bench.ask(driver="command", env_from=["MODEL_KEY"]) == {"decline": "[redacted]"}


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([result(result="All good, nothing found.")], "no JSON but"),
        ([result(result='{"decline": "a"}\n{"decline": "b"}')], "more than one JSON document"),
        ([result(result='{"decline": "a", "decline": "b"}')], "names a key twice"),
        ([result(result="[1]")], "JSON of type list"),
        ([result(result=" ")], "an empty text"),
        ([message(1, 1)], "nothing at all"),
    ],
)
async def test_what_is_no_single_object_is_no_answer(bench: Bench, steps: list[Any], reason: str) -> None:
    """Prose, two documents, a list, nothing: the call fails with what came instead, and is on record."""
    bench.does(*steps)
    with pytest.raises(ActivityFailed, match=reason):
        await bench.ask()
    assert bench.finished()["outcome"] == "exited"


async def test_an_answer_from_before_is_not_read(bench: Bench) -> None:
    """A result file that lay there already is gone before the program starts."""
    (bench.run() / "desk").mkdir(parents=True)
    (bench.run() / "desk" / "result.json").write_text('{"decline": "of yesterday"}')
    bench.does(["print", "nothing today"])
    with pytest.raises(ActivityFailed, match="no JSON object: it gave nothing at all"):
        await bench.ask(driver="command")
    assert bench.finished().get("usage") is None


async def test_a_program_answers_in_its_result_file(bench: Bench) -> None:
    """What it says of its usage as it works is added up."""
    used = [["print", {"usage": {"input_tokens": 3}}], ["print", {"usage": {"input_tokens": 4, "cost_usd": 0.1}}]]
    bench.does(*used, ["result", '{"decline": "no"}'])
    assert await bench.ask(driver="command") == {"decline": "no"}
    usage = bench.finished()["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cost_usd"]) == (7, None, 0.1)


async def test_a_crash_is_on_record_with_its_reason(bench: Bench) -> None:
    """The last lines of stderr are the reason; what it used counts, and the transcript has both streams."""
    bench.does(message(1, 50), ["complain", "the model is not available"], ["exit", 3])
    with pytest.raises(ActivityFailed, match=r"exit code 3.*the model is not available"):
        await bench.ask()
    done = bench.finished()
    assert (done["outcome"], done["usage"]["input_tokens"]) == ("failed", 55)
    lines = bench.artifacts.read(done["transcript"]["sha256"]).splitlines()
    assert json.loads(lines[-1]) == {"stderr": "the model is not available\n"}


async def test_a_tool_that_says_it_failed_has_failed(bench: Bench) -> None:
    """Exit code 0 does not make an answer of an error."""
    bench.does(result(subtype="error_during_execution", is_error=True, structured_output={"decline": "x"}))
    with pytest.raises(ActivityFailed, match="error_during_execution"):
        await bench.ask()
    assert bench.finished()["outcome"] == "failed"


async def test_silence_ends_a_call(bench: Bench) -> None:
    """Without a line for ``silence_s`` it is ended, long before its time."""
    bench.does(INIT, ["sleep", 600])
    with pytest.raises(ActivityFailed, match="silent"):
        await bench.ask(silence_s=1.0)
    done = bench.finished()
    assert (done["outcome"], done.get("usage"), done["session"]) == ("silent", None, "s-1")


async def test_a_call_that_uses_too_much_is_ended(bench: Bench) -> None:
    """As soon as a line says so: its budget is in tokens, its own limit in money."""
    bench.does(message(1, 600), message(2, 600), ["sleep", 600])
    with pytest.raises(ActivityFailed, match="over budget"):
        await bench.ask(budget={"tokens": 1000})
    assert bench.finished()["usage"]["input_tokens"] == 1210
    bench.does(result(subtype="error_max_budget_usd", is_error=True))
    with pytest.raises(ActivityFailed, match="over budget"):
        await bench.ask(attempt=2)
    assert bench.finished(2)["outcome"] == "over budget"


async def test_time_ends_a_call(bench: Bench) -> None:
    """The wall clock bounds it, whatever it prints."""
    bench.does(["sleep", 600])
    with pytest.raises(ActivityFailed, match="timeout"):
        await bench.ask(timeout_s=1.0)
    assert bench.finished()["outcome"] == "timeout"


async def test_a_session_that_was_cut_short_is_gone_on_with_once(bench: Bench) -> None:
    """The second try resumes the first one's session in its home; the third begins anew."""
    bench.does(INIT, ["exit", 1])
    with pytest.raises(ActivityFailed):
        await bench.ask()
    home = str(bench.run() / "desk" / "home")
    bench.does(INIT, ["exit", 1])
    with pytest.raises(ActivityFailed):
        await bench.ask(attempt=2)
    given = bench.given()
    assert given["argv"][given["argv"].index("--resume") + 1] == "s-1"
    assert (given["env"]["HOME"], "cut short" in given["prompt"]) == (home, True)
    assert bench.finished(2)["resumed"] is True
    bench.does(result(structured_output={}))
    await bench.ask(attempt=3)
    assert "--resume" not in bench.given()["argv"]
    assert bench.finished(3)["resumed"] is False


async def test_what_a_session_used_before_is_not_counted_again(bench: Bench) -> None:
    """Codex counts a thread from its start; a resumed call has used what was added."""
    bench.does(THREAD, turn(100), ["answer", "prose"])
    with pytest.raises(ActivityFailed, match="no JSON"):
        await bench.ask(driver="codex")
    bench.does(THREAD, turn(130), ["answer", "{}"])
    await bench.ask(attempt=2, driver="codex", budget={"tokens": 50})
    usage = bench.finished(2)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cached_input_tokens"]) == (30, 0, 0)


@pytest.mark.parametrize(("driver", "flag"), [("claude", "--json-schema"), ("codex", "--output-schema")])
async def test_a_flag_that_is_not_there_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, driver: str, flag: str
) -> None:
    """Before anything starts, with the tool, its version and the flag; a mention in a description is no flag."""
    monkeypatch.setitem(
        HELPS, driver, HELPS[driver].replace(f" {flag} <", f" --other <FILE>\n          {flag} was it <")
    )
    with pytest.raises(ActivityFailed, match=rf"{driver} 9\.8\.7 has no {flag}: install"):
        await bench.ask(driver=driver)
    assert not (bench.run() / "spec.json").exists()


async def test_a_tool_that_is_not_installed_is_named(bench: Bench) -> None:
    """One line that says what to do."""
    with pytest.raises(ActivityFailed, match=r"cannot run /nowhere/claude: .*install it"):
        await bench.ask(argv=["/nowhere/claude"])


async def test_an_attempt_entered_again_finds_its_call(bench: Bench) -> None:
    """The process is not started twice, and its end is recorded once."""
    bench.does(result(structured_output={"decline": "no"}))
    first = await bench.ask()
    bench.does(result(structured_output={"decline": "another"}))
    seen = bench.journal.world.seq
    assert await bench.ask() == first
    assert bench.journal.world.seq == seen


async def test_a_call_outlives_who_asked(bench: Bench) -> None:
    """A daemon that is gone in the middle of a call gets the answer of the same process when it is back."""
    go = bench.home / "tool" / "go"
    bench.does(INIT, ["wait", str(go)], result(structured_output={"decline": "no"}))
    asking = asyncio.create_task(bench.ask())
    await under_way(bench)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert bench.context().recorded("agent-implementer") is None
    go.touch()
    assert await bench.ask() == {"decline": "no"}
    assert [e.type for e in bench.events()].count("agent.finished") == 1


async def test_a_script_of_ours_runs_like_any_program(bench: Bench) -> None:
    """Its request comes as data; it reports no usage, so none is known."""
    assert await bench.ask(driver="none", argv=[]) == {"decline": "no implementer is configured"}
    assert (bench.finished()["driver"], bench.finished().get("usage")) == ("none", None)


async def test_a_tool_is_examined_without_a_call(bench: Bench) -> None:
    """The version of the tool, or what is wrong with it."""
    argv = [sys.executable, str(HERE / "agent_standin.py"), str(bench.home / "tool")]
    (bench.home / "tool" / "help").write_text(HELPS["codex"])
    assert await examine(Agent(driver="codex", argv=argv)) == "9.8.7"
    (bench.home / "tool" / "help").write_text(HELPS["codex"].replace("  resume  Resume", "  again   Resume"))
    with pytest.raises(BadTool, match=r"codex 9\.8\.7 has no resume"):
        await examine(Agent(driver="codex", argv=argv))
    assert await examine(Agent(driver="none")) == ""


async def test_a_call_that_was_ended_from_outside_is_on_record(bench: Bench) -> None:
    """Whoever ends an attempt's runs accounts for its calls; what they used is not lost."""
    bench.does(message(1, 50), ["sleep", 600])
    asking = asyncio.create_task(bench.ask())
    await under_way(bench)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await bench.host.stop("a/propose/1/1/implementer")
    for _ in range(2):
        await finish_all(bench.journal, bench.host, bench.artifacts, "a/propose/1/1")
    assert (bench.finished()["outcome"], bench.finished()["usage"]["input_tokens"]) == ("interrupted", 55)


@pytest.mark.skipif(bool(sandbox.available()), reason=sandbox.available())
@pytest.mark.parametrize("action", ["propose", "implement"])
async def test_an_agent_reaches_its_folder_and_nothing_of_the_daemons(bench: Bench, action: str) -> None:
    """Only who implements writes to the folder; nobody writes to the outcome of the run or another folder."""
    tries = {"work": bench.home / "work" / "new", "outcome": bench.run() / "exit.json", "other": bench.home / "new"}
    bench.does(*(["try", str(path)] for path in tries.values()), ["result", "{}"])
    await bench.ask(driver="command", action=action)
    assert [path.exists() and path.read_text() == "x" for path in tries.values()] == [
        action == "implement",
        False,
        False,
    ]
