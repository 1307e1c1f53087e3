"""Ed25519 keys and the checkpoints they sign: what a hash chain alone cannot prove, that nothing was cut off
at the end and that the whole of it was not rewritten."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from orjson import JSONDecodeError, dumps, loads

from ledger.durable import sync_folder
from ledger.errors import LedgerError

PRIVATE_KEY = "ledger.key"
PUBLIC_KEY = "ledger.pub"
COPY = "checkpoints.jsonl"


class BadKey(LedgerError):
    """A key file does not hold a key."""

    code = "bad_key"


class Checkpoint(NamedTuple):
    """A signed statement that the ledger's event ``seq`` had this hash at ``time_ns`` (UTC)."""

    seq: int
    hash: str
    time_ns: int
    key_id: str
    signature: str

    def message(self) -> bytes:
        """Return the bytes that are signed."""
        return dumps(("sotad checkpoint 1", self.seq, self.hash, self.time_ns, self.key_id))


def checkpoint_of(values: Mapping[str, object]) -> Checkpoint:
    """Make a checkpoint of values from outside.

    Raises:
        TypeError: a value is missing, is one too many, or has the wrong type.
    """
    checkpoint = Checkpoint(**values)  # type: ignore[arg-type]
    if tuple(map(type, checkpoint)) != (int, str, int, str, str):
        raise TypeError("a checkpoint has a value of the wrong type")
    return checkpoint


class Signer:
    """The private key of one state directory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def load_or_create(cls, folder: Path) -> Self:
        """Load ``ledger.key`` (mode 0600) from the folder, or create it and ``ledger.pub`` beside it.

        Raises:
            BadKey: the file holds something else, or others may read it.
        """
        path = folder / PRIVATE_KEY
        try:
            signer = cls(Ed25519PrivateKey.from_private_bytes(_read_key(path)))
        except FileNotFoundError:
            signer = cls(Ed25519PrivateKey.generate())
            _write_new(path, signer._key.private_bytes_raw().hex(), 0o600)
        if path.stat().st_mode & 0o077:
            raise BadKey(f"{path}: others can read this private key; run chmod 600 on it")
        if not (folder / PUBLIC_KEY).exists():
            _write_new(folder / PUBLIC_KEY, signer.public.raw.hex(), 0o644)
        return signer

    def sign(self, seq: int, hash_: str, time_ns: int) -> Checkpoint:
        """Sign one place in the chain."""
        unsigned = Checkpoint(seq, hash_, time_ns, self.public.key_id, "")
        return unsigned._replace(signature=self._key.sign(unsigned.message()).hex())


class PublicKey:
    """What an auditor needs to hold, and to have got from somewhere else than the ledger's machine."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.key_id = sha256(raw).hexdigest()[:16]
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a public key file: 64 hex digits.

        Raises:
            BadKey: the file holds something else or cannot be read.
        """
        try:
            return cls(_read_key(path))
        except OSError as error:
            raise BadKey(f"{path}: {error.strerror}; give the path of a ledger.pub") from None

    def signed(self, checkpoint: Checkpoint) -> bool:
        """Say whether this key signed the checkpoint."""
        try:
            self._key.verify(bytes.fromhex(checkpoint.signature), checkpoint.message())
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True


def append_copy(folder: Path, checkpoint: Checkpoint) -> None:
    """Add the checkpoint as a line to the folder's ``checkpoints.jsonl`` and sync it.

    Does nothing if it is the last line already. A line that a crash left half written is ended first, so that it
    spoils no other.

    Raises:
        OSError: the line could not be made durable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / COPY, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        line = dumps(checkpoint._asdict()) + b"\n"
        size = os.fstat(file).st_size
        end = os.pread(file, len(line), max(0, size - len(line)))
        if end == line:
            return
        if end and not end.endswith(b"\n"):
            line = b"\n" + line
        if os.write(file, line) != len(line):
            raise OSError(f"{folder / COPY}: the line could not be written whole")
        os.fsync(file)
    finally:
        os.close(file)


def read_copy(path: Path) -> tuple[list[Checkpoint], int]:
    """Return the checkpoints of a copy, and how many of its lines are not checkpoints.

    Raises:
        OSError: the file cannot be read.
    """
    found, bad = [], 0
    for line in path.read_bytes().splitlines():
        try:
            found.append(checkpoint_of(loads(line)))
        except (JSONDecodeError, TypeError):
            bad += 1
    return found, bad


def _read_key(path: Path) -> bytes:
    text = path.read_text("ascii", errors="replace").strip()
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise BadKey(f"{path}: not a key; it must hold 64 hex digits")
    return raw


def _write_new(path: Path, text: str, mode: int) -> None:
    """The name never stands for half a key, and never replaces another one."""
    file, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(file, "w") as target:
            target.write(text + "\n")
            target.flush()
            os.fchmod(file, mode)
            os.fsync(file)
        path.hardlink_to(temporary)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_folder(path.parent)
