"""``sotactl bench compare``: every format, its errors, and no secret in any of them."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sotad.cli import bench_compare
from sotad.cli.entry import Parser, main
from sotad.results.shown import CSV_COLUMNS

FORMATS = ("markdown", "csv", "html", "json")
SLA = {"max_p50_ttft_ms": 1000, "max_p50_tpot_ms": 50, "min_success_rate": 0.99}
SECRET = "hf_" + "a1B2" * 8


def row(framework: str, candidate: str, rate: float, **changes: Any) -> dict[str, Any]:
    metrics = {"request_throughput": rate, "output_token_throughput": 10 * rate, "p50_ttft_ms": 100.0 / rate}
    base = {
        "framework": framework,
        "candidate_id": candidate,
        "status": "ok",
        "sla": SLA,
        "hardware": {"gpu_count": 1},
        "workload": {"scenario": "chat", "input_len": 100, "output_len": 10},
        "metrics": {**metrics, "p50_tpot_ms": 10.0, "success_rate": 1.0},
        "server_command": f"{framework} serve | tee log",
    }
    return {**base, **changes}


class Outcome:
    """What one call came to."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command on rows, written as one file."""

    def call(rows: list[Any], *options: str) -> Outcome:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
        top = Parser(prog="sotactl")
        bench_compare.add(top.add_subparsers(required=True))
        try:
            status = main(top, ["compare", str(path), *options])
        except SystemExit as end:
            status = int(end.code or 0)
        found = capsys.readouterr()
        return Outcome(status, found.out, found.err)

    return call


ROWS = [
    row("vllm", "c1", 3.0, cache={"prefix_cache_hit_rate": 0.0}),
    row("vllm", "c0", 2.0),
    row("sglang", "c0", 2.5),
    row("sglang", "oom", 1.0, status="oom", metrics=None, failure_reason="out of | memory\nat line 2"),
]


def test_markdown_has_the_required_tables(compare: Any) -> None:
    """Title, the three tables under their names and columns, cells that cannot break a table, two decimals."""
    found = compare(ROWS)
    text = found.out
    assert found.status == 0 and text.startswith("# Benchmark comparison\n")
    titles = ["Best Commands By Framework", "Cross-Framework Best Comparison", "Failed Or SLA-Failing Candidates"]
    places = [text.index(f"## {title}") for title in titles]
    assert places == sorted(places)
    assert (
        "| Scenario | Candidate | Status | SLA | Req/s | Output tok/s | Total tok/s | P50 TTFT ms | P50 TPOT ms |"
        in text
    )
    assert (
        "| chat | 1 | vllm | c1 | passed | 3.00 | 30.00 | 33.33 | 10.00 |  |  | 0.00 | 1 | vllm serve \\| tee log |"
        in text
    )
    assert "| chat | 2 | sglang | c0 | passed | 2.50 |" in text
    assert "| sglang | oom | oom | failed | chat: oom: out of \\| memory at line 2 |" in text
    assert "not known to be comparable" in text
    widths = {
        len(re.findall(r"(?<!\\)\|", line))
        for line in text.split("## Cross")[1].split("##")[0].splitlines()
        if "|" in line
    }
    assert widths == {15}


def test_csv_has_all_rows_ranked_and_keeps_zeros(compare: Any) -> None:
    """The columns in their order; 0.0 is written, what was not measured is empty."""
    found = list(csv.DictReader(io.StringIO(compare(ROWS, "--format", "csv").out)))
    assert list(found[0]) == list(CSV_COLUMNS)
    assert [(each["framework"], each["candidate_id"]) for each in found] == [
        *(("vllm", "c1"), ("sglang", "c0"), ("vllm", "c0"), ("sglang", "oom"))
    ]
    assert (found[0]["prefix_cache_hit_rate"], found[1]["prefix_cache_hit_rate"]) == ("0.0", "")
    assert found[3]["sla_passed"] == "false" and found[3]["request_throughput"] == ""


def test_json_has_what_others_rely_on(compare: Any) -> None:
    """winners, ranking by scenario, rejected with reasons; and fairness, noise, front and hand-off."""
    for options in (["--json"], ["--format", "json"]):
        found = json.loads(compare(ROWS, *options, "--target", "sglang").out)
        assert [(each["framework"], each["rank"]) for each in found["winners"]] == [("vllm", 1), ("sglang", 2)]
        assert [each["candidate_id"] for each in found["ranking"]["chat"]] == ["c1", "c0", "c0", "oom"]
        (rejected,) = found["rejected"]
        assert {key: rejected[key] for key in ("candidate_id", "framework", "scenario")} == {
            "candidate_id": "oom",
            "framework": "sglang",
            "scenario": "chat",
        }
        assert rejected["reason"].startswith("oom: out of")
        assert found["comparable"] == "unknown" and found["fairness"]["chat"]["comparable"] == "unknown"
        assert found["handoff"][0]["fast_framework"] == "vllm"
        assert found["pareto"] == {"chat": [{"framework": "vllm", "candidate_id": "c1"}]}


def test_html_stands_alone(compare: Any, tmp_path: Path) -> None:
    """One well-formed page with a picture for each latency, nothing from elsewhere, nothing of a row as markup."""
    hostile = row("vllm", "<script>alert(1)</script>", 4.0)
    page = tmp_path / "page.html"
    found = compare([*ROWS, hostile], "--format", "html", "--out", str(page))
    text = page.read_text()
    assert (found.status, found.out) == (0, "") and "5 rows compared" in found.err
    assert text.count("<svg") == 2 and "<script" not in text
    assert not re.search(r"(src|href)=\"(?!#)", text.replace("xlink:", ""))
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(picture)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_secret_in_any_format(compare: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Tokens in commands, reasons and notes, and the value of a secret variable, are in no output."""
    monkeypatch.setenv("SERVICE_PASSWORD", "correct-horse-battery")
    rows = [
        row("a", "c0", 1.0, server_command=f"a serve --hf-token {SECRET} --api-key=plainplainplain"),
        row("a", "c1", 1.0, status="failed", failure_reason=f"401 for {SECRET} (correct-horse-battery)"),
        row("b", "c0", 2.0, artifacts={"raw_result": f"/x/{SECRET}"}, extra={"header": "Bearer abcdefgh12345678"}),
        row("b", "c1", 2.0, normalization={"notes": f"token {SECRET}"}),
    ]
    found = compare(rows, "--format", kind, "--target", "a")
    assert found.status == 0 and "redacted" in found.out
    for secret in (SECRET, "plainplainplain", "correct-horse-battery", "abcdefgh12345678"):
        assert secret not in found.out + found.err


def test_no_secret_in_an_error(compare: Any) -> None:
    """Neither does a problem's line quote one."""
    found = compare([row("a", SECRET, -1.0)])
    assert found.status == 2 and "redacted" not in found.out and SECRET not in found.err


@pytest.mark.parametrize("kind", FORMATS)
def test_no_rows_is_said(compare: Any, kind: str) -> None:
    """An empty file is no error; CSV has its header."""
    found = compare([], "--format", kind)
    assert found.status == 0
    assert ("framework,scenario" if kind == "csv" else "No rows found.") in found.out


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (["[]"], [], r"rows.jsonl:1: an array, not a JSON object.*; correct or remove that row"),
        ([row("a", "c", 1.0), row("a", "c", 2.0)], [], "rows.jsonl:2: a/c on chat: the same candidate is at"),
        (ROWS, ["--target", "trt"], "no row is of that framework; there is: sglang, vllm"),
        (ROWS, ["--sla", "max_p99_ttft_ms=1"], "max_p99_ttft_ms is deprecated: use max_p50_ttft_ms"),
        (ROWS, ["--sla", "speed=1"], "is not KEY=VALUE with a key of max_p50_ttft_ms"),
        (ROWS, ["--sla", "min_success_rate=99"], "a number from 0 to 1 is needed"),
        (ROWS, ["--sla", "max_p50_ttft_ms=nan"], "a number of at least 0 is needed"),
        (ROWS, ["--json", "--format", "csv"], "exclude each other"),
        (ROWS, ["/nowhere"], "/nowhere: no such file"),
    ],
)
def test_bad_input_is_one_line(compare: Any, rows: list[Any], options: list[str], said: str) -> None:
    """What, where and what to do; status 2, nothing on stdout but JSON, no traceback."""
    found = compare(rows, *options)
    assert found.status == 2 and re.search(said, found.err), found.err
    assert "Traceback" not in found.err and found.err.count("\n") == 1


def test_the_sla_of_the_command_line_holds(compare: Any) -> None:
    """--sla judges every row again."""
    found = json.loads(compare(ROWS, "--json", "--sla", "max_p50_ttft_ms=35").out)
    assert [each["candidate_id"] for each in found["winners"]] == ["c1"]
    assert "misses max_p50_ttft_ms 35: measured 40" in found["rejected"][0]["reason"]


def test_other_gpu_counts_are_warned_of(compare: Any) -> None:
    """Not like for like: said, and shown per GPU."""
    text = compare([row("a", "c", 4.0), row("b", "c", 6.0, hardware={"gpu_count": 2})]).out
    assert "GPU counts differ: this is not like for like" in text and "| Req/s/GPU |" in text
    assert "NOT COMPARABLE, a rank may come from what is not equal: GPU count" in text


def test_help_loads_nothing_heavy() -> None:
    """The parser costs no pydantic and no jinja2."""
    code = "import sys, sotad.cli.bench_compare; print(sorted({'pydantic', 'jinja2', 'ziaplot'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
