"""Profile digests: for each captured profile, what ran, where, what dominated, and whether it still holds."""

from __future__ import annotations

from ledger.events import Event
from sotad.report.analysis import profile_files, row_table
from sotad.report.document import Document, Items, Section
from sotad.report.facts import Facts, cite, file_name, pairs, said
from statemachine.evidence import digest
from statemachine.state import JSON

DOMINANT = 12  # rows of a table that a digest repeats


def digest_entries(f: Facts) -> list[JSON]:
    """One entry per captured profile, in order."""
    return [_entry(f, name, event) for name, event in sorted(profile_files(f).items(), key=lambda item: item[1].seq)]


def _entry(f: Facts, name: str, event: Event) -> JSON:
    p = event.payload
    job, tables = f.job_before(event.seq, "profile").get("params", {}), _tables(f, event)
    traces = p.get("traces") or [p["trace"]]
    return {
        "digest_id": f"r{p['round']}-{p['side']}-{event.seq}",
        "round": p["round"],
        "side": p["side"],
        "framework": p["framework"],
        "commit": p["commit"],
        "command_digest": _command(job),
        "scenario": job.get("scenario"),
        "lengths": _lengths(f, job.get("scenario")),
        "stages": sorted({trace["stage"] for trace in traces if trace.get("stage")}),
        "traces": [{"stage": trace.get("stage") or None, "sha256": trace["sha256"]} for trace in traces],
        "file": name,
        "tables": {"sha256": tables.payload["tables"]["sha256"], "event": tables.seq} if tables else None,
        "dominant_rows": tables.payload["rows"][:DOMINANT] if tables else [],
        "environment": environment(f, event),
        "stale": is_stale(f, p),
        "event": event.seq,
    }


def _lengths(f: Facts, scenario: str | None) -> JSON | None:
    """Tokens in and out of a request of the scenario, as the spec gives them."""
    shape = next((shape for shape in f.spec["workload"]["scenarios"] if shape["name"] == scenario), None)
    return {key: shape.get(key) for key in ("input_len", "output_len")} if shape else None


def _command(job: JSON) -> str | None:
    """Digest of what the server was asked for: framework, candidate, commit and flags."""
    asked = {key: job[key] for key in ("framework", "candidate", "commit", "flags") if key in job}
    return digest(asked) if asked else None


def _tables(f: Facts, event: Event) -> Event | None:
    """The tables that were made of it: the next ones of its round."""
    made = f.after(event.seq, "tables.produced")
    return made if made and made.payload["round"] == event.payload["round"] else None


def environment(f: Facts, event: Event) -> JSON:
    """The host and the framework's version as they were known when it was captured."""
    host, probed = f.before(event.seq, "preflight.passed"), None
    for found in f.all("framework.probed"):
        if found.seq < event.seq and found.payload["framework"] == event.payload["framework"]:
            probed = found
    return {
        "host": host.payload["host"] if host else None,
        "version": probed.payload["version"] if probed else None,
        "gpu_ids": f.spec["hardware"].get("gpu_ids", []),
        "events": [found.seq for found in (host, probed) if found],
    }


def is_stale(f: Facts, profile: JSON) -> bool:
    """Whether it says nothing about the present round: of another round, or of a target that was patched since."""
    patched = profile["framework"] == f.target and profile["commit"] != f.c.champion
    return bool(patched or profile["round"] != f.c.round)


def digest_documents(f: Facts) -> dict[str, Document]:
    """``profile-digests/``: one Markdown file for each."""
    return {f"profile-digests/{file_name(entry['digest_id'])}.md": _document(entry) for entry in digest_entries(f)}


def _document(entry: JSON) -> Document:
    tables = entry["tables"]
    facts = [
        f"{entry['framework']} at {entry['commit']}, {entry['side']} of round {entry['round']} {cite(entry['event'])}",
        f"command digest: {said(entry['command_digest'])}; scenario: {said(entry['scenario'])}, "
        f"tokens in and out: {_lengths_text(entry['lengths'] or {})}",
        *(f"trace {trace['stage'] or 'of every stage'}: {trace['sha256']}" for trace in entry["traces"]),
        f"tables: {tables['sha256']} {cite(tables['event'])}" if tables else "tables: not recorded",
        f"environment: {_environment_text(entry['environment'])}",
        f"stale: {'yes' if entry['stale'] else 'no'}",
    ]
    return Document(
        f"Profile digest {entry['digest_id']}",
        [Section("", [Items(facts)]), Section("Dominant rows", [row_table(entry["dominant_rows"])])],
    )


def _lengths_text(lengths: JSON) -> str:
    return ", ".join(said(lengths.get(key)) for key in ("input_len", "output_len"))


def _environment_text(found: JSON) -> str:
    gpus = ", ".join(map(str, found["gpu_ids"])) or "none named"
    host = pairs(found["host"]) if found["host"] else "not recorded"
    return f"version {said(found['version'])}; GPUs {gpus}; {host} {cite(*found['events'])}"
