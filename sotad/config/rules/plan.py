"""What a plan will need, hours after the campaign was submitted."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.config.rules.finding import JSON, Finding
from statemachine.plan import path_problem

WRITERS = ("claude", "codex", "command")  # drivers that can make a plan of a draft


def plan_rules(spec: JSON) -> Iterator[Finding]:
    """The target's paths can be a plan's boundary, and who is to write the plan is able to."""
    for name, framework in spec["frameworks"].items():
        if framework["role"] == "target":
            for problem in filter(None, map(path_problem, framework["paths"])):
                yield Finding(f"frameworks.{name}.paths", problem)
    driver = spec["implementer"]["driver"]
    if spec["plan"]["source"] == "agent" and driver not in WRITERS:
        yield Finding(
            "plan.source", f"implementer.driver {driver} writes no plan; use {', '.join(WRITERS)}, or template"
        )
