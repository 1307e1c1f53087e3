"""Serving frameworks: how each is launched, asked for help, watched and profiled. One file per framework."""

from __future__ import annotations

from sotad.frameworks.base import Framework
from sotad.frameworks.openai import OpenAI
from sotad.frameworks.reference import Reference
from sotad.frameworks.sglang import SGLang
from sotad.frameworks.tensorrt_llm import TensorRTLLM
from sotad.frameworks.tokenspeed import TokenSpeed
from sotad.frameworks.vllm import Vllm

FRAMEWORKS: dict[str, Framework] = {
    driver.kind: driver for driver in (Reference(), SGLang(), Vllm(), TensorRTLLM(), TokenSpeed(), OpenAI())
}
