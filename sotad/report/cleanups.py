"""What a campaign left behind: nothing, and what shows it."""

from __future__ import annotations

from ledger.events import Event
from sotad.report.document import Block, Items, Table, Text
from sotad.report.facts import Facts, cite, pairs, said
from statemachine.state import JSON

GPU = ("GPU", "uuid", "MiB before the campaign", "MiB before clean-up", "MiB after", "held by")
FOLDER = ("folder", "bytes before", "bytes after", "fate")


def cleanup_blocks(f: Facts) -> list[Block]:
    """Processes, GPU memory and folders before and after, what is left, and the release of the host."""
    blocks: list[Block] = []
    for event in f.all("cleanup.finished"):
        blocks += _evidence(event)
    released = [f"host {e.payload['host']} released: {e.payload['reason']} {cite(e)}" for e in f.all("lease.released")]
    return [*(blocks or [Text("not recorded")]), Items(released, empty="release of the host: not recorded")]


def _evidence(event: Event) -> list[Block]:
    p = event.payload
    blocks: list[Block] = []
    for when in ("before", "after"):
        found = [pairs(each) for each in p[when]]
        blocks += [Text(f"Processes {when} {cite(event)}:"), Items(found, empty="none of ours")]
    if runs := p.get("runs"):
        ends = ", ".join(f"{count} {end}" for end, count in sorted(runs.items()))
        blocks.append(Text(f"Its runs ended so: {ends} {cite(event)}."))
    if gpus := p.get("gpus"):
        blocks.append(Table(GPU, [_gpu(each) for each in gpus]))
    if folders := p.get("folders"):
        blocks.append(Table(FOLDER, [_folder(each) for each in folders]))
    if (left := p.get("left")) is not None:
        blocks += [Text(f"Left behind {cite(event)}:"), Items(left, empty="nothing")]
    return blocks


def _gpu(found: JSON) -> list[str]:
    levels = [said(found.get(key)) for key in ("level_mib", "before_mib", "after_mib")]
    return [str(found["index"]), found["uuid"], *levels, found["holders"]]


def _folder(found: JSON) -> list[str]:
    return [found["path"], str(found["bytes_before"]), str(found["bytes_after"]), found["fate"]]
