"""A triage in each format: Markdown, HTML, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

from sotad.analysis.charts import difference_chart, sides_chart, time_chart
from sotad.analysis.difference import SMALL, difference
from sotad.analysis.fusion import WITHIN_US
from sotad.analysis.page import NOISE, WHOLE, html
from sotad.analysis.triage import Analysis
from sotad.report.document import Block, Cells, Document, Items, Section, Table, Text, markdown

JSON = dict[str, Any]
Format = Literal["markdown", "html", "json"]
KERNELS = ("Row", "Category", "ms", "Share %", "Launches", "Median ms/step", "Python line (its share)", "Operator")
OPERATORS = ("Row", "ms", "Share %", "Calls")
DIFFERENCE = ("Difference ms", "Cumulated ms")
CUMULATED = "Cumulated %"
SURE = ("95% interval ms", "")
OVERLAP = ("Row", "Priority", "Verdict", "ms", "Share %", "Alone %", "Hidden %", "Dependency risk", "Recommendation")
FUSE = ("Row", "Pattern", "Confidence", "ms", "Share %", "Saves at most ms", "Kernels", "Fused path", "Switch")
RANKS = ("Stage", "Rank", "Device", "Busy ms", "Computing ms", "Communication ms", "Waits ms", "Behind %", "")
DEVICES = ("Device", "Busy ms", "One stream ms", "Several ms", "Idle in steps ms", "Idle outside ms", "Streams at most")
BUBBLES = ("Where", "Idle ms", "At ms", "After", "Before", "Device")
PAUSES = ("After", "Before", "Times", "ms")
OPEN = ("P1", "P2")  # priorities of overlap rows that may be worth a change
MOST_BUBBLES = 5
MOST_PAUSES = 3
NAME = 60  # characters of a kernel that only tells where
PLACES = 2  # source lines shown for a row
MOST_KERNELS = 25  # rows of one side or both in the list of kernels that differ


@dataclass(frozen=True, slots=True)
class Report:
    """The analysis of a capture and, with a second one, their difference."""

    target: Analysis
    leader: Analysis | None
    found: JSON | None

    def rendered(self, kind: Format) -> bytes:
        """The report in one format, UTF-8."""
        if kind == "json":
            return (json.dumps(self.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
        return html(self.document()) if kind == "html" else markdown(self.document())

    def as_json(self) -> JSON:
        """The target's tables; with a second capture also `against`, its tables, and `difference`."""
        if self.leader is None:
            return self.target.tables
        return {**self.target.tables, "against": self.leader.tables, "difference": self.found}

    def document(self) -> Document:
        """Everything for a reader: the answer first."""
        sides = [self.target, *([self.leader] if self.leader else [])]
        names = [side.tables["name"] for side in sides]
        sections = [Section("", list(self._summary()))]
        if self.found is not None:
            sections += [Section(f"Difference: {stage}", list(_stage_difference(stage, found, *names)))
                         for stage, found in self.found["stages"].items()]  # fmt: skip
        for side in sides:
            sections += _tables(side.tables, several=len(sides) > 1)
        return Document(f"Trace triage: {' against '.join(names)}", sections)

    def _summary(self) -> Iterator[Block]:
        if self.found is not None:
            for sentence in self.found["sentences"]:
                yield Text(sentence, strong=True)
        for side in (self.target, self.leader):
            if side is not None:
                lines = [*_lines(side.tables), *_ties(side.tables)]
                yield Items([f"{side.tables['name']}: {line}" for line in lines])
                if self.leader is None:
                    yield from time_chart(side.tables["stages"])
                yield Items([f"Note: {warning}." for warning in side.tables["warnings"]], empty="")


def report(target: Analysis, leader: Analysis | None = None) -> Report:
    """The report on one capture, or on two side by side; sides of one name are told apart."""
    if leader and target.side.name == leader.side.name:
        target, leader = (_renamed(side, f"{side.side.name} ({what})") for side, what in
                          ((target, "target"), (leader, "leader")))  # fmt: skip
    return Report(target, leader, difference(target.side, leader.side) if leader else None)


def _renamed(analysis: Analysis, name: str) -> Analysis:
    return Analysis({**analysis.tables, "name": name}, replace(analysis.side, name=name))


def _lines(tables: JSON) -> Iterator[str]:
    """Each stage in one line."""
    for name, stage in tables["stages"].items():
        steps = stage["steps"]
        size = f" at batch {_range(steps['sequences'])}" if steps["sequences"] else ""
        pace = f", {steps['count']} steps{size}, median {steps['median_ms']:.3f} ms" if steps["count"] else ""
        top = ", ".join(f"{each['category']} {each['share']:.1f}%" for each in stage["categories"][:3])
        if stage["kernels"]:
            unknown = f"; {stage['unresolved_share']:.1f}% of it has no known source line"
            yield f"{name}: {stage['kernels']} kernels, {stage['gpu_time_ms']:.2f} ms{pace}: {top}{unknown}."
        elif stage["copies"]:
            yield f"{name}: no kernels, {stage['copies']} copies and fills, {stage['copy_ms']:.2f} ms{pace}."
        elif stage["categories"]:
            yield f"{name}: {sum(each['time_ms'] for each in stage['categories']):.2f} ms on the CPU{pace}: {top}."


def _ties(tables: JSON) -> Iterator[str]:
    """What replayed kernels and what flows tie to their launches, in one line."""
    graphs, flows = tables["cuda_graphs"], tables["flows"]
    if not any(graphs.values()) and not flows["events"]:
        return
    nodes = f" of {graphs['nodes']} nodes" if graphs["nodes"] else ""
    found = f"{graphs['launches']} launches of CUDA graphs, {graphs['kernels']} kernels{nodes} from them"
    yield f"{found}; {flows['events']} flow events tie {flows['all']} kernels and copies to launches."


def _range(spread: JSON) -> str:
    low, high = spread["min"], spread["max"]
    return str(low) if low == high else f"{low} to {high}"


# --- the difference -----------------------------------------------------------------------------------------


def _stage_difference(stage: str, found: JSON, target: str, leader: str) -> Iterator[Block]:
    if not found["comparable"]:
        yield Text(f"Not comparable: {found['reason']}.", strong=True)
        return
    yield from difference_chart(stage, found, target, leader)
    yield from sides_chart(stage, found, target, leader)
    yield Text(_basis(found, target, leader))
    yield Items(found["notes"], empty="")
    yield _difference_table(found, found["groups"], target, leader)
    if len(found["rows"]) > len(found["groups"]):
        yield Text("The same by category:")
        yield _difference_table(found, found["rows"], target, leader)
    yield from _kernels(found, target, leader)


def _difference_table(found: JSON, rows: Sequence[JSON], target: str, leader: str) -> Table:
    """Percent of a difference that proves nothing would prove nothing: then there is no such column."""
    percent = any(row["cumulated_percent"] is not None for row in rows)
    headers = ("Row", f"{target} ms", f"{leader} ms", *DIFFERENCE, *([CUMULATED] if percent else []), *SURE)
    return Table(headers, [*(_row(row, percent) for row in rows), _total(found, percent)])


def _basis(found: JSON, target: str, leader: str) -> str:
    steps, ratio = found["steps"], found["same_kernels_ratio"]
    text = f"Means of {steps['target']} steps of {target} and {steps['leader']} of {leader}, {found['unit']}."
    if ratio is not None:
        less = "less" if ratio < 1 else "more"
        text += f" Kernels that both have, equally often, take {100 * abs(ratio - 1):.1f}% {less} time in {target}."
    return f"{text} A row is within noise when its interval holds 0, or when one of so many rows may differ by chance."


def _row(row: JSON, percent: bool) -> Cells:
    return (
        *(row["row_id"], f"{row['target_ms']:.3f}", f"{row['leader_ms']:.3f}", f"{row['extra_ms']:+.3f}"),
        *(f"{row['cumulated_ms']:+.3f}", *([f"{row['cumulated_percent']:.0f}"] if percent else [])),
        *(_interval(row), _noise(row)),
    )


def _total(found: JSON, percent: bool) -> Cells:
    times = (f"{found['target_ms']:.3f}", f"{found['leader_ms']:.3f}", f"{found['extra_ms']:+.3f}")
    return (WHOLE, *times, "", *([""] if percent else []), _interval(found), _noise(found))


def _interval(row: JSON) -> str:
    return "not known" if row["interval_ms"] is None else "{:+.3f} to {:+.3f}".format(*row["interval_ms"])


def _noise(row: JSON) -> str:
    return NOISE if row["within_noise"] else ""


def _kernels(found: JSON, target: str, leader: str) -> Iterator[Block]:
    """The kernels that differ, group by group, so that those of one side stand with what the other has instead."""
    rank = {row["category"]: -abs(row["extra_ms"]) for row in found["groups"]}
    kernels = [kernel for row in found["rows"] for kernel in row["kernels"] if kernel["extra_ms"]]
    largest = sorted(kernels, key=lambda kernel: -abs(kernel["extra_ms"]))[:MOST_KERNELS]
    shown = sorted(largest, key=lambda each: (rank.get(each["category"], rank.get(SMALL, 0)), -abs(each["extra_ms"])))
    headers = ("Row", "Category", "In", f"{target} ms", f"{leader} ms", "Difference ms", "Times per step", "")
    yield Text(
        "The kernels behind it, group by group: what one side alone runs stands near what the other runs instead."
    )
    cells = [
        (
            *(each["row_id"] or each["leader_row_id"], each["category"], _where(each, target, leader)),
            *(f"{each['target_ms']:.3f}", f"{each['leader_ms']:.3f}", f"{each['extra_ms']:+.3f}"),
            *("{target:.4g} / {leader:.4g}".format(**each["count_per_step"]), _noise(each)),
        )
        for each in shown
    ]
    yield Table(headers, cells, empty="No row differs.")
    if len(kernels) > len(shown):
        left = sum(each["extra_ms"] for each in kernels) - sum(each["extra_ms"] for each in shown)
        yield Text(f"And {len(kernels) - len(shown)} smaller ones, together {left:+.3f} ms.")


def _where(kernel: JSON, target: str, leader: str) -> str:
    if kernel["row_id"] and kernel["leader_row_id"]:
        return "both"
    return target if kernel["row_id"] else leader


# --- the tables of one side -----------------------------------------------------------------------------------


def _tables(tables: JSON, several: bool) -> list[Section]:
    about = f", {tables['name']}" if several else ""
    sections = [
        Section(f"Stage {name}{about}", list(_stage(stage, tables["min_share"])))
        for name, stage in tables["stages"].items()
    ]
    caveats = [text for stage in tables["stages"].values() for row in stage["fuse_rows"] for text in row["caveats"]]
    if caveats:
        sections.append(Section(f"Before you act on a missing fusion{about}", [Items(list(dict.fromkeys(caveats)))]))
    if tables["devices"]:
        sections.append(Section(f"Idle GPU{about}", list(_idle(tables))))
    if tables["ranks"]:
        sections.append(Section(f"Ranks{about}", [Table(RANKS, [_rank(row) for row in tables["ranks"]])]))
    return [*sections, Section(f"Files{about}", [Items(list(_files(tables)))])]


def _stage(stage: JSON, min_share: float) -> Iterator[Block]:
    if not stage["kernels"] and not stage["copies"]:
        yield Table(OPERATORS, [_operator(row) for row in stage["operator_rows"]], empty="Nothing was recorded here.")
        yield from _left_out(stage, min_share)
        return
    yield Items(list(_facts(stage)))
    yield Table(KERNELS, [_kernel(row) for row in stage["kernel_rows"]], empty=f"No row of {min_share:g}% or more.")
    yield from _left_out(stage, min_share)
    open_to = any(row["priority"] in OPEN for row in stage["overlap_rows"]) or not stage["overlap_rows"]
    yield Text(f"What could run beside other work:{'' if open_to else ' nothing in sight. What was looked at:'}")
    of = "of the kernel time" if stage["steps"]["count"] else "of the kernel time of all stages"
    none = f"Nothing but compute that runs alone takes {min_share:g}% {of}."
    yield Table(OVERLAP, [_overlap(row) for row in stage["overlap_rows"]], empty=none)
    yield from _fusions(stage)
    gaps = stage["launch_gaps"]
    if gaps and (pauses := gaps["between"][:MOST_PAUSES]):
        yield Text("Between which kernels of its main stream the GPU pauses longest in all:")
        yield Table(PAUSES, [_pause(pause) for pause in pauses])


def _pause(pause: JSON) -> Cells:
    return _short(pause["after"]), _short(pause["before"]), str(pause["count"]), f"{pause['total_ms']:.3f}"


def _fusions(stage: JSON) -> Iterator[Block]:
    yield Text("What could be fused:")
    none = "No chain of kernels that a known fusion would replace."
    yield Table(FUSE, [_fuse(row) for row in stage["fuse_rows"]], empty=none)
    present = [f"{row['pattern']}: {row['time_ms']:.2f} ms ({row['source']})" for row in stage["fused_rows"]]
    if present:
        yield Text("Fusions that are there already:")
        yield Items(present)


def _idle(tables: JSON) -> Iterator[Block]:
    """When the devices ran nothing at all."""
    yield Table(DEVICES, [_device(device, tables) for device in tables["devices"]])
    bubbles = [bubble for bubble in tables["bubbles"] if bubble["duration_ms"] > 0][:MOST_BUBBLES]
    if bubbles:
        yield Text("The longest times when a GPU ran nothing:")
        yield Table(BUBBLES, [_bubble(bubble, tables) for bubble in bubbles])


def _device(device: JSON, tables: JSON) -> Cells:
    keys = ("busy_ms", "single_stream_ms", "multi_stream_ms", "idle_in_steps_ms", "idle_outside_steps_ms")
    return (_where_device(device, tables), *(f"{device[key]:.2f}" for key in keys), str(device["max_streams"]))


def _bubble(bubble: JSON, tables: JSON) -> Cells:
    times = (f"{bubble['duration_ms']:.3f}", f"{bubble['begin_ms']:.1f}")
    names = (_short(bubble["after"]), _short(bubble["before"]))
    return (bubble["stage"] or "in no step", *times, *names, _where_device(bubble, tables))


def _where_device(row: JSON, tables: JSON) -> str:
    """The device, with its file where there are several."""
    file = f", {PurePath(row['path']).name}" if len(tables["files"]) > 1 else ""
    return f"{row['device']}{file}"


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[:NAME]}..."


def _left_out(stage: JSON, min_share: float) -> Iterator[Block]:
    left = stage["left_out"]
    if left["rows"]:
        times = f"{left['count']} times, {left['time_ms']:.2f} ms, {left['share']:.1f}%"
        yield Text(f"Left out: {left['rows']} rows below {min_share:g}%, together {times}.")


def _facts(stage: JSON) -> Iterator[str]:
    if stage["files"] > 1:
        yield (
            f"kernels, copies and their times are of {stage['files']} files; overlap, fusions and pauses only of "
            f"{PurePath(stage['detail']).name}, and so are the medians of the rows that it has"
        )
    if stage["launch_bound"] and stage["steps"]["count"]:
        yield (
            f"most kernels start more than {WITHIN_US:g} us after the one before: launches set the pace (CUDA graphs "
            "would help), and chains that could be fused cannot be seen"
        )
    if stage["steps_ms"]:
        idle = 100 * stage["idle_ms"] / stage["steps_ms"]
        yield f"GPU idle inside steps: {stage['idle_ms']:.2f} of {stage['steps_ms']:.2f} ms ({idle:.1f}%)"
    gaps = stage["launch_gaps"]
    if gaps and gaps["count"]:
        spread = f"median {gaps['median_us']:.1f} us, largest {gaps['largest_us']:.1f} us"
        times = f"{gaps['count']}, together {gaps['total_ms']:.2f} ms, {spread}"
        yield f"pauses between kernels of the main stream: {times}"
    if stage["multi_stream_ms"]:
        yield f"several streams at once: {stage['multi_stream_ms']:.2f} of {stage['busy_ms']:.2f} ms busy"
    if stage["exposed_communication_ms"]:
        yield f"communication that nothing hides: {stage['exposed_communication_ms']:.2f} ms"
    copies = ", ".join(f"{row['name']} {row['time_ms']:.2f} ms" for row in stage["copy_rows"][:3])
    yield f"copies and fills: {stage['copies']}, {stage['copy_ms']:.2f} ms" + (f" ({copies})" if copies else "")
    replay = f", of that {stage['replay_ms']:.2f} ms launched by CUDA graphs" if stage["replay_ms"] else ""
    if not stage["kernels"]:
        return
    yield f"kernel time without a known source line: {stage['unresolved_ms']:.2f} ms{replay}"
    yield f"kernel time in no known category: {stage['other_share']:.1f}%"


def _kernel(row: JSON) -> Cells:
    places = row["locations"][:PLACES]
    lines = [_place(place) for place in places]
    operators = dict.fromkeys(place["op"] for place in places if place["op"])
    return (
        *(row["row_id"], row["category"], f"{row['time_ms']:.2f}", f"{row['share']:.1f}", str(row["count"])),
        *(f"{row['per_step_ms']:.3f} ± {row['mad_ms']:.3f}" if row["steps"] else "", "; ".join(lines)),
        ", ".join(operators),
    )


def _place(place: JSON) -> str:
    share = "" if place["share"] > 99.95 else f" ({place['share']:.0f}%)"
    by = f", by {place['matched']}" if place["matched"] in ("position", "name") else ""
    return f"{place['location']}{' (replays a CUDA graph)' if place['replay'] else ''}{share}{by}"


def _operator(row: JSON) -> Cells:
    return row["row_id"], f"{row['time_ms']:.2f}", f"{row['share']:.1f}", str(row["count"])


def _overlap(row: JSON) -> Cells:
    ratios = (f"{100 * row['exclusive_ratio']:.0f}", f"{100 * row['hidden_ratio']:.0f}")
    risk = "; ".join([row["dep_risk"], *row["dep_evidence"]])
    times = (f"{row['total_us'] / 1000:.2f}", f"{row['share']:.1f}")
    known = "".join(f"; known way: {family['name']} ({family['knob']})" for family in row["families"])
    return (row["row_id"], row["priority"], row["verdict"], *times, *ratios, risk, row["recommendation"] + known)


def _fuse(row: JSON) -> Cells:
    evidence = ", ".join(each["row_id"] for each in row["evidence"])
    times = (f"{row['related_ms']:.2f}", f"{row['share']:.1f}", f"{row['saving_ms']:.2f}")
    return (row["row_id"], row["pattern"], row["confidence"], *times, evidence, row["candidate"], row["knob"] or "")


def _rank(row: JSON) -> Cells:
    times = (f"{row[key]:.2f}" for key in ("busy_ms", "computing_ms", "communication_ms", "waits_ms"))
    about = (row["stage"], "" if row["rank"] is None else str(row["rank"]), row["device"])
    return (*about, *times, f"{row['behind_percent']:+.1f}", "straggler" if row["straggler"] else "")


def _files(tables: JSON) -> Iterator[str]:
    for file in tables["files"]:
        detail = ", shown in detail" if file["path"] in tables["detail"] and len(tables["files"]) > 1 else ""
        rank = "" if file["rank"] is None else f"rank {file['rank']}, "
        yield f"{file['path']}: {rank}{file['events']} events, {file['kernels']} kernels{detail}"
