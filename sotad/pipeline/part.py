"""The tables of one kind of pass: layers over its steady passes, clusters, the flow of one layer each, time ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from sotad.pipeline.clusters import Cluster, clusters, signature
from sotad.pipeline.flow import Origin, Row, flow, members, nowhere
from sotad.pipeline.model import Model
from sotad.pipeline.perfetto import window
from sotad.pipeline.steady import Group, spread
from sotad.pipeline.view import View
from sotad.trace.columns import I64, Trace

MIXERS = {"linear_attn": "LINEAR", "attention": "ATTN"}


class Part:
    """One group of passes of a view. Figures are medians and MADs over its steady passes, in us."""

    def __init__(self, view: View, trace: Trace, model: Model, group: Group, origin: Origin = nowhere) -> None:
        self.view, self.trace, self.model, self.group, self.origin = view, trace, model, group, origin
        self.passes = group.steady or [group.chosen]
        self.number = self._layers_of(group.chosen)
        starts = [view.layers.rows(at).start for at in self.passes if self._layers_of(at) == self.number]
        self.rows = np.array(starts, np.int64)[:, None] + np.arange(self.number)

    @cached_property
    def steady(self) -> Row:
        """The steady passes, and how their time parts into layers, what is around them and waiting."""
        view, walls = self.view, self.view.layers.wall[self.rows]
        begin = np.array([view.passes.list[at].begin for at in self.passes], np.int64)
        end = np.array([view.passes.list[at].end for at in self.passes], np.int64)
        busy = view.lane.busy().within(begin, end)
        inside = walls.sum(axis=1) if self.number else np.zeros(1)
        return {
            "indices": self.passes,
            "n": len(self.passes),
            "median_us": _us(self.group.spread.median),
            "mad_us": _us(self.group.spread.mad),
            "busy_us": _us(np.median(busy)),
            "idle_us": _us(np.median(end - begin - busy)),
            "layers": self.number,
            "in_layers_us": _us(np.median(inside)),
            "before_layers_us": self._around(begin, "begin", 0, 1),
            "after_layers_us": self._around(end, "end", -1, -1),
            "between_layers_us": _us(np.median(view.layers.wait[self.rows].sum(axis=1))) if self.number else 0.0,
            "gaps_in_layers_us": self._sum("gap"),
            "exposed_comm_us": self._sum("exposed"),
            "chosen": self.group.chosen,
            "why": self.group.why,
        }

    def _around(self, edge: I64, side: str, layer: int, sign: int) -> float:
        """Time from a pass's begin to its first layer's, or from its last layer's end to its own."""
        if not self.number:
            return 0.0
        at = self._values(side)[:, layer]
        alike = [where for where, pass_ in enumerate(self.passes) if self._layers_of(pass_) == self.number]
        return _us(np.median(sign * (at - edge[alike])))

    def _layers_of(self, pass_: int) -> int:
        rows = self.view.layers.rows(pass_)
        return int(rows.stop - rows.start)

    def _values(self, what: str) -> I64:
        """[passes, layers] of one quantity, ns."""
        layers = self.view.layers
        every: I64 = layers.wall - layers.busy if what == "gap" else getattr(layers, what)
        values: I64 = every[self.rows]
        return values

    def _sum(self, what: str) -> float:
        return _us(np.median(self._values(what).sum(axis=1))) if self.number else 0.0

    def layer_rows(self) -> list[Row]:
        """One row for each layer."""
        middle = {name: np.median(self._values(name), axis=0) for name in ("busy", "gap", "wait", "exposed", "total")}
        walls, kernels = self._values("wall"), self.view.layers.kernels[self.rows]
        kinds = np.median(self.view.layers.by_category[self.rows], axis=0)
        home = {layer: self._name(at) for at, cluster in enumerate(self.clusters) for layer in cluster.layers}
        return [
            {
                "kind": self.group.kind,
                "layer": layer,
                "type": self.types[layer],
                "place": {0: "first", self.number - 1: "last"}.get(layer, ""),
                "cluster": home[layer],
                "wall_us": _spread_us(walls[:, layer]),
                "busy_us": _us(middle["busy"][layer]),
                "gap_us": _us(middle["gap"][layer]),
                "wait_us": _us(middle["wait"][layer]),
                "exposed_comm_us": _us(middle["exposed"][layer]),
                "sum_us": _us(middle["total"][layer]),
                "kernels": int(np.median(kernels[:, layer])),
                "by_category": self._named(kinds[layer]),
            }
            for layer in range(self.number)
        ]

    def _named(self, values: Sequence[float]) -> dict[str, float]:
        """Times by category in us, biggest first."""
        told = zip(self.view.lane.words.categories, values, strict=True)
        return {name: _us(value) for name, value in sorted(told, key=lambda pair: -pair[1]) if value}

    @cached_property
    def clusters(self) -> list[Cluster]:
        """Layers of the chosen pass that run the same kernels on the main stream."""
        view, stream = self.view, self.view.layers.checks[self.group.chosen].stream
        own = [members(view, self.group.chosen, layer) for layer in range(self.number)]
        main = [kernels[view.lane.stream[kernels] == stream] for kernels in own]
        walls = np.median(self._values("wall"), axis=0) if self.number else []
        return clusters([signature(view.lane.label[kernels]) for kernels in main], walls)

    def _name(self, at: int) -> str:
        return chr(ord("A") + at) if at < 26 else f"A{at}"

    @cached_property
    def types(self) -> list[str]:
        """The type of each layer, as the config says or as its kernels tell."""
        if len(self.model.types) == self.number:
            return list(self.model.types)
        names = self.view.lane.words.categories
        time = self.view.layers.by_category[self.rows[0]] if len(self.rows) else np.zeros((0, 0))
        return [_type({name for name, ns in zip(names, row, strict=True) if ns}) for row in time]

    @cached_property
    def cluster_rows(self) -> list[Row]:
        """One row for each cluster, with its share of a pass: the number that says what to look at next."""
        whole = self.group.spread.median or 1.0
        walls = np.median(self._values("wall"), axis=0) if self.number else np.zeros(0)
        kinds = np.median(self.view.layers.by_category[self.rows], axis=0) if self.number else np.zeros((0, 0))
        found = []
        for at, cluster in enumerate(self.clusters):
            time, total = float(walls[cluster.layers].sum()), kinds[cluster.layers].sum(axis=0)
            told = {name: round(100 * us / _us(total.sum()), 1) for name, us in self._named(total).items()}
            row: Row = {"kind": self.group.kind, "id": self._name(at), "label": self._label(cluster)}
            row |= {"layers": cluster.layers, "representative": cluster.medoid}
            row |= {"wall_us": _us(time / len(cluster.layers)), "sum_us": _us(time)}
            found.append(row | {"share_of_pass": round(100 * time / whole, 2), "by_category_pct": told})
        return found

    def _label(self, cluster: Cluster) -> str:
        if len(cluster.layers) == 1 and cluster.layers[0] in (0, self.number - 1) and self.number > 1:
            place = "FIRST" if cluster.layers[0] == 0 else "LAST"
            return f"{place} {self.types[cluster.layers[0]]}"
        return Counter(self.types[layer] for layer in cluster.layers).most_common(1)[0][0]

    def flow_rows(self) -> list[Row]:
        """The kernels of each cluster's representative layer, in order of time."""
        return [
            {"kind": self.group.kind, "cluster": self._name(at), "layer": cluster.medoid, **row}
            for at, cluster in enumerate(self.clusters)
            for row in self.flow_of(cluster.medoid)
        ]

    def flow_of(self, layer: int) -> list[Row]:
        """The kernels of one layer, medians over the steady passes."""
        return flow(self.view, self.passes, self.group.chosen, layer, self.origin)

    def ranges(self) -> list[Row]:
        """Where the chosen pass and its layers are in Perfetto."""
        each = self.view.passes.list[self.group.chosen]
        name = f"{self.group.kind} pass {each.index}"
        rows, layers = self.view.layers.rows(each.index), self.view.layers
        spans = zip(layers.begin[rows].tolist(), layers.end[rows].tolist(), strict=True)
        own = [window(f"{name} layer {at}", *span, self.trace.origin_ns) for at, span in enumerate(spans)]
        return [window(name, each.begin, each.end, self.trace.origin_ns), *own]


def _type(categories: set[str]) -> str:
    mixer = next((shown for name, shown in MIXERS.items() if name in categories), "")
    ffn = "MOE" if "moe" in categories else "DENSE" if mixer and "activation" in categories else ""
    return "+".join(part for part in (mixer, ffn) if part) or "LAYER"


def _spread_us(values: I64) -> Row:
    told = spread(values)
    return {"median": _us(told.median), "mad": _us(told.mad)}


def _us(ns: float) -> float:
    return round(float(ns) / 1000, 3)
