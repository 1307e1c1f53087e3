"""What people and scrapers look at: dashboard and metrics, each a pure function of ``Service.status()``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jinja2
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from sotad.api.forecast import gpu_hours, left
from sotad.api.summary import said_with, spending
from statemachine.table import PHASES

METRICS_TYPE = CONTENT_TYPE_LATEST
SAFE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def metrics(status: dict[str, Any]) -> bytes:
    """The status, and this process's CPU and memory, in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Status(status))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Status(Collector):
    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        daemon, campaigns = self._status["daemon"], self._status["campaigns"]
        yield GaugeMetricFamily("sotad_ledger_seq", "Last event of the ledger.", daemon["seq"])
        yield GaugeMetricFamily("sotad_daemon_epoch", "Incarnation of the daemon.", daemon["epoch"])
        yield GaugeMetricFamily("sotad_ready", "1 when the daemon takes orders.", bool(daemon["ready"]))
        age = daemon["progress_age_s"]
        yield GaugeMetricFamily("sotad_progress_age_seconds", "Since the last step.", age)
        phases = Counter(campaign["phase"] for campaign in campaigns)
        by_phase = GaugeMetricFamily("sotad_campaigns", "Campaigns by phase.", labels=["phase"])
        for phase in PHASES:
            by_phase.add_metric([phase], phases[phase])
        yield by_phase
        waits = GaugeMetricFamily("sotad_waits", "What a campaign waits for a person for.", labels=["campaign"])
        issues = GaugeMetricFamily("sotad_open_issues", "Review issues that are open.", labels=["campaign"])
        for campaign in campaigns:
            waits.add_metric([campaign["campaign"]], len(campaign["waits"]))
            issues.add_metric([campaign["campaign"]], campaign["open_issues"])
        yield from (waits, issues)
        gpu = CounterMetricFamily("sotad_gpu_seconds", "GPU seconds for which GPUs were held.", labels=["campaign"])
        for campaign in campaigns:
            gpu.add_metric([campaign["campaign"]], 3600 * campaign["expected"]["gpu_hours"]["spent"])
        yield gpu
        appended = CounterMetricFamily("sotad_events", "Events appended, by campaign.", labels=["campaign"])
        for campaign in campaigns:
            appended.add_metric([campaign["campaign"]], campaign["events"])
        yield appended


def dashboard(status: dict[str, Any]) -> str:
    """The page at ``/``: everything from outside is escaped."""
    return _template().render(daemon=status["daemon"], campaigns=status["campaigns"])


@lru_cache(1)
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("sotad.api", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"utc": _utc, "spending": spending, "left": left, "gpu_hours": gpu_hours}
    environment.globals["said_with"] = said_with
    return environment.get_template("dashboard.html")


def _utc(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))
