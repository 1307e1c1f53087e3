"""What the load generator is told: the frozen scenario of the spec, with one run's seed and rate."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path

from ledger.artifacts import Artifacts
from sotad.activities.context import Context
from statemachine.state import JSON, Campaign

Files = Mapping[str, str]

CLIENTS = ("curl/8.5.0", "python-requests/2.32.3", "python-httpx/0.27.2", "OpenAI/Python", "node-fetch")
"""Names that held-out requests go by, one a variant: what is there for the load generator's own is not there then."""
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
KEPT = ("name", "num_prompts", "input_len", "output_len", "shared_prefix_len")


def shape_of(spec: JSON, name: str) -> JSON:
    """The scenario of a name."""
    found: JSON = next(shape for shape in spec["workload"]["scenarios"] if shape["name"] == name)
    return found


def model_files(spec: JSON) -> dict[str, str]:
    """Where the small files of the model would be on the host that serves it; none of a model that is not a folder."""
    folders = {CONFIG: spec["model"]["id"], TOKENIZER: spec["model"].get("tokenizer") or spec["model"]["id"]}
    return {name: f"{folder}/{name}" for name, folder in folders.items() if Path(folder).is_absolute()}


def files_here(c: Campaign, artifacts: Artifacts) -> Files:
    """Where the daemon's machine has the files that requests and limits are made of: ``dataset`` and the model's.

    Those of a model on another host are the copies that were taken of them before anything was measured.
    """
    if "model_files" not in c.host:
        return _local_files(c.spec)
    copies = {name: str(artifacts.path(kept["sha256"])) for name, kept in c.host["model_files"].items()}
    return {**_dataset(c.spec), **copies}


async def files_there(ctx: Context) -> Files:
    """Where the host of the servers has them; the dataset is sent there when it is not there yet."""
    if ctx.host.here:
        return files_here(ctx.c, ctx.artifacts)
    own = {name: kept["path"] for name, kept in ctx.c.host["model_files"].items()}
    for key, path in _dataset(ctx.spec).items():
        own[key] = await ctx.host.place(Path(path).name.lstrip("."), await asyncio.to_thread(Path(path).read_bytes))
    return own


def _local_files(spec: JSON) -> Files:
    return {**_dataset(spec), **{name: path for name, path in model_files(spec).items() if Path(path).is_file()}}


def _dataset(spec: JSON) -> dict[str, str]:
    dataset = spec["workload"].get("dataset")
    return {"dataset": dataset} if dataset else {}


def scenario_of(spec: JSON, shape: JSON, seed: int, files: Files | None = None) -> JSON:
    """The scenario's requests, as ``sotad.benchmark.workload`` makes them of ``files`` (default: of this machine)."""
    workload, files = spec["workload"], _local_files(spec) if files is None else files
    found: JSON = {key: shape[key] for key in KEPT} | {"kind": workload["kind"], "seed": seed}
    if workload.get("token_range"):
        found["first_token"], found["last_token"] = workload["token_range"]
    places = {"dataset": files.get("dataset"), "tokenizer": files.get(TOKENIZER)}
    return found | {key: place for key, place in places.items() if place}


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
    files: Files | None = None,
) -> JSON:
    """One run of ``files``; at ``rate`` requests per second instead of the scenario's own pace when it is given.

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
        "scenario": scenario_of(spec, shape, seed, files),
        "warmup_requests": workload["warmup_requests"],
        "timeout_s": workload["request_timeout_s"],
        **client,
        **pace,
    }
