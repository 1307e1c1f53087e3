"""What the load generator is told: the frozen scenario of the spec, with one run's seed and rate."""

from __future__ import annotations

import math
from pathlib import Path

from statemachine.state import JSON

CLIENTS = ("curl/8.5.0", "python-requests/2.32.3", "python-httpx/0.27.2", "OpenAI/Python", "node-fetch")
"""Names that held-out requests go by, one a variant: what is there for the load generator's own is not there then."""
KEPT = ("name", "num_prompts", "input_len", "output_len", "shared_prefix_len")


def shape_of(spec: JSON, name: str) -> JSON:
    """The scenario of a name."""
    found: JSON = next(shape for shape in spec["workload"]["scenarios"] if shape["name"] == name)
    return found


def scenario_of(spec: JSON, shape: JSON, seed: int) -> JSON:
    """The scenario's requests, as ``sotad.benchmark.workload`` makes them."""
    workload = spec["workload"]
    found: JSON = {key: shape[key] for key in KEPT} | {"kind": workload["kind"], "seed": seed}
    if workload.get("dataset"):
        found["dataset"] = workload["dataset"]
    if workload.get("token_range"):
        found["first_token"], found["last_token"] = workload["token_range"]
    tokenizer = Path(spec["model"].get("tokenizer") or spec["model"]["id"]) / "tokenizer.json"
    if tokenizer.is_absolute() and tokenizer.exists():
        found["tokenizer"] = str(tokenizer)
    return found


def prompts_at(spec: JSON, shape: JSON, rate: float) -> int:
    """How many requests a rate search sends at a rate: the scenario's, and enough to hold it for long enough."""
    return max(int(shape["num_prompts"]), math.ceil(rate * float(spec["search"]["qps"]["min_duration_s"])))


def varied(shape: JSON, variant: JSON) -> JSON:
    """The scenario at the lengths of a held-out variant; a shared prefix keeps its part of the prompt."""
    changed = {key: variant[key] for key in ("input_len", "output_len") if variant[key] is not None}
    if shape["input_len"] and variant["input_len"]:
        changed["shared_prefix_len"] = shape["shared_prefix_len"] * variant["input_len"] // shape["input_len"]
    return {**shape, **changed}


def load_spec(
    spec: JSON,
    base_url: str,
    model: str,
    scenario: str,
    seed: int,
    rate: float | None = None,
    variant: JSON | None = None,
) -> JSON:
    """One run; at ``rate`` requests per second instead of the scenario's own pace when it is given.

    With a held-out ``variant`` it has that one's lengths, and prompts that nobody can know who does not know its seed.
    """
    workload, shape = spec["workload"], {**shape_of(spec, scenario)}
    client: JSON = {}
    if variant is not None:
        client = {"user_agent": CLIENTS[variant["seed"] % len(CLIENTS)]}
        shape, seed = varied(shape, variant), variant["seed"] + seed
    pace: JSON = {key: shape.get(key) for key in ("request_rate", "arrival", "max_concurrency")}
    pace |= {key: shape[key] for key in ("burstiness", "time_scale") if key in shape}
    if rate is not None:
        shape["num_prompts"] = prompts_at(spec, shape, rate)
        pace = {"request_rate": rate, "arrival": "poisson", "max_concurrency": None}
    return {
        "base_url": base_url,
        "endpoint": workload["endpoint"],
        "model": model,
        "extra_body": workload.get("extra_request_body") or {},
        "scenario": scenario_of(spec, shape, seed),
        "warmup_requests": workload["warmup_requests"],
        "timeout_s": workload["request_timeout_s"],
        **client,
        **pace,
    }
