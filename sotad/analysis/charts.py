"""The pictures of a triage, drawn by ziaplot: time by category, and what makes one side slower."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from sotad.report.charts import available, svg
from sotad.report.document import Block, Picture, Text

JSON = dict[str, Any]
COLORS = {
    "gemm": "#2563a8",
    "attention": "#0f8a5f",
    "linear_attn": "#3aa889",
    "moe": "#9333a8",
    "communication": "#b7791f",
    "norm": "#be185d",
    "activation": "#0e7490",
    "rope": "#6d4bc3",
    "kv_write": "#4d7c0f",
    "quant": "#a16207",
    "sampling": "#7c2d12",
    "elementwise": "#e08bab",
    "reduction": "#d4a017",
    "data_movement": "#8fb3d9",
    "copy": "#64748b",
    "idle": "#dfe4ea",
}
OTHER, MORE, LESS, FAINT, INK = "#9aa5b1", "#c2410c", "#0f8a5f", "#c3cad3", "#39424e"
WIDTH, LINE, FRAME = 960, 34, 84  # pixels: chart width, one line of it, title and axis together
PER_LINE = 8  # names in a line of the legend
FAR = 2.0  # times the longest bar: no interval is drawn further
NARROW = 0.05  # of the axis: a segment below it has no room for its name
STYLE = (
    "Graph {color: none; edge_width: 1; edge_color: #8a94a0;} Graph.GridY {color: none;}"
    "Graph.TickX {font_size: 12; height: 4; stroke_width: 1; color: #39424e; pad: 0;}"
    "Graph.TickY {font_size: 12; height: 0; stroke_width: 0; color: #39424e; pad: 0;}"
    "Graph.XName {font_size: 12; color: #39424e;} Text {font_size: 11;}"
    "BarsHoriz {edge_width: 0; edge_color: none;}"
)


class Stack(NamedTuple):
    """One bar of segments, each a category and its ms."""

    label: str
    segments: list[tuple[str, float]]


def time_chart(stages: dict[str, JSON]) -> list[Block]:
    """GPU time of the capture by stage and category."""
    stacks = [
        Stack(f"{name}, {_number(total)} ms", [(each["category"], each["time_ms"]) for each in stage["categories"]])
        for name, stage in stages.items()
        if (total := sum(each["time_ms"] for each in stage["categories"]))
    ]
    axis = "ms in the whole capture"
    return _picture(lambda: _stacked(stacks, axis), "Time by stage and category.") if stacks else []


def sides_chart(stage: str, found: JSON, target: str, leader: str) -> list[Block]:
    """Both sides' step, stacked by category."""
    stacks = [
        Stack(
            f"{name}, {_number(found[key])} ms",
            [(row["category"], row[key]) for row in sorted(found["rows"], key=lambda row: -row["leader_ms"])],
        )
        for name, key in ((target, "target_ms"), (leader, "leader_ms"))
    ]
    caption = f"One {stage} step of each side by category, pauses of the GPU in light grey."
    return _picture(lambda: _stacked(stacks, found["unit"]), caption)


def difference_chart(stage: str, found: JSON, target: str, leader: str) -> list[Block]:
    """A bar for each group of rows, to the right where the target takes longer, and the sum."""
    rows = [(row["category"], row["extra_ms"], row["interval_ms"], row["within_noise"]) for row in found["groups"]]
    rows.append(("whole step", found["extra_ms"], found["interval_ms"], found["within_noise"]))
    caption = (
        f"What {target} takes longer than {leader} per {stage} step (orange) or shorter (green), with 95% intervals; "
        "pale bars are within the noise of the steps. The bars add up to the last one."
    )
    return _picture(lambda: _diverging(rows, "ms per step, right of 0 the target takes longer"), caption)


def _picture(draw: Callable[[], str], caption: str) -> list[Block]:
    return [Picture(draw(), caption) if available() else Text(f"Chart left out, ziaplot is not installed: {caption}")]


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _graph(labels: Sequence[str], lines: float, axis: str) -> Any:
    graph = import_module("ziaplot").Graph()
    graph.css(STYLE)
    graph.size(WIDTH, round(FRAME + LINE * lines))
    graph.axesnames(axis)
    graph.yticks([-place for place in range(len(labels))], labels)
    graph.yrange(0.7 - lines, 0.7)
    return graph


def _stacked(stacks: Sequence[Stack], axis: str) -> str:
    """Bars from zero, the longest sum first, so that each covers all of the one before but its own segment."""
    ziaplot = import_module("ziaplot")
    longest = max(sum(value for _, value in stack.segments) for stack in stacks)
    names = list(dict.fromkeys(name for stack in stacks for name, _ in stack.segments))
    wide = {name for stack in stacks for name, value in stack.segments if value >= NARROW * longest}
    small = [name for name in names if name not in wide]
    graph = _graph([stack.label for stack in stacks], len(stacks) + 0.6 * -(-len(small) // PER_LINE), axis)
    graph.xrange(0, longest)
    for place, stack in enumerate(stacks):
        end = sum(value for _, value in stack.segments)
        for name, value in reversed([(n, max(v, 0.0)) for n, v in stack.segments]):
            graph.add(ziaplot.BarsHoriz([-place], [end], width=0.7).color(COLORS.get(name, OTHER)))
            if value >= NARROW * longest:
                color = INK if name == "idle" else "#ffffff"
                text = ziaplot.Text(end - value / 2, -place, name, halign="center", valign="center")
                graph.add(text.color(color))
            end -= value
    for i, name in enumerate(small):
        x, y = (i % PER_LINE) * longest / PER_LINE, -(len(stacks) - 0.35) - 0.6 * (i // PER_LINE)
        graph.add(ziaplot.Text(x, y, "■", valign="center").color(COLORS.get(name, OTHER)))
        graph.add(ziaplot.Text(x + 0.013 * longest, y, name, valign="center").color(INK))
    return svg(graph)


def _diverging(rows: Sequence[tuple[str, float, list[float] | None, bool | None]], axis: str) -> str:
    ziaplot = import_module("ziaplot")
    graph = _graph([row[0] for row in rows], len(rows), axis)
    widest = FAR * max(abs(value) for _, value, _, _ in rows)
    ends = [value for _, value, _, _ in rows] + [end for *_, ends, _ in rows for end in ends or ()]
    low, high = max(min(0.0, *ends), -widest), min(max(0.0, *ends), widest)
    room = 0.16 * (high - low or 1.0)
    graph.xrange(low - room, high + room)
    ticks = _ticks(low, high)
    graph.xticks(ticks, [f"{tick:g}" for tick in ticks])
    for place, (_, value, interval, within) in enumerate(rows):
        color = FAINT if within else MORE if value > 0 else LESS
        graph.add(ziaplot.BarsHoriz([-place], [value], width=0.6).color(color))
        if interval is not None:
            ends = [min(max(end, low - room), high + room) for end in interval]
            graph.add(ziaplot.PolyLine(ends, [-place, -place]).color(INK).strokewidth(1))
        edge = max(value, *(ends if interval is not None else [value]), 0.0)
        graph.add(ziaplot.Text(edge + 0.05 * room, -place, f"{value:+.3f}", valign="center").color(INK))
    graph.add(ziaplot.VLine(0).color(INK).strokewidth(1))
    return svg(graph)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two limits, with 0 among them."""
    width = (high - low or 1.0) / 6
    size = 10 ** math.floor(math.log10(width))
    step = size * next(each for each in (1, 2, 5, 10) if each * size >= width)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
