"""What a server is shown when outputs are compared and when requests are timed: nothing tells the two apart."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from outputs_rig import scenario

from sotad.benchmark.equivalence import EquivalenceSpec, ask
from sotad.loadgen.report import measure
from sotad.loadgen.spec import LoadSpec

BODY_ONLY = re.compile(rb"(?<=Content-Length: )[0-9]+")
IDS = b',"return_token_ids":true'


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[tuple[bytes, bytes]]]]:
    """A server that keeps head and body of every request as they came, and answers two tokens."""
    heard: list[tuple[bytes, bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(BODY_ONLY.search(head)[0]))  # type: ignore[index]
                heard.append((BODY_ONLY.sub(b"N", head), body))
                writer.write(reply(len(json.loads(body).get("prompt", []))))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heard
    server.close()


def reply(prompt_tokens: int) -> bytes:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 2}
    events: list[Any] = [{"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "length"}]}]
    lines = [f"data: {json.dumps(event)}\n\n" for event in (*events, {"choices": [], "usage": usage})]
    body = "".join([*lines, "data: [DONE]\n\n"]).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("extra", [{}, {"top_p": 0.9, "ignore_eos": True}])
async def test_timed_and_compared_requests_differ_in_nothing_but_their_prompt(extra: dict[str, Any]) -> None:
    """Heads are the same bytes; bodies too, but for the prompt, token ids in some, and sampling in the last ones."""
    shape = scenario(num_prompts=2, output_len=2)
    async with listening() as (url, heard):
        target = {"base_url": url, "model": "m", "extra_body": extra}
        load = {**target, "scenario": shape, "max_concurrency": 2, "warmup_requests": 1}
        await measure(LoadSpec.model_validate(load))
        timed = heard.copy()
        heard.clear()
        await ask(EquivalenceSpec.model_validate({**target, "scenarios": [{**shape, "seed": 5}], "samples": 0}))
    assert {head for head, _ in timed} == {head for head, _ in heard}
    assert len({head for head, _ in heard}) == 1
    without_prompt = {re.sub(rb'"prompt":\[[0-9,]*\]', b"", body) for _, body in timed}
    assert len(without_prompt) == 1
    bodies = [re.sub(rb'"prompt":\[[0-9,]*\]', b"", body) for _, body in heard]
    plain = [body for body in bodies if IDS not in body]
    assert len(plain) == 4 and set(plain) == without_prompt
    assert {body.replace(IDS, b"") for body in bodies if IDS in body} == without_prompt


async def test_no_head_says_who_asks() -> None:
    """Only what HTTP and JSON need, and one name of a client for both."""
    async with listening() as (url, heard):
        spec = {"base_url": url, "model": "m", "scenarios": [scenario(num_prompts=1)], "samples": 1}
        await ask(EquivalenceSpec.model_validate(spec))
    names = [line.split(b":")[0] for line in heard[0][0].split(b"\r\n")[1:] if line]
    assert names == [b"Host", b"Content-Type", b"Accept", b"Accept-Encoding", b"User-Agent", b"Content-Length"]
