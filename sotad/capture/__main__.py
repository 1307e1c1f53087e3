"""``python -m sotad.capture SPEC.json OUT.json``: exit 0 with OUT written, 1 without a trace, 2 on bad usage.

OUT has the files of every stage, and the ``problems`` for which they must not be used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from sotad.benchmark.tokens import TokenizerError
from sotad.benchmark.workload import WorkloadError
from sotad.capture.check import judge
from sotad.capture.plan import CaptureSpec
from sotad.capture.session import CaptureFailed, capture


def main(argv: list[str]) -> int:
    """Capture what the specification asks for."""
    if len(argv) != 2:
        print("usage: python -m sotad.capture SPEC.json OUT.json", file=sys.stderr)
        return 2
    try:
        spec = CaptureSpec.model_validate_json(Path(argv[0]).read_bytes())
        found = asyncio.run(capture(spec))
        judge(found, spec)
    except (ValidationError, WorkloadError, TokenizerError, OSError) as error:
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return 2
    except CaptureFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    Path(argv[1]).write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
