"""What the engine computes, whatever it does to be fast."""

import tempfile
import unittest
from pathlib import Path

from ..profiling import CaptureRefused
from ..scheduler import Sequence
from .rig import complete, engine, prompts


class Outputs(unittest.TestCase):
    """Greedy outputs are a function of the prompt alone."""

    asked: list[list[int]]
    expected: list[list[int]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.asked = prompts(10)
        cls.expected = complete(engine(max_batch_size=1, prefix_cache=False), cls.asked)

    def test_decode_agrees_with_prefill(self) -> None:
        """Each token is what a fresh prefill of everything before it would have given."""
        prompt, output = self.asked[0], self.expected[0]
        again = [complete(engine(), [prompt + output[:n]], tokens=1)[0][0] for n in range(0, len(output), 3)]
        self.assertEqual(again, output[::3])

    def test_every_configuration_gives_the_same_tokens(self) -> None:
        """Batch size, chunking, policy and cache change speed only."""
        for changes in (
            {"max_batch_size": 8},
            {"prefill_chunk": 7},
            {"schedule_policy": "decode-first"},
            {"schedule_policy": "shortest-first"},
            {"kv_tokens": 128, "block_size": 4},
        ):
            with self.subTest(changes):
                self.assertEqual(complete(engine(**changes), self.asked), self.expected)

    def test_a_reused_prefix_gives_the_same_tokens(self) -> None:
        """A prompt seen before is mostly copied, and answers the same."""
        target = engine(block_size=4)
        first, computed = complete(target, self.asked), target.counters.prompt_tokens
        self.assertEqual(complete(target, self.asked), first)
        self.assertLess(target.counters.prompt_tokens - computed, computed / 2)
        self.assertGreater(target.cache.hit_tokens, 0)

    def test_outputs_depend_on_the_prompt(self) -> None:
        """Different prompts are told apart."""
        self.assertEqual(len({tuple(output) for output in self.expected}), len(self.asked))

    def test_the_seed_decides_sampled_tokens(self) -> None:
        """The same seed draws the same tokens in any company; another seed draws others."""

        def draw(seed: int, company: int) -> list[int]:
            target = engine()
            for n, prompt in enumerate(prompts(company, seed=5)):
                target.scheduler.submit(Sequence(id=f"other{n}", prompt=prompt, max_tokens=9, temperature=2.0))
            mine = Sequence(id="mine", prompt=[1, 2, 3], max_tokens=9, temperature=1.0, seed=seed)
            target.scheduler.submit(mine)
            while target.run_step() is not None:
                pass
            return mine.output

        self.assertEqual(draw(7, 0), draw(7, 3))
        self.assertNotEqual(draw(7, 0), draw(8, 0))


class Captures(unittest.TestCase):
    """Profiler captures, driven step by step."""

    def test_a_capture_ends_by_itself(self) -> None:
        """After the steps asked for the file is there and the engine goes on."""
        with tempfile.TemporaryDirectory() as folder:
            target = engine(profile_dir=Path(folder))
            target.profiler.start("decode", 3, "run", with_stack=False)
            complete(target, prompts(2))
            state = target.profiler.state()
            self.assertEqual((state["active"], state["steps"]), (False, 3))
            self.assertEqual([str(p.absolute()) for p in Path(folder).iterdir()], state["files"])

    def test_refusals(self) -> None:
        """No folder, nothing to stop and a second capture are refused."""
        with self.assertRaises(CaptureRefused):
            engine().profiler.start(None, 1, "run", with_stack=False)
        with tempfile.TemporaryDirectory() as folder:
            target = engine(profile_dir=Path(folder))
            with self.assertRaises(CaptureRefused):
                target.profiler.stop()
            target.profiler.start(None, 1, "run", with_stack=False)
            with self.assertRaises(CaptureRefused):
                target.profiler.start(None, 1, "run", with_stack=False)
            self.assertEqual(target.profiler.stop()["files"], [])
