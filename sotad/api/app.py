"""The application: routes onto a :class:`~sotad.api.service.Service`, and errors as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from sotad.api import pages
from sotad.api.access import operator
from sotad.api.query import whole
from sotad.api.service import Service
from sotad.api.streams import Streams, wants_stream
from sotad.errors import BadConfig, BadInput, Bug, Forbidden, HostFault, IllegalNow, NotFound, SotadError, of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 1 << 20
"""Bytes of a request's body."""

MAX_EVENTS = 5000
"""Events in one answer; ask again after the last one."""

LOG = logging.getLogger("sotad.api")

_HTTP: tuple[tuple[type[SotadError], int], ...] = (
    (BadConfig, 422),
    (NotFound, 404),
    (IllegalNow, 409),
    (Forbidden, 403),
    (BadInput, 400),
    (HostFault, 503),
)


def make_app(service: Service, token: str | None = None) -> web.Application:
    """The application for a daemon; ``token`` is what TCP callers must bear, None lets none in."""
    api = Api(service, token)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_faults, _identified(token)])
    streams = Streams(service)
    app.on_shutdown.append(streams.close)

    async def events(request: web.Request) -> web.StreamResponse:
        return await (streams.follow(request) if wants_stream(request) else api.events(request))

    app.add_routes(
        [
            web.get("/", api.dashboard),
            web.get("/healthz", api.healthz),
            web.get("/metrics", api.metrics),
            web.get("/v1/status", api.status),
            web.post("/v1/campaigns", api.submit),
            web.get("/v1/campaigns/{id}", api.campaign),
            web.post("/v1/campaigns/{id}/pause", api.pause),
            web.post("/v1/campaigns/{id}/resume", api.resume),
            web.post("/v1/campaigns/{id}/cancel", api.cancel),
            web.post("/v1/campaigns/{id}/approve", api.approve),
            web.post("/v1/campaigns/{id}/answer", api.answer),
            web.post("/v1/campaigns/{id}/amend", api.amend),
            web.post("/v1/humanize", api.humanize),
            web.get("/v1/events", events),
            web.get("/v1/events/{seq}/why", api.why),
            web.post("/v1/shutdown", api.shutdown),
        ]
    )
    return app


class Api:
    """The handlers. What takes longer than a look at the folded state goes to a thread."""

    def __init__(self, service: Service, token: str | None) -> None:
        self._service = service
        self._token = token

    async def status(self, request: web.Request) -> web.Response:
        """GET /v1/status."""
        return answer(self._service.status())

    async def campaign(self, request: web.Request) -> web.Response:
        """GET /v1/campaigns/{id}: the whole folded state."""
        return answer(self._service.world.campaigns[self._known(request)])

    async def submit(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns ``{text, source}``."""
        body = await _body(request)
        text = _field(body, "text", str, None)
        source = _field(body, "source", str, "")
        return answer({"campaign": await self._service.submit(text, source, operator(request, self._token))}, 201)

    async def pause(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{id}/pause ``{reason}``."""
        campaign = self._known(request)
        reason = _field(await _body(request), "reason", str, "asked by the operator")
        await self._service.pause(campaign, reason, operator(request, self._token))
        return answer({"campaign": campaign})

    async def resume(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{id}/resume."""
        campaign = self._known(request)
        await self._service.resume(campaign, operator(request, self._token))
        return answer({"campaign": campaign})

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{id}/cancel ``{confirmed}``."""
        campaign = self._known(request)
        confirmed = _field(await _body(request), "confirmed", bool, False)
        await self._service.cancel(campaign, confirmed, operator(request, self._token))
        return answer({"campaign": campaign})

    async def approve(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{id}/approve ``{subject, approved, reason}``."""
        campaign, body = self._known(request), await _body(request)
        subject, approved = _field(body, "subject", str, None), _field(body, "approved", bool, True)
        reason, who = _field(body, "reason", str, ""), operator(request, self._token)
        return answer(await self._service.approve(campaign, subject, approved, reason, who))

    async def answer(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{id}/answer ``{subject, text}``."""
        campaign, body = self._known(request), await _body(request)
        subject, text = _field(body, "subject", str, None), _field(body, "text", str, None)
        return answer(await self._service.answer(campaign, subject, text, operator(request, self._token)))

    async def amend(self, request: web.Request) -> web.Response:
        """POST /v1/campaigns/{id}/amend ``{plan, reason}``."""
        campaign, body = self._known(request), await _body(request)
        plan, reason = _field(body, "plan", dict, None), _field(body, "reason", str, None)
        return answer(await self._service.amend(campaign, plan, reason, operator(request, self._token)), 201)

    async def humanize(self, request: web.Request) -> web.Response:
        """POST /v1/humanize ``{loop, file, kind, fields, text}``."""
        body = await _body(request)
        report = {name: _field(body, name, str, None) for name in ("loop", "file", "kind", "text")}
        report["fields"] = _field(body, "fields", dict, {})
        return answer(await self._service.humanize(report, operator(request, self._token)), 201)

    async def events(self, request: web.Request) -> web.Response:
        """GET /v1/events?after=&campaign=&limit=: ``{events, head}``."""
        after = whole(request.query.get("after", "0"), "after")
        limit = min(whole(request.query.get("limit", "1000"), "limit"), MAX_EVENTS)
        campaign = request.query.get("campaign")
        found = await asyncio.to_thread(self._service.events, after, campaign, limit)
        return answer({"events": [event._asdict() for event in found], "head": self._service.world.seq})

    async def why(self, request: web.Request) -> web.Response:
        """GET /v1/events/{seq}/why."""
        seq = whole(request.match_info["seq"], "seq")
        return answer(await asyncio.to_thread(self._service.why, seq))

    async def shutdown(self, request: web.Request) -> web.Response:
        """POST /v1/shutdown."""
        await self._service.shutdown()
        return answer({"stopping": True}, 202)

    async def healthz(self, request: web.Request) -> web.Response:
        """GET /healthz: 200 when the daemon is ready, else 503."""
        daemon = self._service.status()["daemon"]
        ready = bool(daemon["ready"])
        return answer({"ready": ready, "pid": daemon["pid"]}, 200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        text = await asyncio.to_thread(pages.metrics, self._service.status())
        return web.Response(body=text, headers={"Content-Type": pages.METRICS_TYPE})

    async def dashboard(self, request: web.Request) -> web.Response:
        """GET /."""
        text = await asyncio.to_thread(pages.dashboard, self._service.status())
        return web.Response(text=text, content_type="text/html", headers=pages.SAFE_HEADERS)

    def _known(self, request: web.Request) -> str:
        campaign = request.match_info["id"]
        if campaign not in self._service.world.campaigns:
            raise NotFound(f"there is no campaign {campaign!r}")
        return campaign


def answer(value: Any, status: int = 200) -> web.Response:
    """JSON; the folded state's records are encoded as they are."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


async def _body(request: web.Request) -> dict[str, Any]:
    """The body's JSON object; an empty body is an empty one."""
    data = await request.read()
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}", "send a JSON object") from None
    if not isinstance(value, dict):
        raise BadInput(f"the body is a JSON {type(value).__name__}", "send a JSON object")
    return value


def _field(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name, default)
    if not isinstance(value, kind):
        raise BadInput(f"the body's {name!r} must be of type {kind.__name__}", f"send {name}")
    return value


def _identified(token: str | None) -> Any:
    @web.middleware
    async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/healthz":
            operator(request, token)
        return await handler(request)

    return identified


@web.middleware
async def _faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes JSON; what nobody expected is logged in full and told in one line."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return _refused(refusal)
    except Exception as error:  # the top level of every request
        fault = of(error)
        if isinstance(fault, Bug):
            LOG.exception("%s %s failed", request.method, request.path)
        status = next((code for kind, code in _HTTP if isinstance(fault, kind)), 500)
        return answer(fault.as_json(), status)


def _refused(refusal: web.HTTPException) -> web.Response:
    advice = {
        404: "see docs/api.md for the endpoints",
        405: f"use {', '.join(sorted(getattr(refusal, 'allowed_methods', ())))}",
        413: f"send at most {MAX_BODY} bytes",
    }
    shown = BadInput(refusal.reason, advice.get(refusal.status, ""), f"http_{refusal.status}")
    return answer(shown.as_json(), refusal.status)
