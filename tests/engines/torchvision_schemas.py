"""Let torchvision be imported beside a torch that its compiled part was not built for.

That part (a CUDA build) cannot load next to a CPU torch, and torchvision then fails at import because it registers
shape functions for operators that were never declared. Declaring their schemas is enough for SGLang, which wants
only the Python part. Loaded by a .pth file in every interpreter of the venv, so it does nothing until the first
import of torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class DeclareFirst:
    """A finder that finds nothing: it declares the operators when torchvision is looked for, and retires."""

    library: object = None  # an operator lives as long as the library that declared it

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision" and cls.library is None:
            sys.meta_path.remove(cls)
            import torch

            library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
            for operator in ("nms", "qnms"):
                library.define(operator + NMS)  # type: ignore[no-untyped-call]
            cls.library = library
        return None


sys.meta_path.insert(0, DeclareFirst)
