"""The HTTP side: routes, streams, and the bridge between the event loop and the engine's thread."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from .engine import Engine, Token
from .flags import Config
from .metrics import exposition
from .profiling import CaptureRefused
from .protocol import BadRequest, Request, answer, chunk, parse_request, usage_chunk
from .tokenizer import StreamDecoder

T = TypeVar("T")


class EngineDied(RuntimeError):
    """The engine's thread ended while a request was waiting for tokens."""


class Server:
    """Serves one engine; lives on one event loop."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine, self._config = engine, config
        self._streams: dict[str, asyncio.Queue[Token | None]] = {}
        self._quiet = asyncio.Event()  # no stream is open
        self._quiet.set()
        self.failed = asyncio.Event()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=8 << 20)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/start_profile", self._start_profile),
                web.post("/stop_profile", self._stop_profile),
                web.get("/profile_status", self._profile_status),
            ]
        )
        return app

    def start(self) -> None:
        """Start the engine's thread and take its tokens on the running loop."""
        loop = asyncio.get_running_loop()
        self._engine.start(
            lambda tokens: loop.call_soon_threadsafe(self._deliver, tokens),
            lambda: loop.call_soon_threadsafe(self._fail),
        )

    async def drain(self, seconds: float) -> None:
        """Wait for the streams that are open, for at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()

    def _deliver(self, tokens: list[Token]) -> None:
        for token in tokens:
            if stream := self._streams.get(token.sequence_id):
                stream.put_nowait(token)

    def _fail(self) -> None:
        self.failed.set()
        for stream in self._streams.values():
            stream.put_nowait(None)

    async def _tokens(self, request: Request) -> AsyncIterator[Token]:
        """The tokens of a request; a client that leaves takes its sequence off the engine."""
        key = request.sequence.id
        stream = self._streams[key] = asyncio.Queue()
        self._quiet.clear()
        token = None
        try:
            self._engine.submit(request.sequence)
            while token is None or token.finish is None:
                if self._engine.failure is not None or (token := await stream.get()) is None:
                    raise EngineDied(f"the engine stopped: {self._engine.failure!r}")
                yield token
        finally:
            del self._streams[key]
            if not self._streams:
                self._quiet.set()
            if token is None or token.finish is None:
                self._engine.cancel(key)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.failed.is_set() else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=exposition(self._engine), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self._config.model_name,
            "object": "model",
            "created": 0,
            "owned_by": "refengine",
            "max_model_len": self._config.max_model_len,
        }
        return web.json_response({"object": "list", "data": [card]})

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        return await self._generate(http, chat=False)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        return await self._generate(http, chat=True)

    async def _generate(self, http: web.Request, chat: bool) -> web.StreamResponse:
        try:
            request = parse_request(await _json_body(http), chat, self._config)
        except BadRequest as error:
            return web.json_response(error.body(), status=400)
        try:
            return await (self._stream(http, request) if request.stream else self._whole(request))
        except EngineDied as error:
            return web.json_response(_internal_error(error), status=500)

    async def _whole(self, request: Request) -> web.Response:
        tokens = [token async for token in self._tokens(request)]
        last = tokens[-1]
        return web.json_response(answer(request, [t.token for t in tokens], last.finish or "", last.reused))

    async def _stream(self, http: web.Request, request: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(http)
        decoder, count, reused = StreamDecoder(), 0, 0
        try:
            async for token in self._tokens(request):
                text = decoder.feed(token.token, token.finish is not None)
                await response.write(_event(chunk(request, text, token.token, token.finish, first=not count)))
                count, reused = count + 1, token.reused
            if request.include_usage:
                await response.write(_event(usage_chunk(request, count, reused)))
            await response.write(b"data: [DONE]\n\n")
        except EngineDied as error:  # the headers are out: the error must travel in the stream
            await response.write(_event(_internal_error(error)))
        await response.write_eof()
        return response

    async def _start_profile(self, http: web.Request) -> web.Response:
        try:
            stage, steps, name, stack = _capture_options(await _json_body(http))
            await self._on_engine(lambda: self._engine.profiler.start(stage, steps, name, stack))
        except (BadRequest, CaptureRefused) as error:
            return web.json_response(BadRequest(str(error)).body(), status=400)
        return web.json_response(
            {"active": True, "stage": stage, "num_steps": steps, "folder": str(self._config.profile_dir)}
        )

    async def _stop_profile(self, _: web.Request) -> web.Response:
        try:
            return web.json_response(await self._on_engine(self._engine.profiler.stop))
        except CaptureRefused as error:
            return web.json_response(BadRequest(str(error)).body(), status=400)

    async def _profile_status(self, _: web.Request) -> web.Response:
        return web.json_response(await self._on_engine(self._engine.profiler.state))

    async def _on_engine(self, job: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._engine.call(job))


async def _json_body(http: web.Request) -> object:
    """The parsed body, an empty object for none. Raises BadRequest when it is not JSON."""
    raw = await http.read()
    try:
        return json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _internal_error(error: Exception) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": "internal_error", "param": None, "code": 500}}


def _capture_options(body: object) -> tuple[str | None, int | None, str, bool]:
    """Stage, number of steps, file name prefix and whether to record Python stacks."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    stage, steps, name = body.get("stage"), body.get("num_steps"), body.get("name", "refengine")
    if stage not in (None, "prefill", "decode"):
        raise BadRequest(f"stage must be prefill, decode or null, not {stage!r}", "stage")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise BadRequest("num_steps must be a whole number of at least 1", "num_steps")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or name.startswith("."):
        raise BadRequest("name must be 1 to 64 letters, digits, '.', '_' or '-'", "name")
    return stage, steps, name, bool(body.get("with_stack", False))
