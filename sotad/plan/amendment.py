"""Whether another plan may take the place of the one in force: asked before it is sent, and again by the daemon."""

from __future__ import annotations

from typing import Any

from sotad.errors import BadConfig
from statemachine.plan import JSON, amendment_problems, changes


class BadPlan(BadConfig):
    """A plan that cannot take the place of the one in force."""

    code = "bad_plan"
    next = "print the plan in force with `sotactl plan CAMPAIGN --yaml`, and change that"


def amended(old: JSON, new: Any) -> list[str]:
    """What changes with the new plan, one line each.

    Raises:
        BadPlan: with one line per problem.
    """
    if problems := amendment_problems(old, new):
        raise BadPlan(problems)
    return changes(old, new)
