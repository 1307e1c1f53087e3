"""Where engines keep compiled code: the variable of each cache, and the folder below ours that it gets.

Names as the projects document them: PyTorch (TORCHINDUCTOR_CACHE_DIR, TORCH_EXTENSIONS_DIR), Triton
(TRITON_CACHE_DIR), the CUDA driver (CUDA_CACHE_PATH), FlashInfer (FLASHINFER_WORKSPACE_BASE), DeepGEMM
(DG_JIT_CACHE_DIR, SGLANG_DG_CACHE_DIR), vLLM (VLLM_CACHE_ROOT), SGLang (SGLANG_CACHE_DIR). CUDA graphs are captured
anew at every start; what of them is kept is kept in these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

COMMON_CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "DG_JIT_CACHE_DIR": "deep_gemm",
}
VLLM_CACHES = {**COMMON_CACHES, "VLLM_CACHE_ROOT": "vllm"}
SGLANG_CACHES = {**COMMON_CACHES, "SGLANG_CACHE_DIR": "sglang", "SGLANG_DG_CACHE_DIR": "deep_gemm"}


def cache_folder(root: str, framework: str, commit: str, hardware: Mapping[str, Any], host: Mapping[str, Any]) -> str:
    """The folder of a framework at a commit on this hardware: other code, or another GPU, never meets in it."""
    machine = {"gpus": host.get("gpus"), "gpu_type": hardware.get("gpu_type"), "cpu": host.get("cpu")}
    kind = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:8]
    return f"{root}/{framework}-{commit[:12]}-{kind}"


def variables(caches: Mapping[str, str], folder: str, set_by_hand: Mapping[str, str]) -> dict[str, str]:
    """The variables that send an engine's caches into a folder, but for those that the campaign file sets itself."""
    return {name: f"{folder}/{part}" for name, part in caches.items() if name not in set_by_hand}
