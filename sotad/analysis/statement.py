"""An explanation in words: the sentence that the root cause states, and its document. Pure, and nothing to load."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]


def statement(found: JSON, target: str, leader: str) -> str:
    """The explanation in one sentence, with row ids."""
    by_id = {row["row_id"]: row for row in found["rows"]}
    step = by_id.get(f"{found['stage']}/step")
    what = "ms a request" if found.get("per_request") else "ms"
    extra = found["extra_ms"][found["stage"]]
    head = f"{found['stage']} is the slow stage: {target} spends {extra:.1f} {what} more"
    if extra <= 0:
        head = f"no stage is slower in these captures, so the gap lies outside of the steps: even in {found['stage']}"
        head += f" {target} spends {-extra:.1f} {what} less"
    if step:
        head += (
            f" than {leader} for the same tokens ({step['count']} steps at mean batch {step['mean_batch_size']:.2f}"
            f" against {step['leader_count']} at {step['leader_mean_batch_size']:.2f})"
        )
    if found["stage"] in (waited := found.get("waited_ms", {})):
        head += f"; measured, a request waits {waited[found['stage']]:+.1f} ms in it against {leader}"
    rows = [by_id[name] for name in found["cited"] if name in by_id and not name.endswith("/step")]
    if found["common_factor"] != 1.0:
        head += f", after a factor of {found['common_factor']:.2f} that all stages share"
    parts = [f"{row['row_id']} +{row['extra_ms']:.1f} ms ({row['share']:.1f}%)" for row in rows]
    return head + ("; rows " + ", ".join(parts) if parts else "") + "."


def root_cause_text(found: JSON, sentence: str) -> str:
    """The root cause as Markdown: the sentence, then the cited rows, then what else was found."""
    lines = ["# Root cause", "", sentence, "", "| row | extra ms | ms | leader ms | share % | count | leader count |"]
    lines.append("|---|---|---|---|---|---|---|")
    cited = set(found["cited"])
    for row in found["rows"]:
        if row["row_id"] in cited:
            numbers = (row["extra_ms"], row["time_ms"], row["leader_time_ms"], row["share"])
            cells = [f"`{row['row_id']}`", *(f"{n:.2f}" for n in numbers), str(row["count"]), str(row["leader_count"])]
            lines.append("| " + " | ".join(cells) + " |")
    if told := found.get("difference", {}).get("statement"):
        lines += ["", f"Step against step: {told}"]
    if limit := found.get("limit"):
        share = f"{100 * limit['fraction']:.0f}% of what the hardware allows"
        lines += ["", f"A step of {limit['stage']} takes {limit['measured_ms']:.3f} ms, {share}."]
    lines += [f"- {note}" for note in found.get("notes", [])]
    return "\n".join([*lines, ""])
