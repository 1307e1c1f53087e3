"""A campaign file as it is written."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from sotad.config.framework import Framework
from sotad.config.section import Section, Slug
from sotad.config.sections import (
    Agent,
    Budget,
    Caches,
    Cleanup,
    Decision,
    Equivalence,
    Hardware,
    Humanize,
    Knowledge,
    Model,
    Plan,
    Review,
    Search,
    Sla,
)
from sotad.config.traffic import Workload
from sotad.hosts.runs import FILES


class CampaignConfig(Section):
    """One campaign. Goal ``sota`` patches the target until it leads; ``compare`` only measures and decides."""

    campaign: str = Field(pattern=Slug)
    description: str = ""
    goal: Literal["sota", "compare"] = "sota"
    model: Model
    hardware: Hardware = Hardware()
    frameworks: dict[str, Framework]
    excluded: dict[str, str] = Field(default={})
    workload: Workload
    sla: Sla
    search: Search = Search()
    caches: Caches = Caches()
    decision: Decision = Decision()
    equivalence: Equivalence = Equivalence()
    implementer: Agent = Agent()
    reviewer: Agent = Agent()
    plan: Plan = Plan()
    review: Review = Review()
    humanize: Humanize = Humanize()
    knowledge: Knowledge = Knowledge()
    cleanup: Cleanup = Cleanup()
    budget: Budget = Budget()

    @field_validator("campaign")
    @classmethod
    def _free(cls, name: str) -> str:
        if name == FILES:
            raise ValueError(f"{FILES} is where hosts keep what was sent to them, beside the campaigns: choose another")
        return name

    @field_validator("frameworks")
    @classmethod
    def _roles(cls, frameworks: dict[str, Framework]) -> dict[str, Framework]:
        odd = [name for name in frameworks if not re.match(Slug, name)]
        if odd:
            raise ValueError(f"names must be lower-case words of letters, digits, '.', '_' and '-': {', '.join(odd)}")
        roles = [framework.role for framework in frameworks.values() if framework.enabled]
        if roles.count("target") != 1:
            raise ValueError("exactly one framework must have role: target")
        if "competitor" not in roles:
            raise ValueError("at least one framework must have role: competitor")
        return frameworks
