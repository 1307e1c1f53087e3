"""Facts of a running server: real scrapes and answers, and what must not become a number."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sotad.frameworks import FRAMEWORKS
from sotad.frameworks.facts import Counter, Gauge, Label, Metrics, Ratio, model_info

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[3] / "shared/data"))
real = pytest.mark.skipif(not (DATA / "h200").is_dir(), reason="no folder with real scrapes")


def scrape(name: str) -> str:
    return (DATA / name).read_text()


@real
def test_vllm_between_two_scrapes() -> None:
    """Counters are what rose in between; the cache's settings come from its info metric."""
    found = FRAMEWORKS["vllm"].observe(
        scrape("h200/vllm/metrics-after-bench.txt"), None, scrape("h200/vllm/metrics.txt")
    )
    assert found["prefix_cache_hit_rate"] == pytest.approx(11904 / 124864)
    assert found["queue_ms"] == pytest.approx(8889.404561 / 160)
    assert (found["generation_tokens"], found["preemptions"], found["running"]) == (92608, 0, 0)
    assert (found["kv_cache_tokens"], found["kv_cache_dtype"]) == (743120, "auto")
    assert (found["prefix_cache_enabled"], found["gpu_memory_utilization"]) == (True, 0.85)
    assert found["mean_accept_length"] is None and found["acceptance_rate"] is None


@real
def test_sglang_between_two_scrapes() -> None:
    """The same facts under SGLang's names; what its info page says is there too."""
    info = json.loads(scrape("h200/sgl/server_info.txt"))
    after, before = scrape("h200/sgl/metrics-after-bench.txt"), scrape("h200/sgl/metrics.txt")
    found = FRAMEWORKS["sglang"].observe(after, info, before)
    assert found["prefix_cache_hit_rate"] == pytest.approx(7504 / 125344)
    assert (found["kv_cache_tokens"], found["gpu_memory_utilization"]) == (749796, 0.85)
    assert found["prefix_cache_enabled"] is True and found["mean_accept_length"] is None
    assert FRAMEWORKS["sglang"].observe("", {**info, "disable_radix_cache": True})["prefix_cache_enabled"] is False


@real
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_fresh_servers_without_an_earlier_scrape(kind: str) -> None:
    """A scrape alone counts from the server's start; nothing is NaN."""
    found = FRAMEWORKS[kind].observe(scrape(f"cpu/{kind}/metrics.txt"))
    assert found["generation_tokens"] == 16 and all(value == value for value in found.values())


@pytest.mark.parametrize("kind", FRAMEWORKS)
@pytest.mark.parametrize("text", ["", "<html>404</html>", '{"detail":"Not Found"}', "a{b 1\n", "x NaN\n"])
def test_no_metrics_is_null_and_never_zero(kind: str, text: str) -> None:
    """An answer that is no scrape leaves every fact unknown."""
    assert set(FRAMEWORKS[kind].observe(text).values()) <= {None}


def test_speculation_counts() -> None:
    """Accepted tokens per draft plus the one that is always right, and per drafted token."""
    lines = {"drafts": 10, "draft_tokens": 40, "accepted_tokens": 25}
    text = "".join(f"vllm:spec_decode_num_{name}_total {value}\n" for name, value in lines.items())
    found = FRAMEWORKS["vllm"].observe(text)
    assert (found["mean_accept_length"], found["acceptance_rate"]) == (3.5, 0.625)


def test_readings() -> None:
    """Ranks are summed or the largest taken; a counter that fell was reset; NaN and nothing counted are unknown."""
    now = Metrics('g{r="0"} 1\ng{r="1"} 2\nc_total 5\nn NaN\nz_total 0\ni{on="true",none="None",n="x"} 1\n')
    before, none = Metrics("c_total 9\n"), Metrics("")
    assert (Gauge("g").of(now, none), Gauge("g", max).of(now, none), Gauge("n").of(now, none)) == (3, 2, None)
    assert (Counter("c_total").of(now, before), Counter("c_total").of(now, none)) == (5, 5)
    assert Ratio("c_total", "z_total").of(now, none) is None
    assert Ratio("c_total", "c_total", 10, 1).of(now, none) == 11
    assert [Label("i", label, read).of(now, none) for label, read in (("on", str), ("none", str), ("n", int))] == [
        "true",
        None,
        None,
    ]


@real
@pytest.mark.parametrize(
    ("models", "info", "wanted"),
    [
        ("h200/vllm/v1_models.txt", None, ("qwen3-8b-dummy", "/srv/s/model", 8192, None)),
        ("h200/sgl/v1_models.txt", "h200/sgl/server_info.txt", ("qwen3-8b-dummy", "/srv/s/model", 8192, "0.5.16")),
        ("cpu/vllm/v1_models.json", None, ("tiny", "/srv/engines/tiny-qwen3", 2048, None)),
        ("cpu/transformers/v1_models.json", None, (None, None, None, None)),
    ],
)
def test_model_information(models: str, info: str | None, wanted: tuple[Any, ...]) -> None:
    """Name, root, longest context and version, from whichever page tells them."""
    found = model_info(json.loads(scrape(models)), json.loads(scrape(info)) if info else None)
    assert tuple(found[key] for key in ("id", "root", "max_context", "version")) == wanted


@pytest.mark.parametrize("answer", [None, [], "x", {"data": None}, {"data": ["x"]}, {"data": []}])
def test_a_model_list_that_is_none(answer: Any) -> None:
    """Any other answer leaves everything unknown."""
    assert set(model_info(answer).values()) == {None}
