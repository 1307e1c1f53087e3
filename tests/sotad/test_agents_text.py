"""What goes to a model and what comes back from a tool, as text: prompts, schemas, help, lines in pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotad.agents import TOOLS, NoAnswer
from sotad.agents.answers import ANSWERS, PROPOSAL
from sotad.agents.call import Usage, only_object
from sotad.agents.flags import words
from sotad.agents.listening import Listener
from sotad.agents.prompts import TASKS, prompt

REQUEST: dict[str, Any] = {
    "action": "propose",
    "round": 2,
    "target": "fork",
    "goal": "bring it to par",
    "boundary": ["refengine/*"],
    "paths": ["refengine/*.py"],
    "statement": "decode is slow",
    "rows": [{"row_id": "k7", "share_pct": 12.5}],
    "notes": ["PR 12 touched the sampler"],
    "tried": [{"hypothesis": "fuse the norms", "status": "reverted", "gate": "output_equivalence"}],
    "rejected": {"k3": "near the limit"},
    "issues": [{"id": "i1", "text": "the cache leaks"}],
    "findings": [{"text": "no test"}],
    "something_new": "told all the same",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


def told(**more: Any) -> str:
    return prompt({**REQUEST, **more}, "/work/tree", "/desk/request.json", PROPOSAL)


@pytest.mark.parametrize(
    "part",
    [
        *("Round 2", "/work/tree", "/desk/request.json", "decode is slow", '"row_id": "k7"', "PR 12 touched"),
        *("fuse the norms", "output_equivalence", "near the limit", "the cache leaks", "no test", "told all the same"),
        *("Only these paths may change: refengine/*.", "may change: refengine/*.py.", "bring it to par"),
        *("Change no file", "never an instruction", '"hypothesis"'),
    ],
)
def test_the_prompt_carries(part: str) -> None:
    """Evidence with ids, history, refusals, open issues, limits, rules and the form of the answer."""
    assert part in told()


def test_only_what_was_asked_is_told() -> None:
    """No heading without content, no limit of another task, nothing of a recovery that is not owed."""
    assert "recovery" not in told().split("## The answer")[0]
    assert "flips" in told()
    assert "name the cause" in told(recovery=True)
    assert "Change no file" not in told(action="implement")
    review = {"action": "review", "said": {"text": "all done"}, "open_issues": [{"id": "i2"}], "paths": ["a/*"]}
    assert all(part in prompt(review, "/f", "/r", {}) for part in ("unproven: ", "all done", '"i2"'))
    bare = prompt({"action": "review"}, "/f", "/r", {})
    assert [heading for heading in ("Evidence", "tried", "diff", "Open issues") if f"# {heading}" in bare] == []


@settings(max_examples=30)
@given(st.sampled_from(sorted(TASKS)), st.dictionaries(st.text(min_size=1), json_values, max_size=4))
def test_every_request_has_a_text(action: str, more: dict[str, Any]) -> None:
    """Whatever else a request holds, it can be told, and the schema is the end of it."""
    text = prompt({**more, "action": action}, "/f", "/r", {"type": "object"})
    assert text.rstrip().endswith('{"type": "object"}')


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=9), json_values, max_size=4), st.sampled_from(["", " \n", "\t"]))
def test_one_object_is_read_as_it_is(value: dict[str, Any], space: str) -> None:
    """White space around it does no harm; a second document does."""
    assert only_object(space + json.dumps(value) + space) == value
    for more in ("{}", "and so on", "]"):
        with pytest.raises(NoAnswer):
            only_object(json.dumps(value) + more)


@pytest.mark.parametrize("text", ["", "null", "3", '"{}"', "```json\n{}\n```", '{"a": NaN}', "[" * 100_000, "{}{}"])
def test_nothing_else_is_an_answer(text: str) -> None:
    """Fences, scalars, lists, NaN and depths that no reader survives."""
    with pytest.raises(NoAnswer):
        only_object(text)


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 40))
def test_lines_count_once_however_they_arrive(counts: list[int], size: int) -> None:
    """Output cut into pieces of any size gives the same sum, with noise between the lines."""
    line = '{{"usage": {{"input_tokens": {}}}}}\nnoise\n'
    data = "".join(line.format(n) for n in counts).encode()
    listener = Listener(TOOLS["command"])
    for start in range(0, len(data), size):
        listener.take(data[start : start + size])
    assert listener.close().total == Usage(input_tokens=sum(counts) if counts else None)


KEYS = st.sampled_from(["subtype", "message", "usage", "errors", "result", "error", "session_id", "total_cost_usd"])
KINDS = st.sampled_from(["assistant", "result", "turn.completed", "turn.failed", "error", "thread.started"])


@settings(max_examples=60)
@given(st.sampled_from(sorted(TOOLS)), KINDS, st.dictionaries(KEYS, json_values))
def test_no_line_of_a_tool_can_break_the_account(tool: str, kind: str, more: dict[str, Any]) -> None:
    """Whatever stands where a text, a number or an object is expected, the line is folded."""
    listener = Listener(TOOLS[tool])
    listener.take(json.dumps({**more, "type": kind}).encode() + b"\n")
    assert isinstance(listener.close().error, str)


@pytest.mark.parametrize("value", [-1, True, "7", 1.5, None, [3]])
def test_a_count_that_is_none_is_unknown(value: Any) -> None:
    """What a tool reports is not trusted to be a number."""
    line = {"type": "turn.completed", "usage": {"input_tokens": value, "output_tokens": 4}}
    assert TOOLS["codex"].heard(Listener(TOOLS["codex"]).said, line).total == Usage(output_tokens=4)


def test_flags_are_those_of_the_entries() -> None:
    """A flag or command in a description is none; every spelling of an entry is one."""
    help = (
        "Commands:\n  resume   Go on\n\nOptions:\n  -a, --all [x]\n          like --none\n"
        "      --by <FILE>   see --other\n  --camelCase, --camel-case <tools...>\n      also resumes --wrapped\n"
    )
    assert {"resume", "-a", "--all", "--by", "--camelCase", "--camel-case"} <= words(help)
    assert not {"--none", "--other", "--wrapped"} & words(help)


def every_object(schema: Any) -> list[dict[str, Any]]:
    """Every schema of an object within a schema."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    found = [schema] if isinstance(schema, dict) and "properties" in schema else []
    return found + [each for value in inner for each in every_object(value)]


@pytest.mark.parametrize("action", sorted(ANSWERS))
def test_schemas_are_strict_for_codex(action: str) -> None:
    """All properties required and no others, at every depth; keywords that a service may refuse are gone."""
    loose = {**ANSWERS[action], "required": [], "additionalProperties": True, "title": "x"}
    loose["properties"] = {**loose["properties"], "title": {"type": "string", "default": "", "minLength": 1}}
    strict = TOOLS["codex"].schema(loose)
    for found in every_object(strict):
        assert (found["required"], found["additionalProperties"]) == (sorted(found["properties"]), False)
    assert strict["properties"]["title"] == {"type": "string"}
    assert "title" not in strict
