"""Prometheus metrics, read from the engine when they are asked for: steps pay nothing for them."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .engine import Engine


class EngineCollector:
    """Collects the state of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Every metric family of the engine."""
        engine, count = self._engine, self._engine.counters
        gauges = {
            "num_requests_running": ("Sequences in the running batch.", len(engine.scheduler.running)),
            "num_requests_waiting": ("Sequences waiting for admission.", len(engine.scheduler.waiting)),
            "kv_cache_usage_ratio": (
                "Share of KV slots reserved by running sequences.",
                engine.cache.used / engine.cache.capacity,
            ),
        }
        totals = {
            "prompt_tokens": (
                "Prompt tokens computed; those reused from the prefix cache are not.",
                count.prompt_tokens,
            ),
            "generation_tokens": ("Tokens generated.", count.generation_tokens),
            "prefix_cache_queries": (
                "Prompt tokens looked up in the prefix cache.",
                engine.cache.queried_tokens,
            ),
            "prefix_cache_hits": ("Prompt tokens found in the prefix cache.", engine.cache.hit_tokens),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"refengine:{name}", text, value)
        for name, (text, total) in totals.items():
            yield CounterMetricFamily(f"refengine:{name}", text, total)
        yield _labelled("steps", "Engine steps run.", "stage", count.steps)
        yield _labelled("request_success", "Requests finished.", "finished_reason", count.finished)


def exposition(engine: Engine) -> bytes:
    """The text that /metrics answers with."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(engine))
    return generate_latest(registry)


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"refengine:{name}", text, labels=[label])
    for key, value in values.copy().items():
        family.add_metric([key], value)
    return family
