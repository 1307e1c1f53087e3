"""What no implementer may change, as digests: checkouts, remote, keys, the code that measures, the campaign file."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from campaign import Redteam

from sotad import git as ours
from sotad.harness import harness_digest


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, git's own and Python's caches apart."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not {".git", "__pycache__"} & set(path.parts):
            found[str(path)] = sha256(path.read_bytes()).hexdigest()
    return found


async def surroundings(arena: Redteam) -> dict[str, object]:
    """All of them; branches of the campaign itself apart."""
    found: dict[str, object] = {"code": harness_digest()}
    for place in (arena.target, arena.leader, arena.remote):
        refs = await ours.refs(place)
        found[f"refs of {place.name}"] = {ref: at for ref, at in refs.items() if "/sotad/" not in ref}
    for place in (arena.target, arena.leader, arena.paths.keys):
        found[place.name] = digests(place)
    for name in ("campaign.yaml", "tokens", "target/.git/config"):
        found[name] = (arena.home / name).read_bytes()
    return found
