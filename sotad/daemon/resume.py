"""Before a halted campaign goes on: is the world still the one that its ledger describes?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ledger.artifacts import Artifacts
from sotad import git
from sotad.hosts.base import Host
from statemachine.state import Campaign

Check = dict[str, Any]
IDENTITY = ("cpu", "cores", "gpus")  # what must be the same for results to be comparable


async def resume_checks(c: Campaign, host: Host, artifacts: Artifacts) -> list[Check]:
    """Each check with what was expected and found; ``ok`` says whether they agree."""
    of_git = {name for name, framework in c.spec["frameworks"].items() if framework.get("checkout")}
    checks = [await _commit(name, found) for name, found in c.workspaces.items() if name in of_git]
    if c.champion and c.target in of_git:
        checks.append(await _champion(c))
    if c.host:
        facts = await host.probe()
        checks += [_check(f"host {key}", str(c.host.get(key)), str(facts.get(key))) for key in IDENTITY]
    for side, profile in c.profiles.items():
        reference = profile["trace"]
        problem = artifacts.check(reference["sha256"], reference["bytes"])
        checks.append(_check(f"trace of the {side}", "intact", problem or "intact"))
    return checks


async def _commit(name: str, found: dict[str, Any]) -> Check:
    try:
        return _check(f"checkout {name}", found["commit"], await git.head(Path(found["repo"])))
    except git.GitError as error:
        return _check(f"checkout {name}", found["commit"], str(error))


async def _champion(c: Campaign) -> Check:
    repo = Path(c.spec["frameworks"][c.target]["checkout"])
    found = (await git.git(repo, "rev-parse", "--verify", "--quiet", f"{c.champion}^{{commit}}", check=False)).strip()
    return _check("champion commit", c.champion, found or "not in the checkout")


def _check(what: str, expected: str, found: str) -> Check:
    return {"what": what, "expected": expected, "found": found, "ok": expected == found}
