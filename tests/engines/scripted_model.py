"""A model endpoint on the loopback address whose turns are written beforehand: no model, but real protocols.

Server-sent events of one turn a request, with a usage that the caller has to add up: ``POST /v1/responses`` as
https://platform.openai.com/docs/api-reference/responses-streaming, and ``POST /v1/messages`` as
https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from aiohttp import web

JSON = dict[str, Any]
INPUT, CACHED, OUTPUT = 1000, 100, 10  # tokens that every turn reports; cached ones are among the input


class Turn(NamedTuple):
    """What the model does next: run a shell command, say something, or give its answer by the schema."""

    kind: Literal["runs", "says", "answers"]
    value: Any


@dataclass
class ScriptedModel:
    """``turns`` are taken in order, whoever asks; ``asked`` keeps what was sent, ``keys`` how it was signed."""

    turns: list[Turn] = field(default_factory=list)
    asked: list[JSON] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    url: str = ""

    def will(self, *turns: Turn) -> None:
        """What the next requests are answered with."""
        self.turns += turns

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """A turn for OpenAI's protocol."""
        return await self._respond(request, request.headers.get("Authorization", ""), _of_responses)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """A turn for Anthropic's protocol."""
        return await self._respond(request, request.headers.get("X-Api-Key", ""), _of_messages)

    async def _respond(
        self, request: web.Request, key: str, events: Callable[[int, Turn], Sequence[JSON]]
    ) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.keys.add(key)
        if not self.turns:
            error = {"type": "invalid_request_error", "message": "no turn is left in the script"}
            return web.json_response({"type": "error", "error": error}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events(len(self.asked), self.turns.pop(0)):
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return response


def _of_responses(number: int, turn: Turn) -> Sequence[JSON]:
    response = {"id": f"resp-{number}"}
    usage = {
        "input_tokens": INPUT,
        "input_tokens_details": {"cached_tokens": CACHED},
        "output_tokens": OUTPUT,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT + OUTPUT,
    }
    if turn.kind == "runs":
        arguments = json.dumps({"cmd": turn.value})
        item = {"type": "function_call", "name": "exec_command", "call_id": f"call-{number}", "arguments": arguments}
    else:
        text = turn.value if turn.kind == "says" else json.dumps(turn.value)
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return (
        {"type": "response.created", "response": response},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {**response, "usage": usage}},
    )


def _of_messages(number: int, turn: Turn) -> Sequence[JSON]:
    fresh = {"input_tokens": INPUT - CACHED, "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0}
    message = {"id": f"msg-{number}", "type": "message", "role": "assistant", "model": "scripted", "content": []}
    tool = {"runs": "Bash", "answers": "StructuredOutput"}.get(turn.kind)
    block: JSON = {"type": "text", "text": ""}
    delta: JSON = {"type": "text_delta", "text": turn.value}
    if tool:
        given = {"command": turn.value, "description": "as scripted"} if turn.kind == "runs" else turn.value
        block = {"type": "tool_use", "id": f"call-{number}", "name": tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(given)}
    end = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    return (
        {"type": "message_start", "message": {**message, "usage": {**fresh, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": OUTPUT}},
        {"type": "message_stop"},
    )


async def _nothing(request: web.Request) -> web.Response:
    return web.json_response({})


@asynccontextmanager
async def serving() -> AsyncIterator[ScriptedModel]:
    """The endpoint on a free port; ``url`` is without a path."""
    model = ScriptedModel()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/responses", model.responses)
    app.router.add_post("/v1/messages", model.messages)
    app.router.add_route("*", "/{path:.*}", _nothing)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    model.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield model
    finally:
        await runner.cleanup()
