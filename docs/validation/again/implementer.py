"""A scripted implementer with two recipes: ``implementer.py REQUEST RESULT`` in SGLang's worktree.

Both are for FlashAttention's backend. Where a copy is an open row, q is handed over as a view of the product that it is
a slice of: the kernel takes strides, so the copy before it is work for nothing. Where decode pauses, the metadata of a
decode graph is no longer followed by zeros in every step: each graph reads its own first entries only, and they were
just written. One of them is tried, once; anything else is declined.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

FILE = "sglang/srt/layers/attention/flashattention_backend.py"
TAIL = r"(self\._sched_meta_buf\[:n\] = sched\n) +self\._sched_meta_buf\[n:\] = 0\n(?! +metadata\.)"
RECIPES = (
    {
        "rows": re.compile(r"elementwise_kernel|copy"),
        "idea": "FlashAttention backend: hand q over as the view that it is, without a copy",
        "objective": "attention without a copy of q in every layer",
        "success": "the copying rows vanish, every answer stays the same",
        "edit": (re.compile(r"\bq\.contiguous\(\)\.view\("), "q.view("),
    },
    {
        "rows": re.compile(r"^decode/\(idle inside the step\)"),
        "idea": "FlashAttention backend: no zeros behind the scheduler metadata of a decode graph",
        "objective": "less work on the CPU before a decode graph is replayed",
        "success": "pauses inside decode steps become shorter, every answer stays the same",
        "edit": (re.compile(TAIL), r"\1"),
    },
)


def propose(asked):
    rows = [row["row_id"] for row in asked["rows"]]
    found = [(recipe, row) for recipe in RECIPES for row in rows if recipe["rows"].search(row)]
    if not found or asked["tried"]:
        return {"decline": "one recipe was tried" if found else "no open row is a copy or a pause of decode"}
    recipe, row = found[0]
    contract = {
        "objective": recipe["objective"],
        "criteria": [each["id"] for each in asked["criteria"]][:1],
        "success": recipe["success"],
        "recovery": {"cause": "the patches before this one did not meet the rows' cause", "flips": "a measured gain"},
    }
    idea = {"origin": "profile row", "reference": row, "licence": "", "applicability": recipe["idea"]}
    return {"rows": [row], "hypothesis": recipe["idea"], "contract": contract, "ideas": [idea]}


def implement(asked):
    recipe = next(each for each in RECIPES if each["idea"] == asked["hypothesis"])
    path = Path(FILE)
    text, count = recipe["edit"][0].subn(recipe["edit"][1], path.read_text())
    if count:
        path.write_text(text)
        subprocess.run(["git", "commit", "--quiet", "--all", "-m", recipe["idea"]], check=True, timeout=60)
    return {"summary": f"{recipe['idea']}: {count} places", "files": [FILE] if count else []}


def main():
    asked = json.loads(Path(sys.argv[1]).read_text())
    if asked["action"] == "propose":
        answer = propose(asked)
    elif asked["action"] == "finalize":
        answer = {"summary": "nothing to simplify", "files": []}
    else:
        answer = implement(asked)
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
