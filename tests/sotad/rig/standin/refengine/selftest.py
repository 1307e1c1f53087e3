"""The stand-in's own tests; a campaign runs them on every patched commit."""

import unittest

from refengine import work


class Tokens(unittest.TestCase):
    def test_the_same_prompt_gives_the_same_tokens(self) -> None:
        self.assertEqual(work.next_token([1, 2], 0), work.next_token([1, 2], 0))
        self.assertNotEqual(work.next_token([1, 2], 0), work.next_token([1, 2], 1))

    def test_work_is_done(self) -> None:
        self.assertGreater(work.TOKEN_WORK, 0)
        work.compute(0.01, 1.0)
