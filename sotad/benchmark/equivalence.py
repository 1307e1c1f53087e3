"""Whether two servers answer the same prompts alike.

`python -m sotad.benchmark.equivalence SPEC.json OUT.json` asks one server in a process of its own, and keeps
every answer in full; `compare` judges two such outputs. Exit codes as for `sotad.loadgen`.

The requests are those of the load generator to the byte but for their prompts, so that a server cannot tell
which of the two asks. Every prompt is asked three times, greedily:

alone     one at a time, so that batching cannot change a sum: here the text must be the same, as far as it counts
again     the same one at a time, for lengths and usage; how much sooner the answers come shows a memory of them
batch     all at once, for lengths and usage: their text may depend on who shares a batch
sampled   some of them at a temperature, with a seed: an engine that skips sampling answers as if greedy

Half of `alone` and the other half of `again` ask for the ids of the tokens, which usage is held against. The
rest are without, as the load generator's are.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import median
from typing import Any

from pydantic import Field

from sotad.benchmark import workload
from sotad.benchmark.tokens import Tokenizer
from sotad.benchmark.workload import Request, Scenario
from sotad.loadgen.program import Outcome, run
from sotad.loadgen.record import Record
from sotad.loadgen.requests import Body, bodies, on_the_wire, scenario_tokenizer, wanted_tokens
from sotad.loadgen.run import Sent, plan_for, send_plan, slots_of
from sotad.loadgen.spec import Target

FORMAT = "sotad.equivalence/2"
GREEDY = {"temperature": 0.0}
SAMPLED = {"temperature": 1.5, "seed": 17}
TOKEN_IDS = {"return_token_ids": True}
MEMORY = 3.0  # times as fast for a known prompt, and that many times the reference's own factor: worth saying
Answer = Mapping[str, Any]


class EquivalenceSpec(Target):
    """Which prompts to ask: those of every scenario, answered with at most `longest_answer` tokens.

    The text of the first `text_tokens` has to be the same, None for all: behind them another order of a sum may show.
    `samples` of the prompts, those with the longest answers, are asked at a temperature, too.
    """

    scenarios: list[Scenario] = Field(min_length=1)
    longest_answer: int = Field(default=256, ge=1)
    text_tokens: int | None = Field(default=None, ge=1)
    samples: int = Field(default=4, ge=0)


@dataclass(frozen=True)
class Phase:
    """Requests that are sent together: the body and the prompt's number of each, and how many at once."""

    name: str
    asked: Sequence[Body]
    prompts: Sequence[int]
    at_once: int = 1


async def ask(spec: EquivalenceSpec) -> Outcome:
    """Every answer in full, and whether the process was told to stop before the last."""
    made = [[_clipped(each, spec) for each in workload.requests(scenario)] for scenario in spec.scenarios]
    records: list[Record] = []
    interrupted = False
    for phase in phases(spec, made):
        if not interrupted:
            sent = await _send(spec, phase)
            records += _labelled(phase, sent, len(records), spec.text_tokens)
            interrupted = sent.interrupted
    digests = [workload.digest_of(*pair) for pair in zip(spec.scenarios, made, strict=True)]
    output = {"format": FORMAT, "spec": spec.model_dump(mode="json"), "workload_digest": digests}
    return {**output, "requests": records, "interrupted": interrupted}, interrupted


def _clipped(request: Request, spec: EquivalenceSpec) -> Request:
    return replace(request, output_len=min(request.output_len, spec.longest_answer))


def phases(spec: EquivalenceSpec, made: Sequence[Sequence[Request]]) -> list[Phase]:
    """What is asked, in order: the batch comes after the single ones, whose caches it could fill otherwise."""
    tokenizers = [scenario_tokenizer(scenario) for scenario in spec.scenarios]
    plain, with_ids = _bodies(spec, made, tokenizers, GREEDY), _bodies(spec, made, tokenizers, GREEDY | TOKEN_IDS)
    every = range(len(plain))
    even = [with_ids[index] if index % 2 else plain[index] for index in every]
    odd = [plain[index] if index % 2 else with_ids[index] for index in every]
    longest = sorted(every, key=lambda index: (-plain[index]["max_tokens"], index))[: spec.samples]
    sampled = [plain[index] | SAMPLED for index in longest]
    return [
        Phase("alone", even, every),
        Phase("again", odd, every),
        Phase("batch", plain, every, len(plain)),
        *([Phase("sampled", sampled, longest)] if sampled else []),
    ]


def _bodies(
    target: Target, made: Sequence[Sequence[Request]], tokenizers: Sequence[Tokenizer | None], extra: Body
) -> list[Body]:
    pairs = zip(made, tokenizers, strict=True)
    return [body for requests, tokenizer in pairs for body in bodies(target, requests, tokenizer, extra)]


async def _send(spec: EquivalenceSpec, phase: Phase) -> Sent:
    slots = slots_of(phase.at_once, len(phase.asked), 1)
    plan = plan_for(spec, on_the_wire(spec, phase.asked), [None] * len(phase.asked), slots)
    try:
        return await send_plan(plan)
    finally:
        plan.close()


def _labelled(phase: Phase, sent: Sent, first: int, text_tokens: int | None) -> list[Record]:
    """Each answer with its phase, its prompt, and how many tokens it must have: None where the server may stop."""
    labels = zip(sent.records, phase.prompts, wanted_tokens(phase.asked), strict=True)
    common = {"phase": phase.name, "text_tokens": text_tokens}
    return [
        {**record, **common, "index": first + record["index"], "prompt": prompt, "wanted": wanted}
        for record, prompt, wanted in labels
    ]


# --- judging -----------------------------------------------------------------------------------------------


def compare(reference: Answer, candidate: Answer) -> dict[str, Any]:
    """`{"equal", "prompts", "differences": [{"index", "phase", "reasons"}], "notes"}` of two outputs.

    `prompts` counts the answers. Reasons are lines that begin with error, fewer_tokens, more_tokens,
    finish_reason, different_text, other_prompt (the candidate counts another number of prompt tokens),
    usage_mismatch (it claims another number of tokens than it streamed) or not_sampled (it answers greedily
    what the reference samples). Notes are no reason to refuse.

    Raises:
        ValueError: the two did not answer the same prompts, or the reference itself failed.
    """
    if reference["workload_digest"] != candidate["workload_digest"]:
        raise ValueError("the two outputs are answers to different prompts; ask both servers the same set")
    broken = [each["index"] for each in reference["requests"] if each["error"] and each["phase"] != "sampled"]
    if broken:
        raise ValueError(f"the reference did not answer prompts {broken}; ask it again before comparing")
    if reference["interrupted"] or candidate["interrupted"]:
        raise ValueError("not every prompt was asked; ask again before comparing")
    unstable, usual = unstable_prompts(reference), [in_phase(output, "alone") for output in (reference, candidate)]
    pairs = zip(reference["requests"], candidate["requests"], strict=True)
    found = []
    for ours, theirs in pairs:
        reasons = differences(ours, theirs, ours["phase"] == "alone" and ours["prompt"] not in unstable)
        if ours["phase"] == "sampled":
            reasons = [] if ours["error"] else reasons + _not_sampled(ours, theirs, *usual)
        found.append({"index": ours["index"], "phase": ours["phase"], "reasons": reasons})
    differing = [each for each in found if each["reasons"]]
    notes = [f"the reference itself answers {len(unstable)} prompts in two ways"] if unstable else []
    notes += _memory(reference, candidate)
    return {"equal": not differing, "prompts": len(found), "differences": differing, "notes": notes}


def in_phase(output: Answer, phase: str) -> dict[int, Answer]:
    """The answers of a phase by the numbers of their prompts."""
    return {each["prompt"]: each for each in output["requests"] if each["phase"] == phase}


def unstable_prompts(output: Answer) -> set[int]:
    """Prompts that a server answers in two ways, one at a time: their text proves nothing."""
    again = in_phase(output, "again")
    return {prompt for prompt, each in in_phase(output, "alone").items() if other_text(each, again[prompt]) is not None}


def _not_sampled(
    ours: Answer, theirs: Answer, usual: Mapping[int, Answer], usual_theirs: Mapping[int, Answer]
) -> list[str]:
    prompt = ours["prompt"]
    greedy = not theirs["error"] and theirs["text"] == usual_theirs[prompt]["text"]
    if not greedy or ours["text"] == usual[prompt]["text"]:
        return []
    return ["not_sampled: the greedy answer at a temperature, which changes the reference's"]


def differences(reference: Answer, candidate: Answer, text: bool) -> list[str]:
    """What differs in two answers to one request, as reasons of `compare`; their text only if it is to be.

    Where the server may stop early, other text may end elsewhere: then lengths count if the text is the same.
    """
    if candidate["error"]:
        return [f"error: {candidate['error']['kind']}: {candidate['error']['detail']}"]
    reasons = []
    same = candidate["text"] == reference["text"]
    if text or same or reference["wanted"] is not None:
        reasons += _other_length(reference, candidate)
    if text and (at := other_text(reference, candidate)) is not None:
        reasons.append(f"different_text: from character {at}")
    return reasons + _other_prompt(reference, candidate) + _usage_mismatch(candidate)


def other_text(reference: Answer, candidate: Answer) -> int | None:
    """The character from which on an answer's text differs as far as it counts; None when it does not.

    With `text_tokens` that is their share of the reference's text, and that half of the whole is there.
    """
    ours, theirs, counting = reference["text"], candidate["text"], reference["text_tokens"]
    if ours == theirs:
        return None
    at, tokens = _first_difference(ours, theirs), _tokens(reference)
    late = counting is not None and counting < tokens and at >= len(ours) * counting / tokens
    return None if late and 2 * len(theirs) >= len(ours) else at


def _other_length(reference: Answer, candidate: Answer) -> list[str]:
    reasons = []
    wanted, got = _tokens(reference), _tokens(candidate)
    if got != wanted:
        reasons.append(f"{'fewer' if got < wanted else 'more'}_tokens: {got} instead of {wanted}")
    if candidate["finish_reason"] != reference["finish_reason"]:
        reasons.append(f"finish_reason: {candidate['finish_reason']} instead of {reference['finish_reason']}")
    return reasons


def _other_prompt(reference: Answer, candidate: Answer) -> list[str]:
    wanted, got = reference["prompt_tokens"], candidate["prompt_tokens"]
    return [] if wanted == got else [f"other_prompt: {got} prompt tokens instead of {wanted}"]


def _tokens(answer: Answer) -> int:
    """The tokens really streamed where they were sent, else those that the server claims."""
    streamed, claimed = answer["streamed_tokens"], answer["output_tokens"]
    return int(claimed if streamed is None else streamed)


def _usage_mismatch(answer: Answer) -> list[str]:
    """Without token ids only too small a claim shows: an event may hold several tokens, never none."""
    claimed, streamed, events = answer["output_tokens"], answer["streamed_tokens"], len(answer["chunk_ns"])
    if streamed is not None and streamed != claimed:
        return [f"usage_mismatch: claims {claimed} tokens, streamed {streamed}"]
    if streamed is None and events > claimed:
        return [f"usage_mismatch: claims {claimed} tokens, streamed at least {events}"]
    return []


def _first_difference(left: str, right: str) -> int:
    pairs = enumerate(zip_longest(left, right))
    return next(index for index, (ours, theirs) in pairs if ours != theirs)


def _memory(reference: Answer, candidate: Answer) -> list[str]:
    """Said when the candidate alone decodes an answer that it gave before several times as fast as a new one."""
    usual, found = _repeat_factor(reference), _repeat_factor(candidate)
    if usual is None or found is None or found < MEMORY * max(usual, 1.0):
        return []
    return [f"a prompt asked again is answered {found:.0f} times as fast; by the reference {usual:.1f} times"]


def _repeat_factor(output: Answer) -> float | None:
    """How many times as fast tokens follow each other when a prompt is asked the second time."""
    spans: dict[str, list[int]] = {"alone": [], "again": []}
    for each in output["requests"]:
        if each["phase"] in spans and not each["error"] and len(each["chunk_ns"]) > 1:
            spans[each["phase"]].append(each["last_token_ns"] - each["first_token_ns"])
    if not all(spans.values()):
        return None
    first, second = (median(each) for each in spans.values())
    return first / max(second, 1)


if __name__ == "__main__":
    sys.exit(run("sotad.benchmark.equivalence", sys.argv[1:], EquivalenceSpec, ask))
