"""Under which conditions the result holds: what was fixed, which versions ran, and what weakens it."""

from __future__ import annotations

from collections.abc import Iterator

from ledger.events import Event
from sotad.report import charts
from sotad.report.document import Block, Document, Items, Section, Table, Text
from sotad.report.facts import Facts, cite, cite_range, file_name, said, utc

SMOKE_PROMPTS = 20  # up to this many prompts a run is a smoke test, not a result
USUAL_PROMPTS = 80
UNSHARED = 0.02  # of the prompts' tokens; a chat template or a health check may be shared, too


def manifest_document(f: Facts) -> Document:
    """``manifest.md``."""
    daemon = f.last("daemon.started")
    version = f"sotad {daemon.payload['version']} {cite(daemon)}" if daemon else "sotad version: not recorded"
    created = f.last("campaign.created")
    began = f"created {utc(created.time_ns)} from {created.payload['source']} {cite(created)}" if created else ""
    return Document(
        f"Manifest of {f.c.id}",
        [
            Section(
                "",
                [Items([line for line in (began, version, f"spec digest: {said(f.c.spec_digest)}") if line])],
            ),
            Section("Conditions", condition_blocks(f)),
            Section("Frameworks and versions", framework_blocks(f)),
        ],
    )


def help_files(f: Facts) -> dict[str, Event]:
    """Where each framework's help text lies in the tree."""
    return {f"help/{file_name(e.payload['framework'])}.txt": e for e in f.latest("framework.probed", "framework")}


# --- conditions -----------------------------------------------------------------------------------------


def condition_blocks(f: Facts) -> list[Block]:
    """Model, hardware, workload, SLA and decision rule, as the spec fixed them."""
    created = f.last("campaign.created")
    if created is None:
        return [Text("not recorded")]
    rows = [
        (f"{part}: {key}", said(value), cite(created))
        for part in ("model", "hardware")
        for key, value in f.spec[part].items()
    ]
    rows += [
        ("workload: " + key, said(value), cite(created))
        for key, value in f.spec["workload"].items()
        if key != "scenarios"
    ]
    rows += [(f"SLA: {key}", said(value), cite(created)) for key, value in f.spec["sla"].items()]
    rows += [(f"decision: {key}", said(value), cite(created)) for key, value in f.spec["decision"].items()]
    rows += [(f"host: {key}", said(value), cite(f.last("preflight.passed"))) for key, value in sorted(f.c.host.items())]
    return [Table(("condition", "value", "event"), rows), _scenarios(f), Text(_frozen(f))]


def _scenarios(f: Facts) -> Table:
    scenarios = f.spec["workload"]["scenarios"]
    keys = list(dict.fromkeys(key for scenario in scenarios for key in scenario))
    return Table(keys, [[said(scenario.get(key)) for key in keys] for scenario in scenarios])


def _frozen(f: Facts) -> str:
    frozen = f.last("workload.frozen")
    return f"Workload digest {said(f.c.workload_digest)} {cite(frozen)}"


def framework_blocks(f: Facts) -> list[Block]:
    """Every framework that was named, with its version and commit, or why it is not compared."""
    probed = {e.payload["framework"]: e for e in f.latest("framework.probed", "framework")}
    checked = {e.payload["framework"]: e for e in f.latest("workspace.checked", "framework")}
    rows = [
        (
            name,
            entry["role"],
            entry.get("kind", "not recorded"),
            _version(probed.get(name)),
            _workspace(checked.get(name)),
            cite(probed.get(name), checked.get(name)),
        )
        for name, entry in f.frameworks.items()
    ]
    left_out = [
        f"{e.payload['framework']} is unsupported: {e.payload['reason']} {cite(e)}"
        for e in f.latest("framework.unsupported", "framework")
    ]
    excluded = f.spec.get("excluded", {})
    left_out += [f"{name} was excluded by the user: {why}" for name, why in sorted(excluded.items())]
    headers = ("framework", "role", "kind", "version", "checkout", "event")
    return [Table(headers, rows), Items(left_out, empty="No framework was excluded or unsupported.")]


def _version(event: Event | None) -> str:
    if event is None:
        return "not recorded"
    return f"{event.payload['version']}, commit {said(event.payload.get('commit'))}"


def _workspace(event: Event | None) -> str:
    if event is None:
        return "not recorded"
    p = event.payload
    return f"{p['repo']}, {p['branch']} at {p['commit']}, {'clean' if p['clean'] else 'dirty'}"


# --- caveats ----------------------------------------------------------------------------------------------


def caveats(f: Facts) -> list[str]:
    """What a reader must know before using the numbers."""
    return [*_weak_conditions(f), *_weak_evidence(f), *_doubtful_gains(f), *_incidents(f)] if f.spec else []


def _weak_conditions(f: Facts) -> Iterator[str]:
    kinds = {entry.get("kind") for entry in f.frameworks.values()}
    if "reference" in kinds:
        yield (
            "The engine is the reference engine, a small decoder made for demonstration: the figures say "
            "nothing about a production framework."
        )
    if not f.spec["hardware"].get("gpu_ids"):
        yield f"No GPU was used; the hardware was recorded as {said(f.spec['hardware'].get('gpu_type'))}."
    if f.spec["workload"].get("kind") == "random":
        yield "The prompts are synthetic random tokens, not production traffic."
    for scenario in f.spec["workload"]["scenarios"]:
        prompts = scenario.get("num_prompts")
        if prompts is not None and prompts < USUAL_PROMPTS:
            kind = "a smoke test" if prompts <= SMOKE_PROMPTS else "a small sample"
            name = scenario["name"]
            yield f"Scenario {name} has {prompts} prompts a run, {kind}; {USUAL_PROMPTS} is usual."
    for role in ("implementer", "reviewer"):
        if f.spec.get(role, {}).get("driver") == "scripted":
            yield f"The {role} was scripted."
    if f.spec.get("review", {}).get("mode") == "self":
        yield "The implementer reviewed itself; a person approved samples of it."


def _weak_evidence(f: Facts) -> Iterator[str]:
    for event in f.all("history.unavailable"):
        yield f"History was not available: {event.payload['reason']} {cite(event)}"
    for event in f.all("openpr.scanned"):
        if not event.payload["available"]:
            yield f"Open pull requests were not scanned: {said(event.payload['reason'])} {cite(event)}"
    for event in f.all("aa.checked"):
        if not event.payload["passed"]:
            yield f"An A/A check failed: the target's command differed from itself {cite(event)}"
    for event in f.all("gap.decided"):
        if event.payload["verdict"] in ("undecided", "untrusted"):
            yield f"Round {event.payload['round']} ended {event.payload['verdict']} {cite(event)}"
    void = [row.seq for row in f.rows if not row.counts]
    if void:
        yield f"{len(void)} measured rows became void and were not used {cite_range(void)}"
    yield from _cached(f)
    if not charts.available():
        yield "Charts were left out: the chart library ziaplot is not installed."


def _cached(f: Facts) -> Iterator[str]:
    """Prompts that were to be new and that a server had seen: prefill was measured on less than the workload says."""
    most: dict[str, tuple[float, Event]] = {}
    for event in f.all("benchmark.finished"):
        hit = (event.payload["row"].get("cache") or {}).get("prefix_cache_hit_rate") or 0.0
        if hit > most.get(event.payload["scenario"], (0.0, event))[0]:
            most[event.payload["scenario"]] = hit, event
    for shape in f.spec["workload"]["scenarios"] if f.spec["workload"].get("kind") == "random" else ():
        hit, found = most.get(shape["name"], (0.0, None))
        shared = (shape.get("shared_prefix_len") or 0) / shape["input_len"]
        if found and hit > shared + UNSHARED:
            told = f"up to {hit:.0%} of the prompts' tokens came from a prefix cache"
            yield f"Scenario {shape['name']}: {told}, {shared:.0%} were meant to be shared {cite(found)}"


def _doubtful_gains(f: Facts) -> Iterator[str]:
    for event in f.all("heldout.checked"):
        if not event.payload["passed"]:
            yield f"A gain was not there on the held-out workload {cite(event)}"
    for event in f.all("patch.quarantined"):
        gain = f"{event.payload['attempt_id']} gained {event.payload['gain_pct']:.1f}%"
        yield f"{gain}, more than is believed without a person's word {cite(event)}"


def _incidents(f: Facts) -> Iterator[str]:
    for event in f.all("job.lost", "candidate.lost", "resume.mismatch", "fairness.violated", "campaign.blocked"):
        plain = ", ".join(f"{key}: {value}" for key, value in event.payload.items() if isinstance(value, str | int))
        yield f"{event.type}: {plain} {cite(event)}"
