"""The three charts of the report, drawn by ziaplot; without it the report says that they were left out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple
from xml.etree import ElementTree

from sotad.report.document import Block, Picture, Text
from sotad.report.facts import Facts, number
from sotad.report.gaps import block_gaps, interval, pair
from sotad.report.measurements import ranking
from statemachine.ranking import passes
from statemachine.state import JSON

TARGET, RIVAL, BAD, FAINT = "#2563a8", "#7a8794", "#c2410c", "#c3cad3"
WIDTH, LINE, FRAME = 960, 26, 84  # pixels: chart width, one line of it, title and axis together
MOST_ROWS = 12
ElementTree.register_namespace("", "http://www.w3.org/2000/svg")


def available() -> bool:
    """Whether the chart library is installed."""
    return find_spec("ziaplot") is not None


class Bar(NamedTuple):
    """One horizontal bar, ``place`` lines from the top; ``note`` stands at its end."""

    place: float
    label: str
    value: float
    color: str
    note: str


class Line(NamedTuple):
    """One line of the forest plot, in percent: estimate, interval, and the single blocks."""

    label: str
    estimate: float
    low: float
    high: float
    dots: list[float]


# --- what is drawn ----------------------------------------------------------------------------------------


def throughput_charts(f: Facts) -> list[Block]:
    """Per scenario, the throughput of every candidate; SLA failures and failed launches are marked."""
    if not f.spec:
        return []
    charts = {scenario: _candidate_bars(f, scenario) for scenario in f.c.scenarios}
    return [_throughput_chart(f, scenario, bars) for scenario, bars in charts.items() if bars]


def _throughput_chart(f: Facts, scenario: str, bars: Sequence[Bar]) -> Block:
    caption = f"Search, scenario {scenario}: blue is the target, grey its competitors, orange misses the SLA or failed."
    return _picture(lambda: _bars(bars, f"{f.metric.replace('_', ' ')}, per second"), caption)


def _candidate_bars(f: Facts, scenario: str) -> list[Bar]:
    bars: list[Bar] = []
    for found in ranking(f, scenario):
        value = (found.row["metrics"] or {}).get(f.metric)
        fine = passes(found.row, f.spec["sla"])
        color = (TARGET if found.framework == f.target else RIVAL) if fine else BAD
        note = number(value) if fine else f"{number(value)}, {_fault(found.row)}"
        bars.append(Bar(len(bars), f"{found.framework}/{found.candidate}", value or 0.0, color, note))
    for launch in f.c.launches.values():
        if launch.purpose == "search" and launch.status in ("failed", "oom", "timeout", "lost"):
            bars.append(Bar(len(bars), f"{launch.framework}/{launch.candidate}", 0.0, BAD, launch.status))
    return bars


def _fault(row: JSON) -> str:
    return "misses the SLA" if row["status"] == "ok" else str(row["status"])


def gap_chart(f: Facts) -> list[Block]:
    """The gap of every round and scenario: blocks as dots, estimate and interval, the margin as a line."""
    lines = list(_gap_lines(f))
    if not lines:
        return []
    margin = f.spec["decision"]["tau_pct"]
    caption = (
        "Gap of the target to the leader in percent, with the interval of the decision; dots are single "
        f"blocks. Right of 0 the target is behind. The dashed line is the margin of {margin:g}%."
    )
    return [_picture(lambda: _forest(lines, margin), caption)]


def _gap_lines(f: Facts) -> Iterator[Line]:
    for event in f.all("gap.decided"):
        round_ = event.payload["round"]
        for scenario, decision in event.payload["decisions"].items():
            estimate, low, high = interval(decision)
            if estimate is not None and low is not None and high is not None:
                sides = pair(f, f"gap/r{round_}", scenario)
                yield Line(f"round {round_}, {scenario}", estimate, low, high, block_gaps(sides) if sides else [])


def kernel_chart(f: Facts) -> list[Block]:
    """The rows of the latest kernel table that cost most, target beside leader."""
    tables = f.last("tables.produced")
    if tables is None:
        return []
    sides = ("us_per_token", "leader_us_per_token")
    if not any(row.get(sides[1]) is not None for row in tables.payload["rows"]):
        sides = ("share", "leader_share")
    unit = "us per token" if sides[0] == "us_per_token" else "share of stage, %"
    rows = [row for row in tables.payload["rows"] if row.get(sides[0]) is not None and row.get("name") != "step"]
    rows = sorted(rows, key=lambda row: (-max(row[sides[0]], row.get(sides[1]) or 0), row["row_id"]))[:MOST_ROWS]
    if not rows:
        return []
    caption = f"Kernel table of round {tables.payload['round']}, {unit}: blue is the target, grey the leader."
    return [_picture(lambda: _bars(_kernel_bars(rows, sides), unit), caption)]


def _kernel_bars(rows: Sequence[JSON], sides: tuple[str, str]) -> list[Bar]:
    bars = []
    for index, row in enumerate(rows):
        ours, theirs = row[sides[0]], row.get(sides[1])
        bars.append(Bar(2 * index, _short(row["row_id"]), ours, TARGET, number(ours)))
        if theirs is not None:
            bars.append(Bar(2 * index + 0.75, "", theirs, RIVAL, number(theirs)))
    return bars


def _short(label: str) -> str:
    return label if len(label) <= 44 else f"{label[:20]}…{label[-23:]}"


# --- how it is drawn ----------------------------------------------------------------------------------------


def _picture(draw: Callable[[], str], caption: str) -> Block:
    return Picture(draw(), caption) if available() else Text(f"Chart left out, ziaplot is not installed: {caption}")


def _graph(places: Sequence[float], labels: Sequence[str], axis: str) -> Any:
    ziaplot = import_module("ziaplot")
    graph = ziaplot.Graph()
    graph.css(
        "Graph {color: none; edge_width: 1; edge_color: #8a94a0;} Graph.GridY {color: none;}"
        "Graph.TickX {font_size: 12; height: 4; stroke_width: 1; color: #39424e; pad: 0;}"
        "Graph.TickY {font_size: 12; height: 0; stroke_width: 0; color: #39424e; pad: 0;}"
        "Graph.XName {font_size: 12; color: #39424e;} Text {font_size: 11;}"
        "BarsHoriz {edge_width: 0; edge_color: none;} Scatter {edge_width: 0; edge_color: none;}"
    )
    lines = max(places) + 1
    graph.size(WIDTH, round(FRAME + LINE * lines))
    graph.axesnames(axis)
    graph.yticks([-place for place in places], labels)
    graph.yrange(-lines + 0.3, 0.7)
    return graph


def _bars(bars: Sequence[Bar], axis: str) -> str:
    ziaplot = import_module("ziaplot")
    graph = _graph([bar.place for bar in bars], [bar.label for bar in bars], axis)
    longest = max(bar.value for bar in bars) or 1.0
    graph.xrange(0, 1.25 * longest)
    for bar in bars:
        if bar.value:
            graph.add(ziaplot.BarsHoriz([-bar.place], [bar.value], width=0.7).color(bar.color))
        graph.add(ziaplot.Text(bar.value + 0.01 * longest, -bar.place, bar.note, valign="center").color(bar.color))
    return svg(graph)


def _forest(lines: Sequence[Line], margin: float) -> str:
    ziaplot = import_module("ziaplot")
    graph = _graph(range(len(lines)), [line.label for line in lines], "gap in % (right of 0: the target is behind)")
    graph.add(ziaplot.VLine(0).color("#39424e").strokewidth(1))
    graph.add(ziaplot.VLine(margin).color(BAD).stroke("--").strokewidth(1.5))
    for place, (_, estimate, low, high, dots) in enumerate(lines):
        if dots:
            graph.add(ziaplot.Scatter(dots, [-place - 0.25] * len(dots)).marker("o", 2.5).color(FAINT))
        graph.add(ziaplot.PolyLine([low, high], [-place, -place]).color(TARGET).strokewidth(2))
        graph.add(ziaplot.Scatter([estimate], [-place]).marker("s", 4).color(TARGET))
    reach = [margin, -margin, *(value for line in lines for value in (line.low, line.high, *line.dots))]
    room = 0.08 * (max(reach) - min(reach))
    graph.xrange(min(reach) - room, max(reach) + room)
    return svg(graph)


def svg(graph: Any) -> str:
    """The chart as an SVG element that can stand in a page beside others: its ids are made its own."""
    root = graph.svgxml()
    own = f"c{zlib.crc32(ElementTree.tostring(root)):x}-"
    for element in root.iter():
        for key, value in element.items():
            if key == "id":
                element.set(key, own + value)
            elif value.startswith("url(#"):
                element.set(key, f"url(#{own}{value[5:]}")
    return ElementTree.tostring(root, encoding="unicode")
