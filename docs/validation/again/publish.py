"""What of a run that was brought back is published: ``publish.py BROUGHT OUT``, with ``sotactl`` on the PATH.

BROUGHT holds ``state`` and ``log`` (see run.sh). OUT gets the ledger as JSON Lines with its public key, the report, and
what ``sotactl analyze`` and ``sotactl simulate`` say of the campaign's traces and start-up logs.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from ledger.artifacts import Artifacts

REPORT = (
    *("analysis", "benchmark/summary.md", "benchmark/winning-commands.md"),
    *("final_report.md", "final_report.html", "manifest.md"),
)


def sotactl(*argv):
    return subprocess.run(["sotactl", *map(str, argv)], check=True, stdout=subprocess.PIPE, text=True).stdout


def ledger(state, out):
    """The events, their key, and what verifying them says."""
    sotactl("ledger", "export", state, "--out", out / "ledger.jsonl")
    shutil.copy(state / "keys" / "ledger.pub", out / "ledger.pub")
    print(sotactl("ledger", "verify", out / "ledger.jsonl", "--key", out / "ledger.pub"))
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def report(state, out):
    (source,) = (state / "reports").iterdir()
    for name in REPORT:
        place = out / "report" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, place, dirs_exist_ok=True)
        else:
            shutil.copy(source / name, place)


def explained(brought, events, out):
    """The first round's traces against each other and against what the hardware allows; the start-up logs."""
    artifacts, folders, names, logs = Artifacts(brought / "state" / "artifacts"), {}, {}, {}
    for event in events:
        if event.get("type") == "candidate.stopped":
            logs[event["payload"]["launch"]] = event["payload"]["log"]["sha256"]
        if event.get("type") == "profile.captured" and event["payload"]["round"] == 0:
            side = event["payload"]["side"]
            folders[side], names[side] = brought / "traces" / side, event["payload"]["framework"]
            folders[side].mkdir(parents=True, exist_ok=True)
            for trace in event["payload"]["traces"]:
                (folders[side] / f"{trace['stage']}.trace.json.gz").write_bytes(artifacts.read(trace["sha256"]))
    (out / "explained").mkdir(exist_ok=True)
    both = ("--against", folders["leader"], "--names", f"{names['target']},{names['leader']}")
    sotactl("analyze", "trace", folders["target"], *both, "--out", out / "explained" / "trace-difference.md")
    for side, folder in folders.items():
        said = sotactl("simulate", brought / "log" / "config.json", "--trace", folder)
        (out / "explained" / f"limit-{side}.md").write_text(said)
        log = brought / "log" / f"{names[side]}.log"
        log.write_bytes(artifacts.read(logs[f"search/{names[side]}/baseline"]))
        said = sotactl("analyze", "capacity", log, "--config", brought / "log" / "config.json")
        (out / "explained" / f"capacity-{side}.md").write_text(said)


def main():
    brought, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True)
    events = ledger(brought / "state", out)
    report(brought / "state", out)
    explained(brought, events, out)


if __name__ == "__main__":
    main()
