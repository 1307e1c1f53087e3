"""Whatever is appended in whatever order, crashed and reopened: what was acknowledged is what is read, for ever."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.chain import canonical
from ledger.errors import Conflict, Deposed, KeyReused
from ledger.events import Draft, Event
from ledger.export import export, parse_line
from ledger.keys import Signer
from ledger.replay import replay
from ledger.store import Ledger
from ledger.verify import verify

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
PAYLOADS = st.dictionaries(TEXT, JSON, max_size=4)


class AnyPayload:
    """A catalogue that takes everything."""

    def validate(self, _: str, payload: Any, /) -> Any:
        return 1, dict(payload)

    def upcast(self, _: str, __: int, payload: dict[str, Any], /) -> dict[str, Any]:
        return payload


CATALOGUE = AnyPayload()


class LedgerModel(RuleBasedStateMachine):
    """A list of events is the model; the ledger must agree with it after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "ledger.db")
        self.written: list[Event] = []
        self.keys: dict[str, Event] = {}
        self.deposed: list[Ledger] = []

    @initialize()
    def begin(self) -> None:
        self.signer = Signer.load_or_create(self.path.parent)
        self.ledger = Ledger.open(self.path, catalogue=CATALOGUE)
        self.ledger.claim_epoch()

    @rule(campaign=TEXT, payloads=st.lists(PAYLOADS, min_size=1, max_size=3), caused=st.booleans())
    def append(self, campaign: str, payloads: list[Any], caused: bool) -> None:
        cause = len(self.written) if caused and self.written else None
        drafts = [Draft(campaign=campaign, type="t", payload=payload, cause=cause) for payload in payloads]
        seen = sum(event.campaign == campaign for event in self.written)
        self.written += self.ledger.append(drafts, expect={campaign: seen})

    @rule(key=st.sampled_from("xyz"), payload=st.sampled_from([{"a": 1}, {"a": 2}]))
    def append_keyed(self, key: str, payload: dict[str, Any]) -> None:
        known = self.keys.get(key)
        try:
            (event,) = self.ledger.append([Draft(campaign="k", type="t", payload=payload, key=key)])
        except KeyReused:
            assert known is not None and known.payload != payload
            return
        assert event == known or known is None
        if known is None:
            self.keys[key] = event
            self.written.append(event)

    @rule(ahead=st.integers(1, 3))
    def append_too_late(self, ahead: int) -> None:
        seen = sum(event.campaign == "k" for event in self.written)
        try:
            self.ledger.append([Draft(campaign="k", type="t")], expect={"k": seen + ahead})
        except Conflict:
            return
        raise AssertionError("a stale caller was let in")

    @rule()
    def sign(self) -> None:
        signed = self.ledger.checkpoint(self.signer)
        assert (signed.seq if signed else 0) == len(self.written)

    @rule()
    def another_daemon_takes_over(self) -> None:
        self.deposed.append(self.ledger)
        self.ledger = Ledger.open(self.path, catalogue=CATALOGUE)
        self.ledger.claim_epoch()

    @precondition(lambda self: self.deposed)
    @rule()
    def a_deposed_daemon_tries(self) -> None:
        try:
            self.deposed[-1].append([Draft(campaign="k", type="t")])
        except Deposed:
            return
        raise AssertionError("a deposed daemon wrote")

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.path, catalogue=CATALOGUE)
        self.ledger.claim_epoch()

    @invariant()
    def what_was_acknowledged_is_what_is_there(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert list(replay(self.path, catalogue=CATALOGUE)) == self.written
        report = verify(self.path, catalogue=CATALOGUE)
        assert report.ok and report.events == len(self.written), report.problems

    def teardown(self) -> None:
        for ledger in [*self.deposed, *([self.ledger] if hasattr(self, "ledger") else [])]:
            ledger.close()
        self.folder.cleanup()


LedgerModel.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
TestLedgerModel = LedgerModel.TestCase


@given(payload=PAYLOADS)
@settings(max_examples=200, deadline=None)
def test_canonical_bytes_are_a_fixed_point(payload: dict[str, Any]) -> None:
    """Encoding what was decoded gives the same bytes, and decoding loses nothing."""
    data, decoded = canonical(payload)
    assert decoded == payload
    assert canonical(decoded) == (data, decoded)


@given(payloads=st.lists(PAYLOADS, min_size=1, max_size=4), cut=st.integers(1, 4000), byte=st.integers(0, 255))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_export_says_what_the_ledger_says_and_no_byte_of_it_can_change(
    payloads: list[Any], cut: int, byte: int
) -> None:
    """Every line parses back to its row; with any one byte changed, verify objects."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "ledger.db"), Path(folder, "out.jsonl")
        with Ledger.open(path, catalogue=CATALOGUE) as ledger:
            ledger.claim_epoch()
            events = ledger.append([Draft(campaign="c", type="t", payload=payload) for payload in payloads])
            ledger.checkpoint(Signer.load_or_create(path.parent))
        with out.open("wb") as target:
            export(path, target)
        lines = out.read_bytes().splitlines()
        rows = [parse_line(line) for line in lines[1:-1]]
        assert [(row[0], row[11]) for row in rows if row] == [(event.seq, event.hash) for event in events]
        assert verify(out, catalogue=CATALOGUE).ok
        data = bytearray(out.read_bytes())
        at = len(lines[0]) + 1 + cut % (len(data) - len(lines[0]) - 2)
        if data[at] != byte:
            data[at] = byte
            out.write_bytes(data)
            assert not verify(out, catalogue=CATALOGUE).ok
