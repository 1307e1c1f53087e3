"""Whether the answers of timed requests are those of the reference: what was fast must have been the work.

Pure. Two reports of the load generator with the same seed hold answers to the same prompts. Lengths, finish
reasons and usage must agree, answer by answer. Text need not: who shares a batch may change the last bit of a
sum, and with it a token. So the texts that differ are counted and held against what the reference does to
itself (`docs/equivalence.md`), and so are the requests that fail.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, lgamma, log
from typing import Any

from sotad.benchmark.equivalence import differences, other_text

ALPHA = 0.001  # the chance of refusing an honest candidate, by each of the three tests
MATERIAL = 0.05  # of the answers; fewer than so many more are not refused, however sure it is that they are more
BURST_TOKENS = 4  # answers with fewer tell nothing about how they were streamed
BURST_SHARE = 0.05  # of an answer's time; all tokens within so little of it came at once
BROKEN = ("short_output", "no_usage", "garbage")  # errors that are answers, and wrong ones
SHOWN = 20
Report = Mapping[str, Any]


@dataclass
class Counts:
    """What pairs of answers to the same requests have in common; `reasons` are differences that never may be.

    `compared` pairs have an answer of both; in `differing` the text is another as far as it counts. `shorter` and
    `longer` count the candidate's texts by characters. `failed` and `burst`: the reference's, the candidate's.
    """

    pairs: int = 0
    compared: int = 0
    differing: int = 0
    shorter: int = 0
    longer: int = 0
    failed: list[int] = field(default_factory=lambda: [0, 0])
    burst: list[int] = field(default_factory=lambda: [0, 0])
    broken: int = 0
    reasons: list[str] = field(default_factory=list)
    unpaired: int = 0


def count(reports: Iterable[tuple[Report, Report]], text_tokens: int | None = None) -> Counts:
    """The counts of pairs of reports, the reference's first; reports about different requests are `unpaired`.

    The text of the first `text_tokens` of an answer counts, of all by default.
    """
    counts = Counts()
    for reference, candidate in reports:
        if reference["workload_digest"] != candidate["workload_digest"]:
            counts.unpaired += 1
            continue
        fixed = _fixed(reference)
        for ours, theirs in zip(reference["requests"], candidate["requests"], strict=True):
            wanted = ours["output_tokens"] if fixed else None
            _add(counts, {**ours, "wanted": wanted, "text_tokens": text_tokens}, theirs)
    return counts


def _fixed(report: Report) -> bool:
    """Whether every answer was asked to have exactly so many tokens; a dataset's rows may say otherwise."""
    spec = report["spec"]
    return spec["scenario"]["kind"] == "random" and spec["extra_body"].get("ignore_eos", True) is True


def _add(counts: Counts, ours: Report, theirs: Report) -> None:
    counts.pairs += 1
    counts.failed[0] += bool(ours["error"])
    counts.failed[1] += bool(theirs["error"])
    if ours["error"] or (theirs["error"] and theirs["error"]["kind"] not in BROKEN):
        return
    counts.compared += 1
    for side, answer in enumerate((ours, theirs)):
        counts.burst[side] += _in_one_burst(answer)
    found = differences(ours, theirs, text=False)
    counts.broken += bool(found)
    counts.reasons += [f"request {ours['index']}: {reason}" for reason in found[: SHOWN - len(counts.reasons)]]
    counts.differing += other_text(ours, theirs) is not None
    counts.shorter += len(theirs["text"]) < len(ours["text"])
    counts.longer += len(theirs["text"]) > len(ours["text"])


def _in_one_burst(answer: Report) -> bool:
    """Whether an answer of several tokens arrived at once, after all the waiting for it."""
    first, last, sent = answer["first_token_ns"], answer["last_token_ns"], answer["sent_ns"]
    if None in (first, last, sent) or (answer["output_tokens"] or 0) < BURST_TOKENS:
        return False
    return bool(last - first < BURST_SHARE * (last - sent))


def judge(found: Counts, calibration: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """`{"passed", "detail", "differing_p", "shorter_p", "failed_p", ...}` of a candidate's counts.

    `calibration`: how many of how many texts differ where only batching differs; the kindest of them counts, of those
    without a difference the largest. Without any, differing texts prove nothing and are only told.

    Raises:
        ValueError: no pair of answers can be compared.
    """
    if not found.compared:
        raise ValueError(f"no timed answers to the same requests: {found.unpaired} measurements had to be repeated")
    excuses = _excuses(calibration)
    differing = max((_chance((found.differing, found.compared), each) for each in excuses), default=1.0)
    shorter = tail(found.shorter, found.shorter + found.longer)
    if found.shorter - found.longer <= MATERIAL * found.compared:
        shorter = 1.0
    failed = _chance((found.failed[1], found.pairs), (found.failed[0], found.pairs))
    refused = _refused(found, differing, shorter, failed)
    told = [_told(found, calibration, differing), *_notes(found)]
    chances = {"differing_p": differing, "shorter_p": shorter, "failed_p": failed}
    kept = {**chances, "calibration": [list(each) for each in calibration], "counts": asdict(found)}
    return {"passed": not refused, "detail": "; ".join([*refused, *told]), **kept}


def _excuses(calibration: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A dozen texts of which none differs excuse nothing: that they are few is no sign that batching does anything."""
    clean = [each for each in calibration if not each[0]]
    return [each for each in calibration if each[0]] + sorted(clean, key=lambda each: each[1])[-1:]


def _chance(observed: tuple[int, int], usual: tuple[int, int]) -> float:
    """Of so many by the usual rate; 1 where the difference is too small to matter."""
    excess = observed[0] / observed[1] - usual[0] / usual[1]
    return more_often(observed, usual) if excess > MATERIAL else 1.0


def _refused(found: Counts, differing: float, shorter: float, failed: float) -> list[str]:
    of = f"of {found.compared} timed answers"
    reasons = [f"{found.broken} {of} have another length, end or usage: {found.reasons[0]}"] if found.broken else []
    if differing < ALPHA:
        reasons.append(f"{found.differing} {of} have other text, which batching does not explain")
    if shorter < ALPHA:
        reasons.append(f"where text differs it is shorter: {found.shorter} times, longer {found.longer} times")
    if failed < ALPHA:
        reasons.append(f"{found.failed[1]} of {found.pairs} timed requests fail, {found.failed[0]} of the reference's")
    return reasons


def _told(found: Counts, calibration: Sequence[tuple[int, int]], differing: float) -> str:
    same = found.compared - found.differing
    usual = " and ".join(f"{some} of {all_}" for some, all_ in calibration) or "unknown"
    why = f"(by batching alone differ: {usual}; p = {differing:.2g})"
    return f"{same} of {found.compared} timed texts are the same {why}"


def _notes(found: Counts) -> list[str]:
    """What is worth a look and no proof."""
    notes = [f"{found.unpaired} repeated measurements had other prompts"] if found.unpaired else []
    ours, theirs = found.burst
    if 2 * theirs > found.compared and 10 * ours < found.compared:
        notes.append(f"{theirs} answers came in one burst at their end, of the reference's {ours}: no tokens streamed")
    return notes


# --- exact tests ---------------------------------------------------------------------------------------------


def more_often(observed: tuple[int, int], usual: tuple[int, int]) -> float:
    """The chance of so many of so many, or more, if both had the same rate: Fisher's exact test, one-sided."""
    (hits, size), (others, rest) = observed, usual
    both = hits + others
    chances = (
        exp(_log_choices(size, some) + _log_choices(rest, both - some) - _log_choices(size + rest, both))
        for some in range(hits, min(size, both) + 1)
    )
    return min(1.0, sum(chances)) if hits else 1.0


def tail(hits: int, size: int) -> float:
    """The chance of so many heads or more in `size` throws of a coin; of the sign test, one-sided."""
    chances = (exp(_log_choices(size, some) - size * log(2)) for some in range(hits, size + 1))
    return min(1.0, sum(chances)) if hits else 1.0


def _log_choices(size: int, some: int) -> float:
    return lgamma(size + 1) - lgamma(some + 1) - lgamma(size - some + 1)
