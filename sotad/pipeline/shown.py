"""The pipeline report as Markdown, made from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
MOST_PASSES = 30
BIGGEST = 4  # categories named in a layer's row


def markdown(found: Row) -> str:
    """A report as `sotad.pipeline.document` returns it."""
    others = found.get("other_devices", [])
    return "\n\n".join([_device(found), *([_others([found, *others])] if others else [])]) + "\n"


def _others(devices: Sequence[Row]) -> str:
    """All devices side by side; what is above is of the first, all of them are in the JSON."""
    names = ["trace", "device", "kind", "passes", "ms", "MAD", "idle ms", "exposed comm ms", "layers", "reliable"]
    cells = [
        [
            found["trace"].rsplit("/", 1)[-1], found["device"], kind, told["n"], _ms(told["median_us"]),
            _ms(told["mad_us"]), _ms(told["idle_us"]), _ms(told["exposed_comm_us"]), told["layers"],
            "yes" if found["segmentation"]["reliable"] else "no",
        ]
        for found in devices
        for kind, told in found["steady"].items()
    ]  # fmt: skip
    return f"## All devices\n\n{_table(names, cells)}"


def _device(found: Row) -> str:
    kinds = list(found["steady"])
    parts = [_head(found), _verdicts(found), _passes(found["passes"])]
    for kind in kinds:
        parts += [_layers(found, kind), _clusters(found, kind), _flows(found, kind), _ranges(found, kind)]
    parts += [_layer(found["layer"])] if "layer" in found else []
    parts += [_comparison(found["comparison"])] if "comparison" in found else []
    return "\n\n".join(part for part in parts if part)


def _head(found: Row) -> str:
    parallel, cut, anchor = found["parallel"] or {}, found["segmentation"], found["anchor"]
    number = f"{cut['layers']} layers ({cut['layers_source']}"
    number += f", confidence {cut['confidence']:.2f}" if cut["layers_source"] != "given" else ""
    number += f", next best {cut['runner_up']})" if cut["runner_up"] and cut["layers_source"] != "given" else ")"
    lines = [
        ("trace", found["trace"]),
        ("config", found["config"] or "none given"),
        ("device", f"{found['device']} ({found['gpu'] or 'GPU not named in the trace'})"),
        ("ranks", f"{parallel.get('world_size', 'unknown')} (this is rank {parallel.get('rank', 'unknown')})"),
        ("model", ", ".join(f"{key} {value}" for key, value in found["architecture"].items()) or "unknown"),
        ("profile", f"{found['profile']['name']} (by {found['profile']['source']}): {found['profile']['about']}"),
        ("anchor", f"{anchor['substr'] or 'none'} ({anchor['method']}), {anchor['count']} times"),
        ("passes by", cut["method"]),
        ("layers", f"{number}; a layer opens at {cut['layer_opens_at'] or 'nothing found'}"),
        ("outside", f"head {_ms(cut['head_us'])}, tail {_ms(cut['tail_us'])}, no pass {_ms(cut['outside_us'])} ms"),
    ]
    text = "\n".join(f"- {key}: {_cell(value)}" for key, value in lines)
    warnings = [cut["message"], *found["notes"]]
    return f"# Pipeline of device {found['device']}\n\n{text}" + "".join(f"\n- **note**: {w}" for w in warnings if w)


def _verdicts(found: Row) -> str:
    return "\n".join(f"- **{kind}**: {text}" for kind, text in found["bottleneck"].items())


def _passes(rows: Sequence[Row]) -> str:
    names = ["#", "kind", "start s", "ms", "busy ms", "idle ms", "kernels"]
    names += ["layers", "layer us", "first us", "state", "note"]
    cells = [
        [
            row["idx"], row["kind"], f"{row['start_us'] / 1e6:.6f}", _ms(row["dur_us"]), _ms(row["busy_us"]),
            _ms(row["idle_us"]), row["kernels"], row["layers"], row["avg_layer_us"], row["first_layer_us"],
            row["state"], row["note"],
        ]
        for row in rows[:MOST_PASSES]
    ]  # fmt: skip
    more = f"\n\n{len(rows) - MOST_PASSES} more passes are in the JSON." if len(rows) > MOST_PASSES else ""
    return f"## Passes\n\n{_table(names, cells)}{more}"


def _layers(found: Row, kind: str) -> str:
    told = found["steady"][kind]
    middle = f"Median of {told['n']} passes ({_ms(told['median_us'])} ms, MAD {_ms(told['mad_us'])})."
    pick = f"Shown where one pass is meant: pass {told['chosen']}, {told['why']}."
    inside = f"In layers {_ms(told['in_layers_us'])} ms, of which gaps {_ms(told['gaps_in_layers_us'])} and exposed"
    inside += f" communication {_ms(told['exposed_comm_us'])}; waiting between layers {_ms(told['between_layers_us'])}."
    inside += f" Before the first layer {_ms(told['before_layers_us'])}, after the last {_ms(told['after_layers_us'])}."
    head = f"## Layers of {kind}\n\n{middle} {pick} {inside}"
    names = ["layer", "type", "cluster", "wall us", "MAD", "busy", "gap", "wait after", "exposed comm"]
    names += ["kernels", "most time (us)"]
    cells = [
        [
            row["layer"], " ".join(filter(None, (row["type"], row["place"]))), row["cluster"],
            row["wall_us"]["median"], row["wall_us"]["mad"], row["busy_us"], row["gap_us"], row["wait_us"],
            row["exposed_comm_us"], row["kernels"],
            ", ".join(f"{name} {us}" for name, us in list(row["by_category"].items())[:BIGGEST]),
        ]
        for row in _of(found["layers"], kind)
    ]  # fmt: skip
    return f"{head}\n\n{_table(names, cells)}" if cells else f"{head}\n\nNo layers could be told apart."


def _clusters(found: Row, kind: str) -> str:
    names = ["cluster", "layers", "which", "shown", "mean wall us", "% of pass", "% of kernel time by category"]
    cells = [
        [
            f"{row['id']} {row['label']}", len(row["layers"]), ranges(row["layers"]), row["representative"],
            row["wall_us"], row["share_of_pass"],
            ", ".join(f"{name} {share}" for name, share in list(row["by_category_pct"].items())[: BIGGEST + 2]),
        ]
        for row in _of(found["clusters"], kind)
    ]  # fmt: skip
    return f"### Clusters of {kind} layers\n\n{_table(names, cells)}" if cells else ""


def _flows(found: Row, kind: str) -> str:
    parts = []
    for cluster in _of(found["clusters"], kind):
        rows = [row for row in _of(found["flow"], kind) if row["cluster"] == cluster["id"]]
        which = f"cluster {cluster['id']} ({cluster['label']}), layer {cluster['representative']}"
        parts.append(f"### Compute flow: {kind} {which}\n\n{_flow_table(rows)}")
    return "\n\n".join(parts)


def _flow_table(rows: Iterable[Row]) -> str:
    names = ["#", "hot", "half", "category", "kernel", "us", "MAD", "%", "at us", "stream", "operator", "source"]
    return _table(
        names,
        [
            [
                row["idx"], row["hot"], row["half"], row["category"], row["simplified"], row["dur_us"]["median"],
                row["dur_us"]["mad"], row["share"], row["ts_rel_us"], row["stream"], row["cpu_op"], row["py"],
            ]
            for row in rows
        ],
    )  # fmt: skip


def _ranges(found: Row, kind: str) -> str:
    wanted = {f"{kind} pass {found['steady'][kind]['chosen']}"}
    wanted |= {f"{next(iter(wanted))} layer {row['representative']}" for row in _of(found["clusters"], kind)}
    cells = [
        [row["what"], row["start_s"], row["end_s"], row["start_us"], row["end_us"], row["dur_us"], row["url"]]
        for row in found["perfetto"]
        if row["what"] in wanted
    ]
    names = ["range", "start s", "end s", "start us", "end us", "us", "to paste"]
    return f"### Perfetto ranges of {kind}\n\n{_table(names, cells)}" if cells else ""


def _layer(found: Row) -> str:
    told = found["metadata"]
    head = f"## Layer {told['layer_id']} of {told['kind']} pass {told['fwd_pass']}"
    facts = ", ".join(f"{key} {told[key]}" for key in told if key.endswith("_us") or key == "num_kernels")
    names = ["category", "us", "kernels"]
    kinds = [[name, row["dur_us"], row["count"]] for name, row in found["category_summary"].items()]
    kernels = [
        [at, row["half"], row["category"], row["simplified_name"], row["dur_us"], row["share"], row["ts"]]
        for at, row in enumerate(found["kernels"], 1)
    ]
    hot = _table(["hot", "half", "category", "kernel", "us", "%", "at us"], kernels)
    return f"{head}\n\n{facts}\n\n{_table(names, kinds)}\n\n{hot}"


def _comparison(found: Row) -> str:
    head = f"## Layer {found['layers'][0]} against layer {found['layers'][1]}\n\n"
    head += f"Kernel time {found['us'][0]} and {found['us'][1]} us, difference {found['delta_us']} us; "
    head += f"{found['common']} kernel names in both, {found['only'][0]} and {found['only'][1]} in one only."
    cells = [[row["name"], row["in"], *row["count"], *row["us"], row["delta_us"]] for row in found["kernels"]]
    return f"{head}\n\n{_table(['kernel', 'in', 'times', 'times', 'us', 'us', 'delta us'], cells)}"


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in order as text: 0, 2-5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [list(names), ["---"] * len(names), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def _ms(us: float) -> str:
    return f"{us / 1000:.3f}"
