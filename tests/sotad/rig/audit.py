"""What must hold of every ledger and machine when a campaign is over, however often its daemon died."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from ledger.events import Event
from ledger.keys import PublicKey
from ledger.verify import verify
from rig.campaign import Rig
from statemachine.judge import Judge

LAUNCH_ENDS = ("candidate.stopped", "candidate.failed", "candidate.lost")
JOB_ENDS = ("job.finished", "job.lost", "job.timed_out")


def audit(rig: Rig) -> None:
    """Fail with every breach of what a finished campaign owes."""
    found = list(problems(rig))
    assert not found, "\n".join(found)


def problems(rig: Rig) -> Iterator[str]:
    """Every breach, in words."""
    events = rig.events()
    yield from chain(rig)
    yield from one_end_each(events)
    yield from measured_once(events)
    yield from said_once(events)
    yield from accounted_for(rig, events)
    yield from (f"still alive: {process}" for process in rig.processes())
    for cleaned in rig.events("cleanup.finished"):
        yield from (f"alive at cleanup: {left}" for left in cleaned.payload["after"])


def chain(rig: Rig) -> Iterator[str]:
    """The ledger verifies, the judge admits every event, and the state directory's own key signed it."""
    key = PublicKey.load(rig.paths.keys / "ledger.pub") if (rig.paths.keys / "ledger.pub").exists() else None
    found = verify(rig.paths.ledger, judge=Judge(), public_key=key)
    yield from (f"verify: {problem}" for problem in found.problems)


def one_end_each(events: list[Event]) -> Iterator[str]:
    """Exactly one end for every job attempt and every launch attempt of a campaign that is over."""
    jobs = Counter((e.campaign, e.payload["job"], e.payload["attempt"]) for e in events if e.type in JOB_ENDS)
    launches = Counter((e.campaign, e.payload["launch"], e.payload["attempt"]) for e in events if e.type in LAUNCH_ENDS)
    for event in events:
        if event.type == "job.dispatched":
            count = jobs[event.campaign, event.payload["job"], event.payload["attempt"]]
            if count != 1:
                yield f"{event.payload['job']} attempt {event.payload['attempt']} has {count} ends"
        if event.type == "candidate.launched":
            count = launches[event.campaign, event.payload["launch"], event.payload["attempt"]]
            if count != 1:
                yield f"launch {event.payload['launch']} attempt {event.payload['attempt']} has {count} ends"


def measured_once(events: list[Event]) -> Iterator[str]:
    """No measurement is counted twice, none of a launch that stands is missing; `_anew` says what may be redone."""
    rows: Counter[tuple[str, str, int, str, int]] = Counter()
    anew = list(_anew(events))
    events = [
        e
        for e in events
        if not any(e.seq <= seq and e.campaign == c and _launch(e).startswith(begin) for c, begin, seq in anew)
    ]
    stands = {(e.campaign, e.payload["launch"], e.payload["attempt"]) for e in events if e.type == "candidate.stopped"}
    for e in events:
        if e.type == "benchmark.finished":
            p = e.payload
            rows[e.campaign, p["launch"], p["attempt"], p["scenario"], p["run"]] += 1
    yield from (f"measured {count} times: {key}" for key, count in rows.items() if count != 1)
    standing = Counter((c, launch, s, run) for c, launch, attempt, s, run in rows if (c, launch, attempt) in stands)
    yield from (f"{count} rows stand for {key}" for key, count in standing.items() if count != 1)
    for e in events:
        if e.type == "job.dispatched" and e.payload["activity"] == "launch":
            at = (e.campaign, e.payload["job"], e.payload["attempt"])
            if at in stands:
                yield from (
                    f"{at}: nothing stands for {scenario} run {run}"
                    for scenario, seeds in e.payload["params"]["seeds"].items()
                    for run in range(
                        1 if e.payload["params"]["purpose"] == "rate" else len(seeds)
                    )  # ends when it knows
                    if not rows[(*at, scenario, run)]
                )


def _anew(events: list[Event]) -> Iterator[tuple[str, str, int]]:
    """What is measured again, and rightly: campaign, how these launches' names begin, and up to which event.

    All of it once a resume found another world, the searches once their comparison turned out not to be fair, and a
    comparison that told nothing once a person resumed the campaign that it had blocked.
    """
    told_nothing: dict[str, list[str]] = {}
    for e in events:
        p, campaign = e.payload, told_nothing.setdefault(e.campaign, [])
        if e.type == "resume.mismatch":
            yield e.campaign, "", e.seq
        elif e.type == "fairness.violated":
            yield e.campaign, "search/", e.seq
        elif e.type == "gap.decided" and p["verdict"] in ("undecided", "untrusted"):
            campaign.append(f"gap/r{p['round']}/")
        elif e.type in ("aa.checked", "heldout.checked") and not p["passed"]:
            campaign.append(e.type.partition(".")[0] + "/")
        elif e.type == "campaign.resumed":
            yield from ((e.campaign, begin, e.seq) for begin in campaign)
            campaign.clear()


def _launch(e: Event) -> str:
    return str(e.payload.get("launch", e.payload.get("job", "")))


ONCE = {  # what there is at most one of for the same values
    "agent.finished": ("job", "attempt", "role"),
    "plan.recorded": ("version",),
    "human.question": ("subject",),
    "human.answered": ("subject",),
    "human.approved": ("subject",),
    "patch.applied": ("attempt_id",),
    "patch.quarantined": ("attempt_id",),
    "patch.accepted": ("attempt_id",),
    "patch.reverted": ("attempt_id",),
    "finalize.opened": ("attempt_id",),
    "finalize.unchanged": ("attempt_id",),
    "heldout.checked": ("round", "commit"),
    "gap.decided": ("round",),
    "review.passed": ("round",),
    "campaign.closed": (),
}


def said_once(events: list[Event]) -> Iterator[str]:
    """No conclusion is drawn twice and no call of an agent is paid twice, whoever died in between.

    A comparison that nothing could be told from is made again when its campaign is resumed.
    """
    found = Counter(
        (e.campaign, e.type, *(e.payload.get(name) for name in ONCE[e.type]))
        for e in events
        if e.type in ONCE and e.payload.get("verdict") not in ("undecided", "untrusted") and e.payload.get("passed", 1)
    )
    yield from (f"{count} times {key}" for key, count in found.items() if count != 1)


def accounted_for(rig: Rig, events: list[Event]) -> Iterator[str]:
    """Every run directory of a load generator that ended well is in the ledger, or its launch was voided."""
    told = [(e.campaign, e.payload) for e in events if e.type in ("benchmark.finished", "benchmark.disturbed")]
    samples = Counter((c, p["launch"], str(p["attempt"]), f"bench-{p['scenario']}-{p['run']}") for c, p in told)
    rows = {(*at, f"{name}-again{n}" if n else name) for (*at, name), count in samples.items() for n in range(count)}
    void = {
        (e.campaign, e.payload["launch"], str(e.payload["attempt"]))
        for e in events
        if e.type in ("candidate.lost", "candidate.failed")
    }
    for root, path in ((place, path) for place in rig.roots for path in place.rglob("bench-*/exit.json")):
        campaign, *launch, attempt, name = path.parent.relative_to(root).parts
        watched = name.endswith("-gpus")  # who watches the GPUs beside a sample measures nothing
        if not watched and json.loads(path.read_text())["exit_code"] == 0:
            at = (campaign, "/".join(launch), attempt)
            if (*at, name) not in rows and at not in void:
                yield f"{path.parent} measured, and nobody says what became of it"
