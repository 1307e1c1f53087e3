"""What commits hold: secrets, giants, foreign code, and how what git prints about them is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotad.gates import Added, Change, Facts
from sotad.gates.content import MOST_BYTES, MOST_LINES, large_files, no_secrets, provenance
from sotad.gates.patches import added_lines, changes, numbers

TOKEN = "hf_" + "x" * 20


def facts(**more: object) -> Facts:
    """Facts about a commit of which only some matter."""
    plain = {"base": "a", "commit": "b", "builds_on": True, "branch": "x", "on": "x"}
    return Facts(**{**plain, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"key = '{TOKEN}'", "w.py: a token"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "w.py: a private key"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "w.py: a private key"),
        ("x = 'correct horse battery'", "w.py: the value of PASSWORD"),
        ("-----BEGIN CERTIFICATE-----", ""),
        ("x = 'correct horse'", ""),
    ],
)
def test_a_secret_is_found_and_never_repeated(text: str, says: str) -> None:
    """Tokens by their shape, keys by their frame, values as they were given; the detail names kind and place only."""
    gate = no_secrets(facts(added=[Added("w.py", text)], secrets={"PASSWORD": "correct horse battery", "SHORT": "x"}))
    assert (gate.passed, gate.detail) == ((False, says) if says else (True, "1 added line, no secret in them"))


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (Change("a", lines=MOST_LINES, size=MOST_BYTES), True),
        (Change("a", lines=MOST_LINES + 1), False),
        (Change("a", size=MOST_BYTES + 1), False),
        (Change("a", lines=3, size=MOST_BYTES + 9, before=MOST_BYTES + 1), True),  # it was large before
        (Change("a", binary=True), False),
        (Change("a", lines=MOST_LINES + 1, net=False), False),  # added, then taken away
    ],
)
def test_a_giant_is_refused_and_a_line_in_one_is_not(change: Change, passes: bool) -> None:
    """Counted is what the commits add, not the size of the file that they touch."""
    assert large_files(facts(changes=[change])).passed == passes


@pytest.mark.parametrize(
    ("text", "sources", "passes"),
    [
        ("# SPDX-License-Identifier: MIT", [], False),
        ("# SPDX-License-Identifier: Apache-2.0", [], True),  # the base has it
        (" * Copyright 2023 A. Person", [], False),
        ("// copied from llama.cpp", [], False),
        ("copied_from = x", [], True),
        ("# all rights reserved", [{"path": "w.py", "source": "x@1", "licence": "MIT"}], True),
        ("# all rights reserved", [{"path": "v.py", "source": "x@1", "licence": "MIT"}], False),
        ("x = 1", [{"path": "w.py", "source": "x@1", "licence": " "}], False),
        ("x = 1", [{"path": "w.py", "licence": "MIT"}], False),
    ],
)
def test_foreign_code_needs_a_source_and_a_licence(text: str, sources: list[dict[str, str]], passes: bool) -> None:
    """Marks of foreign code have to be declared for their file, and every declaration is complete."""
    known = frozenset({"# SPDX-License-Identifier: Apache-2.0"})
    assert provenance(facts(added=[Added("w.py", text)], known=known, sources=sources)).passed == passes


LINES = st.lists(
    st.one_of(
        st.sampled_from(["++ b/other.py", "-- a", "@@ -1,9 +1,9 @@", "diff --git a/x b/x", "", " ", "\\ No newline"]),
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20),
    ),
    max_size=6,
)


@given(LINES, LINES, LINES)
def test_every_added_line_is_found_whatever_it_looks_like(old: list[str], new: list[str], more: list[str]) -> None:
    """A line that reads like a header of the patch is a line all the same, of its own file."""
    patch = ["diff --git a/w.py b/w.py", "--- a/w.py", "+++ b/w.py"]
    patch += [
        f"@@ -1,{len(old)} +1,{len(new)} @@ context",
        *(f"-{line}" for line in old),
        *(f"+{line}" for line in new),
    ]
    patch += ["diff --git a/v.py b/v.py", "--- /dev/null", "+++ b/v.py", f"@@ -0,0 +1,{len(more)} @@"]
    patch += [f"+{line}" for line in more]
    expected = [*(Added("w.py", line) for line in new), *(Added("v.py", line) for line in more)]
    assert list(added_lines("\n".join([*patch, ""]))) == expected


def test_numbers_add_up_over_the_commits() -> None:
    """Lines of a file are summed; once binary is binary; a name may hold anything but a zero."""
    listed = "3\t1\ta.py\0\n2000\t0\ta.py\0-\t-\tlib.so\0\n1\t0\ttab\tand\nline\0"
    assert numbers(listed) == {"a.py": (2003, False), "lib.so": (0, True), "tab\tand\nline": (1, False)}


def test_a_change_is_put_together_from_what_is_known() -> None:
    """A new file has no size before; one that is as it was at the end is no net change."""
    found = changes({"a": (1, False), "b": (0, True)}, {"a": 5, "b": 7}, {"b": 6}, {"a"})
    assert found == [Change("a", 1, 5, 0, False, True), Change("b", 0, 7, 6, True, False)]
