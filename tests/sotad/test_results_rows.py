"""Result rows: what is read, what is refused and how it is said, what other tools write, what never leaves."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from sotad.benchmark.metrics import failed_row
from sotad.results.errors import BadRows
from sotad.results.files import dump, read
from sotad.results.schema import ResultRow, json_schema

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SOTAD_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no captured results here")

SLA = {"max_p50_ttft_ms": 900, "max_p50_tpot_ms": 25, "min_success_rate": 0.99}
METRICS = {"request_throughput": 2.31, "output_token_throughput": 924.0, "p50_ttft_ms": 411.0, "p50_tpot_ms": 7.9}
WORKLOAD = {"kind": "random", "scenario": "long", "input_len": 6000, "output_len": 400, "num_prompts": 80}


def row(metrics: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    base = {
        "framework": "vllm",
        "framework_version": "9.9.1",
        "candidate_id": "c0",
        "model": "acme/Acme-9B",
        "status": "ok",
        "failure_reason": "",
        "hardware": {"gpu_model": "NVIDIA H200", "gpu_count": 2},
        "workload": {**WORKLOAD, "request_rate": None, "max_concurrency": 8, "endpoint": "/v1/completions"},
        "sla": {**SLA, "passed": None},
        "metrics": {**METRICS, "success_rate": 1.0, **(metrics or {})},
        "server_command": "vllm serve acme/Acme-9B",
    }
    return {**base, **changes}


def written(folder: Path, *rows: Any) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return str(path)


def problems(folder: Path, *rows: Any) -> list[str]:
    with pytest.raises(BadRows) as caught:
        read([written(folder, *rows)], {})
    return caught.value.problems


def test_the_shipped_schema_is_that_of_the_code() -> None:
    """row.schema.json is generated, and names every metric's bounds."""
    shipped = (ROOT / "sotad" / "results" / "row.schema.json").read_text()
    assert shipped == json_schema()
    metrics = json.loads(shipped)["$defs"]["Metrics"]["properties"]
    assert metrics["success_rate"]["anyOf"][0] == {"maximum": 1, "minimum": 0, "type": "number"}


def test_what_is_not_there_stays_none(tmp_path: Path) -> None:
    """A missing metric is None, a measured 0 is 0, an unknown key is kept under extra."""
    (found,) = read([written(tmp_path, row({"success_rate": 0.0}, vendor="x"))], {}).rows
    assert found["metrics"]["p99_ttft_ms"] is None and found["metrics"]["success_rate"] == 0.0
    assert found["extra"] == {"vendor": "x"} and found["spec_decode"]["enabled"] is None
    assert found["failure_reason"] is None and found["source"].endswith("rows.jsonl:1")


def test_rows_of_others_are_accepted(tmp_path: Path) -> None:
    """launch_command, booleans and numbers as text, commands as lists, an infinite rate, and a BOM."""
    other = row({"request_throughput": "2.31"}, server_command=None, launch_command=["vllm", "serve", "a b"])
    other["sla"]["passed"] = "yes"
    other["workload"]["request_rate"] = "inf"
    other["cache"] = {"prefix_cache_enabled": "false"}
    path = Path(written(tmp_path, other))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    (found,) = read([str(tmp_path)], {}).rows
    assert found["server_command"] == "vllm serve 'a b'" and found["metrics"]["request_throughput"] == 2.31
    assert found["sla"]["passed"] is True and found["cache"]["prefix_cache_enabled"] is False
    assert found["workload"]["request_rate"] is None


@pytest.mark.parametrize(
    ("workload", "top", "expected"),
    [
        ({"scenario": "a", "scenario_name": "b"}, None, "a"),
        ({"scenario_name": "b", "dataset_scenario": "c"}, None, "b"),
        ({"dataset_scenario": "c", "dataset_name": "d"}, None, "c"),
        ({"dataset_name": "d", "kind": "e"}, None, "d"),
        ({"kind": "e"}, "f", "e"),
        ({}, "f", "f"),
        (None, None, "default"),
    ],
)
def test_the_scenarios_name_is_looked_up_in_order(
    tmp_path: Path, workload: dict[str, str] | None, top: str | None, expected: str
) -> None:
    """workload.scenario, scenario_name, dataset_scenario, dataset_name, kind, the row's own, default."""
    (found,) = read([written(tmp_path, row(workload=workload, scenario=top))], {}).rows
    assert found["workload"]["scenario"] == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"framework": ', "half a line, its writer was stopped"),
        ("[1, 2]\n", "an array, not a JSON object"),
        ('"text"\n', "text, not a JSON object"),
        ("nonsense\n", "not JSON .* at column 1"),
        ('{"framework": "a", "framework": "b"}\n', "framework is there twice"),
        ('{"a": ' * 3000 + "\n", "nested too deeply|not JSON"),
        (
            '{"framework": "a", "candidate_id": "c", "status": "ok", "x": ' + "[" * 480 + "]" * 480 + "}\n",
            "too deeply|depth exceeded",
        ),
        ('{"framework": "a\\ud800"}\n', "half a character"),
        ('{"framework": ' + "9" * 5000 + "}\n", "integer|digits"),
        ('{"framework": "a\udcff"}\n', "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    """path:line, what is wrong, and what to do; the good rows beside it are not compared either."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes((json.dumps(row()) + "\n").encode() + line.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadRows) as caught:
        read([str(path)], {})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}:2: ") and re.search(said, problem)
    assert "remove that row" in caught.value.next


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"p50_ttft_ms": float("nan")}}, "metrics.p50_ttft_ms: nan is not a number"),
        ({"metrics": {"request_throughput": float("inf")}}, "metrics.request_throughput: inf is not a number"),
        ({"phase_metrics": {"queue_ms": float("-inf")}}, "phase_metrics.queue_ms: -inf"),
        ({"metrics": {"p50_tpot_ms": -1}}, "metrics.p50_tpot_ms: must be greater than or equal to 0, it is -1"),
        ({"metrics": {"p90_itl_ms": -1}}, "p90_itl_ms is negative"),
        ({"metrics": {"request_throughput": "fast"}}, "must be a number, or null when it was not measured"),
        ({"metrics": {"request_throughput": True}}, "metrics.request_throughput: must be a number"),
        ({"metrics": {"success_rate": 99}}, "metrics.success_rate: must be less than or equal to 1"),
        ({"status": "fine"}, "status: must be 'ok', 'failed'"),
        ({"framework": None}, "framework: Field required"),
        ({"sla": {"max_p99_ttft_ms": 1}}, "max_p99_ttft_ms is deprecated: use max_p50_ttft_ms"),
        ({"sla": {"max_ttft": 1}}, "max_ttft is no limit: there are max_p50_ttft_ms"),
        ({"hardware": {"gpu_count": 1.5}}, "hardware.gpu_count: .*integer"),
        ({"workload": {"request_rate": 0}}, "workload.request_rate"),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """NaN, infinity, negative, out of range, wrong type, deprecated: the key is named, and nothing is guessed."""
    (problem,) = problems(tmp_path, {**row(), **changes})
    assert re.search(said, problem), problem


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"p50_e2e_ms": 300.0}, "p50_ttft_ms 411 is above p50_e2e_ms 300"),
        ({"p99_tpot_ms": 7.0}, "p50_tpot_ms 7.9 is above p99_tpot_ms 7"),
        ({"total_token_throughput": 900.0}, "output_token_throughput is above total_token_throughput"),
        ({"p50_ttft_ms": 0.2}, "is TTFT in seconds"),
        ({"output_token_throughput": 0.924}, "0.4 tokens a request, the workload says 400"),
        ({"request_throughput": 0.00231}, "4e\\+05 tokens a request"),
        ({"p50_ttft_ms": 1.0, "p50_e2e_ms": 3.4}, "at saturation of 8: is E2E in seconds"),
        ({"p50_e2e_ms": 3400e3}, "is the E2E latency in ms"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(tmp_path: Path, metrics: dict[str, float], said: str) -> None:
    """What cannot be true together, most often a wrong unit, names the row and the numbers."""
    (problem,) = problems(tmp_path, row(metrics))
    assert "vllm/c0 on long" in problem and re.search(said, problem), problem


def test_seconds_beside_milliseconds_are_found_across_rows(tmp_path: Path) -> None:
    """A TTFT of a thousandth of another row's at the same pace is a mixed unit."""
    low = row({"p50_ttft_ms": 0.8, "p50_tpot_ms": None}, candidate_id="seconds")
    (problem,) = problems(tmp_path, row({"p50_ttft_ms": 800.0}), low)
    assert "vllm/seconds on long: ttft_ms is 1/1000 of that of vllm/c0" in problem


def test_one_candidate_stands_once_under_one_load(tmp_path: Path) -> None:
    """The same (framework, scenario, candidate) twice is an error; other loads, runs and frameworks are not."""
    (problem,) = problems(tmp_path, row(), row({"request_throughput": 2.0}))
    assert re.search(r"rows.jsonl:2: vllm/c0 on long: the same candidate is at .*rows.jsonl:1 already", problem)
    other_load = row(workload={**WORKLOAD, "max_concurrency": 16})
    again = [row(run=1, seed=7), row(run=2, seed=8)]
    assert len(read([written(tmp_path, row(), row(framework="sglang"), other_load, *again)], {}).rows) == 5


@pytest.mark.parametrize(
    ("claim", "metrics", "status", "said"),
    [
        (True, {"p50_ttft_ms": 1000.0}, "ok", "passed is true, but the row misses max_p50_ttft_ms 900: measured 1000"),
        (False, {}, "ok", "passed is false, but its metrics meet every limit"),
        ("true", {}, "oom", "passed is true, the status is oom"),
    ],
)
def test_a_false_claim_of_passing_is_an_error(
    tmp_path: Path, claim: Any, metrics: dict[str, float], status: str, said: str
) -> None:
    """`passed` is recomputed; a row that says otherwise is named."""
    (problem,) = problems(tmp_path, row(metrics, sla={**SLA, "passed": claim}, status=status))
    assert said in problem


def test_every_problem_is_counted(tmp_path: Path) -> None:
    """All of them, each on its line, not only the first."""
    found = problems(tmp_path, "[]", row({"p50_ttft_ms": -1, "success_rate": 2}), "{", row())
    assert [re.findall(r":(\d+): ", problem)[0] for problem in found] == ["1", "2", "2", "3"]


def test_what_the_daemon_writes_is_read(tmp_path: Path) -> None:
    """A failed row of our own maker, and a lost one of a campaign's folder, keep their reasons."""
    oom = failed_row("oom", "CUDA out of memory", {"framework": "a", "candidate_id": "c"}, SLA)
    lost = {**oom, "candidate_id": "d", "status": "lost", "event": 7, "launch": "search/a/d", "counts": False}
    found = read([written(tmp_path, oom, lost)], {}).rows
    assert [each["failure_reason"] for each in found] == ["CUDA out of memory", "lost: CUDA out of memory"]
    assert found[1]["status"] == "failed" and found[1]["extra"]["event"] == 7


def test_a_folder_is_read_whole_and_says_what_it_left_out(tmp_path: Path) -> None:
    """Every .jsonl and every result among the .json files; other .json files are named."""
    written(tmp_path, row())
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.json").write_text(json.dumps(row(candidate_id="c1"), indent=2))
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "lineage.jsonl").write_text('{"version_id": 1}\n')
    found = read([str(tmp_path)], {})
    assert sorted(each["candidate_id"] for each in found.rows) == ["c0", "c1"]
    assert found.notes == [f"{tmp_path / name}: left out, not a result" for name in ("lineage.jsonl", "package.json")]
    (tmp_path / "broken.jsonl").write_text("{}\n{")
    with pytest.raises(BadRows, match="half a line"):
        read([str(tmp_path)], {})


def test_written_rows_read_back_the_same(tmp_path: Path) -> None:
    """Writing checks against the schema, and loses nothing."""
    path = tmp_path / "again.jsonl"
    first = read([written(tmp_path, row())], {}).rows[0]
    path.write_bytes(dump([{key: value for key, value in first.items() if key != "source"}], {}))
    again = read([str(path)], {}).rows[0]
    assert {**again, "source": ""} == {**first, "source": ""}
    with pytest.raises(BadRows, match=r"row 1: metrics\.p50_ttft_ms"):
        dump([row({"p50_ttft_ms": float("nan")})], {})


def test_nothing_secret_is_written() -> None:
    """Shapes, values of secret variables, and what follows their flags; look-alikes stay."""
    command = (
        "HF_TOKEN=abcd1234efgh vllm serve m --api-key=topsecret99 --hf-token another-one-22 -H 'Authorization: Bearer"
        " abcdefgh12345' --tokenizer /models/tokenizer --max-num-batched-tokens 16384000 sk-aaaaaaaaaaaaaaaaaaaa"
    )
    text = dump([row(server_command=command, failure_reason="no hunter2hunter2")], {"MY_PASSWORD": "hunter2hunter2"})
    for secret in (b"abcd1234efgh", b"topsecret99", b"another-one-22", b"abcdefgh12345", b"sk-aaa", b"hunter2"):
        assert secret not in text
    assert b"--tokenizer /models/tokenizer --max-num-batched-tokens 16384000" in text


# --- results of other clients -----------------------------------------------------------------------------------

VLLM = {
    "endpoint_type": "openai",
    "backend": "openai",
    "model_id": "m",
    "num_prompts": 10,
    "request_rate": "inf",
    "max_concurrency": 4,
    "duration": 2.0,
    "completed": 9,
    "failed": 1,
    "total_input_tokens": 900,
    "total_output_tokens": 450,
    "request_throughput": 4.5,
    "output_throughput": 225.0,
    "total_token_throughput": 675.0,
    "median_ttft_ms": 30.0,
    "mean_ttft_ms": 31.0,
    "p99_ttft_ms": 60.0,
    "median_tpot_ms": 5.0,
    "mean_tpot_ms": 5.1,
    "p99_tpot_ms": 7.0,
}
SGLANG = {
    "backend": "sglang-oai",
    "dataset_name": "random-ids",
    "request_rate": float("inf"),
    "max_concurrency": 4,
    "random_input_len": 100,
    "random_output_len": 50,
    "duration": 2.0,
    "completed": 10,
    "request_throughput": 5.0,
    "output_throughput": 250.0,
    "total_throughput": 750.0,
    "median_e2e_latency_ms": 300.0,
    "median_ttft_ms": 30.0,
    "median_tpot_ms": 5.0,
    "server_info": {"version": "1.2", "dtype": "bfloat16", "tp_size": 2, "pp_size": 1, "disable_radix_cache": True},
}
SGLANG["server_info"]["api_key"] = "plain-secret-value"  # type: ignore[index]


def test_a_result_of_vllm_bench_serve_is_a_row(tmp_path: Path) -> None:
    """Medians are p50, the success rate is counted, and what the file does not tell is listed."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps(VLLM))
    (found,) = read([f"engine={path}"], {}).rows
    assert (found["framework"], found["candidate_id"], found["model"]) == ("engine", "run", "m")
    assert found["metrics"]["p50_ttft_ms"] == 30.0 and found["metrics"]["success_rate"] == 0.9
    assert found["metrics"]["p50_e2e_ms"] is None and found["workload"]["request_rate"] is None
    assert (found["workload"]["input_len"], found["workload"]["output_len"]) == (100, 50)
    assert "not in it: SLA, GPU model, GPU count" in found["normalization"]["notes"]
    with pytest.raises(BadRows, match=f"name it, as in vllm={path}"):
        read([str(path)], {})


def test_a_result_of_sglang_bench_serving_is_a_row(tmp_path: Path) -> None:
    """An unknown number of attempts is no success rate; of the server's report only conditions are taken."""
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(SGLANG) + "\n" + json.dumps(SGLANG | {"errors": [""] * 9 + ["late"]}) + "\n")
    first, second = read([str(path)], {}).rows
    assert (first["framework"], first["framework_version"], second["candidate_id"]) == ("sglang", "1.2", "runs:2")
    assert first["metrics"]["success_rate"] is None and second["metrics"]["success_rate"] == 0.9
    assert first["hardware"]["gpu_count"] == 2 and first["conditions"]["prefix_cache"] is False
    assert "plain-secret-value" not in json.dumps(first)


def test_a_client_without_success_is_a_failed_row(tmp_path: Path) -> None:
    """Its zeros are no measurements."""
    zeros = {key: 0 for key in VLLM if key.endswith(("_ms", "throughput"))}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(VLLM | zeros | {"completed": 0, "failed": 10}))
    (found,) = read([f"vllm={path}"], {}).rows
    assert found["status"] == "failed" and found["metrics"]["p50_ttft_ms"] is None
    assert found["metrics"]["success_rate"] == 0.0


@needs_data
def test_real_results_are_read() -> None:
    """What real vLLM and SGLang clients wrote on a GPU and on a CPU becomes ok rows under equal scenario names."""
    h200 = read([f"vllm={DATA}/h200/vllm", f"{DATA}/h200/sgl/bench-512-64.jsonl"], {}).rows
    assert {each["status"] for each in h200} == {"ok"} and len(h200) == 3
    assert [each["workload"]["scenario"] for each in h200].count("in512-out64-n64") == 2
    cpu = read([f"vllm={DATA}/cpu/vllm", f"{DATA}/cpu/sglang"], {}).rows
    assert len(cpu) == 10 and all(ResultRow.model_validate(each | {"source": None}) for each in cpu)
