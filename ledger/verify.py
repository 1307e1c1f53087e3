"""Find out whether a ledger is what was written, and name what is not, by event and kind.

Kinds: ``changed``, ``deleted``, ``inserted``, ``duplicated``, ``reordered`` (the hash chain); ``cut_tail``,
``forged`` (signed checkpoints); ``artifact_missing``, ``artifact_altered``; ``illegal`` (every hash is right, but
the event breaks a rule); ``unreadable``, ``schema`` (the file).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.artifacts import Artifacts, references
from ledger.boundary import Catalogue, default_catalogue, event_of
from ledger.chain import Row
from ledger.errors import Corrupt
from ledger.events import Event
from ledger.keys import COPY, PUBLIC_KEY, Checkpoint, PublicKey, read_copy
from ledger.schema import explained
from ledger.sources import DatabaseSource, Source, open_source
from ledger.tracing import Finding, Tracer

Judge = Callable[[Event], str | None]
MAX_PROBLEMS = 1000


@dataclass(slots=True)
class Report:
    """What verify found. ``anchored_to`` is the last event that a trusted signature covers."""

    events: int = 0
    anchored_to: int | None = None
    head: str | None = None
    problems: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written_under: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Say whether nothing was found."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "ok": self.ok,
            "events": self.events,
            "anchored_to": self.anchored_to,
            "head": self.head,
            "problems": [
                {"seq": finding.seq, "kind": finding.kind, "detail": finding.detail}
                for finding in self.problems[:MAX_PROBLEMS]
            ],
            "problems_found": len(self.problems),
            "notes": self.notes,
            "written_under": self.written_under,
        }


def verify(
    path: Path,
    *,
    judge: Judge | None = None,
    public_key: PublicKey | None = None,
    artifacts: Path | None = None,
    checkpoints: Path | None = None,
    catalogue: Catalogue | None = None,
) -> Report:
    """Check a ledger database or an export, changing nothing; a daemon may be writing to it.

    ``judge`` gets every event in order for as long as the chain is whole, and says why it refuses one.
    ``public_key`` and ``checkpoints`` (a copy of ``checkpoints.jsonl``) should come from elsewhere; without them
    those beside a database are used. ``artifacts`` is the folder of blobs, by default the one beside the file.

    Raises:
        NotFound, NotALedger, WrongSchema: there is nothing to verify at this path.
        BadKey: the public key beside the ledger is not a key.
    """
    report = Report()
    try:
        source = open_source(path)
        _Verification(path, source, judge, catalogue or default_catalogue(), report).run(
            public_key, artifacts, checkpoints
        )
    except Corrupt as error:
        report.problems.append(Finding(None, "unreadable", str(error)))
    return report


class _Verification:
    """One run over one source."""

    def __init__(self, path: Path, source: Source, judge: Judge | None, catalogue: Catalogue, report: Report) -> None:
        self._folder = path.parent
        self._source = source
        self._in_state_directory = isinstance(source, DatabaseSource)
        self._catalogue = catalogue
        self._report = report
        self._tracer = Tracer()
        self._rules = Rules(judge)
        self._last = 0
        self._artifacts: dict[tuple[str, int], int] = {}

    def run(self, key: PublicKey | None, artifacts: Path | None, copy: Path | None) -> None:
        """Signatures are read before the rows they cover, copies before the originals: a daemon that is writing
        adds in the opposite order."""
        copied = self._copied(copy)
        stored = self._source.checkpoints()
        signed = {checkpoint: checkpoint in stored for checkpoint in (*copied, *stored)}
        hashes: dict[int, str | None] = dict.fromkeys(checkpoint.seq for checkpoint in signed)
        for row in self._rows():
            self._take(row)
            if row[0] in hashes:
                hashes[row[0]] = row[11]
        self._anchor(signed, hashes, key or self._own_key())
        self._trace()
        self._check_artifacts(artifacts)
        self._report.problems += self._source.faults()
        self._report.problems.sort(key=lambda finding: finding.seq or 0)

    def _rows(self) -> Iterator[Row]:
        for row in self._source.rows():
            if isinstance(row, Finding):
                self._report.problems.append(row)
            else:
                yield row

    def _take(self, row: Row) -> None:
        sound = self._tracer.feed(row)
        self._report.events += 1
        self._report.head = row[11]
        self._last = max(self._last, row[0])
        try:
            event = event_of(row, self._catalogue)
        except (ValueError, TypeError) as error:
            if sound:
                self._found(row[0], "unreadable", f"the payload cannot be read: {error}")
            return
        if b'"sha256"' in row[10]:
            for name in references(event.payload):
                self._artifacts.setdefault(name, row[0])
        if sound:
            self._judge(event)

    def _judge(self, event: Event) -> None:
        for refusal in self._rules.refusals(event):
            self._found(event.seq, "illegal", refusal)
        if event.type == "daemon.started":
            said = {name: event.payload.get(name) for name in ("version", "machine_digest")}
            self._report.written_under.append({"from": event.seq, "epoch": event.epoch, **said})

    def _anchor(self, signed: dict[Checkpoint, bool], hashes: dict[int, str | None], key: PublicKey | None) -> None:
        """Hold every signature against the row that it names."""
        cut = 0
        for checkpoint, is_stored in signed.items():
            seq = checkpoint.seq
            if key and not key.signed(checkpoint):
                self._found(seq, "forged", f"the checkpoint is not signed by key {key.key_id}")
            elif seq > self._last:
                cut = max(cut, seq)
            elif hashes[seq] != checkpoint.hash:
                self._found(seq, "forged", "the checkpoint was signed over another history than this one")
            elif key:
                self._report.anchored_to = max(seq, self._report.anchored_to or 0)
            if not is_stored and self._in_state_directory and seq <= self._last:
                self._found(seq, "deleted", "the checkpoint is missing from the ledger, a copy has it")
        if cut:
            self._found(self._last + 1, "cut_tail", f"the ledger ended at event {cut} or later when it was signed")
        self._note_anchor(key, bool(signed))

    def _note_anchor(self, key: PublicKey | None, any_signed: bool) -> None:
        anchored = self._report.anchored_to or 0
        if key is None:
            self._note("no public key: a cut tail or a rewritten history may go unseen; give the key")
        elif not any_signed:
            self._note("no checkpoint: a cut tail or a rewritten history would go unseen")
        elif anchored < self._last:
            self._note(f"no signature covers the events after {anchored}: cutting them off would go unseen")

    def _trace(self) -> None:
        if self._tracer.intact:
            return
        self._note(f"rules were checked up to event {self._tracer.runs[0].end}, where the chain breaks")
        copied = _copied_rows(self._tracer.suspects(), self._source.rows())
        self._report.problems += self._tracer.findings(self._report.anchored_to or 0, copied)

    def _check_artifacts(self, folder: Path | None) -> None:
        folder = folder or self._folder / "artifacts"
        if not self._in_state_directory and not folder.is_dir():
            if self._artifacts:
                self._note(f"{len(self._artifacts)} artifacts were not checked: give the folder that holds them")
            return
        store = Artifacts(folder)
        for (digest, size), seq in self._artifacts.items():
            if kind := store.check(digest, size):
                self._found(seq, kind, f"artifact {digest}, {size} bytes")

    def _copied(self, copy: Path | None) -> list[Checkpoint]:
        path = copy or self._folder / COPY
        if copy is None and not (self._in_state_directory and path.exists()):
            return []
        with explained(path):
            found, bad = read_copy(path)
        if bad:
            self._note(f"{path}: {bad} lines are not checkpoints")
        return found

    def _own_key(self) -> PublicKey | None:
        path = self._folder / PUBLIC_KEY
        return PublicKey.load(path) if path.exists() else None

    def _found(self, seq: int | None, kind: str, detail: str) -> None:
        self._report.problems.append(Finding(seq, kind, detail))

    def _note(self, text: str) -> None:
        self._report.notes.append(text)


class Rules:
    """What every event must obey besides the chain: numbering, fencing, causes, keys, and the judge."""

    def __init__(self, judge: Judge | None) -> None:
        self._judge = judge
        self._last: dict[str, int] = {}
        self._epoch = 0
        self._keys: set[str] = set()

    def refusals(self, event: Event) -> Iterator[str]:
        """Yield every reason why this event may not come next."""
        last = self._last.get(event.campaign, 0)
        if event.campaign_seq != last + 1:
            yield f"campaign_seq {event.campaign_seq} follows {last}"
        if event.epoch < self._epoch:
            yield f"written in epoch {event.epoch} after epoch {self._epoch} had begun"
        if event.cause is not None and not 0 < event.cause < event.seq:
            yield f"caused by event {event.cause}, which does not come before it"
        if event.key is not None and event.key in self._keys:
            yield f"the key {event.key!r} was used before"
        if self._judge and (refusal := self._judge(event)):
            yield refusal
        self._last[event.campaign] = event.campaign_seq
        self._epoch = max(self._epoch, event.epoch)
        if event.key is not None:
            self._keys.add(event.key)


def _copied_rows(suspects: list[Row], rows: Iterable[Row | Finding]) -> list[Row]:
    """Return the suspects whose hash or content stands in the ledger more than once."""
    by_hash = Counter(row[11] for row in suspects)
    by_content = Counter(_content(row) for row in suspects)
    seen_hash: Counter[str] = Counter()
    seen_content: Counter[Row] = Counter()
    for row in rows:
        if not isinstance(row, Finding):
            seen_hash[row[11]] += row[11] in by_hash
            seen_content[_content(row)] += _content(row) in by_content
    return [row for row in suspects if seen_hash[row[11]] > 1 or seen_content[_content(row)] > 1]


def _content(row: Row) -> Row:
    """The columns that a copy of a row shares with it."""
    return (row[1], row[3], row[5], row[7], row[10])
