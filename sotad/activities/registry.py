"""Which function carries out which activity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sotad.activities.accuracy import measure_accuracy
from sotad.activities.context import Context
from sotad.activities.finish import clean_up, report
from sotad.activities.freeze import freeze_workload
from sotad.activities.intake import lease, preflight
from sotad.activities.knowledge import consult_history
from sotad.activities.launch import launch
from sotad.activities.outputs import compare_outputs, compare_timed
from sotad.activities.patch import implement, propose, run_base_tests, run_tests
from sotad.activities.plan import write_plan
from sotad.activities.profile import explain, profile
from sotad.activities.record import checkpoint
from sotad.activities.review import review

Activity = Callable[[Context], Awaitable[str]]

ACTIVITIES: dict[str, Activity] = {
    activity.__name__: activity
    for activity in (
        *(lease, preflight, consult_history, freeze_workload, launch, write_plan, profile, explain),
        *(
            propose,
            implement,
            run_base_tests,
            run_tests,
            compare_outputs,
            measure_accuracy,
            compare_timed,
            checkpoint,
            review,
            clean_up,
            report,
        ),
    )
}
