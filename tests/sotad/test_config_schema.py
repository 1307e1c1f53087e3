"""Campaign files: what is accepted, what is refused and how that is told, what the recorded spec says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import sotad
from sotad.config import load_campaign, load_daemon, parse_campaign
from sotad.config.launches import launches
from sotad.errors import BadConfig
from sotad.frameworks import FRAMEWORKS
from sotad.shipped import shipped
from statemachine.evidence import digest

HERE = Path("/srv/campaigns")
VALID: dict[str, Any] = {
    "campaign": "two",
    "goal": "compare",
    "model": {"id": "acme/Acme-9B"},
    "hardware": {"gpu_ids": [0, 1]},
    "frameworks": {
        "sglang": {"kind": "sglang", "role": "target", "options": {"tp_size": 2}},
        "vllm": {"kind": "vllm", "role": "competitor", "options": {"tensor_parallel_size": 2}},
    },
    "workload": {"scenarios": [{"name": "chat", "num_prompts": 80, "input_len": 512, "output_len": 128}]},
    "sla": {"max_p50_ttft_ms": 900, "max_p50_tpot_ms": 25},
}


def changed(**changes: Any) -> str:
    """The valid campaign as YAML; ``a__b`` names key b of section a, None removes it."""
    data = copy.deepcopy(VALID)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = data
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]  # type: ignore[call-overload]
        place[last] = value
    return yaml.safe_dump(data, sort_keys=False)


def parsed(**changes: Any) -> dict[str, Any]:
    return parse_campaign(changed(**changes), "c.yaml", HERE)


def problems(text: str) -> list[str]:
    with pytest.raises(BadConfig) as refused:
        parse_campaign(text, "c.yaml", HERE)
    return refused.value.problems


SCENARIO = "workload__scenarios__0"
SLA = {"max_p50_ttft_ms": 1, "max_p50_tpot_ms": 1}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"modle": {}}, "modle", "unknown key; did you mean 'model'?"),
    ({"model__precison": "x"}, "model.precison", "did you mean 'precision'?"),
    ({"frameworks__vllm__option": {}}, "frameworks.vllm.option", "did you mean 'options'?"),
    ({f"{SCENARIO}__promts": 1}, "workload.scenarios.0.promts", "unknown key"),
    ({"search": {"qps": {"lower": 1, "upper": 2, "rounds": 3}}}, "search.qps.rounds", "did you mean 'max_rounds'?"),
    ({"search": {"qps": {"lower": 2, "upper": 1}}}, "search.qps", "lower (2) must be below upper (1)"),
    ({"search": {"tier": 4}}, "search.tier", "less than or equal to 3"),
    ({"search": {"generation": "random"}}, "search.generation", "one_factor_first"),
    ({"search": {"max_candidates": 0}}, "search.max_candidates", "greater than or equal to 1"),
    ({"sla": {**SLA, "max_p99_ttft_ms": 1}}, "sla.max_p99_ttft_ms", "write max_p50_ttft_ms"),
    ({"sla": {**SLA, "max_tpot_ms": 1}}, "sla.max_tpot_ms", "write max_p50_tpot_ms"),
    ({"sla": {"max_p50_ttft_ms": 1}}, "sla.max_p50_tpot_ms", "is missing"),
    ({"sla": {**SLA, "min_success_rate": 99}}, "sla.min_success_rate", "less than or equal to 1"),
    ({"sla": {"max_p50_ttft_ms": float("nan"), "max_p50_tpot_ms": 1}}, "sla.max_p50_ttft_ms", "finite"),
    ({"campaign": "files"}, "campaign", "choose another"),
    ({"hardware": {"gpu_ids": [0, 0]}}, "hardware", "gpu_ids must differ"),
    ({"hardware": {"gpu_ids": [0], "gpu_count": 2}}, "hardware", "gpu_count is 2"),
    ({"frameworks__vllm__kind": "triton"}, "frameworks.vllm.kind", "'sglang', 'vllm'"),
    ({"frameworks__vllm__gpus": 4}, "frameworks.vllm.gpus", "unknown key"),
    ({"frameworks__vllm__command": "vllm 'serve"}, "frameworks.vllm.command", "no command line"),
    ({"frameworks__vllm__command": []}, "frameworks.vllm.command", "at least one word"),
    ({"frameworks__vllm__role": "target"}, "frameworks", "exactly one framework must have role: target"),
    ({"frameworks__vllm__enabled": False}, "frameworks", "at least one framework must have role: competitor"),
    ({"frameworks__vllm__options": {"x": float("inf")}}, "frameworks.vllm.options.x", "finite"),
    ({"frameworks__vllm__search_space": {"x": 3}}, "frameworks.vllm.search_space.x", "list"),
    ({"workload__kind": "jsonl"}, "workload", "dataset names the file"),
    ({"workload__token_range": [5, 5]}, "workload", "token_range"),
    ({f"{SCENARIO}__input_len": None}, "workload", "scenario chat needs input_len and output_len"),
    ({f"{SCENARIO}__max_concurrency": 0}, "workload.scenarios.0.max_concurrency", "a number above 0"),
    ({f"{SCENARIO}__max_concurrency": []}, "workload.scenarios.0.max_concurrency", "a number above 0"),
    ({f"{SCENARIO}__max_concurrency": [4, 4]}, "workload.scenarios.0.max_concurrency", "twice"),
    ({f"{SCENARIO}__arrival": "poisson"}, "workload.scenarios.0", "needs a request_rate"),
    ({f"{SCENARIO}__arrival": "trace"}, "workload", "needs kind trace"),
    ({f"{SCENARIO}__shared_prefix_len": 600}, "workload.scenarios.0", "above input_len"),
]


@pytest.mark.parametrize(("change", "key", "message"), REFUSED, ids=[f"{key}: {says}"[:50] for _, key, says in REFUSED])
def test_one_line_names_file_key_and_reason(change: dict[str, Any], key: str, message: str) -> None:
    """Each mistake is one line ``file: key: message``."""
    (line,) = problems(changed(**change))
    assert line.startswith(f"c.yaml: {key}: ")
    assert message in line
    assert "\n" not in line


def test_all_problems_of_a_file_at_once() -> None:
    """A file with mistakes in four sections is told all four."""
    wrong = {"modle": 1, "search": {"tier": 9}, "sla": {**SLA, "max_ttft_ms": 3}, "model": {}}
    assert len(problems(changed(**wrong))) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "c.yaml:1: not YAML"),
        ("sla: {max_p50_ttft_ms: 1, max_p50_ttft_ms: 2}", "c.yaml:1: not YAML: 'max_p50_ttft_ms' is written twice"),
        ("- a", "a mapping of keys was expected, found list"),
        ("[" * 3000, "not YAML"),
        ("a: 2024-99-99", "not YAML"),
    ],
)
def test_text_that_is_no_campaign(text: str, message: str) -> None:
    """YAML errors come with their line; a key written twice is an error, not the last value."""
    (line,) = problems(text)
    assert message in line


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The path is in the line."""
    with pytest.raises(BadConfig, match=r"gone\.yaml: cannot be read"):
        load_campaign(tmp_path / "gone.yaml")
    assert load_daemon(tmp_path / "gone.yaml").inbox


# --- the recorded spec ---------------------------------------------------------------------------------------


def test_the_demo_means_what_it_meant() -> None:
    """Candidates, options and shapes are those of the file; nothing is generated."""
    path = shipped("demo.yaml")
    written, spec = yaml.safe_load(path.read_text()), load_campaign(path)
    for name, framework in written["frameworks"].items():
        recorded = spec["frameworks"][name]
        assert [{"id": c["id"], "flags": c["flags"]} for c in recorded["candidates"]] == framework["candidates"]
        assert recorded["options"] == framework["options"]
        assert recorded["checkout"] == str(path.parent / framework["checkout"])
    (shape,) = spec["workload"]["scenarios"]
    assert shape.items() >= written["workload"]["scenarios"][0].items()
    assert spec["sla"] == written["sla"]
    assert (spec["goal"], shape["arrival"]) == ("sota", "closed")


def test_the_spec_is_plain_json_and_complete() -> None:
    """It survives JSON, its digest is stable, and what was left out has its default."""
    spec = parsed()
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
    assert digest(spec) == digest(parsed())
    model = {"tokenizer": "acme/Acme-9B", "served_name": "acme/Acme-9B", "max_context": 640, "precision": "auto"}
    assert spec["model"].items() >= model.items()
    assert spec["hardware"]["gpu_count"] == 2
    assert spec["sla"] == {"max_p50_ttft_ms": 900, "max_p50_tpot_ms": 25, "min_success_rate": 1.0}
    assert spec["frameworks"]["vllm"]["command"] == ["vllm", "serve"]
    assert [c["id"] for c in spec["frameworks"]["vllm"]["candidates"]] == ["baseline"]


def test_a_list_of_concurrencies_makes_a_scenario_each() -> None:
    """Null keeps the name; a number is appended."""
    shapes = parsed(**{f"{SCENARIO}__max_concurrency": [None, 4]})["workload"]["scenarios"]
    assert [(shape["name"], shape["max_concurrency"]) for shape in shapes] == [("chat", None), ("chat-c4", 4)]


@pytest.mark.parametrize(("rate", "arrival"), [(None, "closed"), (2.0, "poisson")])
def test_arrival_follows_from_the_rate(rate: float | None, arrival: str) -> None:
    """Closed without a rate, Poisson with one."""
    (shape,) = parsed(**{f"{SCENARIO}__request_rate": rate})["workload"]["scenarios"]
    assert shape["arrival"] == arrival


def test_a_search_space_becomes_candidates_with_the_baseline_first() -> None:
    """Listed candidates come behind the baseline, generated ones behind them; what is left out is listed."""
    listed = [{"id": "mine", "flags": {"max_num_seqs": 7}}]
    framework = {"frameworks__vllm__search_space": {"max_num_seqs": [7, 8, 9]}, "frameworks__vllm__candidates": listed}
    found = parsed(search={"max_candidates": 3}, **framework)["frameworks"]["vllm"]
    assert [c["id"] for c in found["candidates"]] == ["baseline", "mine", "max-num-seqs_8"]
    assert found["candidates"][0]["flags"] == {}
    assert found["untried"] == {"max_num_seqs": [9]}


def test_no_listed_candidate_is_dropped() -> None:
    """A limit below their number cuts generated ones only, and the baseline stays."""
    listed = [{"id": name, "flags": {"max_num_seqs": n}} for n, name in enumerate("abc", 1)]
    framework = {"frameworks__vllm__search_space": {"max_num_seqs": [7]}, "frameworks__vllm__candidates": listed}
    found = parsed(search={"max_candidates": 2}, **framework)["frameworks"]["vllm"]
    assert [c["id"] for c in found["candidates"]] == ["baseline", "a", "b", "c"]


def test_every_candidate_carries_its_conditions() -> None:
    """They are what the driver reads from options and flags together."""
    space = {"frameworks__vllm__search_space": {"max_model_len": [4096]}}
    spec = parsed(**space)
    for candidate in spec["frameworks"]["vllm"]["candidates"]:
        flags = {"tensor_parallel_size": 2, **candidate["flags"]}
        assert candidate["conditions"] == FRAMEWORKS["vllm"].conditions(flags, spec["model"])
    assert [c["conditions"]["max_context"] for c in spec["frameworks"]["vllm"]["candidates"]] == [640, 4096]


def test_a_disabled_framework_is_excluded_with_a_reason() -> None:
    """It is in the spec as excluded, and not among the frameworks."""
    spec = parsed(frameworks__spare={"kind": "tokenspeed", "role": "competitor", "enabled": False})
    assert "spare" not in spec["frameworks"]
    assert spec["excluded"] == {"spare": "disabled in the campaign file"}


def test_paths_are_taken_from_the_file() -> None:
    """Checkout, dataset and knowledge folder are absolute in the spec."""
    shape = {"name": "real", "num_prompts": 80}
    workload = {"kind": "jsonl", "dataset": "data/p.jsonl", "scenarios": [shape]}
    spec = parsed(workload=workload, frameworks__vllm__checkout="../vllm", knowledge={"folder": "notes"})
    assert spec["workload"]["dataset"] == str(HERE / "data/p.jsonl")
    assert spec["frameworks"]["vllm"]["checkout"] == "/srv/vllm"
    assert spec["knowledge"]["folder"] == str(HERE / "notes")
    assert spec["model"]["max_context"] is None


DOCS = Path(sotad.__file__).parents[1] / "docs" / "campaigns.md"


@pytest.mark.skipif(not DOCS.is_file(), reason="an installed package has no docs")
def test_the_documented_example_is_a_campaign() -> None:
    """The annotated file of docs/campaigns.md is accepted as it stands."""
    text = DOCS.read_text().split("```yaml\n")[1].split("```")[0]
    assert parse_campaign(text, "docs", HERE)["excluded"] == {"tokenspeed": "disabled in the campaign file"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and index of a document."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, inner in below for found in places(inner, (*path, key)))]


FULL = yaml.safe_load(changed()) | {"search": {"qps": {"lower": 1, "upper": 2}}, "decision": {}, "knowledge": {}}
FULL["frameworks"]["vllm"] |= {"search_space": {"max_num_seqs": [1, 2]}, "candidates": [{"id": "a", "flags": {"x": 1}}]}
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(), st.text(max_size=6), st.just("{port}"))
JUNK = st.recursive(SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(SCALARS, below, max_size=3))


@settings(max_examples=100, deadline=None)
@given(place=st.sampled_from(places(FULL)), junk=JUNK)
def test_whatever_is_written_is_a_spec_or_a_list_of_lines(place: tuple[Any, ...], junk: Any) -> None:
    """Any value at any key: a JSON spec, or BadConfig whose problems are lines of their own; never another error."""
    data = copy.deepcopy(FULL)
    inside: Any = data
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = junk
    try:
        spec = parse_campaign(yaml.safe_dump(data, allow_unicode=True), "c.yaml", HERE)
    except BadConfig as refused:
        assert refused.problems
        assert all(line.startswith("c.yaml") and len(line.splitlines()) == 1 for line in refused.problems)
    else:
        json.dumps(spec, allow_nan=False)
        launches(spec, {})


def test_early_stop_is_a_rule_of_the_spec_and_can_be_turned_off() -> None:
    """On by default with its numbers; `off` in YAML is false, and recorded as none."""
    rule = {"wrong_stop": 0.01, "launch_noise_pct": 1.0, "noise_pct": None}
    assert parsed()["search"]["early_stop"] == rule
    assert parsed(search={"early_stop": {"noise_pct": 2.5}})["search"]["early_stop"] == {**rule, "noise_pct": 2.5}
    assert parsed(search={"early_stop": False})["search"]["early_stop"] is None
    assert parsed(caches={"reuse": False})["caches"] == {"reuse": "off", "folder": None}
    assert "search.early_stop.wrong_stop" in problems(changed(search={"early_stop": {"wrong_stop": 0.5}}))[0]
