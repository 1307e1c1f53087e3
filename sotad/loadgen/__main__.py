"""`python -m sotad.loadgen SPEC.json OUT.json`

Exits with 0 when the requests were sent, whatever came back; 2 when the specification, the workload or the
place for the output is no good; 143 when it was told to stop, with what it had in OUT.json.
"""

import sys

from sotad.loadgen.program import Outcome, run
from sotad.loadgen.report import measure
from sotad.loadgen.spec import LoadSpec


async def _load(spec: LoadSpec) -> Outcome:
    report = await measure(spec)
    return report, report["interrupted"]


if __name__ == "__main__":
    sys.exit(run("sotad.loadgen", sys.argv[1:], LoadSpec, _load))
