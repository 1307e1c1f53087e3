"""Chrome traces, as torch.profiler and others export them -> columns, in one pass and bounded memory.

The file is never held: blocks of it are cut into pieces of whole events (`layout`), decoded (`decoding`), and packed
into columns at once (`gather`). Memory beyond the columns is a few blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sotad.trace.assemble import assemble
from sotad.trace.columns import Trace
from sotad.trace.decoding import Reading
from sotad.trace.errors import TraceError
from sotad.trace.gather import Gathered
from sotad.trace.layout import Incomplete, Layout, NotJson
from sotad.trace.source import Source, opened

BLOCK = 1 << 20
AGAIN = "wait until the profiler has written it, or capture again"
WHICH = "give a Chrome trace of torch.profiler (.json or .json.gz)"


def read(path: Path, block: int = BLOCK) -> Trace:
    """The trace in `path`, plain or gzip; about `block` bytes of its text are held at a time.

    Raises:
        TraceError: it cannot be read, is cut short or damaged, or is no trace with events.
    """
    with opened(path) as source:
        return _read(str(path), source, block)


def _read(path: str, source: Source, block: int) -> Trace:
    reading, gathered = Reading(), Gathered()
    layout = Layout(source.read, reading.decode, block)
    try:
        for batch in layout.pieces():
            gathered.add(batch)
        facts = _facts(layout.facts)
    except (Incomplete, NotJson) as error:
        if not source.failure:
            raise TraceError(_unusable(path, layout.found, gathered.events, error)) from error
    if source.failure:
        raise TraceError(f"{path}: {source.failure} after {gathered.events} whole events; {AGAIN}")
    if not layout.found:
        raise TraceError(f"{path}: JSON, but no trace: it holds no list of traceEvents; {WHICH}")
    if not gathered.events:
        raise TraceError(f"{path}: the list of events is empty; capture again, with the profiler on while requests run")
    if not any(place.phase for place in gathered.places):
        raise TraceError(f"{path}: a list in JSON, but none of its members is a trace event (with `ph`); {WHICH}")
    return assemble(path, gathered, reading.reference_ns or 0, facts)


def _unusable(path: str, found: bool, events: int, error: Incomplete | NotJson) -> str:
    if isinstance(error, Incomplete):
        return f"{path}: half-written, it ends after {events} whole events; {AGAIN}"
    if found:
        return f"{path}: damaged JSON after {events} whole events ({error}); {AGAIN}"
    return f"{path}: no JSON of a trace ({error}); {WHICH}"


def _facts(texts: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        return {key: json.loads(text.decode("utf-8", "replace"), strict=False) for key, text in texts.items()}
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
