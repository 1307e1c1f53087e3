"""The load generator's own HTTP/1.1, against servers that say exactly the bytes that a test wants."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.loadgen.http import NotHttp, decode, frame, is_last

USAGE = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
EVENTS = [{"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}, USAGE]
BODY = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in EVENTS) + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
SIZED = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

Answer = Callable[[asyncio.StreamWriter, int], Awaitable[bool]]
"""What to answer to the n-th request of a connection; whether the connection stays open."""


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[int]]]:
    """A server, and for each of its connections how many requests it brought."""
    connections: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = len(connections)
        connections.append(0)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                connections[mine] += 1
                if not await answer(writer, connections[mine]):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", connections
    server.close()


def saying(*pieces: bytes, stay: bool = True) -> Answer:
    async def answer(writer: asyncio.StreamWriter, number: int) -> bool:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)
        return stay

    return answer


async def load(folder: Path, url: str, count: int = 3, env: dict[str, str] | None = None, **options: Any) -> Any:
    scenario = {"name": "s", "num_prompts": count, "input_len": 4, "output_len": 2}
    spec = {"base_url": url, "model": "m", "scenario": scenario, "max_concurrency": 1, **options}
    (folder / "spec.json").write_text(json.dumps(spec))
    argv = [sys.executable, "-m", "sotad.loadgen", str(folder / "spec.json"), str(folder / "out.json")]
    process = await asyncio.create_subprocess_exec(*argv, env=env)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    return json.loads((folder / "out.json").read_bytes())


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (saying(WHOLE), [3]),
        (saying(SIZED), [3]),
        (saying(WHOLE[:-3], WHOLE[-3:]), [3]),
        (saying(WHOLE[:-2] + b"X-Trailer: 1\r\n\r\n"), [3]),
        (saying(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE), [3]),
        (saying(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1), stay=False), [1, 1, 1]),
        (saying(HEAD + b"\r\n" + BODY, stay=False), [1, 1, 1]),
    ],
    ids=["chunked", "sized", "end in two pieces", "trailer", "continue", "close", "until the end"],
)
async def test_every_framing_is_read_and_connections_are_reused(
    tmp_path: Path, answer: Answer, connections: list[int]
) -> None:
    """Each legal framing gives the whole reply, on as few connections as the server allows."""
    async with serving(answer) as (url, used):
        out = await load(tmp_path, url)
    assert [(each["error"], each["text"], each["output_tokens"]) for each in out["requests"]] == [(None, "ab", 2)] * 3
    assert [count for count in used if count] == connections


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (saying(b"SSH-2.0-OpenSSH_9.6\r\n"), "garbage"),
        (saying(b"\x00" * 100_000), "garbage"),
        (saying(CHUNKED + b'ff\r\ndata: {"cho', stay=False), "closed_early"),
        (saying(CHUNKED + b"zz\r\n", stay=False), "garbage"),
        (saying(CHUNKED + b"3\r\nabcdef\r\n", stay=False), "garbage"),
        (saying(HEAD + b"Content-Length: 9999\r\n\r\n" + BODY, stay=False), "closed_early"),
        (saying(HEAD + b"Content-Length: -1\r\n\r\n" + BODY), "garbage"),
        (saying(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"), "garbage"),
        (saying(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"), "http_status"),
        (saying(b"HTTP/1.1 200", stay=False), "closed_early"),
        (saying(stay=False), "closed_early"),
    ],
)
async def test_broken_http_has_a_name(tmp_path: Path, answer: Answer, kind: str) -> None:
    """What is no reply of HTTP/1.1, or not a whole one, is a counted error of a known kind."""
    async with serving(answer) as (url, _):
        out = await load(tmp_path, url, stall_s=5)
    assert [each["error"]["kind"] for each in out["requests"]] == [kind] * 3


async def test_connection_closed_while_idle_is_no_failure(tmp_path: Path) -> None:
    """A server may close a connection between two requests; the next one goes over another, unharmed."""

    async def answer(writer: asyncio.StreamWriter, number: int) -> bool:
        if number == 2:
            return False  # as if it had been closed just before the request came
        writer.write(WHOLE)
        await writer.drain()
        return True

    async with serving(answer) as (url, _):
        out = await load(tmp_path, url)
    assert [each["error"] for each in out["requests"]] == [None] * 3
    assert out["client"]["retried"] >= 1


async def test_tls_server_is_measured_and_its_certificate_checked(tmp_path: Path) -> None:
    """https works with a trusted certificate, and is a connect error with another."""
    certificate, context = self_signed(tmp_path)
    async with serving(saying(WHOLE), context) as (url, _):
        trusted = await load(tmp_path, url, env={"SSL_CERT_FILE": str(certificate)})
        assert [each["error"] for each in trusted["requests"]] == [None] * 3
        doubted = await load(tmp_path, url, env={"SSL_CERT_FILE": "/dev/null"})
        assert {each["error"]["kind"] for each in doubted["requests"]} == {"connect"}


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1, and a server's context with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


@given(st.lists(st.integers(1, 79), max_size=8), st.lists(st.integers(1, len(WHOLE) - 1), max_size=8))
def test_neither_chunks_nor_segments_change_the_body(lengths: list[int], cuts: list[int]) -> None:
    """However the server chunks the body and the network cuts it, each byte arrives once, at its time."""
    edges = [0, *sorted({cut for cut in lengths if cut < len(BODY)}), len(BODY)]
    data = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (b - a, BODY[a:b]) for a, b in pairwise(edges)) + b"0\r\n\r\n"
    pieces = [data[a:b] for a, b in pairwise([0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)])]
    response = decode(list(enumerate(pieces)))
    assert b"".join(body for _, body in response.body) == BODY
    assert response.whole and not response.problem and response.status == 200
    for when, body in response.body:
        assert body in pieces[when]


@given(st.binary(max_size=120), st.lists(st.integers(1, 119), max_size=5))
def test_any_bytes_are_decoded_without_a_crash(data: bytes, cuts: list[int]) -> None:
    """Whatever arrives is decoded to something, also after a good head."""
    for whole in (data, CHUNKED + data, HEAD + b"Content-Length: 7\r\n\r\n" + data):
        pieces = [whole[a:b] for a, b in pairwise([0, *sorted({c for c in cuts if c < len(whole)}), len(whole)])]
        response = decode(list(enumerate(pieces)))
        assert sum(len(body) for _, body in response.body) <= len(whole)


def test_end_is_seen_only_where_it_is() -> None:
    """The last chunk ends a reply; the end of an event, or of any other chunk, does not."""
    assert is_last(WHOLE[-20:]) and is_last(b"0\r\n\r\n") and is_last(b"x\r\n0\r\nA: b\r\n\r\n")
    assert not is_last(b"10\r\n\r\n") and not is_last(b"data: 0\n\n\r\n") and not is_last(b"data: {}\r\n\r\n\r\n")


def test_head_is_none_until_it_is_complete() -> None:
    """Half a head is waited for; what can never become one is refused at once."""
    assert frame(CHUNKED[:-1]) is None and frame(b"") is None
    with pytest.raises(NotHttp):
        frame(b"GET / ")
