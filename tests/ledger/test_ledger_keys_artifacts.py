"""Keys, checkpoint copies and artifacts."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from ledger.artifacts import Artifacts, NoArtifact, references
from ledger.events import Draft
from ledger.keys import BadKey, PublicKey, Signer, append_copy, read_copy
from ledger.store import Ledger


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    """Mode 0600, and the same key the next time."""
    signer = Signer.load_or_create(tmp_path)
    assert (tmp_path / "ledger.key").stat().st_mode & 0o777 == 0o600
    assert Signer.load_or_create(tmp_path).public.raw == signer.public.raw
    assert PublicKey.load(tmp_path / "ledger.pub").key_id == signer.public.key_id


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    """One sentence with what to do."""
    Signer.load_or_create(tmp_path)
    (tmp_path / "ledger.key").chmod(0o644)
    with pytest.raises(BadKey, match="chmod 600"):
        Signer.load_or_create(tmp_path)
    (tmp_path / "ledger.pub").write_text("junk")
    with pytest.raises(BadKey, match="64 hex digits"):
        PublicKey.load(tmp_path / "ledger.pub")
    with pytest.raises(BadKey, match=r"ledger\.pub"):
        PublicKey.load(tmp_path / "none")


def test_only_the_key_that_signed_confirms_a_checkpoint(tmp_path: Path) -> None:
    """Any other key, and any other value in any field, does not."""
    (tmp_path / "other").mkdir()
    signer, other = Signer.load_or_create(tmp_path), Signer.load_or_create(tmp_path / "other")
    signed = signer.sign(7, "ab" * 32, 123)
    assert signer.public.signed(signed)
    assert not other.public.signed(signed)
    changes = {"seq": 8, "hash": "ac" * 32, "time_ns": 124, "key_id": "x", "signature": "zz"}
    assert not any(signer.public.signed(signed._replace(**{name: value})) for name, value in changes.items())


def test_a_torn_line_in_a_copy_spoils_no_other(tmp_path: Path) -> None:
    """What a crash left is ended, counted as bad, and the next line stands on its own."""
    signed = Signer.load_or_create(tmp_path).sign(1, "ab" * 32, 1)
    append_copy(tmp_path, signed)
    copy = tmp_path / "checkpoints.jsonl"
    copy.write_bytes(copy.read_bytes() + b'{"seq":2,"ha')
    append_copy(tmp_path, signed)
    append_copy(tmp_path, signed)
    assert read_copy(copy) == ([signed, signed], 1)


def test_checkpoints_go_to_every_copy(tmp_path: Path, catalogue: object) -> None:
    """The database, the file beside it, and a second place."""
    signer = Signer.load_or_create(tmp_path)
    second = tmp_path / "second" / "place"
    with Ledger.open(tmp_path / "ledger.db", catalogue=catalogue, copies=[second]) as ledger:  # type: ignore[arg-type]
        ledger.claim_epoch()
        assert ledger.checkpoint(signer) is None
        ledger.append([Draft(campaign="c", type="step", payload={"n": 1})])
        signed = ledger.checkpoint(signer)
        assert ledger.checkpoint(signer) == signed
    assert read_copy(tmp_path / "checkpoints.jsonl") == ([signed], 0) == read_copy(second / "checkpoints.jsonl")


def test_an_artifact_is_stored_once_under_its_digest(tmp_path: Path) -> None:
    """By content: the same bytes give the same name, from memory or from a file, and leave nothing else behind."""
    store = Artifacts(tmp_path / "artifacts")
    (tmp_path / "file").write_bytes(b"hello")
    name = store.put_bytes(b"hello")
    assert name == store.put_file(tmp_path / "file") == {"sha256": sha256(b"hello").hexdigest(), "bytes": 5}
    assert store.read(name["sha256"]) == b"hello"
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == [name["sha256"]]


def test_storing_again_repairs_an_altered_artifact(tmp_path: Path) -> None:
    """A name never keeps standing for other bytes once the right ones are here."""
    store = Artifacts(tmp_path)
    name = store.put_bytes(b"hello")
    path = tmp_path / name["sha256"][:2] / name["sha256"]
    path.chmod(0o600)
    path.write_bytes(b"hullo")
    assert store.check(**_sized(name)) == "artifact_altered"
    with pytest.raises(NoArtifact, match="altered"):
        store.read(name["sha256"])
    store.put_bytes(b"hello")
    assert store.check(**_sized(name)) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "AB" * 32, "ab" * 31, ""])
def test_a_name_that_is_no_digest_never_reaches_the_file_system(tmp_path: Path, name: str) -> None:
    """Only 64 lower-case hex digits name an artifact."""
    with pytest.raises(NoArtifact, match="64 lower-case hex"):
        Artifacts(tmp_path).open(name)


def test_references_are_found_anywhere_in_a_payload() -> None:
    """In lists, in objects, beside other keys; not where one of the two keys is missing."""
    one, two = {"sha256": "a" * 64, "bytes": 1}, {"sha256": "b" * 64, "bytes": 2, "path": "x"}
    payload = {"x": [one, {"y": two}], "z": {"sha256": "c" * 64}, "w": {"sha256": "short", "bytes": 1}}
    assert list(references(payload)) == [("a" * 64, 1), ("b" * 64, 2)]


def _sized(name: dict[str, object]) -> dict[str, object]:
    return {"digest": name["sha256"], "size": name["bytes"]}
