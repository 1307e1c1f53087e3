"""Throughput against latency, one picture per scenario and latency: what is on the Pareto front, and what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from sotad.report.charts import available, svg
from sotad.report.document import Block, Picture, Text
from sotad.results import pareto
from sotad.results.compare import By, Comparison, Group

COLORS = ("#2563a8", "#0f8a5f", "#9333a8", "#b7791f", "#0e7490", "#be185d")
FAILED, LABEL = "#c2410c", "#39424e"
WIDTH, HEIGHT = 760, 380  # pixels
LATENCIES = {"p50_ttft_ms": "p50 TTFT in ms", "p50_tpot_ms": "p50 TPOT in ms"}
MOST_LABELS = 16
LABEL_HEIGHT = 14 / HEIGHT


class Dot(NamedTuple):
    """One candidate: latency, throughput, colour, whether it is on the front and what stands beside it."""

    x: float
    y: float
    color: str
    front: bool
    label: str


def plots(comparison: Comparison) -> list[Block]:
    """The pictures; a text says so where the chart library is not installed."""
    names = sorted({row["framework"] for row in comparison.rows})
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(names)}
    blocks: list[Block] = []
    for group in comparison.groups:
        for latency, axis in LATENCIES.items():
            dots = _dots(group, comparison.by, latency, colors)
            if dots and not available():
                return [Text("The Pareto plot was left out: ziaplot is not installed.")]
            if dots:
                blocks.append(_picture(group, comparison.by, axis, dots, colors))
    return blocks


def _dots(group: Group, by: By, latency: str, colors: Mapping[str, str]) -> list[Dot]:
    front = {(row["framework"], row["candidate_id"]) for row in group.front}
    found = []
    for row in group.rows:
        throughput = pareto.normalised(row, by) if group.gpus_differ else row["metrics"][by]
        x = row["metrics"][latency]
        if row["status"] == "ok" and x is not None and throughput is not None:
            color = FAILED if row["reasons"] else colors[row["framework"]]
            on_front = (row["framework"], row["candidate_id"]) in front
            found.append(Dot(x, throughput, color, on_front, f"{row['framework']}/{row['candidate_id']}"))
    return found


def _picture(group: Group, by: By, axis: str, dots: Sequence[Dot], colors: Mapping[str, str]) -> Block:
    unit = f"{by.replace('_', ' ')} per second{' and GPU' if group.gpus_differ else ''}"
    shown = {dot.label.split("/")[0] for dot in dots}
    names = ", ".join(f"{_colour(colors[name])} {name}" for name in colors if name in shown)
    caption = (
        f"{group.label}: {unit} against {axis}; up and left is better. {names}; orange cannot win. Large squares are"
        " on the Pareto front of throughput, TTFT and TPOT; another row is nowhere worse than a small dot."
    )
    return Picture(_draw(dots, axis, unit), caption)


def _colour(code: str) -> str:
    return dict(zip(COLORS, ("blue", "green", "purple", "ochre", "teal", "pink"), strict=True))[code]


def _draw(dots: Sequence[Dot], axis: str, unit: str) -> str:
    ziaplot = import_module("ziaplot")
    graph = ziaplot.Graph()
    graph.css(
        "Graph {color: none; edge_width: 1; edge_color: #8a94a0;} Graph.GridX {color: #eceff2;}"
        "Graph.GridY {color: #eceff2;} Graph.TickX {font_size: 12; color: #39424e;}"
        "Graph.TickY {font_size: 12; color: #39424e;} Graph.XName {font_size: 12; color: #39424e;}"
        "Graph.YName {font_size: 12; color: #39424e;} Text {font_size: 11;}"
        "Scatter {edge_width: 0; edge_color: none;}"
    )
    graph.size(WIDTH, HEIGHT).axesnames(axis, unit)
    left, right = _range([dot.x for dot in dots])
    bottom, top = _range([dot.y for dot in dots])
    width, height = right - left, top - bottom
    graph.xrange(left, right + 0.25 * width).yrange(bottom, top)  # labels stand right of their dots
    for front, color in sorted({(dot.front, dot.color) for dot in dots}):
        alike = [dot for dot in dots if (dot.front, dot.color) == (front, color)]
        shape = ("s", 7) if front else ("o", 4)
        graph.add(ziaplot.Scatter([dot.x for dot in alike], [dot.y for dot in alike]).marker(*shape).color(color))
    beyond = top
    for dot in sorted((dot for dot in dots if dot.front), key=lambda dot: -dot.y)[:MOST_LABELS]:
        beyond = min(dot.y, beyond - LABEL_HEIGHT * height)
        graph.add(ziaplot.Text(dot.x + 0.015 * width, beyond, dot.label, valign="center").color(LABEL))
    return svg(graph)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The values with room around them."""
    room = 0.12 * (max(values) - min(values)) or 0.1 * max(values) or 1.0
    return max(0.0, min(values) - room), max(values) + room
