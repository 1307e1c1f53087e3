"""What SGLang compiles with nvcc at its first start, compiled for an H200 without one: ``kernels.py``, in its cache."""

from concurrent.futures import ThreadPoolExecutor

import torch
from sglang.jit_kernel import activation, clamp_position, kvcache, norm, rope
from sglang.jit_kernel.utils.arch import override_jit_cuda_arch

HEAD, ROW = 128, 8 * 128 * 2  # of Qwen3-8B: the width of a head, the bytes of a token's keys in a layer
BUILDS = (
    (clamp_position._jit_clamp_position_module, torch.int64),
    (norm._jit_qknorm_module, HEAD, torch.bfloat16),
    (rope._jit_fused_rope_module, True, HEAD, torch.bfloat16),
    (kvcache._jit_kvcache_module, ROW),
    (activation._jit_activation_module, torch.bfloat16),
)

with override_jit_cuda_arch(9, 0, "a"), ThreadPoolExecutor() as pool:
    list(pool.map(lambda build: build[0](*build[1:]), BUILDS))
