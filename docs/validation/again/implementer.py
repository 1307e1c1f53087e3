"""A scripted implementer with one recipe: ``implementer.py REQUEST RESULT`` in SGLang's worktree.

FlashAttention is handed q as a view of the product that it is a slice of, instead of a copy of it. The kernel takes
strides, so the copy before it is work for nothing. Anything else is declined.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

FILE = "sglang/srt/layers/attention/flashattention_backend.py"
IDEA = "FlashAttention backend: hand q over as the view that it is, without a copy"
COPY = re.compile(r"\bq\.contiguous\(\)\.view\(")


def propose(asked):
    rows = [row["row_id"] for row in asked["rows"]]
    copies = [row for row in rows if "elementwise_kernel" in row or "copy" in row]
    if not copies or any(each["hypothesis"] == IDEA for each in asked["tried"]):
        return {"decline": "the one recipe was tried" if copies else "no open row is a copy"}
    contract = {
        "objective": "attention without a copy of q in every layer",
        "criteria": [each["id"] for each in asked["criteria"]][:1],
        "success": "the copying rows vanish, every answer stays the same",
        "recovery": {"cause": "the patches before this one did not meet the rows' cause", "flips": "a measured gain"},
    }
    idea = {"origin": "profile row", "reference": copies[0], "licence": "", "applicability": IDEA}
    return {"rows": copies[:1], "hypothesis": IDEA, "contract": contract, "ideas": [idea]}


def implement():
    path = Path(FILE)
    text, count = COPY.subn("q.view(", path.read_text())
    if count:
        path.write_text(text)
        subprocess.run(["git", "commit", "--quiet", "--all", "-m", IDEA], check=True, timeout=60)
    return {"summary": f"{count} copies of q before attention kernels are views now", "files": [FILE] if count else []}


def main():
    asked = json.loads(Path(sys.argv[1]).read_text())
    if asked["action"] == "propose":
        answer = propose(asked)
    elif asked["action"] == "finalize":
        answer = {"summary": "nothing to simplify", "files": []}
    else:
        answer = implement()
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
