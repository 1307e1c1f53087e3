"""Which function carries out which activity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sotad.activities.accuracy import measure_accuracy
from sotad.activities.cleanup import clean_up
from sotad.activities.context import Context
from sotad.activities.finish import report
from sotad.activities.freeze import freeze_workload
from sotad.activities.intake import preflight
from sotad.activities.knowledge import consult_history
from sotad.activities.launch import launch
from sotad.activities.lease import lease
from sotad.activities.outputs import compare_outputs, compare_timed
from sotad.activities.patch import implement, propose, run_base_tests, run_tests
from sotad.activities.plan import write_plan
from sotad.activities.profile import explain, profile
from sotad.activities.record import checkpoint
from sotad.activities.review import review
from statemachine.state import JSON

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

ON_HOST = frozenset({"lease", "preflight", "launch", "profile", "compare_outputs", "measure_accuracy", "clean_up"})
"""Activities whose processes run on the campaign's host. All else runs where the daemon is: agents, gates, analyses."""
TESTS = frozenset({"run_base_tests", "run_tests"})


def runs_on_host(spec: JSON, activity: str) -> bool:
    """Whether an activity's processes run on the campaign's host; tests of a patch do where the target asks for it."""
    target = next(each for each in spec["frameworks"].values() if each["role"] == "target")
    return activity in ON_HOST or (activity in TESTS and target.get("tests_on") == "host")
