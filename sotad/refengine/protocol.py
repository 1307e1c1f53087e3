"""The OpenAI wire format: request bodies in, sequences out; tokens in, response bodies out. No I/O."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import tokenizer
from .flags import Config
from .scheduler import Sequence

NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([], ""),
    "suffix": ("",),
    "top_p": (1, 1.0),
    "top_k": (-1, 0),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1, 1.0),
    "tools": ([],),
}  # fields that are accepted only where they change nothing


class BadRequest(ValueError):
    """The client's fault: `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def body(self) -> dict[str, Any]:
        """The OpenAI error object."""
        return {"error": {"message": str(self), "type": "invalid_request_error", "param": self.param, "code": 400}}


@dataclass(frozen=True)
class Request:
    """A validated request and how its answer is to be shaped."""

    sequence: Sequence
    chat: bool
    stream: bool
    include_usage: bool
    token_ids: bool
    created: int
    model: str


def parse_request(body: object, chat: bool, config: Config) -> Request:
    """Validate a /v1/completions or /v1/chat/completions body.

    Raises:
        BadRequest: naming the first field that is wrong or asks for something this engine does not do.
    """
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    _check_supported(body, config)
    prompt = _chat_prompt(body.get("messages")) if chat else _prompt(body.get("prompt"), config.vocab_size)
    temperature = body.get("temperature")
    if temperature is not None and (not _is_number(temperature) or not 0 <= temperature <= 100):
        raise BadRequest("temperature must be a number from 0 to 100", "temperature")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options must be an object", "stream_options")
    sequence = Sequence(
        id=f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        prompt=prompt,
        max_tokens=_max_tokens(body, chat, len(prompt), config.max_model_len),
        eos=None if _flag(body, "ignore_eos") else tokenizer.EOS,
        temperature=1.0 if temperature is None else float(temperature),
        seed=_seed(body),
    )
    return Request(
        sequence,
        chat,
        _flag(body, "stream"),
        _flag(options, "include_usage"),
        _flag(body, "return_token_ids"),
        int(time.time()),
        config.model_name,
    )


def usage(prompt: int, completion: int, reused: int) -> dict[str, Any]:
    """The usage object; `reused` prompt tokens came from the prefix cache."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": reused},
    }


def answer(request: Request, tokens: list[int], finish: str, reused: int) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    text = tokenizer.decode(tokens)
    content = {"message": {"role": "assistant", "content": text}} if request.chat else {"text": text}
    return _envelope(request, "", [_choice(request, content, tokens, finish)]) | {
        "usage": usage(len(request.sequence.prompt), len(tokens), reused)
    }


def chunk(request: Request, text: str, token: int, finish: str | None, first: bool) -> dict[str, Any]:
    """The body of one streamed token."""
    role = {"role": "assistant"} if first else {}
    content = {"delta": role | {"content": text}} if request.chat else {"text": text}
    return _envelope(request, ".chunk", [_choice(request, content, [token], finish)])


def usage_chunk(request: Request, completion: int, reused: int) -> dict[str, Any]:
    """The chunk that ends a stream when usage was asked for."""
    return _envelope(request, ".chunk", []) | {"usage": usage(len(request.sequence.prompt), completion, reused)}


def _envelope(request: Request, suffix: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    kind = f"chat.completion{suffix}" if request.chat else "text_completion"
    return {
        "id": request.sequence.id,
        "object": kind,
        "created": request.created,
        "model": request.model,
        "choices": choices,
    }


def _choice(request: Request, content: dict[str, Any], tokens: list[int], finish: str | None) -> dict[str, Any]:
    ids = {"token_ids": tokens} if request.token_ids else {}
    return {"index": 0} | content | {"logprobs": None, "finish_reason": finish} | ids


def _check_supported(body: Mapping[str, Any], config: Config) -> None:
    model = body.get("model", config.model_name)
    if model != config.model_name:
        raise BadRequest(f"the model {model!r} does not exist; this server has {config.model_name!r}", "model")
    for name, neutral in NEUTRAL.items():
        if body.get(name) is not None and body[name] not in neutral:
            raise BadRequest(f"{name}={body[name]!r} is not supported; leave it out", name)


def _prompt(prompt: object, vocab: int) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt) or [tokenizer.BOS]
    if not isinstance(prompt, list) or not prompt or not all(type(token) is int for token in prompt):
        raise BadRequest("prompt must be a string or a list of token ids that is not empty", "prompt")
    if not all(0 <= token < vocab for token in prompt):
        raise BadRequest(f"prompt has token ids outside 0 to {vocab - 1}", "prompt")
    return prompt


def _chat_prompt(messages: object) -> list[int]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list that is not empty", "messages")
    prompt = [tokenizer.BOS]
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise BadRequest("each message needs a role and a content, both strings", "messages")
        prompt += tokenizer.encode(f"<{message['role']}>{message['content']}\n")
    return prompt + tokenizer.encode("<assistant>")


def _max_tokens(body: Mapping[str, Any], chat: bool, prompt: int, max_model_len: int) -> int:
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    value = body.get(name)
    if value is None:
        value = max(1, max_model_len - prompt) if chat else 16
    if type(value) is not int or value < 1:
        raise BadRequest(f"{name} must be a whole number of at least 1", name)
    if prompt + value > max_model_len:
        raise BadRequest(
            f"the prompt has {prompt} tokens and {value} more were asked for; "
            f"this model's context is {max_model_len} tokens",
            name,
        )
    return value


def _seed(body: Mapping[str, Any]) -> int | None:
    seed = body.get("seed")
    if seed is not None and (type(seed) is not int or not -(2**63) <= seed < 2**63):
        raise BadRequest("seed must be a whole number of 64 bits", "seed")
    return seed


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false", name)
    return bool(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
