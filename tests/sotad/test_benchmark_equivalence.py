"""Whether two servers answer alike."""

import asyncio
import copy
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sotad.benchmark.equivalence import compare

SPEC = {"model": "m", "scenario": {"name": "fixed", "num_prompts": 3, "input_len": 6, "output_len": 4}}


async def complete(request: web.Request) -> web.StreamResponse:
    """Answers with sums of the prompt; `early` stops one token early, `liar` does so and claims all."""
    body = await request.json()
    manner = request.match_info["manner"]
    count = body["max_tokens"] - (manner != "honest")
    response = web.StreamResponse()
    await response.prepare(request)
    for index in range(count):
        token = sum(body["prompt"][: index + 1])
        ids = {"token_ids": [token]} if body.get("return_token_ids") else {}
        choice = {"text": f"{token} ", "finish_reason": "length" if index == count - 1 else None, **ids}
        await response.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    claimed = body["max_tokens"] if manner == "liar" else count
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": claimed}
    await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{manner}/v1/completions", complete)
    server = TestServer(app)
    await server.start_server()
    yield str(server.make_url("")).rstrip("/")
    await server.close()


async def ask(folder: Path, base_url: str, **options: Any) -> dict[str, Any]:
    (folder / "spec.json").write_text(json.dumps({**SPEC, "base_url": base_url, **options}))
    argv = [
        sys.executable,
        "-m",
        "sotad.benchmark.equivalence",
        str(folder / "spec.json"),
        str(folder / "out.json"),
    ]
    process = await asyncio.create_subprocess_exec(*argv)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    out: dict[str, Any] = json.loads((folder / "out.json").read_bytes())
    return out


async def test_same_server_twice_is_equal(tmp_path: Path, server: str) -> None:
    """Two honest runs agree, and keep text, token counts and finish reasons."""
    first, second = await ask(tmp_path, f"{server}/honest"), await ask(tmp_path, f"{server}/honest")
    assert compare(first, second) == {"equal": True, "prompts": 3, "differences": []}
    answer = first["requests"][0]
    assert (answer["output_tokens"], answer["streamed_tokens"], answer["finish_reason"]) == (4, 4, "length")
    assert len(answer["text"].split()) == 4


async def test_stopping_early_is_seen(tmp_path: Path, server: str) -> None:
    """A candidate that generates less is not equal, prompt by prompt."""
    verdict = compare(await ask(tmp_path, f"{server}/honest"), await ask(tmp_path, f"{server}/early"))
    assert [each["index"] for each in verdict["differences"]] == [0, 1, 2]
    fewer, text = verdict["differences"][0]["reasons"]
    assert fewer == "fewer_tokens: 3 instead of 4" and text.startswith("different_text: from character")


async def test_claimed_tokens_are_not_believed(tmp_path: Path, server: str) -> None:
    """Usage that claims more than was streamed is found out by the token ids."""
    verdict = compare(await ask(tmp_path, f"{server}/honest"), await ask(tmp_path, f"{server}/liar"))
    reasons = verdict["differences"][0]["reasons"]
    assert "fewer_tokens: 3 instead of 4" in reasons
    assert "usage_mismatch: claims 4 tokens, streamed 3" in reasons


def output(**answer: Any) -> dict[str, Any]:
    base = {"index": 0, "error": None, "output_tokens": 2, "streamed_tokens": None, "chunk_ns": [1, 2]}
    answers = [{**base, "finish_reason": "length", "text": "abc", **answer}]
    return {"workload_digest": "d", "interrupted": False, "requests": answers}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"text": "abX"}, "different_text: from character 2"),
        ({"text": "ab"}, "different_text: from character 2"),
        ({"finish_reason": "stop"}, "finish_reason: stop instead of length"),
        ({"output_tokens": 3}, "more_tokens: 3 instead of 2"),
        ({"chunk_ns": [1, 2, 3]}, "usage_mismatch: claims 2 tokens, streamed at least 3"),
        ({"error": {"kind": "timeout", "detail": "late"}}, "error: timeout: late"),
    ],
)
def test_every_difference_has_its_reason(answer: dict[str, Any], reason: str) -> None:
    """A difference is named with what was seen and what was expected."""
    assert compare(output(), output(**answer))["differences"] == [{"index": 0, "reasons": [reason]}]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda out: out.update(workload_digest="e"), "different prompts"),
        (lambda out: out["requests"][0].update(error={"kind": "connect", "detail": ""}), r"prompts \[0\]"),
        (lambda out: out.update(interrupted=True), "ask it again"),
    ],
)
def test_unusable_reference_is_refused(damage: Callable[[dict[str, Any]], None], said: str) -> None:
    """Nothing is compared with a reference that failed or answered other prompts."""
    reference = copy.deepcopy(output())
    damage(reference)
    with pytest.raises(ValueError, match=said):
        compare(reference, output())
