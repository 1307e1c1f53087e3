"""An answer for a reader: Markdown or HTML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sotad.report.document import Block, Document, Items, Section, Table, Text, markdown
from sotad.report.page import html
from sotad.simulate.answer import Answer, category_rows, gpu_text
from sotad.simulate.measured import Measured
from sotad.simulate.roofline import Roofline, Timed
from sotad.simulate.step import Part, parameters

OPS = ("Layers", "Operator", "Category", "Shape", "GFLOP", "MB", "FLOP/B", "us", "x", "ms", "%", "Bound")
STATUS = {
    "impossible": "IMPOSSIBLE: faster than the GPU allows, so the shape, the time or a peak is wrong",
    "incomplete": "no verdict: a part of the model has no template",
    "assumed": "no verdict: inputs are assumed",
}


def rendered(answer: Answer, kind: str, top: int) -> bytes:
    """The answer as `markdown` or `html`, with the ``top`` largest operators of each stage (0: all)."""
    found = document(answer, top)
    return html(found) if kind == "html" else markdown(found)


def document(answer: Answer, top: int) -> Document:
    """Everything for a reader."""
    first = next(iter(answer.stages.values()))
    sections = [Section("", list(_head(first)))]
    for stage, found in answer.stages.items():
        sections.append(Section(stage.capitalize(), list(_stage(answer, stage, found, top))))
    if told := [*first.step.model.warnings, *first.step.model.unmodelled, *answer.notes]:
        sections.append(Section("Notes", [Items(told)]))
    return Document(f"Simulation of {first.step.model.name or 'a model'}", sections)


def _head(found: Roofline) -> Iterator[Block]:
    model, layout = found.step.model, found.step.layout
    total, active = parameters(model)
    kinds = ", ".join(f"{len(part.numbers)} x {part.label}" for part in found.step.parts if part.numbers)
    names = model.formats.names()
    formats = names["base"] if len(set(names.values())) == 1 else ", ".join(f"{k} {v}" for k, v in names.items())
    experts = f", {active / 1e9:.2f} B per token" if round(active) != round(total) else ""
    yield Text(f"{model.family}: {kinds}; {total / 1e9:.2f} B parameters{experts}; {formats}.")
    yield Text(f"{gpu_text(found.gpu)}.")
    if layout.gpus > 1:
        sizes = ", ".join(f"{name} {value}" for name, value in layout.as_json().items())
        yield Text(f"{sizes}: all numbers are of one GPU. Latencies of messages are assumed, nothing overlaps.")


def _stage(answer: Answer, stage: str, found: Roofline, top: int) -> Iterator[Block]:
    shape = ", ".join(f"{g.count} x {g.new} new of {g.context} tokens" for g in found.step.batch.groups)
    shares = ", ".join(f"{value:.0f} % {name}" for name, value in found.shares().items())
    yield Text(
        f"{shape}: {found.matrix_flops / 1e12:.3f} TFLOP, {found.bytes / 1e9:.2f} GB "
        f"({found.least_bytes / 1e9:.2f} GB of weights and cache). Roofline {_ms(found.ms)} ms, limit "
        f"{_ms(found.limit_ms)} ms, {found.step.batch.tokens / found.ms * 1e3:.0f} tokens/s at best; bound: {shares}."
    )
    if stage in answer.headroom:
        yield from _headroom(answer.headroom[stage])
    if stage in answer.measured:
        yield from _measured(found, answer.measured[stage])
    yield Table(OPS, list(_ops(found, top)))
    if stage in answer.layouts:
        yield _layouts(answer.layouts[stage])


def _headroom(found: dict[str, Any]) -> Iterator[Block]:
    text = (
        f"Measured {_ms(found['measured_ms'])} ms: {100 * found['fraction_of_limit']:.1f} % of the limit, "
        f"MFU {100 * found['mfu']:.1f} %, MBU {100 * found['mbu']:.1f} %"
    )
    if found["busy_ms"] is not None:
        text += f" ({100 * found['fraction_of_limit_busy']:.1f} % of it while the GPU is busy)"
    near = "near the limit" if found["near_limit"] else "not near the limit"
    verdict = STATUS.get(found["status"], f"{near} (from {100 * found['near_from']:.0f} % on)")
    yield Text(f"{text}: {verdict}.", strong=True)
    if found["inputs"]["assumed"]:
        yield Items([f"assumed: {each}" for each in found["inputs"]["assumed"]])


def _measured(found: Roofline, measured: Measured) -> Iterator[Block]:
    others = f", {measured.others} of other shapes left out" if measured.others else ""
    period = "" if measured.period_ms is None else f", {_ms(measured.period_ms)} ms from step to step"
    yield Text(
        f"Per step, median of {measured.steps}{others}: {_ms(measured.kernel_ms)} ms of kernels, GPU busy "
        f"{_ms(measured.busy_ms)} ms of {_ms(measured.span_ms)} ms{period}."
    )
    rows = [
        (
            row["category"],
            _ms(row["measured_ms"]),
            _ms(row["roofline_ms"]),
            _ms(row["gap_ms"]),
            "" if row["fraction"] is None else f"{100 * row['fraction']:.0f}",
            "" if row["status"] == "ok" else row["status"].replace("_", " "),
        )
        for row in category_rows(found, measured.categories)
    ]
    yield Table(("Category", "Measured ms", "Roofline ms", "Gap ms", "% of roofline", ""), rows)


def _ops(found: Roofline, top: int) -> Iterator[tuple[str, ...]]:
    ranked = sorted(found.timed(), key=lambda pair: -pair[0].times * pair[1].us)
    shown = ranked[:top] if top else ranked
    yield from (_op(part, each, found.ms) for part, each in shown)
    if rest := ranked[len(shown) :]:
        left = sum(part.times * each.us for part, each in rest) / 1e3
        yield ("", f"{len(rest)} more", *[""] * 7, _ms(left), f"{100 * left / found.ms:.1f}", "")


def _op(part: Part, each: Timed, whole: float) -> tuple[str, ...]:
    op, taken = each.op, part.times * each.us / 1e3
    intensity = "" if op.intensity is None else f"{op.intensity:.1f}"
    return (
        part.label,
        op.name,
        op.category,
        op.shape,
        f"{op.flops / 1e9:.3g}",
        f"{(op.bytes or op.comm_bytes) / 1e6:.3g}",
        intensity,
        f"{each.us:.2f}",
        str(part.times),
        _ms(taken),
        f"{100 * taken / whole:.1f}",
        each.bound,
    )


def _layouts(rows: list[dict[str, Any]]) -> Table:
    headers = ("tp", "dp", "ep", "pp", "Fits", "Weights GB", "KV GB", "Compute ms", "Memory ms", "Comm ms", "Step ms")
    keys = ("weights_gb", "kv_gb", "compute_ms", "memory_ms", "comm_ms", "step_ms")
    cells = [
        (
            *(str(row[name]) for name in ("tp", "dp", "ep", "pp")),
            "yes" if row["feasible"] else f"no: {row['reason']}",
            *("" if row[key] is None else _ms(row[key]) for key in keys),
            "" if row["tokens_per_s_per_gpu"] is None else f"{row['tokens_per_s_per_gpu']:.0f}",
        )
        for row in rows
    ]
    return Table((*headers, "tokens/s/GPU"), cells)


def _ms(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
