"""``python -m sotad.capture SPEC.json OUT.json``: exit 0 with OUT written, 1 without a trace, 2 on bad usage.

OUT has the files of every stage, and the ``problems`` for which they must not be used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sotad.benchmark.tokens import TokenizerError
from sotad.benchmark.workload import WorkloadError
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
        _judge(found, spec)
    except (ValidationError, WorkloadError, TokenizerError, OSError) as error:
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return 2
    except CaptureFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    data = json.dumps(found, indent=1).encode()
    Path(argv[1]).write_bytes(data)
    print(sha256(data).hexdigest())
    return 0


def _judge(found: dict[str, Any], spec: CaptureSpec) -> None:
    """Without what reads traces on this machine, their ``problems`` are left for whoever has it to tell."""
    try:
        from sotad.capture.check import judge
    except ImportError as lacking:
        print(f"not judged here: {lacking}", file=sys.stderr)
        return
    judge(found, spec)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
