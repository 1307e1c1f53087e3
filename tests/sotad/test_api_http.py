"""The API over a real Unix socket: what each endpoint promises, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

import sotad.api.access
from sotad.api.access import load_token
from sotad.api.address import Address, parse_address
from sotad.api.app import MAX_BODY, make_app
from sotad.api.server import serving
from sotad.client import Client
from sotad.errors import BadConfig, BadInput, HostFault, NotFound, SotadError
from sotad.hosts import LocalHost, RunSpec, allowed_environment
from sotad.paths import StateDir

ROOT = Path(__file__).parents[2]
JSON = dict[str, Any]


async def ask(client: Client, method: str, target: str, data: bytes = b"", **headers: str) -> tuple[int, bytes, JSON]:
    """One raw request; status, body and headers."""
    connector = aiohttp.UnixConnector(str(client.path))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://sotad{target}", data=io.BytesIO(data), headers=headers) as response,
    ):
        return response.status, await response.read(), dict(response.headers)


async def refused(client: Client, method: str, target: str, data: bytes = b"") -> tuple[int, JSON]:
    """The error that a request gets; it must have the shape that every error has."""
    status, body, _ = await ask(client, method, target, data)
    error: JSON = json.loads(body)["error"]
    assert {"code", "message", "next", "exit_status"} <= error.keys()
    return status, error


async def test_status_lists_every_campaign(service: Any, door: Client) -> None:
    """GET /v1/status is the daemon and one summary per campaign."""
    service.create()
    found = await asyncio.to_thread(door.get, "/v1/status")
    assert found["daemon"]["seq"] == 2
    assert [(c["campaign"], c["phase"]) for c in found["campaigns"]] == [("example", "intake")]


async def test_a_campaign_is_its_whole_folded_state(service: Any, door: Client) -> None:
    """GET /v1/campaigns/{id} leaves nothing out."""
    name = service.create()
    found = await asyncio.to_thread(door.get, f"/v1/campaigns/{name}")
    assert found["spec"] == service.world.campaigns[name].spec
    assert found["phase"] == "intake"


async def test_an_operator_is_recorded_by_the_uid_behind_the_socket(service: Any, door: Client, example: str) -> None:
    """Who asked is the kernel's word."""
    body = {"text": example, "source": "x.yaml"}
    assert (await asyncio.to_thread(door.post, "/v1/campaigns", body)) == {"campaign": "example"}
    await asyncio.to_thread(door.post, "/v1/campaigns/example/pause", {"reason": "lunch"})
    events = service.events(1, None, 10)
    assert [(e.type, e.actor) for e in events] == [
        ("campaign.created", f"operator:uid={os.getuid()}"),
        ("campaign.paused", f"operator:uid={os.getuid()}"),
    ]
    assert events[1].payload == {"reason": "lunch"}


async def test_another_user_is_refused(door: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid that is neither ours nor root's gets nothing but /healthz."""
    monkeypatch.setattr(sotad.api.access, "peer_uid", lambda connection: 4242)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    status, error = await refused(door, "GET", "/v1/status")
    assert (status, error["code"]) == (403, "forbidden")
    assert (await ask(door, "GET", "/healthz"))[0] == 200


async def test_a_process_of_a_run_is_refused(service: Any, door: Client, tmp_path: Path) -> None:
    """An agent or server has the daemon's uid: it may not look, approve, cancel or submit, not even as an orphan."""
    name, host = service.create(), LocalHost(tmp_path / "runs")
    order = (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "from pathlib import Path\n"
        "from sotad.client import Client\n"
        "door = Client(Path(sys.argv[1]))\n"
        "for ask in (lambda: door.get('/v1/status'), lambda: door.post(f'/v1/campaigns/{sys.argv[2]}/cancel')):\n"
        "    try: print(ask(), flush=True)\n"
        "    except Exception as error: print(error, flush=True)\n"
        "Path(sys.argv[3]).touch()\n"
    )
    done = tmp_path / "done"
    waits = f'{sys.executable} -c "$0" {door.path} {name} {done}; while [ ! -e {done} ]; do sleep 0.05; done'
    argv = ("sh", "-c", waits, order)
    await host.start("order", RunSpec(argv=argv, cwd=str(ROOT), env=allowed_environment(), timeout_s=30))
    assert (await host.wait("order", 30)).succeeded
    said = (await host.read("order", "stdout.log")).decode()
    assert said.count("neither looks nor gives orders") == 2 and service.world.campaigns[name].phase == "intake"


async def test_the_whole_life_of_orders(service: Any, door: Client) -> None:
    """pause, resume and cancel reach the machine, which says no when it must."""
    name = service.create()
    for verb, body in (("pause", {}), ("resume", {}), ("cancel", {"confirmed": True})):
        await asyncio.to_thread(door.post, f"/v1/campaigns/{name}/{verb}", body)
    assert service.world.campaigns[name].phase == "stopping"
    status, error = await refused(door, "POST", f"/v1/campaigns/{name}/pause")
    assert (status, error["code"], error["exit_status"]) == (409, "illegal_now", 2)
    assert "campaign.paused is illegal" in error["message"]


@pytest.mark.parametrize("target", ["/v1/campaigns/nope", "/v1/events/99/why", "/v1/nothing"])
async def test_what_is_not_there_is_a_404(door: Client, target: str) -> None:
    """Unknown campaigns, events and endpoints are told apart from failures."""
    status, error = await refused(door, "GET", target)
    assert status == 404
    assert error["next"]


async def test_a_wrong_method_says_which_is_right(door: Client) -> None:
    """405 names the methods."""
    status, error = await refused(door, "POST", "/v1/status")
    assert status == 405
    assert "GET" in error["next"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b'{"text": 3}', b"{}", b'{"text": null}', b"[" * 100_000])
async def test_a_body_that_makes_no_sense_is_a_400(service: Any, door: Client, body: bytes) -> None:
    """Garbage is refused in one line and writes nothing."""
    status, error = await refused(door, "POST", "/v1/campaigns", body)
    assert (status, error["exit_status"]) == (400, 2)
    assert service.world.seq == 1


async def test_a_bad_campaign_names_every_problem(door: Client) -> None:
    """422 carries the lines of ``sotad validate``."""
    with pytest.raises(SotadError) as caught:
        await asyncio.to_thread(door.post, "/v1/campaigns", {"text": "campaign: x\n", "source": "x"})
    assert caught.value.code == BadConfig.code
    assert "model" in str(caught.value)


async def test_a_body_over_the_limit_is_not_read(service: Any, door: Client) -> None:
    """413, and the daemon goes on."""
    status, error = await refused(door, "POST", "/v1/campaigns", b"x" * (MAX_BODY + 1))
    assert (status, error["code"]) == (413, "http_413")
    assert (await ask(door, "GET", "/healthz"))[0] == 200


async def test_events_come_in_order_and_in_pages(service: Any, door: Client) -> None:
    """after, campaign and limit choose; head says how far the ledger is."""
    name = service.create()
    service.record("", "note.recorded", {"text": "hello"})
    service.record(name, "note.recorded", {"text": "there"})
    found = await asyncio.to_thread(door.get, "/v1/events?after=1&limit=2")
    assert [event["seq"] for event in found["events"]] == [2, 3]
    assert found["head"] == 4
    only = await asyncio.to_thread(door.get, f"/v1/events?campaign={name}")
    assert [event["campaign_seq"] for event in only["events"]] == [1, 2]


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=1e3", "after=" + "9" * 40, "after=%C2%B2"])
async def test_a_query_that_is_no_number_is_a_400(door: Client, query: str) -> None:
    """Numbers are checked before they reach the ledger."""
    status, error = await refused(door, "GET", f"/v1/events?{query}")
    assert (status, error["code"]) == (400, "bad_input")


async def test_a_mistake_of_ours_is_a_500_without_its_traceback(
    service: Any, door: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller learns that it is a bug; the log has the rest."""
    monkeypatch.setattr(service, "why", lambda seq: 1 / 0)
    status, error = await refused(door, "GET", "/v1/events/1/why")
    assert (status, error["code"], error["exit_status"]) == (500, "bug", 4)
    assert "Traceback" not in error["message"]
    assert "ZeroDivisionError" in caplog.text


async def test_metrics_are_what_prometheus_reads(service: Any, door: Client) -> None:
    """/metrics has the ledger's head, campaigns by phase, and this process."""
    name = service.create()
    _, body, headers = await ask(door, "GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["sotad_ledger_seq",] == 2
    assert samples["sotad_campaigns", "intake"] == 1
    assert samples["sotad_campaigns", "closed"] == 0
    assert samples["sotad_events_total", name] == 1
    assert samples["process_resident_memory_bytes",] > 1e6


async def test_the_dashboard_escapes_what_comes_from_outside(service: Any, door: Client) -> None:
    """A campaign's text cannot become markup."""
    name = service.create()
    evil = {"kind": "human", "reason": "<script>alert(1)</script>", "next": "ask"}
    service.record(name, "campaign.blocked", evil)
    status, body, headers = await ask(door, "GET", "/")
    assert status == 200
    assert b"&lt;script&gt;" in body
    assert b"<script" not in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_healthz_tells_ready_from_not(service: Any, door: Client) -> None:
    """A supervisor sees 503 until the daemon takes orders."""
    assert (await ask(door, "GET", "/healthz"))[0] == 200
    service.ready = False
    assert (await ask(door, "GET", "/healthz"))[0] == 503


async def test_shutdown_reaches_the_service(service: Any, door: Client) -> None:
    """POST /v1/shutdown answers at once."""
    assert await asyncio.to_thread(door.post, "/v1/shutdown") == {"stopping": True}
    assert service.stopped


async def test_the_socket_is_closed_to_others_and_removed(service: Any, here: StateDir) -> None:
    """Directory 0700, socket 0600, nothing left behind; a dead daemon's socket is in nobody's way."""
    here.socket.parent.mkdir(mode=0o777)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(here.socket))
    async with serving(make_app(service), here.socket):
        assert stat.S_IMODE(here.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(here.socket.parent.stat().st_mode) == 0o700
        await asyncio.to_thread(Client(here.socket).get, "/v1/status")
    assert not here.socket.exists()


async def test_a_folder_that_is_not_ours_is_refused(service: Any, tmp_path: Path) -> None:
    """A link that somebody planted in /tmp does not lead us away."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostFault, match="not a folder of ours"):
        async with serving(make_app(service), tmp_path / "run" / "sotad.sock"):
            pass


async def test_tcp_needs_the_token(service: Any, here: StateDir) -> None:
    """Without it, with a wrong one, and when no token was set, nobody gets in; only /healthz is open."""
    token = load_token(here.token)
    assert load_token(here.token) == token
    assert stat.S_IMODE(here.token.stat().st_mode) == 0o600
    port = _free_port()
    async with (
        serving(make_app(service, token), here.socket, Address("127.0.0.1", port)),
        aiohttp.ClientSession() as http,
    ):

        async def status(path: str, said: str | None) -> int:
            headers = {} if said is None else {"Authorization": said}
            async with http.get(f"http://127.0.0.1:{port}{path}", headers=headers) as response:
                return response.status

        assert await status("/v1/status", None) == 403
        assert await status("/v1/status", f"Bearer {token[:-1]}") == 403
        assert await status("/v1/status", "Bearer é") == 403
        assert await status("/v1/status", f"Bearer {token}") == 200
        assert await status("/metrics", None) == 403
        assert await status("/healthz", None) == 200


async def test_no_token_means_nobody_over_tcp(service: Any, here: StateDir) -> None:
    """An empty bearer does not match a missing token."""
    port = _free_port()
    async with (
        serving(make_app(service), here.socket, Address("127.0.0.1", port)),
        aiohttp.ClientSession(headers={"Authorization": "Bearer None"}) as http,
        http.get(f"http://127.0.0.1:{port}/v1/status") as response,
    ):
        assert response.status == 403


async def test_a_port_in_use_is_told_in_one_line(service: Any, here: StateDir) -> None:
    """The operator learns which address it was."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname())
        with pytest.raises(HostFault, match=str(address.port)):
            async with serving(make_app(service), here.socket, address):
                pass


def test_addresses() -> None:
    """Without a host it is loopback; what has no port is refused."""
    assert parse_address("8080") == Address("127.0.0.1", 8080)
    assert parse_address(":8080") == Address("127.0.0.1", 8080)
    assert parse_address("0.0.0.0:1") == Address("0.0.0.0", 1)
    assert parse_address("[::1]:1") == Address("::1", 1)
    for bad in ("", "host", "host:", "host:x", "host:70000", "host:²"):
        with pytest.raises(BadInput):
            parse_address(bad)


async def test_errors_arrive_as_they_were_raised(door: Client) -> None:
    """The client raises the daemon's error with its code and exit status."""
    with pytest.raises(SotadError) as caught:
        await asyncio.to_thread(door.get, "/v1/campaigns/nope")
    assert (caught.value.code, caught.value.exit_status) == (NotFound.code, 2)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
