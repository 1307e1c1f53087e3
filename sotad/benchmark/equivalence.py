"""Whether two servers answer the same prompts alike.

`python -m sotad.benchmark.equivalence SPEC.json OUT.json` asks one server, greedily, in a process of its
own, and keeps every answer in full; `compare` judges two such outputs. Exit codes as for `sotad.loadgen`.
"""

import sys
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from pydantic import Field

from sotad.benchmark import workload
from sotad.benchmark.workload import Scenario
from sotad.loadgen.program import Outcome, run
from sotad.loadgen.requests import bodies, on_the_wire, scenario_tokenizer
from sotad.loadgen.run import plan_for, send_plan, slots_of
from sotad.loadgen.spec import Target

FORMAT = "sotad.equivalence/1"


class EquivalenceSpec(Target):
    """Which prompts to ask; one at a time unless told otherwise, so that batching cannot change a sum.

    With `token_ids` the server is asked for the ids of the tokens that it streams, and its usage is held
    against their number.
    """

    scenario: Scenario
    max_concurrency: int = Field(default=1, ge=1)
    token_ids: bool = True


async def ask(spec: EquivalenceSpec) -> Outcome:
    """Every answer in full, and whether the process was told to stop before the last."""
    extra = {"return_token_ids": True} if spec.token_ids else {}
    made = workload.requests(spec.scenario)
    asked = bodies(spec, made, scenario_tokenizer(spec.scenario), extra)
    plan = plan_for(spec, on_the_wire(spec, asked), [None] * len(asked), slots_of(spec.max_concurrency, len(asked), 1))
    try:
        sent = await send_plan(plan)
    finally:
        plan.close()
    digest = workload.digest_of(spec.scenario, made)
    output = {"format": FORMAT, "spec": spec.model_dump(mode="json"), "workload_digest": digest}
    return {**output, "requests": sent.records, "interrupted": sent.interrupted}, sent.interrupted


def compare(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
    """`{"equal", "prompts", "differences": [{"index", "reasons"}]}` of two outputs; empty means alike.

    Reasons are lines that begin with error, fewer_tokens, more_tokens, finish_reason, different_text or
    usage_mismatch (the candidate claims another number of tokens than it streamed).

    Raises:
        ValueError: the two did not answer the same prompts, or the reference itself failed.
    """
    if reference["workload_digest"] != candidate["workload_digest"]:
        raise ValueError("the two outputs are answers to different prompts; ask both servers the same set")
    broken = [each["index"] for each in reference["requests"] if each["error"]]
    if broken or reference["interrupted"]:
        raise ValueError(f"the reference did not answer prompts {broken}; ask it again before comparing")
    pairs = zip(reference["requests"], candidate["requests"], strict=True)
    found = [{"index": ours["index"], "reasons": _differences(ours, theirs)} for ours, theirs in pairs]
    differences = [each for each in found if each["reasons"]]
    return {"equal": not differences, "prompts": len(found), "differences": differences}


def _differences(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    if candidate["error"]:
        return [f"error: {candidate['error']['kind']}: {candidate['error']['detail']}"]
    reasons = []
    wanted, got = _tokens(reference), _tokens(candidate)
    if got != wanted:
        reasons.append(f"{'fewer' if got < wanted else 'more'}_tokens: {got} instead of {wanted}")
    if candidate["finish_reason"] != reference["finish_reason"]:
        reasons.append(f"finish_reason: {candidate['finish_reason']} instead of {reference['finish_reason']}")
    if candidate["text"] != reference["text"]:
        at = _first_difference(reference["text"], candidate["text"])
        reasons.append(f"different_text: from character {at}")
    return reasons + _usage_mismatch(candidate)


def _tokens(answer: Mapping[str, Any]) -> int:
    """The tokens really streamed where they were sent, else those that the server claims."""
    streamed, claimed = answer["streamed_tokens"], answer["output_tokens"]
    return int(claimed if streamed is None else streamed)


def _usage_mismatch(answer: Mapping[str, Any]) -> list[str]:
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


if __name__ == "__main__":
    sys.exit(run("sotad.benchmark.equivalence", sys.argv[1:], EquivalenceSpec, ask))
