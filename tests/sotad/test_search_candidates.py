"""Candidates: order, limits, ids and coverage of both generators."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.config.section import Slug
from sotad.search.candidates import (
    GENERATIONS,
    baseline_first_bounded_product,
    candidate_id,
    canonical,
    one_factor_first,
    overrides,
    size,
    untried,
)

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 99), st.floats(0, 2), st.text("ab1_-. A", max_size=5), st.text(max_size=9)
)
NAMES = st.from_regex(r"\A[a-z][a-z0-9_]{0,40}\Z")
SPACES = st.dictionaries(NAMES, st.lists(VALUES, max_size=4), max_size=4)
FLAGS = st.dictionaries(NAMES, VALUES, max_size=5)
GENERATORS = pytest.mark.parametrize("generate", GENERATIONS.values(), ids=list(GENERATIONS))


@GENERATORS
@given(base=FLAGS, space=SPACES, limit=st.integers(1, 40))
def test_baseline_first_no_twins_never_above_the_limit(generate: Any, base: Any, space: Any, limit: int) -> None:
    """The first is the base itself, all differ, there are at most ``limit``, and a second call says the same."""
    found = generate(base, space, limit)
    assert found[0] == base
    assert len({canonical(flags) for flags in found}) == len(found) <= limit
    assert found == generate(base, space, limit)


@GENERATORS
@given(base=FLAGS, space=SPACES, limit=st.integers(1, 40))
def test_candidates_take_their_values_from_base_and_space(generate: Any, base: Any, space: Any, limit: int) -> None:
    """No candidate has a flag or value that was not written."""
    for flags in generate(base, space, limit):
        for flag, value in flags.items():
            written = [base[flag]] if flag in base else []
            assert canonical(value) in map(canonical, [*written, *space.get(flag, [])])


@given(base=FLAGS, space=SPACES)
def test_product_without_a_limit_is_the_whole_product(base: Any, space: Any) -> None:
    """Every combination is there, and the base."""
    found = baseline_first_bounded_product(base, space, 10_000)
    combinations = itertools.product(*space.values())
    wanted = [base, *({**base, **dict(zip(space, chosen, strict=True))} for chosen in combinations)]
    assert [canonical(flags) for flags in found] == list(dict.fromkeys(map(canonical, wanted)))
    assert size(space) + 1 >= len(found)


@given(base=FLAGS, space=SPACES)
def test_one_factor_tries_every_value_when_it_may(base: Any, space: Any) -> None:
    """With room for all values, none is left untried, and each is tried alone before any pair."""
    found = one_factor_first(base, space, 1000)
    assert untried(space, found) == {}
    changes = [len(overrides(base, flags)) for flags in found]
    assert changes == sorted(changes)
    assert max(changes) <= 2


def test_product_varies_the_last_flag_fastest() -> None:
    """The documented example: base, then (4096, 48), (4096, 96), (8192, 48), (8192, 96)."""
    space = {"chunked_prefill_size": [4096, 8192], "max_running_requests": [48, 96]}
    found = baseline_first_bounded_product({"tp_size": 2}, space, 6)
    assert [tuple(flags.values())[1:] for flags in found] == [(), (4096, 48), (4096, 96), (8192, 48), (8192, 96)]


@GENERATORS
def test_limit_one_is_one_candidate(generate: Any) -> None:
    """A limit of 1 leaves the baseline only; below that is an error."""
    assert generate({"a": 1}, {"b": [1, 2]}, 1) == [{"a": 1}]
    with pytest.raises(ValueError, match="at least 1"):
        generate({}, {}, 0)


def test_a_small_limit_touches_every_flag() -> None:
    """Values come in turns: five flags and six candidates try one value of each flag."""
    space = {name: [1, 2, 3] for name in "abcde"}
    found = one_factor_first({}, space, 6)
    assert [list(flags) for flags in found[1:]] == [[name] for name in "abcde"]
    assert untried(space, found) == {name: [2, 3] for name in "abcde"}


def test_pairs_are_spread() -> None:
    """The first pairs use every value once before any value is used twice."""
    space = {name: [1, 2] for name in "abcd"}
    pairs = [tuple(flags.items()) for flags in one_factor_first({}, space, 1 + 8 + 4)[9:]]
    assert len(pairs) == 4
    assert len({single for pair in pairs for single in pair}) == 8


@given(flags=FLAGS)
def test_ids_are_slugs_of_the_flags_alone(flags: Any) -> None:
    """Any order of the flags, and either spelling of their names, gives the same id, which a ledger accepts."""
    turned = dict(reversed(flags.items()))
    assert re.fullmatch(Slug, candidate_id(flags))
    assert candidate_id(flags) == candidate_id(turned)
    assert candidate_id(flags) == candidate_id({name.replace("_", "-"): value for name, value in flags.items()})


@given(space=SPACES)
def test_candidates_of_a_space_have_different_ids(space: Any) -> None:
    """1, 1.0, "1", true and "on" do not share an id."""
    found = one_factor_first({}, space, 200)
    assert len({candidate_id(flags) for flags in found}) == len(found)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "baseline"),
        ({"chunked_prefill_size": 8192}, "chunked-prefill-size_8192"),
        ({"tp-size": 2, "enable_x": True}, "enable-x_on__tp-size_2"),
        ({"dtype": "fp8_e4m3"}, "dtype_fp8_e4m3"),
        ({"chunked_prefill_size": -1}, "chunked-prefill-size_minus-1"),
        ({"mem": 0.82}, "mem_0.82"),
    ],
)
def test_ids_can_be_read(flags: Any, name: str) -> None:
    """They say flag and value, sorted by flag."""
    assert candidate_id(flags) == name


@pytest.mark.parametrize(
    "value", ["8", "on", "None", "fp8-", "a__b", "A", "", "-1", "minus-1", [1], {"a": 1}, "x" * 60]
)
def test_ids_that_would_be_ambiguous_end_in_a_hash(value: Any) -> None:
    """Text that looks like a number or a switch, other characters, structures, and what is too long."""
    assert re.fullmatch(r"[a-z0-9._-]*-[0-9a-f]{8}", candidate_id({"flag": value}))
    assert candidate_id({"flag": value}) != candidate_id({"flag": [value]})
