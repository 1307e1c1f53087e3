"""`python echo_environment.py MODULE ARGUMENTS…`: print every environment variable, then become `python -m MODULE`.

Stands for servers that log their environment when they start: what is secret in it must not reach the disk.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    for name, value in sorted(os.environ.items()):
        print(f"environment: {name}={value}", file=sys.stderr)
        if "--help" not in " ".join(sys.argv):
            print(f"environment: {name}={value}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
