"""Defects, repairs and the cheat, each applied to a real git checkout of the engine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sotad.demo.defects import CHEAT, DEFECTS, FIXES, Edit, choose_fix

pytest.importorskip("torch")

ENGINE = Path(__file__).parents[2] / "sotad" / "refengine"
REPAIR = {"full-logits": "last-logits", "token-budget": "full-decode", "kv-copy": "in-place-append"}
DRIVE = """
import json, random, sys
from collections import Counter
from refengine.engine import Engine
from refengine.flags import Config
from refengine.scheduler import Sequence
source = random.Random(3)
engine = Engine(Config(layers=4, hidden=128, heads=2, vocab_size=4096))
asked = [Sequence(id=str(n), prompt=[source.randrange(256) for _ in range(source.randint(32, 96))],
                  max_tokens=source.randint(12, 20)) for n in range(12)]
for sequence in asked:
    engine.scheduler.submit(sequence)
batches = Counter()
plan = engine.scheduler.plan
def counted():
    step = plan()
    if step and step.stage == "decode":
        batches[len(step.work)] += 1
    return step
engine.scheduler.plan = counted
while engine.run_step() is not None:
    pass
keys = engine.cache._keys[0]  # held, so that its memory cannot be given to the next one
engine.scheduler.submit(Sequence(id="again", prompt=[1, 2, 3], max_tokens=2))
while engine.run_step() is not None:
    pass
json.dump({"outputs": [s.output for s in asked], "decode_steps": sum(batches.values()),
           "moved": keys.data_ptr() != engine.cache._keys[0].data_ptr()}, sys.stdout)
"""


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, timeout=30)


def checkout(folder: Path) -> Path:
    """A git repository with the engine in `refengine/`."""
    shutil.copytree(ENGINE, folder / "refengine", ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "-q")
    return folder


def source_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.glob("refengine/*.py")}


def edit(folder: Path, change: Edit) -> None:
    path = folder / change.file
    path.write_text(change.apply(path.read_text()))


def drive(folder: Path) -> dict[str, object]:
    """What the engine of a checkout answers to a fixed closed set of requests."""
    ended = subprocess.run(
        [sys.executable, "-c", DRIVE], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


def run_own_tests(folder: Path, pattern: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "unittest",
        "discover",
        "-s",
        "refengine/tests",
        "-t",
        ".",
        "-p",
        pattern,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The answers of the engine as it is shipped."""
    return drive(checkout(tmp_path_factory.mktemp("leader")))


@pytest.mark.parametrize(
    "name", [each if each == "full-logits" else pytest.param(each, marks=pytest.mark.slow) for each in DEFECTS]
)
def test_defect_keeps_outputs_and_its_repair_undoes_it(name: str, tmp_path: Path, expected: dict[str, object]) -> None:
    """A defect changes no token; its repair applies and leads back to the shipped source."""
    folder = checkout(tmp_path)
    git(folder, "apply", "--check", str(DEFECTS[name].diff))
    git(folder, "apply", str(DEFECTS[name].diff))
    assert drive(folder)["outputs"] == expected["outputs"]
    (fix,) = [fix for fix in FIXES if fix.applies_to(source_of(folder))]
    assert fix.name == REPAIR[name]
    edit(folder, fix)
    assert drive(folder) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFECTS)
def test_defect_passes_all_tests_of_the_engine(name: str, tmp_path: Path) -> None:
    """The engine's own tests do not notice a defect: only measuring does."""
    folder = checkout(tmp_path)
    git(folder, "apply", str(DEFECTS[name].diff))
    ended = run_own_tests(folder, "test_*.py")
    assert ended.returncode == 0, ended.stderr


def test_defects_do_what_they_say(tmp_path: Path, expected: dict[str, object]) -> None:
    """The scheduling defect takes many more decode steps, the memory defect moves the pool."""
    for name in ("token-budget", "kv-copy"):
        folder = checkout(tmp_path / name)
        git(folder, "apply", str(DEFECTS[name].diff))
        seen = drive(folder)
        if name == "kv-copy":
            assert (seen["moved"], expected["moved"]) == (True, False)
        else:
            assert seen["decode_steps"] > 1.5 * expected["decode_steps"]  # type: ignore[operator]


def test_cheat_changes_outputs(tmp_path: Path, expected: dict[str, object]) -> None:
    """The cheat answers something else, with as many tokens."""
    folder = checkout(tmp_path)
    edit(folder, CHEAT)
    outputs = drive(folder)["outputs"]
    assert outputs != expected["outputs"]
    assert [len(o) for o in outputs] == [len(o) for o in expected["outputs"]]  # type: ignore[attr-defined]


def row(stage: str, name: str, ms: float, leader_ms: float | None, **more: float) -> dict[str, object]:
    return {
        "row_id": f"{stage}/{name}",
        "stage": stage,
        "name": name,
        "time_ms": ms,
        "leader_time_ms": leader_ms,
        **more,
    }


EVIDENCE = {
    "full-logits": [
        row("prefill", "aten::mm", 600.0, 20.0),
        row("prefill", "aten::_log_softmax", 200.0, None),
    ],
    "token-budget": [
        row("decode", "step", 800.0, 300.0, mean_batch_size=1.4, leader_mean_batch_size=6.5),
        row("decode", "aten::mm", 200.0, 200.0),
    ],
    "kv-copy": [
        row("decode", "step", 900.0, 400.0, mean_batch_size=6.5, leader_mean_batch_size=6.5),
        row("decode", "aten::copy_", 500.0, 4.0),
    ],
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_fix_needs_its_evidence_and_its_source(name: str, tmp_path: Path) -> None:
    """Right rows and right source give the repair; either alone gives none."""
    folder = checkout(tmp_path)
    shipped = source_of(folder)
    git(folder, "apply", str(DEFECTS[name].diff))
    broken = source_of(folder)
    chosen = choose_fix(EVIDENCE[name], broken)
    assert chosen is not None and chosen.name == REPAIR[name]
    assert choose_fix(EVIDENCE[name], shipped) is None
    assert choose_fix([], broken) is None
    others = [r for other, rows in EVIDENCE.items() if other != name for r in rows]
    assert choose_fix(others, broken) is None


def test_an_edit_that_does_not_fit_is_refused() -> None:
    """Text that is missing or there twice is an error, not a guess."""
    for text in ("", CHEAT.old * 2):
        with pytest.raises(ValueError, match="times, not once"):
            CHEAT.apply(text)
