"""From a workload's requests to the bytes that are sent. Pure but for the key in the environment."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from sotad.benchmark.tokens import Tokenizer, load_tokenizer, text_of_length
from sotad.benchmark.workload import Prompt, Request, Scenario, WorkloadError
from sotad.loadgen.http import request, request_head
from sotad.loadgen.spec import Target

Body = dict[str, Any]


def scenario_tokenizer(scenario: Scenario) -> Tokenizer | None:
    """The scenario's tokenizer, if it names one.

    Raises:
        TokenizerError: it cannot be read.
    """
    return load_tokenizer(scenario.tokenizer) if scenario.tokenizer else None


def bodies(
    target: Target, made: Sequence[Request], tokenizer: Tokenizer | None, extra: Mapping[str, Any] = {}
) -> list[Body]:
    """Each request: greedy, of exact length, streamed, with the server's own count at the end.

    What the target, the row and the caller add (`extra`) overrides this, the later of them the earlier.

    Raises:
        WorkloadError: a prompt cannot be sent to this endpoint.
    """
    return [_body(target, each, tokenizer) | dict(extra) for each in made]


def _body(target: Target, made: Request, tokenizer: Tokenizer | None) -> Body:
    prompt = _for_chat(made.prompt, tokenizer) if target.is_chat else _for_completion(made.prompt)
    return {
        "model": target.model,
        **({"messages": prompt} if target.is_chat else {"prompt": prompt}),
        "max_tokens": made.output_len,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **target.extra_body,
        **made.extra_body,
    }


def _for_chat(prompt: Prompt, tokenizer: Tokenizer | None) -> Prompt:
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        if tokenizer is None:
            raise WorkloadError("chat takes text, and only a tokenizer makes text of exact length; name tokenizer")
        prompt = text_of_length(tokenizer, prompt)
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _for_completion(prompt: Prompt) -> Prompt:
    if isinstance(prompt, list) and isinstance(prompt[0], dict):
        raise WorkloadError("chat messages cannot be sent to a completions endpoint; use /v1/chat/completions")
    return prompt


def on_the_wire(target: Target, made: Sequence[Body]) -> list[bytes]:
    """The requests as HTTP.

    Raises:
        SpecError: the API key is not in the environment.
    """
    parts = urlsplit(target.base_url)
    head = request_head(parts.netloc.rpartition("@")[2], parts.path.rstrip("/") + target.endpoint, target.headers())
    return [request(head, orjson.dumps(body)) for body in made]


def wanted_tokens(made: Sequence[Body]) -> list[int | None]:
    """How many tokens make each reply complete; None where the server may stop earlier."""
    return [body["max_tokens"] if body.get("ignore_eos") is True and "max_tokens" in body else None for body in made]
