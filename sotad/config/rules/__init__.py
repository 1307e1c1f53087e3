"""What must hold in a spec beyond the shape of its sections. Pure: a spec in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.config.rules.campaign import campaign_rules
from sotad.config.rules.equivalence import equivalence_rules
from sotad.config.rules.finding import JSON, Finding
from sotad.config.rules.flags import flag_rules
from sotad.config.rules.lengths import length_rules
from sotad.config.rules.plan import plan_rules
from sotad.config.rules.space import space_rules
from sotad.config.rules.values import value_rules

__all__ = ["Finding", "errors", "findings"]


def findings(spec: JSON) -> Iterator[Finding]:
    """Every finding of every rule, of the campaign first, then framework by framework."""
    yield from campaign_rules(spec)
    yield from equivalence_rules(spec)
    yield from plan_rules(spec)
    for name, framework in spec["frameworks"].items():
        for rule in (flag_rules, space_rules, length_rules, value_rules):
            for found in rule(spec, framework):
                yield found.under(f"frameworks.{name}")


def errors(spec: JSON) -> list[str]:
    """The lines for which a spec is refused."""
    return [str(found) for found in findings(spec) if found.level == "error"]
