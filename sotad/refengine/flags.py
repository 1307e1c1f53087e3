"""Command line of the engine: every flag is validated before torch is imported."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from . import __version__
from .tokenizer import FIRST_PIECE, LARGEST_VOCAB

POLICIES = ("prefill-first", "decode-first", "shortest-first")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What one engine process runs with; sizes in tokens unless said otherwise."""

    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str = "reference-tiny"
    seed: int = 0
    layers: int = 6
    hidden: int = 320
    heads: int = 5
    vocab_size: int = 32768
    max_model_len: int = 512
    max_batch_size: int = 8
    prefill_chunk: int = 256
    schedule_policy: str = "prefill-first"
    kv_tokens: int = 3072
    block_size: int = 16
    prefix_cache: bool = True
    threads: int = 1
    profile_dir: Path | None = None


def build_parser() -> argparse.ArgumentParser:
    """The parser behind `--help`, in the groups operators know from larger engines."""
    parser = argparse.ArgumentParser(
        prog="python -m refengine",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Serve a tiny decoder on the CPU behind an OpenAI-compatible API.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"refengine {__version__}")
    default = Config()
    server = parser.add_argument_group("server")
    server.add_argument("--host", default=default.host, help="address to listen on")
    server.add_argument("--port", type=int, default=default.port, help="TCP port to listen on")
    server.add_argument("--model-name", default=default.model_name, help="model id that clients ask for")
    server.add_argument("--profile-dir", type=Path, help="folder for traces; enables /start_profile")
    model = parser.add_argument_group("model")
    model.add_argument("--seed", type=_seed, default=default.seed, help="seed of the random weights")
    model.add_argument("--layers", type=_count, default=default.layers, help="decoder layers")
    model.add_argument("--hidden", type=_count, default=default.hidden, help="width of the residual stream")
    model.add_argument("--heads", type=_count, default=default.heads, help="attention heads")
    model.add_argument("--vocab-size", type=_count, default=default.vocab_size, help="rows of the output head")
    model.add_argument(
        "--max-model-len",
        type=_count,
        default=default.max_model_len,
        help="longest prompt plus output of one request, in tokens",
    )
    scheduler = parser.add_argument_group("scheduler")
    scheduler.add_argument(
        "--max-batch-size",
        type=_count,
        default=default.max_batch_size,
        help="sequences that run at the same time",
    )
    scheduler.add_argument(
        "--prefill-chunk",
        type=_count,
        default=default.prefill_chunk,
        help="prompt tokens processed in one prefill step",
    )
    scheduler.add_argument(
        "--schedule-policy",
        choices=POLICIES,
        default=default.schedule_policy,
        help="prefill-first: prompts before decoding, in order of arrival; "
        "decode-first: a decode step after every prefill step; "
        "shortest-first: prefill-first, short prompts first",
    )
    cache = parser.add_argument_group("KV cache")
    cache.add_argument(
        "--kv-tokens",
        type=_count,
        default=default.kv_tokens,
        help="capacity of the KV cache, in tokens over all sequences",
    )
    cache.add_argument(
        "--block-size", type=_count, default=default.block_size, help="tokens per block of the prefix cache"
    )
    cache.add_argument(
        "--prefix-cache",
        action=argparse.BooleanOptionalAction,
        default=default.prefix_cache,
        help="reuse the KV of prompt prefixes seen before",
    )
    runtime = parser.add_argument_group("runtime")
    runtime.add_argument("--threads", type=_count, default=default.threads, help="torch intra-op threads")
    return parser


def parse(argv: Sequence[str] | None = None) -> Config:
    """The configuration for `argv`; a bad command line prints one error and exits 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    config = Config(**{field.name: getattr(args, field.name) for field in fields(Config)})
    if config.hidden % config.heads:
        parser.error(f"--hidden {config.hidden} is not a multiple of --heads {config.heads}")
    if not FIRST_PIECE <= config.vocab_size <= LARGEST_VOCAB:
        parser.error(f"--vocab-size must be {FIRST_PIECE} to {LARGEST_VOCAB}, not {config.vocab_size}")
    if not 0 < config.port < 65536:
        parser.error(f"--port must be 1 to 65535, not {config.port}")
    return config


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be 0 to 2**63 - 1, not {value}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value
