"""The prompts of the output comparison fit the model's context."""

from __future__ import annotations

from collections.abc import Iterator

from sotad.config.rules.finding import JSON, Finding, warning


def equivalence_rules(spec: JSON) -> Iterator[Finding]:
    """Lengths beyond the context are told: they are shortened when the outputs are compared."""
    wanted, limit = spec["equivalence"], spec["model"]["max_context"]
    needed = wanted["input_len"] + wanted["output_len"]
    if limit and needed > limit:
        told = f"input_len and output_len are {needed} tokens, model.max_context is {limit}: they are shortened to it"
        yield warning("equivalence", told)
