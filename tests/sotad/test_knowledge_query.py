"""Asking a folder of histories: what is returned first, which lines are shown, and what is never an answer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.knowledge import checks, rows
from sotad.knowledge.document import Document, symbols
from sotad.knowledge.names import closeness, family_terms
from sotad.knowledge.notes import merged, note
from sotad.knowledge.query import Query, log_entry, search, watched
from sotad.knowledge.words import lowered, occurrences

DOSSIER = """# Kimi in sglang

## Cards

### #101 faster gate

- Status/date: merged / 2026-01-01
- touches `python/sglang/srt/layers/moe/topk.py` and `moe_fused_gate`
- Validation: greedy outputs must stay equal

### [#102](https://example.org/o/r/pull/102) another gate

| 2026-02-01 | [#102](https://example.org/o/r/pull/102) | open | gate for `layers/moe/topk.py` |

```python
# moe_fused_gate in code is no heading
```

## 2026-05-15 Backfill

`#103` moved `moe_fused_gate` to `jit_kernel/gate.py`.

## 2026-03-01 Backfill

#104 touched `moe_fused_gate`.
"""


def document(path: str, text: str = DOSSIER) -> Document:
    """A document of a corpus."""
    return Document(path, text, "0" * 64)


CORPUS = [
    document("sglang/kimi/README.en.md"),
    document("sglang/kimi/README.zh.md", "# Kimi\n\n`moe_fused_gate` `moe_fused_gate`\n"),
    document("vllm/kimi/README.md", "# Kimi in vllm\n\nmoe_fused_gate\n"),
    document("sglang/qwen3-core/README.en.md", "# Qwen\n\n" + "moe_fused_gate\n" * 50),
    document("sglang/open-pr-watch.md", "# Open PR Watch\n\n| [#900](x/pull/900) | moe_fused_gate kimi |\n"),
    document("kimi-k2.md", "# flat\n\nnothing of that kernel\n"),
]


def paths(**query: object) -> list[str]:
    """Paths that a query of the corpus returns."""
    return [answer.document.path for answer in search(CORPUS, Query(**query))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "slug", "near"),
    [
        ("moonshotai/Kimi-K2-Instruct", "kimi", 1),
        ("moonshotai/Kimi-K2-Instruct", "kimi-k2", 2),
        ("kimi-k2", "kimi-k2", 3),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek-v31", 3),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek-v3-r1", 1),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-v3-r1", 2),
        ("zai-org/GLM-4.6-FP8", "glm46-glm47", 2),
        ("Qwen/Qwen3-8B", "qwen3-core", 2),
        ("Qwen/Qwen3-8B", "qwen35", 1),
        ("meta-llama/Llama-3.1-8B", "llama31", 2),
        ("meta-llama/Llama-3.1-8B", "mixtral-8b", 0),
        ("/models/Qwen3-8B/", "qwen3-core", 2),
        ("---", "kimi", 0),
    ],
)
def test_a_slug_is_as_near_as_its_family_and_version(model: str, slug: str, near: int) -> None:
    """Same name, same version of a family, same family, or nothing; sizes and organisations do not count."""
    assert closeness(model, slug) == near


def test_pull_requests_are_searched_by_family_and_version() -> None:
    """The words of the model's name that others write in titles."""
    assert family_terms("moonshotai/Kimi-K2-Instruct") == ["kimi", "kimi-k2"]
    assert family_terms("Qwen/Qwen3-30B-A3B") == ["qwen", "qwen3"]
    assert family_terms("reference-tiny") == ["reference"]
    assert family_terms("///") == []


def test_the_nearest_slug_is_before_the_most_hits() -> None:
    """Fifty occurrences in another model's file weigh less than the model's own; the translation is left out."""
    found = paths(frameworks=("sglang",), model="Kimi-K2", terms=("moe_fused_gate",))
    assert found == ["kimi-k2.md", "sglang/kimi/README.en.md", "sglang/qwen3-core/README.en.md"]


def test_a_framework_excludes_the_others_but_not_what_names_none() -> None:
    """A flat document may be of any framework."""
    assert paths(frameworks=("vllm", "upstream"), model="kimi") == ["vllm/kimi/README.md", "kimi-k2.md"]


def test_a_translation_is_taken_where_there_is_no_other() -> None:
    """Asked for in Chinese the Chinese file is returned, and a file without a language in any."""
    assert paths(frameworks=("sglang",), model="kimi", language="zh", terms=("moe_fused_gate",), limit=2) == [
        "sglang/kimi/README.zh.md",
        "kimi-k2.md",
    ]


def test_lists_of_open_pull_requests_are_listed_and_never_returned() -> None:
    """However well they match, and even when everything is asked for."""
    assert watched(CORPUS) == ["sglang/open-pr-watch.md"]
    assert "sglang/open-pr-watch.md" not in paths(terms=("moe_fused_gate",)) + paths()


def test_lines_of_the_newest_backfill_come_first() -> None:
    """`path:line: text`, backfills from new to old, then the cards."""
    (answer,) = search(CORPUS[:1], Query(terms=("moe_fused_gate",)))
    assert [int(line.split(":")[1]) for line in answer.snippets] == [21, 25, 8, 16]
    assert answer.snippets[0] == "sglang/kimi/README.en.md:21: `#103` moved `moe_fused_gate` to `jit_kernel/gate.py`."


def test_headings_are_shown_where_no_line_has_a_term() -> None:
    """The backfills' before the others; a comment in code is none."""
    (answer,) = search(CORPUS[:1], Query(model="kimi", terms=("absent",)))
    assert [line.split(": ")[1] for line in answer.snippets] == [
        "## 2026-05-15 Backfill",
        "## 2026-03-01 Backfill",
        "# Kimi in sglang",
        "## Cards",
        "### #101 faster gate",
        "### [#102](https://example.org/o/r/pull/102) another gate",
    ]


def test_a_comment_in_code_is_no_heading() -> None:
    """Nor is what stands in an unclosed block; headings nest by rank."""
    text = "# A\n## B\n```\n# code\n```\n### C\n## D\n# E\n~~~\n# more code\n"
    found = [(each.title, each.first, each.last) for each in document("a.md", text).sections]
    assert found == [("A", 1, 7), ("B", 2, 6), ("C", 6, 6), ("D", 7, 7), ("E", 8, 11)]


def test_snippets_are_few_and_short() -> None:
    """At most six lines of 220 characters."""
    (answer,) = search([document("kimi.md", "gate " + "x" * 999 + "\n") for _ in range(1)], Query(terms=("gate",)))
    assert len(answer.snippets[0]) == len("kimi.md:1: ") + 220
    (answer,) = search([document("kimi.md", "gate\n" * 99)], Query(terms=("gate",)))
    assert len(answer.snippets) == 6


def test_of_a_long_line_the_part_with_the_term_is_shown() -> None:
    """A term far behind is in the snippet, with a little of what stands before it."""
    (answer,) = search(
        [document("kimi.md", "y " * 500 + "the moe_gate here " + "z " * 500)], Query(terms=("moe_gate",))
    )
    (shown,) = answer.snippets
    assert "y the moe_gate here z" in shown and len(shown) == len("kimi.md:1: ") + 220


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("### PR #7 - x\n\n- Link: https://example.org/o/r/pull/7\n- Status/date: open / 2026-01-01\n", {7}),
        ("### PR #7 - x\n\n- Status/date: merged / 2026-01-01\n- opens a file for #8\n", set()),
        ("| 2026-01-01 | [#7](https://example.org/o/r/pull/7) | open | reverts #6 | `a.py` |", {7}),
        ("| 2026-01-01 | [#7](https://example.org/o/r/pull/7) | merged | open the gate | `a.py` |", set()),
        ("#7 state: Draft", {7}),
        ("状态：open #7", {7}),
        ("Status: open", set()),
    ],
)
def test_a_pull_request_is_open_when_its_card_or_row_says_so(text: str, opened: set[int]) -> None:
    """In the ways that histories write it, and for that pull request only."""
    assert document("a.md", text).open_pulls == opened


def test_symbols_are_names_of_code_in_backticks() -> None:
    """Alone or in a list; plain words, files and commands are none."""
    text = "`moe_gate`, `A.b()`, touching `attend, KimiConfig, ns::run`, `gate`, `a/b.py`, `pip install x_y`, bare_name"
    assert symbols(text) == ["moe_gate", "A.b", "KimiConfig", "ns::run"]


def test_a_term_is_a_word_or_path_of_its_own() -> None:
    """`topk.py` is found in a longer path, `gate` not in `gateway`, and nothing of a term is a pattern."""
    corpus = [document("a.md", "`layers/moe/topk.py` and gateway a.b")]
    assert search(corpus, Query(terms=("moe/topk.py",)))
    assert not search(corpus, Query(terms=("gate",)))
    assert not search(corpus, Query(terms=("a?b", ".*", "(")))


def test_a_note_holds_what_its_lines_name_and_keeps_open_pull_requests_apart() -> None:
    """PR numbers of the lines and of their cards, files, symbols, risks nearby; #102 is open."""
    (answer,) = search(CORPUS[:1], Query(terms=("moe_fused_gate", "moe/topk.py")))
    made = note(answer, "row r1")
    assert sorted(made["prs"]) == [101, 103, 104]
    assert made["open_prs"] == [102]
    assert made["files"] == ["jit_kernel/gate.py", "python/sglang/srt/layers/moe/topk.py", "layers/moe/topk.py"]
    assert made["symbols"] == ["moe_fused_gate"]
    assert made["risks"] == ["sglang/kimi/README.en.md:9: - Validation: greedy outputs must stay equal"]
    assert (made["backfill"], made["match"], made["decision"]) == ("2026-05-15", "terms", "row r1")


def test_notes_on_one_document_become_one() -> None:
    """With both decisions, and every item once."""
    first = note(search(CORPUS[:1], Query(terms=("moe/topk.py",)))[0], "row r1")
    second = note(search(CORPUS[:1], Query(terms=("moe_fused_gate",)))[0], "row r2")
    (made,) = merged([first, second])
    assert made["decision"] == "row r1; row r2"
    assert sorted(made["prs"]) == [101, 103, 104]
    assert len(set(made["lines"])) == len(made["lines"]) == 5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"document": "sglang/absent.md"}, "not in the corpus"),
        ({"document": "vllm/kimi/README.md"}, "no logged query returned it"),
        ({"document": "sglang/open-pr-watch.md"}, "nobody's behaviour"),
        ({"digest": "1" * 64}, "it was read as"),
        ({"prs": [999]}, "#999 does not occur"),
        ({"prs": [102]}, "#102 is open, and cited as done"),
        ({"decision": "  "}, "names no decision"),
    ],
)
def test_a_note_that_says_what_was_not_read_is_refused(change: dict[str, object], problem: str) -> None:
    """Each kind of invention by itself."""
    query = Query(frameworks=("sglang",), terms=("moe_fused_gate",))
    answers = search(CORPUS, query)
    made = next(note(answer, "row r1") for answer in answers if answer.document.path.startswith("sglang/kimi"))
    documents = {each.path: each for each in CORPUS}
    log = [log_entry(query, answers)]
    assert checks.problems(made, log, documents) == []
    assert problem in "\n".join(checks.problems({**made, **change}, log, documents))


def test_a_model_is_cited_by_a_document_of_its_family_only() -> None:
    """A document with the words of the query alone does not count."""
    (kimi,) = search(CORPUS[:1], Query(model="kimi"))
    assert checks.cites_model([note(kimi, "x")], "Kimi-K2")
    assert not checks.cites_model([note(kimi, "x")], "Qwen3-8B")


def test_a_file_is_noted_by_a_note_or_by_a_query_that_found_nothing() -> None:
    """What neither mentions has no known history."""
    (answer,) = search(CORPUS[:1], Query(terms=("moe/topk.py",)))
    log = [log_entry(Query(terms=("moe/align.py",)), [])]
    files = ["python/sglang/srt/layers/moe/topk.py", "csrc/moe/align.py", "csrc/moe/other.py"]
    assert checks.unnoted(files, [note(answer, "x")], log) == ["csrc/moe/other.py"]


def test_the_terms_of_a_row_are_its_places_and_its_own_words() -> None:
    """Two last parts of a path, the function, the kernel's name without its template and common words."""
    place = {"location": "/usr/lib/site-packages/sglang/srt/layers/moe/topk.py:210 select_experts"}
    row = {"name": "void moe::topk_softmax_kernel<float, 8>(float const*)", "annotation": "moe", "locations": [place]}
    assert rows.terms(row) == ["moe/topk.py", "select_experts", "topk_softmax_kernel"]
    assert rows.terms({"name": "step", "annotation": ""}) == []
    assert rows.terms({"name": "aten::addmm", "annotation": "attention"}) == ["addmm", "attention"]
    assert rows.terms({"name": "x", "locations": [{"location": "unresolved"}, "odd"]}) == []


WORDS = st.sampled_from(
    ["#12", "/pull/7", "gate", "`a/b.py`", "`x_y`", "| open |", "state: open", "# T", "## 2026-01-01 refresh", "```"]
)


SIGNS = st.text(alphabet="ab_/.1 İßσÉ\n", max_size=40)


@given(SIGNS, SIGNS.filter(str.strip))
def test_a_term_is_found_where_a_pattern_finds_it(text: str, term: str) -> None:
    """The plain scan agrees with word boundaries in a regular expression, whatever the letters."""
    low, wanted = lowered(text), lowered(term.strip())
    assert len(low) == len(text)
    expected = [hit.start() for hit in re.finditer(rf"(?<!\w){re.escape(wanted)}(?!\w)", low)]
    assert list(occurrences(low, term)) == expected


@given(st.lists(st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=5).map(" ".join), max_size=12))
def test_whatever_a_document_holds_a_note_on_it_is_true(lines: list[str]) -> None:
    """Notes made here pass the checks on notes for any text, and every cited line is in the text."""
    text = "\n".join(lines)
    query = Query(model="kimi", terms=("gate", "a/b.py"))
    for answer in search([document("sglang/kimi.md", text)], query):
        made = note(answer, "row r1")
        assert not checks.problems(made, [log_entry(query, [answer])], {"sglang/kimi.md": answer.document})
        for snippet in made["lines"] + made["risks"]:
            _, number, shown = snippet.split(":", 2)
            assert shown.strip() in text.split("\n")[int(number) - 1]


ODD = ["# x gate\n", "## 2026-01-01 Backfill gate\n", "`a/gate", "gate ", "| open | #1 gate ", "`gate,", "```\n", "#1 "]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ODD)
def test_a_document_of_nothing_but_one_thing_does_not_take_for_ever(unit: str) -> None:
    """Headings, backfills, open backticks or terms only: time grows with the size of a text, not with its square."""
    text = unit * ((1 << 19) // len(unit))
    for query in (Query(model="kimi", terms=("gate",)), Query(model="kimi")):
        (answer,) = search([document("kimi.md", text)], query)
        assert note(answer, "x")["document"] == "kimi.md"
