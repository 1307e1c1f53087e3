"""The gap decision: error rates, symmetry, determinism, explained reasons, clear refusals."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine.gap import Block, GapDecision, GapRule, check_aa, combine, decide_gap, decide_improvement

ROOT = Path(__file__).resolve().parents[2]
H200 = {"within": 1.45, "launch": 0.45, "runs": 5}
LAPTOP = GapRule(tau_pct=10.0, cap=12, noise_limit_pct=15.0)


def measured(g: float, count: int, rng: random.Random, within: float, launch: float, runs: int) -> list[Block]:
    """Blocks of a machine with that noise (percent), on which the target is ``g`` percent behind."""

    def side(mean: float) -> tuple[float, ...]:
        centre = rng.gauss(mean, launch)
        return tuple(50.0 * math.exp(rng.gauss(centre, within) / 100) for _ in range(runs))

    return [Block(side(-g / 2), side(g / 2)) for _ in range(count)]


def run_out(blocks: list[Block], rule: GapRule, call=decide_gap) -> GapDecision:
    """The decision at the look that ends it."""
    for count in range(1, len(blocks) + 1):
        decision = call(blocks[:count], rule)
        if decision.verdict != "more":
            break
    return decision


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    pytest.importorskip("numpy")
    spec = importlib.util.spec_from_file_location("bench_gap", ROOT / "tests" / "benchmarks" / "bench_gap.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_gap"] = module
    spec.loader.exec_module(module)
    return module


# --- guarantees ------------------------------------------------------------------------------------------

CALLS_WRONG = [
    pytest.param(0.0, {}, id="equal"),
    pytest.param(1.0, {}, id="gap is tau"),
    pytest.param(0.0, {"within": 2.9, "launch": 0.9}, id="equal, noisy"),
    pytest.param(1.0, {"within": 0.7, "launch": 0.22}, id="gap is tau, quiet"),
    pytest.param(0.0, {"within": 0.1, "launch": 2.0}, id="all noise between launches"),
    pytest.param(0.0, {"unequal": 3.0}, id="one side three times noisier"),
    pytest.param(1.0, {"drift": 1.0, "outlier": "stall"}, id="drift and stalled launches"),
    pytest.param(0.0, {"outlier": "stall-target"}, id="only target launches stall"),
    pytest.param(0.0, {"outlier": "noise"}, id="blocks with sevenfold noise"),
]


@pytest.mark.parametrize(("g", "noise"), CALLS_WRONG)
def test_a_call_is_wrong_in_at_most_one_campaign_of_a_hundred(bench, g, noise) -> None:
    """5,000 campaigns: 1.4% would be 2.8 standard deviations above a true rate of 1%."""
    cell = bench.Cell(**{"within": 1.45, "launch": 0.45, "g": g} | noise)
    (found, *_) = bench.measure(cell, GapRule(), 5_000, seed=11)
    assert found["wrong"] <= 1.4


def test_looking_after_every_block_without_a_boundary_would_break_the_guarantee(bench) -> None:
    """The Monte Carlo of the guarantee can fail: a plain 1% t test at every look is wrong far more often."""
    boundary = bench._boundary
    try:
        bench._boundary = lambda shape, alpha, rule: bench.np.full(rule.cap + 1, 2.326)
        (found, *_) = bench.measure(bench.Cell(2.9, 0.9, 0.0), GapRule(), 5_000, seed=11)
    finally:
        bench._boundary = boundary
    assert found["wrong"] > 3.0


def test_fewer_blocks_than_the_prototype_in_every_row_of_its_table(bench) -> None:
    """With and without disturbance, at any gap of the table, fewer blocks than the paired rule needs."""
    for disturbed in ({}, {"drift": 1.0, "outlier": "stall"}):
        for cell in bench.table_cells(**disturbed):
            ours, prototype, _ = bench.measure(cell, GapRule(), 1_500, seed=5)
            assert ours["blocks"] < prototype["blocks"], cell


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_the_fast_form_of_the_benchmark_decides_as_the_pure_rule(bench, count) -> None:
    """The published operating characteristics are those of the shipped code, outliers and noise included."""
    names = {v: k for k, v in bench._ENDS.items()} | {bench.PAR: "par_or_better"}
    rule = GapRule(noise_limit_pct=2.0, cap=12)
    compared = Counter()
    for seed, cell in enumerate(
        [
            bench.Cell(1.45, 0.45, 1.0, cap=12, outlier="stall"),
            bench.Cell(1.45, 0.45, 2.0, cap=12, outlier="noise", runs=3),
            bench.Cell(0.5, 0.9, -2.0, cap=12, unequal=2.0),
            bench.Cell(1.7, 0.9, 0.0, cap=12, shared=2.0, runs=2),
        ]
    ):
        target, leader = bench.sample(cell, count, bench.np.random.default_rng(seed))
        verdicts, used = bench.ours(target, leader, rule)
        for i in range(count):
            sides = [bench.np.exp(side[i] / 100).tolist() for side in (target, leader)]
            pure = run_out([Block(*pair) for pair in zip(*sides, strict=True)], rule)
            assert (names[int(verdicts[i])], int(used[i])) == (pure.verdict, pure.blocks)
            compared[pure.verdict] += pure.blocks
    assert set(compared) == {"behind", "ahead", "par_or_better", "undecided", "untrusted"}


def test_a_noisy_laptop_sees_a_large_gap_in_four_blocks_and_par_in_few_more() -> None:
    """A gap of 35% is called behind at the first look; none is called par within six blocks on average."""
    rng = random.Random(3)
    large = [run_out(measured(35.0, 12, rng, 3.0, 2.0, 3), LAPTOP) for _ in range(40)]
    none = [run_out(measured(0.0, 12, rng, 3.0, 2.0, 3), LAPTOP) for _ in range(40)]
    assert {d.verdict for d in large} == {"behind"} and sum(d.blocks for d in large) / 40 <= 4.5
    assert {d.verdict for d in none} <= {"par_or_better", "ahead"}
    assert sum(d.blocks for d in none) / 40 <= 6


# --- what follows from the definition --------------------------------------------------------------------

value = st.floats(10.0, 1000.0)
block = st.tuples(st.tuples(value, value, value), st.tuples(value, value, value)).map(lambda pair: Block(*pair))
histories = st.lists(block, min_size=4, max_size=9)
WILD = GapRule(tau_pct=5.0, cap=9, noise_limit_pct=1e6)


@given(histories, st.floats(0.001, 1000.0))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_the_metric_does_not_matter(blocks, factor) -> None:
    """Scaling every value of both sides leaves the estimate and its bounds where they were."""
    scaled = [Block(*(tuple(v * factor for v in side) for side in (b.target, b.leader))) for b in blocks]
    one, other = decide_gap(blocks, WILD), decide_gap(scaled, WILD)
    assert one.g_pct == pytest.approx(other.g_pct, abs=2e-6)
    if one.lo_pct is not None:
        assert (one.lo_pct, one.hi_pct) == pytest.approx((other.lo_pct, other.hi_pct), rel=1e-6, abs=1e-4)


@given(histories)
@settings(max_examples=40, deadline=None)
def test_exchanging_the_sides_mirrors_the_estimate_and_what_was_set_aside(blocks) -> None:
    """No side is favoured: noise, error and disturbed blocks stay, the gap changes its sign."""
    one, other = decide_gap(blocks, WILD), decide_gap([Block(b.leader, b.target) for b in blocks], WILD)
    assert one.g_pct == pytest.approx(-other.g_pct, abs=2e-6)
    assert one.set_aside == other.set_aside
    assert (one.se_pct, one.noise_pct) == pytest.approx((other.se_pct, other.noise_pct), abs=2e-6)


@given(histories)
@settings(max_examples=40, deadline=None)
def test_an_improvement_is_the_mirror_of_a_gap(blocks) -> None:
    """Challenger against champion uses the bounds of the gap with the sides exchanged, and keeps its sign."""
    gap = decide_gap([Block(b.leader, b.target) for b in blocks], WILD)
    improvement = decide_improvement(blocks, WILD)
    assert improvement.g_pct == pytest.approx(-gap.g_pct, abs=2e-6)
    if gap.lo_pct is not None:
        assert improvement.hi_pct == pytest.approx(-gap.lo_pct, abs=2e-6)
        called = 4 * len(improvement.set_aside) <= len(blocks)
        assert (improvement.verdict == "accept") == (called and gap.lo_pct > 0)


@given(histories, st.floats(1.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_a_slower_target_is_never_judged_better(blocks, slower) -> None:
    """Dividing every target value by a factor moves estimate and bounds up by its logarithm."""
    slow = [Block(tuple(v / slower for v in b.target), b.leader) for b in blocks]
    one, other = decide_gap(blocks, WILD), decide_gap(slow, WILD)
    shift = 100 * math.log(slower)
    assert other.g_pct == pytest.approx(one.g_pct + shift, abs=1e-5)
    if one.lo_pct is not None:
        assert other.lo_pct == pytest.approx(one.lo_pct + shift, rel=1e-6, abs=1e-4)
    order = ["ahead", "par_or_better", "more", "undecided", "untrusted", "behind"]
    if "untrusted" not in (one.verdict, other.verdict):
        assert order.index(other.verdict) >= order.index(one.verdict)


@given(st.floats(0.001, 0.3), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_smaller_error_or_more_scenarios_widen_the_interval(alpha, scenarios) -> None:
    """The bounds of a stricter rule contain those of a looser one."""
    blocks = measured(1.0, 6, random.Random(8), **H200)
    loose = decide_gap(blocks, GapRule(alpha=alpha))
    for strict in (GapRule(alpha=alpha / 2), GapRule(alpha=alpha, scenarios=scenarios + 1)):
        tight = decide_gap(blocks, strict)
        assert tight.lo_pct < loose.lo_pct and tight.hi_pct > loose.hi_pct


def test_the_gap_is_the_mean_log_ratio_and_positive_when_the_target_is_slower() -> None:
    """Without noise g is 100 ln(leader/target), and the verdict needs no more than the first look."""
    blocks = [Block((100.0, 100.0), (110.0, 110.0))] * 4
    decision = decide_gap(blocks, GapRule())
    assert decision.verdict == "behind"
    assert decision.g_pct == pytest.approx(100 * math.log(1.1), abs=1e-6)
    assert decision.half_width_pct == pytest.approx(0.0, abs=1e-6)


# --- the verdicts ----------------------------------------------------------------------------------------


def test_nothing_is_called_before_four_launches_a_side() -> None:
    """Three blocks with an obvious gap ask for one more."""
    decision = decide_gap([Block((50.0, 51.0), (100.0, 101.0))] * 3, GapRule())
    assert decision.verdict == "more" and decision.lo_pct is None
    assert decision.would_change == "1 more blocks that count"


def test_a_block_with_a_stalled_launch_is_set_aside_and_named() -> None:
    """A launch at a seventh of its speed does not count, and the reasons say which and why."""
    blocks = measured(5.0, 8, random.Random(1), **H200)
    blocks[2] = Block(tuple(v / 7 for v in blocks[2].target), blocks[2].leader)
    decision = decide_gap(blocks, GapRule())
    assert decision.set_aside == (3,) and decision.n == 7
    assert decision.verdict == "behind" and decision.g_pct < 10
    assert decision.reasons[0].startswith("block 3 is set aside: its gap lies 19")


def test_too_many_disturbed_blocks_end_untrusted() -> None:
    """With more than one block in four disturbed nothing is called, and the cap ends it."""
    rule = GapRule(cap=10, noise_limit_pct=100.0)
    blocks = measured(5.0, 10, random.Random(1), 0.2, 0.1, 5)
    for i in (1, 4, 8):
        blocks[i] = Block(tuple(v / 7 for v in blocks[i].target), blocks[i].leader)
    assert decide_gap(blocks[:9], rule).verdict == "more"
    decision = decide_gap(blocks, rule)
    assert decision.verdict == "untrusted" and "3 of 10 blocks" in decision.reasons[-1]


def test_noise_over_the_limit_is_untrusted_however_large_the_gap() -> None:
    """After twice the first look, noise over the limit ends it; before, more blocks are asked for."""
    blocks = measured(60.0, 8, random.Random(2), 9.0, 6.0, 5)
    assert decide_gap(blocks[:4], GapRule()).verdict == "more"
    decision = decide_gap(blocks, GapRule())
    assert decision.verdict == "untrusted" and decision.noise_pct > 5
    assert decide_gap(blocks, GapRule(noise_limit_pct=20.0)).verdict == "behind"


def test_the_cap_ends_in_undecided_and_claims_nothing() -> None:
    """A gap between 0 and tau on a noisy machine: all blocks used, the half width is in the answer."""
    decision = run_out(measured(0.6, 6, random.Random(4), **H200), GapRule(cap=6))
    assert decision.verdict == "undecided" and decision.blocks == 6
    assert decision.tau_effective_pct == decision.half_width_pct > 1.0
    assert f"{decision.half_width_pct:.3f}%" in decision.would_change


def test_ahead_is_called_and_par_when_ahead_is_not_certain() -> None:
    """Far in front is ahead; a little in front is at par or better."""
    rng = random.Random(6)
    assert run_out(measured(-6.0, 20, rng, **H200), GapRule()).verdict == "ahead"
    assert run_out(measured(-0.4, 20, rng, **H200), GapRule()).verdict == "par_or_better"


def test_a_command_measured_against_itself_is_the_same_and_a_biased_position_is_found() -> None:
    """The A/A check passes equal sides and names the side that a bias favours, in both directions."""
    rng = random.Random(7)
    assert check_aa(measured(0.0, 4, rng, **H200), GapRule()).verdict == "same"
    assert check_aa(measured(6.0, 4, rng, **H200), GapRule()).verdict == "behind"
    assert check_aa(measured(-9.0, 6, rng, **H200), GapRule()).verdict == "ahead"
    assert check_aa(measured(0.0, 3, rng, **H200), GapRule()).verdict == "more"


def test_an_improvement_is_accepted_a_regression_and_a_flat_patch_are_not() -> None:
    """Minus 4% gap is accepted, plus 4% is a regression and never flat, none is flat."""
    quiet = {"within": 0.7, "launch": 0.22, "runs": 5}
    for seed in range(10):
        rng = random.Random(seed)
        found = {g: run_out(measured(g, 20, rng, **quiet), GapRule(), decide_improvement) for g in (-4.0, 4.0, 0.0)}
        assert [d.verdict for d in found.values()] == ["accept", "regress", "flat"]
        assert found[-4.0].hi_pct < 0 < found[4.0].lo_pct


def test_a_campaign_is_as_good_as_its_worst_scenario() -> None:
    """Any behind is behind; par needs every scenario; ahead needs all of them ahead."""
    start = decide_gap(measured(0.0, 4, random.Random(1), **H200), GapRule())

    def joined(*verdicts: str) -> str:
        return combine([replace(start, verdict=v) for v in verdicts])

    assert joined("ahead", "more", "behind") == "behind"
    assert joined("ahead", "untrusted", "more") == "untrusted"
    assert joined("par_or_better", "more", "undecided") == "more"
    assert joined("par_or_better", "undecided") == "undecided"
    assert joined("par_or_better", "ahead") == "par_or_better"
    assert joined("ahead", "ahead") == "ahead"
    with pytest.raises(ValueError, match="each scenario"):
        combine([])
    with pytest.raises(ValueError, match="accept"):
        joined("ahead", "accept")


# --- explained, reproducible, strict ---------------------------------------------------------------------


@pytest.mark.parametrize("call", [decide_gap, check_aa, decide_improvement])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_every_decision_explains_itself_with_its_numbers(call, count) -> None:
    """At least one reason with a number, and what would have changed it; the whole decision fits in JSON."""
    decision = call(measured(1.0, count, random.Random(count), **H200), GapRule(cap=12))
    assert decision.reasons and all(re.search(r"\d", reason) for reason in decision.reasons)
    assert decision.would_change
    assert json.loads(json.dumps(asdict(decision)))["verdict"] == decision.verdict


def test_another_process_comes_to_the_same_bytes() -> None:
    """Replay elsewhere gives the recorded decision: no hash seed, cache or order of calls enters it."""
    blocks = measured(2.0, 7, random.Random(21), **H200)
    here = json.dumps(asdict(decide_gap(blocks, GapRule())), sort_keys=True)
    script = (
        "import json, sys; from dataclasses import asdict; from statemachine.gap import *\n"
        "blocks = [Block(tuple(a), tuple(b)) for a, b in json.load(sys.stdin)]\n"
        "print(json.dumps(asdict(decide_gap(blocks, GapRule())), sort_keys=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([[b.target, b.leader] for b in blocks]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == here


def test_numbers_are_rounded_before_they_leave() -> None:
    """No float of a decision has more than six digits after the point."""
    decision = decide_gap(measured(2.0, 7, random.Random(22), **H200), GapRule())
    for number in asdict(decision).values():
        if isinstance(number, float):
            assert number == round(number, 6)


@pytest.mark.parametrize(
    ("target", "leader", "message"),
    [
        ((), (1.0,), "target has no runs"),
        ((1.0,), (), "leader has no runs"),
        ((1.0, 2.0), (1.0,), "target has 2 runs, the leader 1"),
        ((1.0, 0.0), (1.0, 1.0), "run 2 of the target is 0.0"),
        ((1.0,), (-3.0,), "run 1 of the leader is -3.0"),
        ((math.nan,), (1.0,), "run 1 of the target is nan"),
        ((1.0,), (math.inf,), "run 1 of the leader is inf"),
        ((True,), (1.0,), "run 1 of the target is True"),
        (("7",), (1.0,), "run 1 of the target is '7'"),
    ],
)
def test_a_bad_block_is_refused_with_its_place(target, leader, message) -> None:
    """The error says which run of which side is wrong."""
    with pytest.raises(ValueError, match=message):
        Block(target, leader)


def test_bad_histories_are_refused() -> None:
    """No blocks, blocks with different numbers of runs, or more than the cap."""
    with pytest.raises(ValueError, match="no blocks"):
        decide_gap([], GapRule())
    with pytest.raises(ValueError, match="every launch needs the same number of runs"):
        decide_gap([Block((1.0,), (1.0,)), Block((1.0, 1.0), (1.0, 1.0))], GapRule())
    with pytest.raises(ValueError, match="the rule ends at 4"):
        decide_gap([Block((1.0,), (1.0,))] * 5, GapRule(cap=4))


@pytest.mark.parametrize(
    "field",
    [
        {"tau_pct": 0.0},
        {"tau_pct": math.nan},
        {"alpha": 0.0},
        {"alpha": 0.5},
        {"first_look": 3},
        {"cap": 3},
        {"cap": 101},
        {"noise_limit_pct": -1.0},
        {"scenarios": 0},
    ],
)
def test_a_rule_outside_its_range_is_refused(field) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=next(iter(field))):
        GapRule(**field)
