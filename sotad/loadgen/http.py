"""The little of HTTP/1.1 (RFC 9112) that a load generator needs. Pure.

`frame` looks at the head of a reply while it arrives, `is_last` at its end; everything else waits until the
run is over: `decode` then reads the whole reply again, strictly.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sotad.loadgen.exchange import Arrivals

HEAD_LIMIT = 64 * 2**10  # bytes of status line and headers; more is no head
TAIL = 1024  # bytes at the end of a chunked reply among which its last chunk must begin
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")
_LAST_CHUNK = re.compile(rb"(?:\A|\r\n)0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n\Z")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\Z")


class NotHttp(ValueError):
    """The bytes are no reply of HTTP/1.1; the text shows where."""


@dataclass(frozen=True)
class Frame:
    """Where a reply's body begins and ends: after `length` bytes, else by its chunks, else with the connection."""

    status: int
    body_at: int
    length: int | None
    chunked: bool
    keep: bool
    encoding: str


@dataclass
class Response:
    """A decoded reply: its body with the times of arrival, `whole` if it came to its end."""

    status: int | None = None
    body: Arrivals = field(default_factory=list)
    whole: bool = False
    problem: str = ""


def request_head(host: str, path: str, headers: dict[str, str]) -> bytes:
    """The head of a POST up to the value of its Content-Length, which `request` adds."""
    fixed = {"Host": host, "Content-Type": "application/json", "Accept": "*/*", "Accept-Encoding": "identity"}
    lines = [f"{name}: {value}" for name, value in {**fixed, **headers}.items()]
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "Content-Length: "]).encode("latin-1")


def request(head: bytes, body: bytes) -> bytes:
    """The request as it goes over the wire."""
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)


def frame(data: bytes) -> Frame | None:
    """What the head in `data` says, or None while it is not complete.

    Raises:
        NotHttp: it never will be a head.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > HEAD_LIMIT or not b"HTTP/1.".startswith(data[:7]):
            raise NotHttp(f"not a reply of HTTP/1.1: {data[:100]!r}")
        return None
    status = _STATUS.match(data)
    if status is None:
        raise NotHttp(f"not a reply of HTTP/1.1: {data[:100]!r}")
    headers = dict(_headers(data[status.end() : end + 2]))
    code = int(status[1])
    if code < 200:
        rest = frame(data[end + 4 :])
        return rest and Frame(**{**rest.__dict__, "body_at": rest.body_at + end + 4})
    return _framed(code, end + 4, headers, data.startswith(b"HTTP/1.1"))


def _headers(lines: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        yield name.strip().lower(), value.strip().lower()


def _framed(status: int, body_at: int, headers: dict[bytes, bytes], persistent: bool) -> Frame:
    chunked = headers.get(b"transfer-encoding", b"").endswith(b"chunked")
    length = headers.get(b"content-length")
    if length is not None and not re.fullmatch(rb"[0-9]{1,15}", length):
        raise NotHttp(f"a Content-Length of {length!r}")
    fixed = 0 if status in (204, 304) else None if chunked or length is None else int(length)
    keep = persistent and b"close" not in headers.get(b"connection", b"") and (chunked or fixed is not None)
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    return Frame(status, body_at, fixed, chunked, keep, encoding)


def is_last(tail: bytes) -> bool:
    """Whether a chunked reply whose last bytes these are has ended.

    A body that holds the bytes of a last chunk could fool this; JSON cannot, as it has no raw line ends.
    `decode` finds out in any case.
    """
    return _LAST_CHUNK.search(tail) is not None


def decode(arrivals: Sequence[tuple[int, bytes]]) -> Response:
    """The reply in these bytes, whole or as far as it came."""
    response, data = Response(), b"".join(data for _, data in arrivals)
    try:
        if found := frame(data):
            response.status = found.status
            response.body = list(_timed(arrivals, _spans(data, found, response)))
    except NotHttp as error:
        response.problem = str(error)
    return response


def _spans(data: bytes, found: Frame, response: Response) -> Iterator[tuple[int, int]]:
    """Where in `data` the body lies; tells `response` what it finds out about its end."""
    if found.encoding != "identity":
        response.problem = f"the reply is compressed ({found.encoding}), which was not asked for"
    elif found.chunked:
        yield from _chunks(data, found.body_at, response)
    else:
        got, wanted = len(data) - found.body_at, found.length
        response.whole = wanted is None or got == wanted
        if wanted is not None and got > wanted:
            response.problem = f"{got} bytes of body instead of {wanted}"
        yield found.body_at, len(data)


def _chunks(data: bytes, at: int, response: Response) -> Iterator[tuple[int, int]]:
    while (line_end := data.find(b"\r\n", at)) >= 0:
        chunk = _SIZE.match(data, at, line_end)
        if chunk is None:
            response.problem = f"not the size of a chunk: {data[at : at + 50]!r}"
            return
        begin, end = line_end + 2, line_end + 2 + int(chunk[1], 16)
        if begin == end:
            response.whole = True
            return
        yield begin, min(end, len(data))
        at = end + 2
        if not b"\r\n".startswith(data[end:at]):
            response.problem = f"a chunk does not end where it should: {data[end : end + 50]!r}"
            return


def _timed(arrivals: Sequence[tuple[int, bytes]], spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """The bytes of ascending spans of all that arrived, each piece with the time at which it came."""
    segments, offset = iter(arrivals), 0
    when, data = 0, b""
    for begin, end in spans:
        while begin < end:
            while offset + len(data) <= begin:
                offset += len(data)
                when, data = next(segments)
            piece = data[begin - offset : end - offset]
            yield when, piece
            begin += len(piece)
