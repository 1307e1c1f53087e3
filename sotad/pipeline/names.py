"""Kernel names short enough for a table and equal across layers of one kind."""

from __future__ import annotations

import re

LONGEST = 80
WRAPPERS = {
    "device_kernel", "kernel", "Kernel", "Kernel2", "elementwise_kernel", "vectorized_elementwise_kernel",
    "unrolled_elementwise_kernel", "legacy_elementwise_kernel", "index_elementwise_kernel", "reduce_kernel",
    "multi_tensor_apply_kernel", "elementwise_kernel_with_index", "_scatter_gather_elementwise_kernel",
}  # fmt: skip
_TELLING = re.compile(
    r"\b(?!gpu_)(FlashAttn\w+|\w*(?:Fmha|Sm\d{2,3}|Gemm|GEMM)\w*Kernel\w*|GemmUniversal\w*|\w+Functor\w*|\w+Ops"
    r"|\w+_kernel_cuda|\w+_cuda_\w+|\w+_kernel_impl\w*)\b"
)
_CONDITION = re.compile(r"^std::enable_if(?:_t)?<.*?::type ")
_DIGITS = re.compile(r"0x[0-9a-f]+", re.IGNORECASE)


def short(name: str) -> str:
    """A kernel name without result, arguments, template arguments and namespaces, at most 80 characters.

    A kernel that only wraps another (`cutlass::device_kernel<...>`) is named with what it wraps.
    """
    plain = _DIGITS.sub("0xADDR", name.replace("(anonymous namespace)::", "")).strip()
    plain = _CONDITION.sub("", plain)
    head, inner = _split(_without_result(plain))
    base = head.split("::")[-1].strip() or plain
    told = _TELLING.search(inner) if base in WRAPPERS else None
    full = f"{base}[{told[0]}]" if told else base
    return full if len(full) <= LONGEST else full[: LONGEST - 3] + "..."


def _without_result(name: str) -> str:
    """A C++ signature without its result type: what follows the last blank before its arguments, outside brackets."""
    depth, opened = 0, 0
    for at, letter in enumerate(name):
        if letter == "(" and not depth:
            return name[opened:]
        depth += (letter in "<(") - (letter in ">)")
        opened = at + 1 if letter == " " and not depth else opened
    return name


def _split(name: str) -> tuple[str, str]:
    """What stands before the first bracket, and the rest."""
    cut = min((at for at in (name.find("<"), name.find("(")) if at > 0), default=len(name))
    return name[:cut], name[cut:]
