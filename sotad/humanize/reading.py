"""What a file of a Humanize loop says, read as strictly as its gate reads it. Pure: text in, fields out.

Nothing here is believed: it is what files say that an agent can write. ``problems`` names what does not fit, above all
what was put there to look like an end of the work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from sotad.humanize.layout import Place

JSON = dict[str, Any]

REQUIRED = ("current_round", "max_iterations", "review_started", "base_branch", "plan_tracked", "start_branch")
NUMBERS = ("current_round", "max_iterations", "codex_timeout", "full_review_round", "mainline_stall_count")
TRUTHS = (
    *("push_every_round", "plan_tracked", "review_started", "ask_codex_question", "agent_teams", "privacy_mode"),
    *("bitlesson_required", "bitlesson_allow_empty_none"),
)
WORDS = {
    "codex_effort": ("xhigh", "high", "medium", "low"),
    "last_mainline_verdict": ("advanced", "stalled", "regressed", "unknown"),
    "drift_status": ("normal", "replan_required"),
}
TEXTS = (
    *("codex_model", "plan_file", "start_branch", "base_branch", "base_commit", "session_id", "bitlesson_file"),
    "started_at",
)
KNOWN = {*NUMBERS, *TRUTHS, *WORDS, *TEXTS}
LEAST = {"full_review_round": 2}
MODEL = re.compile(r"[A-Za-z0-9._-]+")
HIGHEST = 10**9
CRITERION = re.compile(r"\bAC-?(\d+(?:\.\d+)?)\b")


def read(place: Place, text: str) -> JSON:
    """The fields of a file, ``problems`` among them; ``round`` where its name has one."""
    reader = READERS.get(place.kind)
    fields = reader(_lines(text)) if reader else {}
    problems = list(fields.pop("problems", []))
    if "\r" in text:
        problems.append("lines end in CR LF")
    if not text.strip() and place.kind not in MAY_BE_EMPTY:
        problems = ["empty"]
    number = {} if place.round is None else {"round": place.round}
    return {**number, **fields, "problems": problems}


def _lines(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.split("\n")]


# --- state record ---------------------------------------------------------------------------------------------


def state(lines: list[str]) -> JSON:
    """The front matter of a state file; values that fit their field, and what is wrong with the others."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    if not lines or lines[0] != "---":
        return {"problems": ["no front matter: the first line is not ---"]}
    if "---" not in lines[1:]:
        return {"problems": ["the front matter is not closed: half a file"]}
    end = lines.index("---", 1)
    problems = [f"line {end + 2}: text after the front matter"] if lines[end + 1 :] else []
    fields: JSON = {}
    for number, line in enumerate(lines[1:end], 2):
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch("[a-z_]+", name):
            problems.append(f"line {number}: not `name: value`")
        elif name in fields:
            problems.append(f"line {number}: {name} is there twice")
        elif name not in KNOWN:
            problems.append(f"line {number}: {name} is no field of the state record")
        else:
            fields[name] = value.strip().strip('"')
    return {**_typed(fields, problems), "problems": problems}


def _typed(fields: JSON, problems: list[str]) -> JSON:
    """The values that fit; one that does not becomes a problem."""
    found: JSON = {}
    for name, text in fields.items():
        value = _value(name, text)
        if value is None:
            problems.append(f"{name}: {text[:60]!r} does not fit")
        else:
            found[name] = value
    problems.extend(f"{name}: is missing" for name in REQUIRED if fields.get(name, "") == "")
    return found


def _value(name: str, text: str) -> Any:
    if name in NUMBERS:
        fits = re.fullmatch(r"\d{1,9}", text, re.ASCII) and int(text) >= LEAST.get(name, 0)
        return int(text) if fits else None
    if name in TRUTHS:
        return {"true": True, "false": False}.get(text)
    if name in WORDS:
        return text if text in WORDS[name] else None
    if name == "codex_model":
        return text if MODEL.fullmatch(text) else None
    return text


# --- reviews --------------------------------------------------------------------------------------------------

WORD = "(?:ADVANCED|STALLED|REGRESSED)"
LABEL = re.compile(r"mainline progress verdict:", re.IGNORECASE)
VERDICT = re.compile(rf"mainline progress verdict:\s*{WORD}(?![a-z])", re.IGNORECASE)
SEVERITY = re.compile(r"\[(P[0-9])\]")
FIRST_COLUMNS = 10
LISTED = 200
LANE = re.compile(r"mainline|blocking|queued", re.IGNORECASE)


def review_result(lines: list[str]) -> JSON:
    """Verdict, control word and findings of a review.

    ``verdict`` is empty when the last line that gives one names more than one; ``control`` is COMPLETE or STOP
    when that is the whole last line. A file with findings alone is a review of code, which has neither of them.
    """
    verdict, problems = _verdict(lines)
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    control = last if last in ("COMPLETE", "STOP") else ""
    findings = list(_findings(lines))
    is_code = bool(findings) and not control and not any(LABEL.search(line) for line in lines)
    if not verdict and control == "COMPLETE":
        problems.append("COMPLETE without a verdict: completes nothing")
    elif not verdict and not control and not is_code:
        problems.append("neither a verdict nor a severity: not a review that can be used")
    if control == "COMPLETE" and any(found["severity"] in ("P0", "P1") for found in findings):
        problems.append("COMPLETE beside findings of P0 or P1")
    if len(findings) > LISTED:
        problems.append(f"{len(findings)} findings, of which the first {LISTED} are listed")
    if control == "" and re.search(r"\bCOMPLETE\b", last) and not LABEL.search(last):
        problems.append("the last line holds COMPLETE and more: it is not the control word")
    kind = "code" if is_code else "summary"
    return {"review": kind, "verdict": verdict, "control": control, "findings": findings[:LISTED], "problems": problems}


def _verdict(lines: list[str]) -> tuple[str, list[str]]:
    """The one word of the last line that has a word right behind the label."""
    named = [line for line in lines if VERDICT.search(line)]
    if not named:
        return "", ["the verdict line names no verdict"] if any(LABEL.search(line) for line in lines) else []
    said = re.findall(WORD, named[-1], re.IGNORECASE)
    if len(said) == 1:
        return said[0].upper(), []
    return "", [f"the verdict line names {len(said)} verdicts: it is none"]


def _findings(lines: list[str]) -> Iterator[JSON]:
    """Lines with a severity in their first ten columns, under the lane of the heading before them."""
    lane = ""
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            said = LANE.search(line)
            lane = said[0].lower() if said else ""
        elif found := SEVERITY.search(line[:FIRST_COLUMNS]):
            text = line[found.end() :].strip(" :-*")
            yield {"severity": found[1], "lane": lane, "line": number, "text": text[:500]}


# --- what the writer writes -----------------------------------------------------------------------------------


def goal_tracker(lines: list[str]) -> JSON:
    """Criteria, a digest of the part that must not change, and how many rows its tables have."""
    problems = []
    heads = {name: _head(lines, name) for name in ("IMMUTABLE SECTION", "MUTABLE SECTION")}
    problems += [f"no {name}" for name, at in heads.items() if at is None]
    first, second = heads["IMMUTABLE SECTION"], heads["MUTABLE SECTION"]
    fixed = lines[first:second] if first is not None and second is not None and first < second else []
    if fixed and any(line.startswith("[To be ") for line in fixed):
        problems.append("goal or criteria are still placeholders")
    criteria = sorted({f"AC-{name}" for line in fixed for name in CRITERION.findall(line)}, key=_criterion_order)
    digest = hashlib.sha256("\n".join(fixed).encode()).hexdigest() if fixed else ""
    rows = {name: _rows(lines, title) for name, title in TABLES.items()}
    return {"criteria": criteria, "immutable_sha256": digest, "rows": rows, "problems": problems}


TABLES = {
    "active": "Active Tasks",
    "blocking": "Blocking Side Issues",
    "queued": "Queued Side Issues",
    "completed": "Completed and Verified",
    "deferred": "Explicitly Deferred",
}


def _criterion_order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.removeprefix("AC-").split("."))


def _head(lines: list[str], title: str) -> int | None:
    pattern = re.compile(rf"#+\s.*\b{title}\b")
    return next((n for n, line in enumerate(lines) if pattern.match(line) and not _other(line, title)), None)


def _other(line: str, title: str) -> bool:
    """IMMUTABLE ends in MUTABLE, which is a word of its own only with something before it."""
    return title == "MUTABLE SECTION" and "IMMUTABLE" in line


def _rows(lines: list[str], title: str) -> int:
    """Rows of the table under a heading, without its two head lines."""
    at = next((n for n, line in enumerate(lines) if re.match(rf"#+\s+{title}", line)), None)
    if at is None:
        return 0
    count = 0
    for line in lines[at + 1 :]:
        if line.startswith("#"):
            break
        count += line.startswith("|")
    return max(0, count - 2)


def contract(lines: list[str]) -> JSON:
    """The criteria that a round aims at."""
    found = sorted({f"AC-{name}" for line in lines for name in CRITERION.findall(line)}, key=_criterion_order)
    problems = [] if 1 <= len(found) <= 2 else [f"names {len(found)} acceptance criteria, not one or two"]
    return {"criteria": found, "problems": problems}


def summary(lines: list[str]) -> JSON:
    """The lesson delta of a summary."""
    shown = _outside(lines)
    at = next((n for n, line in enumerate(shown) if re.match(r"##\s+BitLesson Delta\s*$", line)), None)
    if at is None:
        return {"lessons": "", "problems": ["no BitLesson Delta section"]}
    section: list[str] = []
    for line in shown[at + 1 :]:
        if line.startswith("#"):
            break
        section.append(line)
    actions = [found[1].lower() for line in section if (found := ACTION.match(line))]
    if len(actions) != 1 or actions[0] not in ("none", "add", "update"):
        return {"lessons": "", "problems": ["the BitLesson Delta has not exactly one action of none, add, update"]}
    return {"lessons": actions[0]}


ACTION = re.compile(r"[\s*-]*\**Action\**:\**\s*([A-Za-z|]+)\s*$", re.IGNORECASE)


def _outside(lines: list[str]) -> list[str]:
    """Lines that stand in no code fence and in no comment."""
    kept, fence, comment = [], "", False
    for line in lines:
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
        elif comment or line.lstrip().startswith("<!--"):
            comment = "-->" not in line
        elif mark:
            fence = mark[1]
        else:
            kept.append(line)
    return kept


# --- markers --------------------------------------------------------------------------------------------------


def review_marker(lines: list[str]) -> JSON:
    """The round in which the building ended."""
    found = re.fullmatch(r"build_finish_round=(\d{1,6})", "\n".join(lines).strip())
    return {"build_finish_round": int(found[1])} if found else {"problems": ["not build_finish_round=N"]}


def exit_reason(lines: list[str]) -> JSON:
    """Why the loop is about to end."""
    said = "\n".join(lines).strip()
    return {"reason": said} if said in ("complete", "stop", "maxiter") else {"problems": ["no known reason"]}


MAY_BE_EMPTY = ("methodology-report", "methodology-note", "parked-marker", "cancel-request")
READERS: dict[str, Callable[[list[str]], JSON]] = {
    "state": state,
    "review-result": review_result,
    "goal-tracker": goal_tracker,
    "contract": contract,
    "summary": summary,
    "review-marker": review_marker,
    "exit-reason": exit_reason,
}
