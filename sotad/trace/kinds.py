"""Which table of a Trace an event belongs to, by its phase and category.

Categories are those of Kineto (https://github.com/pytorch/kineto, libkineto/src/ActivityType.cpp), with the names
that torch before 1.12 wrote.
"""

from __future__ import annotations

from enum import IntEnum

from sotad.trace.decoding import Label


class Kind(IntEnum):
    """A table of a Trace.

    STRAY is work of exporters that name no category `kernel`; FLOW is told by its phase, whatever the category;
    UNREAD belongs to a table, but is no complete event (B and E pairs); NONE is of no table.
    """

    KERNEL = 0
    COPY = 1
    OP = 2
    CALL = 3
    FRAME = 4
    MARK = 5
    GPU_MARK = 6
    STRAY = 7
    FLOW = 8
    UNREAD = 9
    NONE = 10


ON_DEVICE = (Kind.KERNEL, Kind.COPY, Kind.GPU_MARK, Kind.STRAY)
NOUNS = {
    Kind.KERNEL: "kernels",
    Kind.COPY: "copies",
    Kind.OP: "operators",
    Kind.CALL: "launches",
    Kind.FRAME: "frames",
    Kind.MARK: "annotations",
    Kind.GPU_MARK: "GPU annotations",
    Kind.FLOW: "flows",
}
SPANS: tuple[Kind, ...] = tuple(kind for kind in NOUNS if kind is not Kind.FLOW)

_BY_CATEGORY = {
    "kernel": Kind.KERNEL,
    "gpu_memcpy": Kind.COPY,
    "gpu_memset": Kind.COPY,
    "memcpy": Kind.COPY,
    "memset": Kind.COPY,
    "cpu_op": Kind.OP,
    "operator": Kind.OP,
    "runtime": Kind.CALL,
    "python_function": Kind.FRAME,
    "user_annotation": Kind.MARK,
    "gpu_user_annotation": Kind.GPU_MARK,
}
_NO_WORK = ("trace", "overhead", "ac2g", "fwdbwd", "sync", "annotation", "cpu", "counter", "instant", "python")


def kind_of(category: str, stream: Label) -> Kind:
    """The kind of a complete event; `stream` is the stream that its args name."""
    category = category.strip().lower()
    known = _BY_CATEGORY.get(category)
    if known is not None:
        return known
    if category.endswith(("_runtime", "_driver")):
        return Kind.CALL
    if any(word in category for word in _NO_WORK):
        return Kind.NONE
    return Kind.STRAY if stream is not None or "kernel" in category else Kind.NONE


def is_scope(name: str) -> bool:
    """Whether a name is a Python scope or a compiler's region, so no work on a device."""
    return ".py(" in name or name.startswith(("python/", "nn.module:", "## Call "))
