"""The measurement of one specification, from its workload to the JSON that is kept."""

from collections.abc import Callable, Sequence
from typing import Any

from sotad.benchmark import workload
from sotad.benchmark.arrivals import arrivals, replayed
from sotad.benchmark.tokens import Tokenizer
from sotad.benchmark.workload import Request
from sotad.loadgen.fidelity import fidelity
from sotad.loadgen.plan import Plan
from sotad.loadgen.record import Record
from sotad.loadgen.requests import bodies, on_the_wire, scenario_tokenizer, wanted_tokens
from sotad.loadgen.run import Sent, not_sent, plan_for, send_plan, slots_of
from sotad.loadgen.spec import LoadSpec

FORMAT = "sotad.loadgen/1"
Watcher = Callable[[Plan], None]


async def measure(spec: LoadSpec, watch: Watcher = lambda plan: None) -> dict[str, Any]:
    """Warm up, send the workload, and report everything that was observed, per request.

    Times are in nanoseconds after the first due request. `watch` is given the plan of the measured requests
    before they are sent, for `sotad.loadgen.plan.progress`.

    Raises:
        SpecError, WorkloadError, TokenizerError: it cannot be sent as asked.
        WorkerDied: a process of the load generator did.
    """
    made = workload.requests(spec.scenario)
    tokenizer = scenario_tokenizer(spec.scenario)
    plan = _plan(spec, made, tokenizer, _due(spec, made))
    try:
        warm = await _warm_up(spec, tokenizer)
        watch(plan)
        sent = not_sent(plan) if warm.interrupted else await send_plan(plan)
    finally:
        plan.close()
    _complete(sent.records, made, tokenizer)
    return {
        "format": FORMAT,
        "spec": spec.model_dump(mode="json"),
        "workload_digest": workload.digest_of(spec.scenario, made),
        "started_at_ns": sent.began_at_ns,
        "begin_ns": sent.begin_ns,
        "duration_s": max((each["ended_ns"] or 0 for each in sent.records), default=0) / 1e9,
        "interrupted": sent.interrupted,
        "warmup": {"requests": len(warm.records), "failed": sum(bool(each["error"]) for each in warm.records)},
        "client": fidelity(sent.records, sent.efforts, paced=spec.arrives != "closed"),
        "requests": sent.records,
    }


def _plan(spec: LoadSpec, made: Sequence[Request], tokenizer: Tokenizer | None, due_s: list[float]) -> Plan:
    asked = bodies(spec, made, tokenizer)
    slots = slots_of(spec.max_concurrency, len(made), spec.processes)
    counter = str(spec.scenario.tokenizer) if spec.scenario.tokenizer else None
    return plan_for(spec, on_the_wire(spec, asked), wanted_tokens(asked), slots, due_s, counter)


def _due(spec: LoadSpec, made: Sequence[Request]) -> list[float]:
    if spec.arrives == "trace":
        return replayed([each.at_s or 0.0 for each in made], spec.time_scale)
    return arrivals(len(made), spec.request_rate, spec.scenario.seed, spec.arrives, spec.burstiness)


async def _warm_up(spec: LoadSpec, tokenizer: Tokenizer | None) -> Sent:
    """Requests of the same shape that are not measured, sent by this process as fast as the slots allow."""
    if not spec.warmup_requests:
        return Sent(0, 0, [])
    rehearsal = spec.scenario.model_copy(update={"num_prompts": spec.warmup_requests})
    asked = bodies(spec, workload.requests(rehearsal, "warmup"), tokenizer)
    slots = slots_of(spec.max_concurrency, len(asked), 1)
    plan = plan_for(spec, on_the_wire(spec, asked), [None] * len(asked), slots)
    try:
        return await send_plan(plan)
    finally:
        plan.close()


def _complete(records: Sequence[Record], made: Sequence[Request], tokenizer: Tokenizer | None) -> None:
    """What only the workload knows: a row's metadata, and prompt tokens where the server counted none."""
    for record, request in zip(records, made, strict=True):
        if request.metadata:
            record["metadata"] = dict(request.metadata)
        if record["tokens_source"] == "tokenizer":
            record["prompt_tokens"] = _prompt_tokens(request, tokenizer)


def _prompt_tokens(request: Request, tokenizer: Tokenizer | None) -> int | None:
    """The prompt's length; None for chat messages, whose template only the server knows."""
    if isinstance(request.prompt, str):
        return len(tokenizer.ids(request.prompt)) if tokenizer else None
    return len(request.prompt) if isinstance(request.prompt[0], int) else None
