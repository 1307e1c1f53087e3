"""Which requests a scenario means, and when they are due."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.benchmark.arrivals import arrivals, replayed
from sotad.benchmark.tokens import TokenizerError, load_tokenizer, text_of_length
from sotad.benchmark.workload import Scenario, WorkloadError, digest, prompts, requests

SCENARIO: dict[str, Any] = {"name": "chat", "num_prompts": 6, "input_len": 12, "output_len": 5, "seed": 3}


def from_file(folder: Path, kind: str, text: str, **options: Any) -> Scenario:
    suffix = ".csv" if text.startswith("TIMESTAMP") else ".jsonl"
    (folder / f"data{suffix}").write_text(text)
    shape: dict[str, Any] = {"name": "d", "kind": kind, "dataset": folder / f"data{suffix}", "num_prompts": 1}
    return Scenario(**{**shape, **options})


def lines(*rows: Any) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def test_workload_is_the_same_for_ever(tmp_path: Path) -> None:
    """The bytes of a workload are fixed: a changed digest would make old results incomparable."""
    assert digest(Scenario(**SCENARIO)) == "a1e7e61ec0a49c9722d9fa7ac57ac98c8c2e3bb91f033aa9196ec8fa1ed49135"
    rows = [{"prompt": f"p{i}", "output_len": i + 1} for i in range(9)]
    chosen = from_file(tmp_path, "jsonl", lines(*rows), num_prompts=4, seed=7)
    assert [(r.prompt, r.output_len) for r in requests(chosen)] == [("p4", 5), ("p3", 4), ("p0", 1), ("p1", 2)]
    assert digest(chosen) != digest(chosen.model_copy(update={"seed": 8}))


def test_scenarios_of_one_seed_share_no_prompt(tmp_path: Path) -> None:
    """A server that gets one after the other has nothing of the second in its prefix cache."""
    long = Scenario(**{**SCENARIO, "name": "long", "input_len": 48})
    first_tokens = {tuple(prompt[:4]) for prompt in prompts(Scenario(**SCENARIO))}
    assert not first_tokens & {tuple(prompt[:4]) for prompt in prompts(long)}
    rows = lines(*({"prompt": f"p{i}", "output_len": 1} for i in range(200)))
    one, other = (from_file(tmp_path, "jsonl", rows, name=name, num_prompts=20) for name in ("one", "other"))
    assert len({r.prompt for r in requests(one)} & {r.prompt for r in requests(other)}) < 10


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 40), st.integers())
def test_lengths_are_exact_and_prefix_is_shared(count: int, length: int, shared: int, seed: int) -> None:
    """Every prompt has its length, its tokens are in range, and only the prefix is common."""
    shared = min(shared, length)
    shape: dict[str, Any] = {"name": "n", "num_prompts": count, "input_len": length, "output_len": 1, "seed": seed}
    made = prompts(Scenario(**shape, shared_prefix_len=shared))
    assert [len(prompt) for prompt in made] == [length] * count
    assert len({tuple(prompt[:shared]) for prompt in made}) == 1
    assert all(300 <= token < 30000 for prompt in made for token in prompt)


def test_closed_and_poisson_arrivals() -> None:
    """Without a rate all are due at once; Poisson begins at zero, grows, and keeps its mean gap."""
    due = arrivals(4000, 50.0, seed=1)
    assert due[0] == 0 and due == sorted(due)
    assert due[-1] / 3999 == pytest.approx(1 / 50, rel=0.05)
    assert arrivals(3, None, seed=1) == [0.0] * 3
    assert arrivals(3, 4.0, seed=1, arrival="constant") == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_gamma_arrivals_have_rate_and_burstiness(shape: float) -> None:
    """Gaps have the mean of the rate, and a coefficient of variation of 1 / sqrt(burstiness)."""
    due = arrivals(20_000, 10.0, seed=2, arrival="gamma", burstiness=shape)
    gaps = [after - before for before, after in pairwise(due)]
    assert statistics.fmean(gaps) == pytest.approx(0.1, rel=0.05)
    assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(shape**-0.5, rel=0.05)
    assert due == arrivals(20_000, 10.0, seed=2, arrival="gamma", burstiness=shape)


def test_trace_keeps_its_gaps_scaled() -> None:
    """A trace is replayed from its first moment on, its gaps multiplied."""
    assert replayed([100.0, 101.0, 105.0], 0.5) == [0.0, 0.5, 2.5]


def test_rows_keep_what_they_say(tmp_path: Path) -> None:
    """Text, token ids and chat messages, extra fields and metadata go through unchanged."""
    row = {"prompt": [1, 2], "output_len": 3, "extra_request_body": {"top_p": 0.5}, "metadata": {"id": 7}}
    made = requests(from_file(tmp_path, "jsonl", lines(row)))[0]
    assert (made.prompt, made.output_len, made.extra_body, made.metadata) == ([1, 2], 3, {"top_p": 0.5}, {"id": 7})
    messages = [{"role": "user", "content": "hi"}]
    assert requests(from_file(tmp_path, "jsonl", lines({**row, "prompt": messages})))[0].prompt == messages


def test_traces_of_three_shapes(tmp_path: Path) -> None:
    """Canonical rows, rows with hash ids, and CSV: lengths and moments are theirs, equal hashes equal prefixes."""
    rows = [{"timestamp": 5.5, "input_len": 3, "output_len": 2}, {"timestamp": 4.0, "prompt": "x", "output_len": 1}]
    made = requests(from_file(tmp_path, "trace", lines(*rows), num_prompts=2))
    assert [(r.at_s, r.output_len) for r in made] == [(4.0, 1), (5.5, 2)] and len(made[1].prompt) == 3
    hashed = [{"timestamp": t, "input_length": 600, "output_length": 9, "hash_ids": [1, t]} for t in (0, 1500)]
    made = requests(from_file(tmp_path, "trace", lines(*hashed), num_prompts=2))
    assert made[1].at_s == 1.5 and [len(r.prompt) for r in made] == [600, 600]
    assert made[0].prompt[:512] == made[1].prompt[:512] and made[0].prompt[512:] != made[1].prompt[512:]
    table = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,7,4\n2023-11-16 18:15:48.1805900,8,5\n"
    )
    made = requests(from_file(tmp_path, "trace", table, num_prompts=2))
    assert [(len(r.prompt), r.output_len) for r in made] == [(7, 4), (8, 5)]
    assert replayed([r.at_s or 0 for r in made], 1.0)[1] == pytest.approx(1.5)


def test_sharegpt_sends_the_question_only(tmp_path: Path) -> None:
    """The first question is the prompt; one-sided conversations are left out, the answer never sent."""
    talk = {"conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "SECRET"}]}
    text = json.dumps([talk, {"conversations": [{"from": "human", "value": "alone"}]}])
    made = requests(from_file(tmp_path, "sharegpt", text, output_len=6))
    assert [(r.prompt, r.output_len) for r in made] == [("why?", 6)]
    with pytest.raises(WorkloadError, match="a tokenizer to count"):
        requests(from_file(tmp_path, "sharegpt", text))


def test_warm_up_never_sends_a_measured_prompt(tmp_path: Path) -> None:
    """Warm-up prompts differ from the measured ones, also when the file has no others."""
    rows = [{"prompt": p, "output_len": 1} for p in ("a", [5, 6, 7], [{"role": "user", "content": "b"}])]
    scenario = from_file(tmp_path, "jsonl", lines(*rows), num_prompts=3)
    measured = [r.prompt for r in requests(scenario)]
    assert not [r.prompt for r in requests(scenario, "warmup") if r.prompt in measured]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("jsonl", '{"prompt": "a", "output_len": 1}\n{"prompt": "b", "outp', r"jsonl:2: not JSON"),
        ("jsonl", "[]", r"jsonl:1: not an object"),
        ("jsonl", '{"prompt": "a"}', r"jsonl:1: no 'output_len'"),
        ("jsonl", '{"prompt": "", "output_len": 1}', r"jsonl:1: prompt is neither"),
        ("jsonl", '{"prompt": [1, -2], "output_len": 1}', r"jsonl:1: prompt is neither"),
        ("jsonl", '{"prompt": "a", "output_len": NaN}', r"jsonl:1: output_len is nan"),
        ("jsonl", '{"prompt": "a", "output_len": true}', r"jsonl:1: output_len is True"),
        ("jsonl", "\n", "no usable row"),
        ("trace", '{"prompt": "a", "output_len": 1}', r"jsonl:1: no 'timestamp'"),
        ("trace", '{"prompt": "a", "output_len": 1, "timestamp": Infinity}', r"jsonl:1: timestamp is inf"),
        ("sharegpt", '{"a": 1}', "not a JSON array"),
        ("sharegpt", "[{}]", "entry 0: no list `conversations`"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, kind: str, text: str, said: str) -> None:
    """A bad row is an error that names file, line and field."""
    options = {"output_len": 1} if kind == "sharegpt" else {}
    with pytest.raises(WorkloadError, match=said):
        requests(from_file(tmp_path, kind, text, **options))


def test_too_small_and_missing_datasets_are_refused(tmp_path: Path) -> None:
    """Prompts are never repeated in silence: a repeated prompt would be answered from a cache."""
    with pytest.raises(WorkloadError, match="1 usable rows; num_prompts is 2"):
        requests(from_file(tmp_path, "jsonl", '{"prompt": "a", "output_len": 1}', num_prompts=2))
    missing = Scenario(name="d", kind="jsonl", dataset=tmp_path / "no.jsonl", num_prompts=1)
    with pytest.raises(WorkloadError, match="cannot be read"):
        requests(missing)


class Words:
    """A tokenizer of words, for which the text of some tokens has fewer tokens than they are."""

    def ids(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(str(each) for each in ids if each % 5)


def test_text_has_exactly_the_tokens_that_were_asked_for() -> None:
    """A round trip that loses tokens is corrected until the length is right, or refused."""
    assert len(text_of_length(Words(), list(range(1, 40))).split()) == 39
    with pytest.raises(TokenizerError, match="no text of exactly 3"):
        text_of_length(Words(), [5, 10, 15])


def test_missing_tokenizer_is_named(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(tmp_path)
