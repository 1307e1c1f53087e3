"""Open pull requests through REST, asked of a real server that pages, limits, lies, hangs and fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sotad.knowledge import gh
from sotad.knowledge.pulls import Asked, PullsError, pull, scanned, searches
from sotad.knowledge.rest import Patience, Source, scan

TOKEN = "tok-0123456789abcdef"
QUICK = Patience(tries=3, request_s=5.0, pause_s=0.0, longest_wait_s=2.0, total_s=30.0)
REPO = "owner/engine"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def entry(number: int, title: str = "Kimi-K2 gate", **more: Any) -> dict[str, Any]:
    """A pull request as a search lists it."""
    url = f"https://example.org/{REPO}/pull/{number}"
    found = {"number": number, "title": title, "html_url": url, "body": None}
    return {**found, "updated_at": f"2026-01-{number % 28 + 1:02d}T00:00:00Z", **more}


def page(*entries: Any, **more: Any) -> web.Response:
    """A page of a search."""
    return web.json_response({"total_count": len(entries), "incomplete_results": False, "items": entries, **more})


@dataclass
class Api:
    """What answers; ``asked`` and ``tokens`` are what came."""

    search: list[Handler | web.Response] = field(default_factory=list)
    files: Handler | None = None
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    async def on_search(self, http: web.Request) -> web.StreamResponse:
        self.asked.append(http.query_string)
        self.tokens.append(http.headers.get("Authorization"))
        answer = self.search.pop(0) if len(self.search) > 1 else self.search[0]
        return answer if isinstance(answer, web.Response) else await answer(http)

    async def on_files(self, http: web.Request) -> web.StreamResponse:
        if self.files is not None:
            return await self.files(http)
        return web.json_response([{"filename": f"a/{http.match_info['number']}.py"}])


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[str]:
    """The API's address."""
    app = web.Application()
    app.router.add_get("/search/issues", api.on_search)
    app.router.add_get("/repos/{owner}/{name}/pulls/{number}/files", api.on_files)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def found_by(
    api: Api, *, token: str = "", patience: Patience = QUICK, terms: tuple[str, ...] = ("kimi",), base: str = ""
) -> dict[str, Any]:
    """The payload of a scan of one repository."""
    async with serving(api) as url, aiohttp.ClientSession() as session:
        source = Source(session, base or url, token, "ENGINE_TOKEN" if token else "", patience)
        return await scan(source, [REPO], terms)


def once(response: web.Response) -> Handler:
    """A handler that answers anew each time."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=response.status, body=response.body, headers=dict(response.headers))

    return answer


def limited(status: int, **headers: str) -> Handler:
    """A rate limit."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "API rate limit exceeded"}, status=status, headers=told)

    return answer


async def test_every_page_is_read_and_nothing_is_twice() -> None:
    """Pages follow the Link header; a pull request that two terms find is one, with both terms and its files."""

    async def first(http: web.Request) -> web.StreamResponse:
        answer = page(entry(1), entry(2))
        answer.headers["Link"] = f'<{http.url.update_query(page="2")}>; rel="next"'
        return answer

    async def second(http: web.Request) -> web.StreamResponse:
        assert http.query["page"] == "2"
        return page(entry(3, "unrelated"))

    async def by_version(_: web.Request) -> web.StreamResponse:
        return page(entry(1))

    api = Api(search=[first, second, by_version])
    found = await found_by(api, terms=("kimi", "kimi-k2"))
    assert found["available"] and found["reason"] == ""
    assert [(each["number"], each["relevant"]) for each in found["found"]] == [
        (3, ["kimi"]),
        (2, ["kimi", "kimi-k2"]),
        (1, ["kimi", "kimi-k2"]),
    ]
    assert found["found"][0]["files"] == ["a/3.py"]
    assert found["found"][2]["url"] == f"https://example.org/{REPO}/pull/1"
    assert api.asked[0].startswith('q=repo:owner/engine is:pr is:open "kimi"&')


@pytest.mark.parametrize(
    "limit",
    [
        limited(429, Retry_After="0"),
        limited(403, Retry_After="0"),
        limited(403, x_ratelimit_remaining="0", x_ratelimit_reset=str(int(time.time()) - 5)),
        once(web.Response(status=500)),
        once(web.Response(status=502, text="<html>")),
        once(web.Response(text="<html>not JSON")),
    ],
)
async def test_what_passes_is_tried_again(limit: Handler) -> None:
    """Rate limits, server errors and garbage are met with patience, and the answer then counts."""
    found = await found_by(Api(search=[limit, limit, page(entry(1))]))
    assert found["available"] and [each["number"] for each in found["found"]] == [1]


@pytest.mark.parametrize(
    ("answer", "reason", "calls"),
    [
        (once(web.Response(status=500)), "HTTP 500, 3 times", 3),
        (once(web.Response(text="{")), "the answer is not JSON, 3 times", 3),
        (once(web.Response(text="[" * 100_000)), "the answer is not JSON, 3 times", 3),
        (once(web.json_response([1])), "no list of items", 1),
        (once(web.json_response({"items": [1]})), "no list of items", 1),
        (once(web.json_response({"items": [{"number": "1"}]})), "without a number", 1),
        (once(web.json_response({"message": "Not Found"}, status=404)), "HTTP 404: Not Found; no such repository", 1),
        (once(web.json_response({"message": "Bad credentials"}, status=401)), "Bad credentials; a token is needed", 1),
        (once(web.json_response({"message": "no\nway"}, status=403)), "HTTP 403: no way", 1),
        (once(web.json_response({"message": "secondary rate limit"}, status=403)), "waiting 60 s is too long", 1),
        (limited(429, Retry_After="3600"), "waiting 3600 s is too long", 1),
        (limited(429, Retry_After="odd"), "waiting 60 s is too long", 1),
        (limited(403, x_ratelimit_remaining="0", x_ratelimit_reset="99999999999"), "is too long", 1),
        (limited(429, Retry_After="0"), "rate limited, 3 times", 3),
    ],
)
async def test_when_every_fetch_fails_the_list_is_unavailable(answer: Handler, reason: str, calls: int) -> None:
    """Never an empty list that looks like good news: not available, the reason, and no more tries than allowed."""
    api = Api(search=[answer])
    found = await found_by(api)
    assert (found["available"], found["found"]) == (False, [])
    assert reason in found["reason"]
    assert "\n" not in found["reason"]
    assert len(api.asked) == calls


async def test_a_server_that_hangs_or_is_away_ends_in_time() -> None:
    """Each request is bounded, and so are all together."""

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return page()

    patience = Patience(tries=2, request_s=0.1, pause_s=0.0, longest_wait_s=1.0, total_s=10.0)
    found = await found_by(Api(search=[hang]), patience=patience)
    assert "no answer within 0.1 s, 2 times" in found["reason"]
    found = await found_by(Api(search=[hang]), patience=Patience(tries=9, request_s=5.0, pause_s=0.0, total_s=0.2))
    assert not found["available"]
    found = await found_by(Api(search=[hang]), base="http://127.0.0.1:9", patience=patience)
    assert "127.0.0.1: ClientConnectorError" in found["reason"]


async def test_a_stream_that_breaks_off_is_no_answer() -> None:
    """Half a page does not count as a page."""

    async def broken(http: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(http)
        await answer.write(b'{"items": [')
        assert http.transport is not None
        http.transport.close()
        return answer

    found = await found_by(Api(search=[broken]))
    assert not found["available"] and "ClientPayloadError" in found["reason"]


async def test_partial_failure_is_said() -> None:
    """One term answers and the other does not; a later page fails; the service admits a gap; files are refused."""
    gone = once(web.json_response({"message": "Validation Failed"}, status=422))
    found = await found_by(Api(search=[page(entry(1)), gone]), terms=("kimi", "k2"))
    assert found["available"] and len(found["found"]) == 1
    assert found["reason"].startswith("1 of 2 searches failed: owner/engine 'k2': HTTP 422")

    async def first(http: web.Request) -> web.StreamResponse:
        answer = page(entry(1))
        answer.headers["Link"] = f'<{http.url.update_query(page="2")}>; rel="next"'
        return answer

    found = await found_by(Api(search=[first, gone]))
    assert found["available"] and "HTTP 422" in found["reason"]
    found = await found_by(Api(search=[page(entry(1), incomplete_results=True)]))
    assert found["available"] and "incomplete" in found["reason"]
    found = await found_by(Api(search=[page(entry(1), entry(2))], files=gone))
    assert found["available"] and "files of 2 are not known: HTTP 422" in found["reason"]
    assert "files" not in found["found"][0]


async def test_endless_pages_end() -> None:
    """A Link that leads to itself is followed ten times, and the cut is said."""

    async def circular(http: web.Request) -> web.StreamResponse:
        answer = page(entry(1))
        answer.headers["Link"] = f'<{http.url}>; rel="next"'
        return answer

    api = Api(search=[circular])
    found = await found_by(api)
    assert len(api.asked) == 10 and "more than 10 pages" in found["reason"]


async def test_a_token_goes_to_its_origin_only() -> None:
    """The API gets it; the host behind a redirect or a next page does not."""
    elsewhere = Api(search=[once(page(entry(7)))])
    async with serving(elsewhere) as other:

        async def redirect(_: web.Request) -> web.StreamResponse:
            raise web.HTTPMovedPermanently(f"{other}/search/issues?q=x")

        async def beyond(_: web.Request) -> web.StreamResponse:
            answer = page(entry(1))
            answer.headers["Link"] = f'<{other}/search/issues?q=x>; rel="next"'
            return answer

        for handler in (redirect, beyond):
            api = Api(search=[handler])
            found = await found_by(api, token=TOKEN)
            assert found["available"]
            assert api.tokens == [f"Bearer {TOKEN}"]
    assert elsewhere.tokens == [None, None]


async def test_netrc_is_no_source_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for the same host in ~/.netrc are neither sent nor in the way of the token."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    api = Api(search=[once(page(entry(1)))])
    assert (await found_by(api))["available"] and (await found_by(api, token=TOKEN))["available"]
    assert api.tokens == [None, f"Bearer {TOKEN}"]


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """For hosts that are not excluded from it."""
    api = Api(search=[once(page(entry(1)))])
    async with serving(api) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        found = await found_by(Api(), base="http://api.invalid")
        assert found["available"] and len(api.asked) == 1
        assert (await found_by(Api(search=[page(entry(1))])))["available"] and len(api.asked) == 1


@pytest.mark.parametrize("link", ["mailto:x@y", "http://", "https://[bad/", "", ">;<"])
async def test_an_odd_next_page_ends_the_list(link: str) -> None:
    """Whatever stands there, it is an answer with a reason or a last page, never an error."""

    async def odd(_: web.Request) -> web.StreamResponse:
        answer = page(entry(1))
        answer.headers["Link"] = f'<{link}>; rel="next"'
        return answer

    found = await found_by(Api(search=[odd]))
    assert found["available"] or found["reason"]


async def test_a_token_is_in_no_message() -> None:
    """Even when the service repeats it."""
    echo = once(web.json_response({"message": f"bad token {TOKEN}"}, status=401))
    found = await found_by(Api(search=[echo]), token=TOKEN)
    assert TOKEN not in json.dumps(found)
    assert "bad token [token]; the token in ENGINE_TOKEN is refused" in found["reason"]


@pytest.mark.parametrize(
    "address", ["ftp://x", "nonsense", "", "https://user:pass@example.org", "http://[", "https://"]
)
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    """And so is one that holds a password, without repeating it."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(PullsError, match="api_url") as refused:
            Source(session, address)
    assert "pass" not in str(refused.value)


async def test_a_token_is_not_sent_in_the_clear() -> None:
    """Plain http is for this machine."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(PullsError, match="in the clear"):
            Source(session, "http://api.example.org", TOKEN)


def test_texts_of_a_service_are_plain() -> None:
    """Lone surrogates, line breaks and endless titles of a pull request become one short line of valid text."""
    sent = {"number": 1, "title": "a\n\ud800" + "x" * 999, "html_url": 5, "files": [{"path": "\udfff.py"}, None, {}]}
    found = pull("o/r", sent, "kimi", ["kimi"])
    assert found["title"].startswith("a ?xx") and len(found["title"]) == 200
    assert (found["url"], found["files"]) == ("5", ["?.py"])
    json.dumps(found, ensure_ascii=False).encode()
    for number in (0, -1, 10**20, 1.0, True, None):
        with pytest.raises(PullsError):
            pull("o/r", {"number": number, "title": "x"}, "kimi", [])


def test_there_must_be_something_to_ask() -> None:
    """No repository, no term, or a repository that is none."""
    for repositories, terms in ((["o/r"], []), ([], ["kimi"]), (["o/r", "o/r --web"], ["kimi"]), (["-o/r"], ["kimi"])):
        with pytest.raises(PullsError):
            searches(repositories, terms)
    assert searches(["o/r", "o/r"], ["a", "a", "b"]) == [("o/r", "a"), ("o/r", "b")]


def test_no_question_is_no_answer() -> None:
    """An empty scan is unavailable, an answered search without results is available."""
    assert not scanned([])["available"]
    assert scanned([Asked("o/r", "kimi", [])]) == {"available": True, "found": [], "reason": ""}


def test_the_rest_of_many_is_said() -> None:
    """A hundred are kept, those that were updated last."""
    many = [pull("o/r", {"number": n, "title": "t", "updated_at": f"{n:04}"}, "t", ["t"]) for n in range(1, 151)]
    found = scanned([Asked("o/r", "t", many)])
    assert [each["number"] for each in found["found"]] == list(range(150, 50, -1))
    assert found["reason"] == "150 were found, the 100 updated last are kept"


def test_what_gh_prints_is_checked() -> None:
    """Its own names of the fields; anything else than a list of pull requests is an error."""
    listed = [
        {"number": 5, "title": "a\nKimi", "url": "u", "updatedAt": "2026", "body": "", "files": [{"path": "a.py"}]}
    ]
    assert gh.parse("o/r", "k2", ["k2", "kimi"], json.dumps(listed).encode()) == [
        {"repo": "o/r", "number": 5, "title": "a Kimi", "url": "u", "relevant": ["k2", "kimi"], "updated": "2026"}
        | {"files": ["a.py"]}
    ]
    for output in (b"", b"{", b"{}", b"[1]", b'[{"number": true, "title": "x"}]', b"\xff"):
        with pytest.raises(PullsError):
            gh.parse("o/r", "k2", ["k2"], output)


def test_gh_is_told_the_variable_and_never_the_token() -> None:
    """A name that is none would be shell code."""
    assert gh.command("o/r", "kimi")[:4] == ("gh", "pr", "list", "--repo")
    assert gh.command("o/r", "kimi", "MY_TOKEN")[:3] == ("sh", "-c", 'GH_TOKEN="$MY_TOKEN" exec "$@"')
    for name in ("A B", "X;rm", "$X", "1X", "Ä"):
        with pytest.raises(PullsError):
            gh.command("o/r", "kimi", name)
