"""What the target's patch is held to before anything is served: run by ``python3 -m unittest discover -s checks``."""

import ast
import unittest
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[1] / "sglang" / "srt" / "layers" / "attention"


class Attention(unittest.TestCase):
    def test_every_file_compiles(self):
        files = list(FOLDER.rglob("*.py"))
        self.assertGreater(len(files), 20)
        for file in files:
            ast.parse(file.read_text(), str(file))

    def test_heads_of_a_slice_are_a_view_of_it(self):
        """q is a slice of the product that holds q, k and v: its heads can be looked at where they are."""
        qkv = torch.arange(3 * 48.0).view(3, 48)
        q = qkv[:, :32]
        heads = q.view(-1, 4, 8)
        self.assertFalse(q.is_contiguous())
        self.assertEqual(heads.data_ptr(), qkv.data_ptr())
        self.assertTrue(torch.equal(heads, q.contiguous().view(-1, 4, 8)))

    def test_a_graph_reads_what_was_just_written(self):
        """The scheduler metadata of each batch size is a view from the buffer's start, written whole before."""
        buffer = torch.zeros(17, dtype=torch.int32)
        views = {length: buffer[:length] for length in (5, 17)}
        for value, length in enumerate((17, 5, 17), start=1):
            buffer[:length] = value
            self.assertTrue((views[length] == value).all())


if __name__ == "__main__":
    unittest.main()
