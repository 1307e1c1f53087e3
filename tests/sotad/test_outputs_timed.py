"""Whether the answers of the timed requests are the champion's: cheats that wait for the measurement."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outputs_rig import Engine, scenario, timed

from sotad.benchmark.timed import ALPHA, Counts, count, judge, more_often, tail

JSON = dict[str, Any]
NONE_OF = [(0, 80)]  # what an engine without batch noise differs from itself


async def judged(champion: Engine, challenger: Engine, calibration: list[tuple[int, int]] = NONE_OF) -> JSON:
    """The verdict on two blocks."""
    pairs = [(await timed(champion), await timed(challenger)) for _ in range(2)]
    return judge(count(pairs), calibration)


async def test_an_honest_patch_passes() -> None:
    """The same answers pass, with what was compared."""
    verdict = await judged(Engine(), Engine())
    assert verdict["passed"], verdict["detail"]
    assert verdict["detail"].startswith("48 of 48 timed texts are the same")
    assert verdict["counts"]["failed"] == [0, 0]


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("fewer_tokens", "another length, end or usage"),
        ("ends_early", "another length, end or usage"),
        ("short_prompt", "other_prompt"),
        ("faked_usage", "other text, which batching does not explain"),
        ("no_detokenization", "other text, which batching does not explain"),
        ("by_seed", "other text, which batching does not explain"),
        ("in_batches", "other text, which batching does not explain"),
        ("once_warm", "other text, which batching does not explain"),
        ("by_prompt_length", "other text, which batching does not explain"),
        ("refuses_some", "timed requests fail, 0 of the reference's"),
    ],
)
async def test_a_cheat_in_the_timed_answers_is_refused(manner: str, said: str) -> None:
    """Fewer tokens, other text, or failures where the measurement looks are found there."""
    verdict = await judged(Engine(), Engine(manner))
    assert not verdict["passed"]
    assert said in verdict["detail"]


@pytest.mark.parametrize("manner", ["in_one_burst", "precomputed"])
async def test_answers_in_one_burst_are_told(manner: str) -> None:
    """Tokens that all come at once have the right text, and are told."""
    verdict = await judged(Engine(), Engine(manner))
    assert verdict["passed"], verdict["detail"]
    assert "48 answers came in one burst at their end, of the reference's 0" in verdict["detail"]


async def test_batch_noise_of_the_champion_excuses_as_much_of_the_challenger_s() -> None:
    """What the champion differs from itself is allowed; more is not, and neither is shorter text."""
    noisy = [Engine(noise=0.3, seed=seed) for seed in (1, 2, 3, 4)]
    aa = count([(await timed(noisy[0]), await timed(noisy[1])) for _ in range(2)])
    assert aa.differing > 8
    calibration = [(aa.differing, aa.compared)]
    assert (await judged(noisy[2], noisy[3], calibration))["passed"]
    spoilt = await judged(noisy[2], Engine("in_batches", noise=0.3), calibration)
    assert "other text" in spoilt["detail"] and not spoilt["passed"]


async def test_a_late_difference_is_none_and_an_early_one_is() -> None:
    """A near tie that falls the other way in mid-answer may be the order of a sum: its beginning counts."""
    plain, noisy = await timed(Engine()), await timed(Engine(noise=1.0))
    late, whole = (count([(plain, noisy)], text_tokens) for text_tokens in (2, None))
    assert (late.differing, late.compared) == (0, 24)
    assert whole.differing > 16
    assert not judge(whole, NONE_OF)["passed"]
    assert count([(plain, await timed(Engine("in_batches")))], 2).differing > 16


async def test_noise_hides_no_shorter_text() -> None:
    """Where every text differs, the missing end of the challenger's still shows."""
    calibration = [(80, 80)]
    assert (await judged(Engine(noise=1.0, seed=1), Engine(noise=1.0, seed=2), calibration))["passed"]
    verdict = await judged(Engine(noise=1.0, seed=1), Engine("shorter_in_batches", noise=1.0, seed=2), calibration)
    assert not verdict["passed"]
    assert "where text differs it is shorter" in verdict["detail"]


async def test_measurements_with_other_prompts_are_set_aside() -> None:
    """A repeated measurement has other prompts: told, and nothing but it is nothing to judge by."""
    first, again = await timed(Engine()), await timed(Engine(), scenario=scenario(seed=1_000_080))
    verdict = judge(count([(first, first), (first, again)]), NONE_OF)
    assert verdict["passed"] and "1 repeated measurements had other prompts" in verdict["detail"]
    with pytest.raises(ValueError, match="no timed answers to the same requests"):
        judge(count([(first, again)]), NONE_OF)


def test_without_a_calibration_other_text_is_only_told() -> None:
    """Nobody knows what batching does: then only lengths, shorter text and failures can refuse."""
    verdict = judge(Counts(pairs=50, compared=50, differing=50, shorter=24, longer=26), [])
    assert verdict["passed"] and "by batching alone differ: unknown" in verdict["detail"]


def test_the_kindest_calibration_counts() -> None:
    """A patch changes who shares a batch: what that does to the champion excuses it, even where A/A never differs."""
    found = Counts(pairs=64, compared=64, differing=20, shorter=9, longer=11)
    assert not judge(found, [(0, 64)])["passed"]
    assert judge(found, [(0, 64), (6, 16)])["passed"]


def test_a_few_texts_that_batching_left_alone_excuse_nothing() -> None:
    """Where nothing shows that batching changes texts, what was seen most often says how seldom it does."""
    found = Counts(pairs=528, compared=528, differing=60, shorter=30, longer=30)
    assert not judge(found, [(0, 704), (0, 12)])["passed"]
    assert not judge(found, [(0, 12), (0, 704)])["passed"]
    assert judge(found, [(0, 12)])["passed"]  # all that is known
    assert judge(found, [(0, 704), (2, 12)])["passed"]


def test_few_more_are_not_refused_however_many_were_asked() -> None:
    """A change in twenty that is no accident may be rounding; one in ten is not."""
    found = Counts(pairs=8000, compared=8000, differing=300, shorter=150, longer=150)
    assert judge(found, [(0, 8000)])["passed"]
    assert not judge(Counts(pairs=8000, compared=8000, differing=800), [(0, 8000)])["passed"]
    assert judge(Counts(pairs=8000, compared=8000, shorter=4200, longer=3800), [])["passed"]


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 30), st.integers(1, 30))
def test_fisher_s_bound_is_the_share_of_tables(hits: int, size: int, others: int, rest: int) -> None:
    """The one-sided chance equals the count of all tables at least as bad, with the same margins."""
    hits, others = min(hits, size), min(others, rest)
    both = hits + others
    tables = [math.comb(size, some) * math.comb(rest, both - some) for some in range(hits, min(size, both) + 1)]
    exact = sum(tables) / math.comb(size + rest, both)
    assert more_often((hits, size), (others, rest)) == pytest.approx(exact, abs=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_counts_throws(hits: int, size: int) -> None:
    """The chance of so many heads equals the share of all throws with as many or more."""
    hits = min(hits, size)
    exact = sum(math.comb(size, some) for some in range(hits, size + 1)) / 2**size
    assert tail(hits, size) == pytest.approx(exact, abs=1e-9)


def test_large_counts_neither_overflow_nor_take_long() -> None:
    """A campaign's thousands of answers are judged at once."""
    assert more_often((40, 20_000), (38, 20_000)) > 0.3
    assert more_often((400, 20_000), (38, 20_000)) < ALPHA
    assert tail(10_000, 20_000) > 0.4 and tail(10_500, 20_000) < ALPHA
