"""Which function carries out which activity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sotad.activities.context import Context
from sotad.activities.finish import clean_up, report
from sotad.activities.intake import lease, preflight
from sotad.activities.knowledge import consult_history, freeze_workload
from sotad.activities.launch import launch
from sotad.activities.patch import compare_outputs, implement, propose, run_tests
from sotad.activities.plan import write_plan
from sotad.activities.profile import explain, profile
from sotad.activities.record import checkpoint, review

Activity = Callable[[Context], Awaitable[str]]

ACTIVITIES: dict[str, Activity] = {
    activity.__name__: activity
    for activity in (
        *(lease, preflight, consult_history, freeze_workload, launch, write_plan, profile, explain),
        *(propose, implement, run_tests, compare_outputs, checkpoint, review, clean_up, report),
    )
}
