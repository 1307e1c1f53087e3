"""Open pull requests through the REST API of GitHub, or of what speaks like it.

Requests and limits, below https://docs.github.com/en/rest: `search/search#search-issues-and-pull-requests`,
`pulls/pulls` and `using-the-rest-api/rate-limits-for-the-rest-api`.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from sotad.knowledge.pulls import JSON, Asked, PullsError, joined, paths, plain, pull, scanned, searches

PER_PAGE = 100
MOST_PAGES = 10
MOST_LISTED = 20
BODY_BYTES = 32 << 20
CLOCK_SKEW_S = 1.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Patience:
    """Bounds in seconds: of one request, between tries, of one wait for a rate limit, of everything together."""

    tries: int = 3
    request_s: float = 20.0
    pause_s: float = 1.0
    longest_wait_s: float = 90.0
    total_s: float = 300.0


class _Answer(NamedTuple):
    value: Any
    following: URL | None


class _Again(Exception):
    """May work another time, after ``wait_s`` seconds where the server said so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Source:
    """One API. ``token`` is sent to its origin only; ``told`` is what to call the token in messages.

    Raises:
        PullsError: the address is none, or would carry the token in the clear.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_url: str,
        token: str = "",
        told: str = "",
        patience: Patience | None = None,
    ) -> None:
        self._session, self._base, self._token, self._told = session, _address(api_url, bool(token)), token, told
        self._patience = patience or Patience()
        self._deadline = asyncio.get_running_loop().time() + self._patience.total_s

    async def search(self, repo: str, term: str, terms: Sequence[str]) -> Asked:
        """The open pull requests of a repository that have the term. Failures are part of the answer."""
        found: list[JSON] = []
        url = (self._base / "search/issues").with_query(
            {"q": f'repo:{repo} is:pr is:open "{term}"', "per_page": str(PER_PAGE)}
        )
        following: URL | None = url
        partial = ""
        try:
            for _ in range(MOST_PAGES):
                assert following is not None
                value, following = await self._get(following)
                found += [pull(repo, entry, term, terms) for entry in _items(repo, value)]
                if value.get("incomplete_results"):
                    partial = "GitHub says that the search is incomplete"
                if following is None:
                    return Asked(repo, term, found, partial=partial)
            return Asked(repo, term, found, partial=f"more than {MOST_PAGES} pages: the rest was not read")
        except PullsError as error:
            return Asked(repo, term, found, partial=str(error)) if found else Asked(repo, term, [], str(error))

    async def files(self, entry: JSON) -> list[str]:
        """Paths that a pull request changes, up to one page.

        Raises:
            PullsError: no answer.
        """
        url = (self._base / f"repos/{entry['repo']}/pulls/{entry['number']}/files").with_query(per_page=str(PER_PAGE))
        value, _ = await self._get(url)
        if not isinstance(value, list):
            raise PullsError(f"{entry['repo']}#{entry['number']}: the list of files is no list")
        return paths(value)

    async def _get(self, url: URL) -> _Answer:
        """JSON and the next page, within the bounds.

        Raises:
            PullsError: no such answer.
        """
        patience = self._patience
        for attempt in range(1, patience.tries + 1):
            try:
                return await self._once(url)
            except _Again as again:
                wait_s = patience.pause_s * 2 ** (attempt - 1) if again.wait_s is None else again.wait_s
                if attempt == patience.tries:
                    raise PullsError(f"{self._clean(str(again))}, {attempt} times") from None
                if wait_s > min(patience.longest_wait_s, self._left()):
                    raise PullsError(f"{self._clean(str(again))}; waiting {wait_s:.0f} s is too long") from None
                await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    async def _once(self, url: URL) -> _Answer:
        limit_s = min(self._patience.request_s, self._left())
        if limit_s <= 0:
            raise PullsError(f"no time left: all searches together may take {self._patience.total_s:g} s")
        if url.scheme not in ("http", "https") or not url.host:
            raise PullsError("the address of the next page is none")
        headers = {"Accept": "application/vnd.github+json", "User-Agent": "sotad"}
        if self._token and url.origin() == self._base.origin():
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            asking = self._session.get(url, headers=headers, proxy=_proxy(url))
            async with asyncio.timeout(limit_s), asking as response:
                data = await _body(response)
                self._judge(response.status, response.headers, data)
                following = response.links["next"]["url"] if "next" in response.links else None
        except TimeoutError:
            raise _Again(f"{url.host}: no answer within {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Again(f"{url.host}: {type(error).__name__}: {error}") from None
        try:
            return _Answer(json.loads(data), URL(str(following)) if following else None)
        except (ValueError, RecursionError):
            raise _Again(f"{url.host}: the answer is not JSON") from None

    def _judge(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        if status == 200:
            return
        told = self._clean(f"HTTP {status}: {_message(data)}").rstrip(": ")
        if status == 401:
            raise PullsError(
                f"{told}; {f'the token in {self._told} is refused' if self._token else 'a token is needed'}"
            )
        if status in (403, 429) and (wait_s := _limited(status, headers, data)) is not None:
            raise _Again(f"{told}; rate limited", wait_s)
        if status in (404, 422):
            raise PullsError(f"{told}; no such repository, or it is not shown to this token")
        if status >= 500 or status == 408:
            raise _Again(told)
        raise PullsError(told)

    def _clean(self, text: str) -> str:
        return plain(text.replace(self._token, "[token]") if self._token else text)


async def scan(source: Source, repositories: Sequence[str], terms: Sequence[str]) -> JSON:
    """The payload of `openpr.scanned`. Files are asked for the pull requests that were updated last.

    Raises:
        PullsError: there is nothing to ask.
    """
    asked = [await source.search(repo, term, terms) for repo, term in searches(repositories, terms)]
    found, remarks = joined(asked), []
    for place, entry in enumerate(found[:MOST_LISTED]):
        try:
            found[place] = {**entry, "files": await source.files(entry)}
        except PullsError as error:
            remarks.append(f"files of {min(len(found), MOST_LISTED) - place} are not known: {error}")
            break
    return scanned(asked, found, remarks)


def _address(api_url: str, secret: bool) -> URL:
    try:
        url = URL(api_url.rstrip("/"))
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password:
        raise PullsError("knowledge.api_url is no address such as https://api.github.com")
    if secret and url.scheme == "http" and url.host not in LOOPBACK:
        raise PullsError(f"knowledge.api_url is http: no token is sent to {url.host} in the clear; write https")
    return url


def _items(repo: str, value: Any) -> list[JSON]:
    items = value.get("items") if isinstance(value, dict) else None
    if not isinstance(items, list) or not all(isinstance(entry, dict) for entry in items):
        raise PullsError(f"{repo}: the answer has no list of items: is this the address of a GitHub API?")
    return items


def _proxy(url: URL) -> str | None:
    """The proxy of the environment. The session's own look at the environment would read ~/.netrc too."""
    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for block in response.content.iter_chunked(1 << 16):
        data += block
        if len(data) > BODY_BYTES:
            raise PullsError(f"{response.url.host}: an answer of more than {BODY_BYTES >> 20} MiB")
    return bytes(data)


def _limited(status: int, headers: Mapping[str, str], data: bytes) -> float | None:
    """Seconds to wait, where this is a rate limit: as Retry-After says, or until the reset; None where it is none."""
    after, reset = _number(headers.get("Retry-After")), _number(headers.get("x-ratelimit-reset"))
    if after is not None:
        return max(after, 0.0)
    if headers.get("x-ratelimit-remaining") == "0" and reset is not None:
        return max(reset - time.time() + CLOCK_SKEW_S, 0.0)
    return 60.0 if status == 429 or b"rate limit" in data.lower() else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "nan")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _message(data: bytes) -> str:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    return plain(value.get("message") or "") if isinstance(value, dict) else ""
