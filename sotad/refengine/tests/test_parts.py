"""The parts on their own: tokens, KV regions, scheduling, request bodies."""

import unittest
from typing import Any

import torch

from .. import tokenizer
from ..flags import Config
from ..kvcache import KVCache, KVCacheTooSmall, check_capacity
from ..protocol import BadRequest, parse_request
from ..scheduler import Scheduler, Sequence


class Tokens(unittest.TestCase):
    """Bytes, specials and pieces."""

    def test_text_survives(self) -> None:
        """Any text comes back, one token per UTF-8 byte."""
        self.assertEqual(tokenizer.decode(tokenizer.encode("grün 漢 🙂")), "grün 漢 🙂")

    def test_pieces_differ(self) -> None:
        """Every piece has three characters of its own."""
        pieces = {tokenizer.token_bytes(t) for t in range(tokenizer.FIRST_PIECE, tokenizer.LARGEST_VOCAB)}
        self.assertEqual(len(pieces), tokenizer.LARGEST_VOCAB - tokenizer.FIRST_PIECE)
        self.assertEqual({len(piece) for piece in pieces}, {3})

    def test_a_split_character_is_held_back(self) -> None:
        """A stream never shows half a character, and shows what is left at the end."""
        stream = tokenizer.StreamDecoder()
        self.assertEqual([stream.feed(t, last=False) for t in "é".encode()], ["", "é"])
        self.assertEqual(stream.feed(0xC3, last=True), "\ufffd")


def cache(tokens: int = 64, prefix: bool = True) -> KVCache:
    return KVCache(layers=1, heads=1, head_dim=2, tokens=tokens, block=4, prefix=prefix)


class Regions(unittest.TestCase):
    """Room and prefixes in the KV cache."""

    def test_room_is_never_given_twice(self) -> None:
        """Regions do not overlap, a full cache refuses, and freed room is found again."""
        pool = cache(prefix=False)
        regions = [pool.reserve([1], 20) for _ in range(4)]
        self.assertEqual([r and r.start for r in regions], [0, 20, 40, None])
        assert regions[1] is not None
        pool.release(regions[1])
        self.assertEqual(pool.used, 40)
        again = pool.reserve([1], 10)
        self.assertEqual(again and again.start, 20)

    def test_a_known_prefix_is_copied(self) -> None:
        """Full blocks that two prompts share are in place with the right values; the last token never is."""
        pool, prompt = cache(), list(range(10))
        first = pool.reserve(prompt, 12)
        assert first is not None and first.reused == 0
        values = torch.arange(20.0).view(1, 1, 10, 2)
        pool.append(0, torch.arange(10), values, -values)
        pool.publish(first, prompt)
        second = pool.reserve([*prompt[:8], 99], 12)
        assert second is not None
        self.assertEqual(second.reused, 8)
        keys, negated = pool.context(0, second.start, 8)
        self.assertTrue(torch.equal(keys, values[:, :, :8]) and torch.equal(negated, -values[:, :, :8]))
        third = pool.reserve(prompt[:8], 12)
        self.assertEqual(third and third.reused, 4)

    def test_old_prefixes_make_room(self) -> None:
        """Ended sequences are evicted, least recently used first, and are then unknown."""
        pool = cache(tokens=24)
        for start in (0, 100, 200):
            region = pool.reserve(list(range(start, start + 8)), 8)
            assert region is not None
            pool.publish(region, list(range(start, start + 8)))
            pool.release(region)
        hits = [pool.reserve(list(range(start, start + 8)), 8) for start in (7, 100, 200)]  # evicts 0, 200, 100
        self.assertEqual([region and region.reused for region in hits], [0, 4, 0])

    def test_too_small_is_said(self) -> None:
        """A pool that cannot hold one sequence is refused with what to change."""
        with self.assertRaisesRegex(KVCacheTooSmall, "--kv-tokens to at least 128"):
            check_capacity(127, 128)


class Scheduling(unittest.TestCase):
    """Plans, without a model."""

    def drive(self, policy: str, tokens: int = 512) -> list[str]:
        """Stages of all steps for 12 sequences of 5 to 16 prompt tokens; checks every limit on the way."""
        pool = cache(tokens=tokens, prefix=False)
        scheduler = Scheduler(pool, max_batch=4, chunk=16, policy=policy)
        sequences = [Sequence(id=str(n), prompt=[n] * (5 + n), max_tokens=1 + n % 5) for n in range(12)]
        for sequence in sequences:
            scheduler.submit(sequence)
        stages: list[str] = []
        while step := scheduler.plan():
            self.assertLessEqual(len(scheduler.running), 4)
            self.assertLessEqual(step.tokens, 16)
            stages.append(step.stage)
            scheduler.commit(step, [65] * sum(work.samples for work in step.work))
        self.assertEqual([len(s.output) for s in sequences], [s.max_tokens for s in sequences])
        self.assertEqual({s.finish for s in sequences}, {"length"})
        self.assertEqual(pool.used, 0)
        return stages

    def test_every_policy_finishes_everything(self) -> None:
        """All sequences get exactly their tokens within batch, chunk and KV limits, also when KV is short."""
        for policy in ("prefill-first", "decode-first", "shortest-first"):
            for tokens in (512, 24):
                with self.subTest(policy=policy, tokens=tokens):
                    self.assertIn("decode", self.drive(policy, tokens))

    def test_eos_ends_a_sequence(self) -> None:
        """The end token stops a sequence early and frees its room."""
        pool = cache()
        scheduler = Scheduler(pool, 1, 16, "prefill-first")
        sequence = Sequence(id="a", prompt=[1, 2], max_tokens=9, eos=257)
        scheduler.submit(sequence)
        step = scheduler.plan()
        assert step is not None
        scheduler.commit(step, [257])
        self.assertEqual((sequence.finish, sequence.output, pool.used), ("stop", [257], 0))

    def test_cancelled_work_is_dropped(self) -> None:
        """Neither a waiting nor a running sequence is worked on after it was cancelled."""
        pool = cache()
        scheduler = Scheduler(pool, 1, 16, "prefill-first")
        for name in "ab":
            scheduler.submit(Sequence(id=name, prompt=[1, 2], max_tokens=9))
        scheduler.plan()
        scheduler.cancel("a")
        scheduler.cancel("b")
        self.assertIsNone(scheduler.plan())
        self.assertEqual(pool.used, 0)


class Bodies(unittest.TestCase):
    """Validation of request bodies."""

    def test_what_is_wrong_is_named(self) -> None:
        """Each bad field is refused by its name."""
        bad: list[tuple[str | None, Any]] = [
            (None, []),
            ("model", {"prompt": "x", "model": "other"}),
            ("prompt", {}),
            ("prompt", {"prompt": []}),
            ("prompt", {"prompt": [1, -1]}),
            ("prompt", {"prompt": [True]}),
            ("max_tokens", {"prompt": "x", "max_tokens": 0}),
            ("max_tokens", {"prompt": "x" * 500, "max_tokens": 13}),
            ("temperature", {"prompt": "x", "temperature": -1}),
            ("temperature", {"prompt": "x", "temperature": float("nan")}),
            ("seed", {"prompt": "x", "seed": "1"}),
            ("stream", {"prompt": "x", "stream": "yes"}),
            ("stream_options", {"prompt": "x", "stream_options": 1}),
            ("n", {"prompt": "x", "n": 2}),
            ("stop", {"prompt": "x", "stop": ["a"]}),
        ]
        for param, body in bad:
            with self.subTest(body=body), self.assertRaises(BadRequest) as caught:
                parse_request(body, chat=False, config=Config())
            self.assertEqual(caught.exception.param, param)

    def test_defaults(self) -> None:
        """Completions get 16 tokens, chats what is left of the context."""
        plain = parse_request({"prompt": [1, 2]}, False, Config()).sequence
        self.assertEqual((plain.max_tokens, plain.eos, plain.temperature), (16, tokenizer.EOS, 1.0))
        chat = parse_request({"messages": [{"role": "user", "content": "hi"}]}, True, Config()).sequence
        self.assertEqual(len(chat.prompt) + chat.max_tokens, Config().max_model_len)
