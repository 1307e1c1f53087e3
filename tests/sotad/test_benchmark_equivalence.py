"""Whether two servers answer alike."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outputs_rig import Engine, asked, scenario, serving

from sotad.benchmark.equivalence import compare

PHASES = ["alone"] * 5 + ["again"] * 5 + ["batch"] * 5 + ["sampled"] * 4


def seen(verdict: dict[str, Any]) -> set[tuple[str, str]]:
    """In which phase which kind of reason was found."""
    return {(each["phase"], reason.partition(":")[0]) for each in verdict["differences"] for reason in each["reasons"]}


async def test_the_same_engine_twice_is_equal() -> None:
    """Honest answers agree in every phase; one at a time, again, at once, and sampled are all asked."""
    first, second = await asked(Engine()), await asked(Engine())
    assert compare(first, second) == {"equal": True, "prompts": 19, "differences": [], "notes": []}
    answers = first["requests"]
    assert [each["phase"] for each in answers] == PHASES
    assert [each["index"] for each in answers] == list(range(19))
    assert [each["prompt"] for each in answers] == [0, 1, 2, 3, 4] * 3 + [0, 1, 2, 3]
    assert [answers[0][key] for key in ("output_tokens", "finish_reason", "wanted")] == [6, "length", 6]
    ids = [each["streamed_tokens"] is not None for each in answers]
    assert ids == [False, True] * 5 + [False] * 9


async def test_text_that_batching_changes_is_no_difference() -> None:
    """An honest engine whose batches change every text is equal all the same."""
    noisy = [await asked(Engine(noise=1.0, seed=seed)) for seed in (1, 2)]
    texts = [[each["text"] for each in output["requests"] if each["phase"] == "batch"] for output in noisy]
    assert texts[0] != [each["text"] for each in noisy[0]["requests"] if each["phase"] == "alone"]
    assert compare(*noisy)["equal"]


@pytest.mark.parametrize(
    ("manner", "found"),
    [
        ("fewer_tokens", {("alone", "fewer_tokens"), ("alone", "different_text"), ("batch", "fewer_tokens")}),
        ("faked_usage", {("alone", "different_text"), ("again", "usage_mismatch")}),
        ("ends_early", {("alone", "finish_reason"), ("batch", "finish_reason")}),
        ("empty_chunks", {("alone", "different_text")}),
        ("no_detokenization", {("alone", "different_text")}),
        ("no_sampling", {("sampled", "not_sampled")}),
        ("short_prompt", {("alone", "other_prompt"), ("batch", "other_prompt")}),
        ("by_prompt_length", {("alone", "different_text")}),
        ("by_token_ids", {("alone", "different_text")}),
    ],
)
async def test_a_cheat_is_named(manner: str, found: set[tuple[str, str]]) -> None:
    """A server that does less than it should is refused, for what it did."""
    verdict = compare(await asked(Engine()), await asked(Engine(manner)))
    assert not verdict["equal"]
    assert found <= seen(verdict)


@pytest.mark.parametrize("manner", ["in_batches", "once_warm", "by_seed", "precomputed"])
async def test_what_only_the_timed_requests_show_passes_here(manner: str) -> None:
    """Cheats that wait for the measurement are for `sotad.benchmark.timed`; this is why it has to be there."""
    assert compare(await asked(Engine()), await asked(Engine(manner)))["equal"]


async def test_an_engine_that_does_not_sample_owes_no_sampling() -> None:
    """Where the reference answers greedily at a temperature, so may the candidate."""
    assert compare(await asked(Engine(samples=False)), await asked(Engine("no_sampling", samples=False)))["equal"]


async def test_a_memory_of_answers_is_told() -> None:
    """Known prompts answered many times as fast are no other text, but are told."""
    verdict = compare(await asked(Engine()), await asked(Engine("remembers")))
    assert verdict["equal"]
    assert [note.split(" times")[0][:32] for note in verdict["notes"]] == ["a prompt asked again is answered"]


async def test_long_answers_are_clipped_and_the_campaign_s_body_is_sent() -> None:
    """`longest_answer` bounds every answer; what the workload adds to a body stays, but its temperature."""
    output = await asked(Engine(), longest_answer=4, samples=0, extra_body={"temperature": 0.7, "seed": 5})
    assert {each["output_tokens"] for each in output["requests"]} == {4}
    assert compare(await asked(Engine(), longest_answer=4, samples=0), output)["equal"]


async def test_the_program_writes_what_it_was_told(tmp_path: Path) -> None:
    """As a process: one file in, one file out."""
    async with serving(Engine()) as url:
        spec = {"base_url": url, "model": "m", "scenarios": [scenario(num_prompts=1)]}
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        argv = ("-m", "sotad.benchmark.equivalence", str(tmp_path / "spec.json"), str(tmp_path / "out.json"))
        process = await asyncio.create_subprocess_exec(sys.executable, *argv)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    output = json.loads((tmp_path / "out.json").read_bytes())
    assert [each["phase"] for each in output["requests"]] == ["alone", "again", "batch", "sampled"]
    assert compare(output, output)["equal"]


# --- judging ---------------------------------------------------------------------------------------------------


def output(phase: str = "alone", again: str = "abc", **answer: Any) -> dict[str, Any]:
    base = {"index": 0, "phase": phase, "prompt": 0, "wanted": 2, "error": None, "output_tokens": 2, "text_tokens": 2}
    base |= {"streamed_tokens": None, "chunk_ns": [1, 2], "prompt_tokens": 4, "first_token_ns": 1, "last_token_ns": 2}
    base |= {"finish_reason": "length", "text": "abc"}
    answers = [{**base, **answer}, {**base, "phase": "again", "text": again, "index": 1}]
    return {"workload_digest": ["d"], "interrupted": False, "requests": answers}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"text": "abX"}, "different_text: from character 2"),
        ({"text": "ab"}, "different_text: from character 2"),
        ({"finish_reason": "stop"}, "finish_reason: stop instead of length"),
        ({"output_tokens": 3}, "more_tokens: 3 instead of 2"),
        ({"prompt_tokens": 3}, "other_prompt: 3 prompt tokens instead of 4"),
        ({"chunk_ns": [1, 2, 3]}, "usage_mismatch: claims 2 tokens, streamed at least 3"),
        ({"error": {"kind": "timeout", "detail": "late"}}, "error: timeout: late"),
    ],
)
def test_every_difference_has_its_reason(answer: dict[str, Any], reason: str) -> None:
    """A difference is named with what was seen and what was expected."""
    differences = compare(output(), output(**answer))["differences"]
    assert differences == [{"index": 0, "phase": "alone", "reasons": [reason]}]


def test_a_prompt_that_the_reference_answers_in_two_ways_proves_nothing() -> None:
    """Text counts where the reference agrees with itself; that it does not is told."""
    verdict = compare(output(again="abY"), output(text="abX"))
    assert verdict["equal"] and verdict["notes"] == ["the reference itself answers 1 prompts in two ways"]


@pytest.mark.parametrize(
    ("text", "equal"), [("abcdefghZZ", True), ("aZcdefghij", False), ("abcd", False), ("abcdefghijk", True)]
)
def test_of_a_long_answer_the_beginning_counts(text: str, equal: bool) -> None:
    """Of ten tokens three count: a later difference is rounding's, an earlier one is not, nor is a missing half."""
    long = {"output_tokens": 10, "wanted": 10, "text_tokens": 3}
    assert compare(output(text="abcdefghij", **long, again="abcdefghij"), output(text=text, **long))["equal"] is equal


def test_other_text_in_a_batch_may_end_elsewhere_where_a_server_may_stop() -> None:
    """Without a fixed length, other text is the batch's doing and so is its length; the same text must end alike."""
    free = {"wanted": None}
    other = {"text": "abXY", "output_tokens": 3, "finish_reason": "stop"}
    assert compare(output("batch", **free), output("batch", **free, **other))["equal"]
    assert not compare(output("batch"), output("batch", **other))["equal"]
    assert not compare(output("batch", **free), output("batch", **free, finish_reason="stop"))["equal"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda out: out.update(workload_digest=["e"]), "different prompts"),
        (lambda out: out["requests"][0].update(error={"kind": "connect", "detail": ""}), r"prompts \[0\]"),
        (lambda out: out.update(interrupted=True), "ask again"),
    ],
)
def test_unusable_reference_is_refused(damage: Callable[[dict[str, Any]], None], said: str) -> None:
    """Nothing is compared with a reference that failed or answered other prompts."""
    reference = copy.deepcopy(output())
    damage(reference)
    with pytest.raises(ValueError, match=said):
        compare(reference, output())
