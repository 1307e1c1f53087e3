"""A small real HTTP server that answers like an engine, honestly or in one of the ways of cheating."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from sotad.benchmark.equivalence import EquivalenceSpec, ask
from sotad.benchmark.workload import Scenario, prompts
from sotad.loadgen.report import measure
from sotad.loadgen.spec import LoadSpec

JSON = dict[str, Any]
LENGTH = 12  # prompt tokens of the timed scenario
KNOWN_SEED = 77  # of the timed scenario: what an agent can read in the campaign's spec
WARM = 20  # requests after which a server that waits for the measurement stops being honest
PAUSE_S = 0.001


@dataclass
class Answer:
    """What is about to be streamed: a text and an id for each token, and what usage will claim."""

    texts: list[str]
    ids: list[int]
    prompt_tokens: int
    claimed: int
    finish: str = "length"
    at_once: bool = False

    def keep(self, count: int) -> None:
        """Stream the first ``count`` tokens only, whatever is claimed."""
        self.texts, self.ids = self.texts[:count], self.ids[:count]

    def spoil(self) -> None:
        """Other words of the same number: what an engine says that skips work."""
        self.texts = [f"<{len(text)}> " for text in self.texts]


@dataclass
class Engine:
    """``manner`` names a cheat; ``noise`` is the chance that a shared batch changes an answer's text."""

    manner: str = "honest"
    noise: float = 0.0
    seed: int = 0
    samples: bool = True
    running: int = 0
    answered: int = 0
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    async def complete(self, http: web.Request) -> web.StreamResponse:
        body = await http.json()
        self.running += 1
        try:
            return await self._stream(http, body)
        finally:
            self.running -= 1
            self.answered += 1

    async def _stream(self, http: web.Request, body: JSON) -> web.StreamResponse:
        await asyncio.sleep(PAUSE_S)  # the prefill: what arrives meanwhile shares the batch
        answer = self.answer(body)
        CHEATS[self.manner](self, body, answer)
        response = web.StreamResponse()
        await response.prepare(http)
        events = _events(answer, bool(body.get("return_token_ids")))
        for event in [b"".join(events)] if answer.at_once else events:
            await asyncio.sleep(PAUSE_S)
            await response.write(event)
        return response

    def answer(self, body: JSON) -> Answer:
        """The honest one."""
        prompt, count = body["prompt"], body["max_tokens"]
        drawn = body.get("seed") if self.samples and body["temperature"] else None
        ids = [token(prompt, index, drawn) for index in range(count)]
        if self.running > 1 and self.chance.random() < self.noise:  # a near tie falls the other way
            other = [*prompt, self.chance.getrandbits(32)]
            ids[count // 2 :] = [token(other, index, drawn) for index in range(count // 2, count)]
        return Answer([f"{number} " for number in ids], ids, len(prompt), count)


def token(prompt: list[int], index: int, drawn: int | None) -> int:
    """A model of one line: the same for the same prompt and place."""
    return int.from_bytes(sha256(f"{prompt}/{index}/{drawn}".encode()).digest()[:2], "big")


def _events(answer: Answer, with_ids: bool) -> list[bytes]:
    """One for each token, and what follows the last."""
    last, made = len(answer.texts) - 1, []
    for index, text in enumerate(answer.texts):
        ids = {"token_ids": answer.ids[index : index + 1]} if with_ids else {}
        made.append({"choices": [{"text": text, "finish_reason": answer.finish if index == last else None, **ids}]})
    usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.claimed}
    made.append({"choices": [], "usage": usage})
    return [*(b"data: " + json.dumps(event).encode() + b"\n\n" for event in made), b"data: [DONE]\n\n"]


# --- ways of cheating ------------------------------------------------------------------------------------------

Cheat = Callable[[Engine, JSON, Answer], None]


def fewer_tokens(engine: Engine, body: JSON, answer: Answer) -> None:
    answer.keep(body["max_tokens"] - 1)
    answer.claimed -= 1


def faked_usage(engine: Engine, body: JSON, answer: Answer) -> None:
    answer.keep(body["max_tokens"] // 2)


def ends_early(engine: Engine, body: JSON, answer: Answer) -> None:
    fewer_tokens(engine, body, answer)
    answer.finish = "stop"


def empty_chunks(engine: Engine, body: JSON, answer: Answer) -> None:
    half = len(answer.texts) // 2
    answer.texts[half:] = [""] * (len(answer.texts) - half)


def no_detokenization(engine: Engine, body: JSON, answer: Answer) -> None:
    answer.texts = ["\ufffd"] * len(answer.texts)


def no_sampling(engine: Engine, body: JSON, answer: Answer) -> None:
    greedy = engine.answer({**body, "temperature": 0.0})
    answer.texts, answer.ids = greedy.texts, greedy.ids


def short_prompt(engine: Engine, body: JSON, answer: Answer) -> None:
    answer.prompt_tokens = len(body["prompt"]) // 2


def by_prompt_length(engine: Engine, body: JSON, answer: Answer) -> None:
    if len(body["prompt"]) == LENGTH:
        answer.spoil()


def by_token_ids(engine: Engine, body: JSON, answer: Answer) -> None:
    if "return_token_ids" not in body:
        answer.spoil()


def in_batches(engine: Engine, body: JSON, answer: Answer) -> None:
    if engine.running > 1:
        answer.spoil()


def shorter_in_batches(engine: Engine, body: JSON, answer: Answer) -> None:
    if engine.running > 1:
        answer.keep(len(answer.texts) - 1)  # claimed are all, and no ids are asked for


def once_warm(engine: Engine, body: JSON, answer: Answer) -> None:
    if engine.answered >= WARM:
        answer.spoil()


def by_seed(engine: Engine, body: JSON, answer: Answer) -> None:
    if body["prompt"] in timed_prompts():
        answer.spoil()


def precomputed(engine: Engine, body: JSON, answer: Answer) -> None:
    if body["prompt"] in timed_prompts():
        answer.at_once = True


def remembers(engine: Engine, body: JSON, answer: Answer) -> None:
    if str(body["prompt"]) in engine.known:
        answer.at_once = True
    engine.known.add(str(body["prompt"]))


def in_one_burst(engine: Engine, body: JSON, answer: Answer) -> None:
    answer.texts = ["".join(answer.texts)]


def refuses_some(engine: Engine, body: JSON, answer: Answer) -> None:
    if sum(body["prompt"]) % 3 == 0:
        raise web.HTTPServiceUnavailable(text="busy")


def honest(engine: Engine, body: JSON, answer: Answer) -> None:
    pass


CHEATS: dict[str, Cheat] = {
    cheat.__name__: cheat
    for cheat in (
        *(honest, fewer_tokens, faked_usage, ends_early, empty_chunks, no_detokenization, no_sampling, short_prompt),
        *(by_prompt_length, by_token_ids, in_batches, shorter_in_batches, once_warm, by_seed, precomputed),
        *(remembers, in_one_burst, refuses_some),
    )
}


# --- asking them -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[str]:
    """Its base URL."""
    app = web.Application()
    app.router.add_post("/v1/completions", engine.complete)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def scenario(**changes: Any) -> JSON:
    """The timed one, as the spec of a campaign has it."""
    shape = {"name": "chat", "num_prompts": 24, "input_len": LENGTH, "output_len": 6, "seed": KNOWN_SEED}
    return {**shape, **changes}


@cache
def timed_prompts() -> list[list[int]]:
    """What an agent can work out beforehand."""
    return prompts(Scenario(**scenario()))


async def timed(engine: Engine, **changes: Any) -> JSON:
    """The load generator's report on it, four requests at a time."""
    async with serving(engine) as url:
        spec = {"base_url": url, "model": "m", "scenario": scenario(), "max_concurrency": 4, **changes}
        return await measure(LoadSpec.model_validate(spec))


async def asked(engine: Engine, **changes: Any) -> JSON:
    """Its answers to prompts that nobody knew: of the timed lengths, and of others."""
    async with serving(engine) as url:
        scenarios = [scenario(num_prompts=2, seed=901), scenario(num_prompts=3, seed=902, input_len=7, output_len=5)]
        spec = {"base_url": url, "model": "m", "scenarios": scenarios, **changes}
        output, _ = await ask(EquivalenceSpec.model_validate(spec))
        return output
