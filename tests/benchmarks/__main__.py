"""Run every benchmark, one after the other, each as a process of its own: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = ("bench_ledger", "bench_loadgen", "bench_trace", "bench_cli", "bench_gap", "bench_daemon")


def main() -> int:
    """Exit 0 when every benchmark ran; whether a goal is met is in its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure to quote")
    parser.add_argument("only", nargs="*", choices=[*SCRIPTS, []], help="benchmarks to run; default: all")
    args = parser.parse_args()
    failed = []
    for name in args.only or SCRIPTS:
        print(f"\n=== {name} ===", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if args.quick else [])]
        if subprocess.run(command, cwd=HERE.parent.parent).returncode:
            failed.append(name)
    if failed:
        print(f"did not run to the end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
