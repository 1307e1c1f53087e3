"""Which folders the engines' caches get: keyed by code and hardware, the operator's own settings untouched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sotad.activities.engine_caches import engine_caches
from sotad.config import parse_campaign
from sotad.errors import BadConfig
from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.caches import cache_folder
from statemachine.state import Campaign, Launch

H200 = {"gpus": [{"name": "NVIDIA H200"}], "cpu": "x"}
A, B = "a" * 40, "b" * 40


def context(reuse: str = "fair", purpose: str | None = "search", **spec: Any) -> Any:
    """What the rule looks at of an activity."""
    whole = {
        "caches": {"reuse": reuse, "folder": None},
        "hardware": {"gpu_type": "NVIDIA H200"},
        "frameworks": {"vllm": {"kind": "vllm", "env": {}}, "cpu": {"kind": "reference"}},
        **spec,
    }
    params = {"purpose": purpose, "candidate": "base"} if purpose else {}
    host = SimpleNamespace(path=lambda run: f"/runs/{run}")
    c = Campaign("c", spec=whole, host=H200)
    return SimpleNamespace(spec=whole, c=c, host=host, params=params, campaign="c", job="j/1", attempt=2)


def test_every_compiling_engine_has_its_caches_below_one_folder() -> None:
    """torch.compile, triton, flashinfer, CUDA, and the engine's own."""
    found = engine_caches(context(), "vllm", A)
    assert set(found.environment.values()) == {f"{found.folder}/{part}" for part in FRAMEWORKS["vllm"].caches.values()}
    for kind in ("vllm", "sglang", "tensorrt_llm", "tokenspeed"):
        assert {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"} <= set(
            FRAMEWORKS[kind].caches
        )
    assert engine_caches(context(), "cpu", A).folder == ""


def test_another_commit_or_gpu_has_another_folder() -> None:
    """And the same ones the same folder."""

    def of(commit: str = A, gpu: str = "NVIDIA H200", framework: str = "vllm") -> str:
        return cache_folder("/c", framework, commit, {"gpu_type": gpu}, {"gpus": [{"name": gpu}]})

    assert len({of(), of(B), of(gpu="NVIDIA H100"), of(framework="sglang")}) == 4 and of() == of()


def test_what_is_judged_alone_has_a_folder_of_its_own() -> None:
    """By purpose, attempt and commit; ``all`` shares, ``off`` never does, ``engine`` says nothing."""
    shared = engine_caches(context(), "vllm", A).folder
    alone = engine_caches(context(purpose="revalidate"), "vllm", A).folder
    assert alone.startswith("/runs/files/caches/c/once/j/1-2/")
    assert shared.startswith("/runs/files/caches/c/vllm-aaaaaaaaaaaa-")
    assert engine_caches(context(purpose="revalidate"), "vllm", B).folder != alone
    assert engine_caches(context(purpose=None), "vllm", A).folder == alone
    assert engine_caches(context("all", "revalidate"), "vllm", A).folder == shared
    assert engine_caches(context("off"), "vllm", A).folder == alone
    assert engine_caches(context("engine"), "vllm", A).environment == {}


def test_the_operators_own_variables_win_and_are_named() -> None:
    """A cache that was filled beforehand stays in use."""
    by_hand = {"vllm": {"kind": "vllm", "env": {"TRITON_CACHE_DIR": "/mine", "X": "1"}}}
    ctx = context(frameworks=by_hand)
    found = engine_caches(ctx, "vllm", A)
    assert "TRITON_CACHE_DIR" not in found.environment
    assert found.recorded(ctx) == {"state": "cold", "folder": found.folder, "set_by_hand": ["TRITON_CACHE_DIR"]}


def test_a_row_says_what_its_launch_said() -> None:
    """Not what the folder is by then: the launch itself has warmed it."""
    ctx = context()
    found = engine_caches(ctx, "vllm", A)
    ctx.c.launches["j/1"] = Launch("j/1", "search", "vllm", "base", A, 2, "ready", 1, caches=found.recorded(ctx))
    ctx.c.caches[found.folder] = {"framework": "vllm", "commit": A, "candidates": ["base"]}
    assert found.recorded(ctx)["state"] == "cold"
    ctx.attempt = 3
    assert found.recorded(ctx)["state"] == "warm"


def test_a_configured_folder_is_divided_by_campaign() -> None:
    """What another campaign left there is never taken for this one's."""
    found = engine_caches(context(caches={"reuse": "fair", "folder": "/nvme"}), "vllm", A)
    assert found.folder.startswith("/nvme/c/vllm-")


@pytest.mark.parametrize(("section", "said"), [("{reuse: always}", "'fair'"), ("{folder: here}", "pattern")])
def test_the_section_is_checked(section: str, said: str) -> None:
    """An unknown word, or a folder that is not absolute."""
    with pytest.raises(BadConfig) as refused:
        parse_campaign(f"campaign: x\ncaches: {section}\n", "c.yaml", __import__("pathlib").Path("/"))
    assert any("caches" in problem and said in problem for problem in refused.value.problems)
