"""The held-out workload: drawn once, unlike the frozen one, and sent by launches that ask for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outputs_rig import Engine, serving

from sotad.activities.freeze import held_out
from sotad.activities.traffic import load_spec, varied
from sotad.benchmark.metrics import make_row
from sotad.benchmark.workload import Scenario, prompts
from sotad.loadgen.report import measure
from sotad.loadgen.spec import LoadSpec

JSON = dict[str, Any]
LENGTHS = st.integers(1, 5000)


def spec(**changes: Any) -> JSON:
    shape = {"name": "chat", "num_prompts": 6, "input_len": 20, "output_len": 10, "shared_prefix_len": 8}
    shape |= {"request_rate": None, "arrival": None, "max_concurrency": 2, **changes}
    workload = {"kind": "random", "seed": 3, "endpoint": "/v1/completions", "scenarios": [shape]}
    workload |= {"warmup_requests": 1, "request_timeout_s": 20}
    return {"workload": workload, "model": {"id": "m"}}


@given(LENGTHS, LENGTHS)
def test_lengths_lie_between_60_and_95_percent_and_never_are_the_scenario_s(input_len: int, output_len: int) -> None:
    """Drawn lengths are shorter than the scenario's, or next to it where nothing lies between."""
    drawn = held_out({"input_len": input_len, "output_len": output_len})
    assert drawn["input_len"] != input_len
    assert drawn["output_len"] != output_len or output_len == 1
    for length, own in ((drawn["input_len"], input_len), (drawn["output_len"], output_len)):
        assert 0.6 * own <= length <= 0.95 * own or (own < 3 and length in (1, 2))
        assert length >= 1


def test_nothing_of_a_variant_can_be_foreseen() -> None:
    """Two draws of one scenario share neither their seed nor, in the long run, their lengths."""
    shape = {"input_len": 1000, "output_len": 1000}
    drawn = [held_out(shape) for _ in range(20)]
    assert len({each["seed"] for each in drawn}) == 20
    assert len({each["input_len"] for each in drawn}) > 1
    assert max(each["seed"] for each in drawn) > 2**32


def test_a_dataset_s_rows_are_chosen_by_the_seed_alone() -> None:
    """Where rows have the lengths there are none to draw; an output_len that overrides them is drawn."""
    drawn = held_out({"input_len": None, "output_len": None})
    assert (drawn["input_len"], drawn["output_len"]) == (None, None)
    assert 60 <= held_out({"input_len": None, "output_len": 100})["output_len"] <= 95
    shape = {"input_len": None, "output_len": None, "shared_prefix_len": 0, "num_prompts": 6}
    assert varied(shape, drawn) == shape


def test_the_variant_is_sent_with_prompts_of_its_own() -> None:
    """Lengths and seed are the variant's, the client's name is another, the rest is the scenario's; prompts differ."""
    variant = {"input_len": 15, "output_len": 7, "seed": 2**40}
    own = load_spec(spec(), "http://h", "m", "chat", 103)
    sent = [load_spec(spec(), "http://h", "m", "chat", seed, variant=variant) for seed in (103, 104)]
    changed = {"input_len": 15, "output_len": 7, "shared_prefix_len": 6, "seed": 2**40 + 103}
    client = sent[0]["user_agent"]
    assert client != LoadSpec.model_validate(own).user_agent
    assert sent[0] == {**own, "user_agent": client, "scenario": {**own["scenario"], **changed}}
    first, second = (prompts(Scenario(**each["scenario"])) for each in sent)
    assert not {str(prompt) for prompt in first} & {str(prompt) for prompt in second}


@pytest.mark.parametrize("variant", [None, {"input_len": 15, "output_len": 7, "seed": 9}])
async def test_a_row_says_the_lengths_that_were_sent(variant: JSON | None) -> None:
    """The row of a held-out launch names the variant's lengths, and its digest is another workload's."""
    async with serving(Engine()) as url:
        asked = load_spec(spec(), url, "m", "chat", 3, variant=variant)
        report = await measure(LoadSpec.model_validate(asked))
    workload = make_row(report, {})["workload"]
    lengths = (15, 7) if variant else (20, 10)
    assert (workload["input_len"], workload["output_len"]) == lengths
    assert (workload["input_len_p50"], workload["output_len_p50"]) == lengths
    assert (workload["num_prompts"], workload["scenario"]) == (6, "chat")
