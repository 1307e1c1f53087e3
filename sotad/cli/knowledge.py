"""``knowledge``: what a folder of pull-request histories says of a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sotad.cli.options import subcommand
from sotad.cli.output import clean, emit_json, say, table
from sotad.errors import BadInput, NotFound

if TYPE_CHECKING:
    from sotad.knowledge.corpus import Corpus

EXAMPLES = (
    "  sotactl knowledge histories --model moonshotai/Kimi-K2-Instruct --framework sglang\n"
    "  sotactl knowledge histories topk.py moe_fused_gate --model kimi-k2\n"
    "  sotactl knowledge histories --list"
)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    what = "search a folder of pull-request histories as a campaign does; exit 1 when nothing bears on it"
    command = subcommand(commands, "knowledge", what, EXAMPLES)
    command.add_argument("folder", metavar="FOLDER", type=Path, help="Markdown by framework and model, or flat")
    command.add_argument("terms", metavar="TERM", nargs="*", help="words, functions or paths to look for")
    command.add_argument("--model", metavar="MODEL", default="", help="model id or the name of its folder")
    command.add_argument("--framework", metavar="NAME", default="", help="only of this framework")
    command.add_argument("--language", metavar="LANG", default="en", help="which translation (default: en)")
    command.add_argument("--limit", metavar="N", type=int, default=10, help="most documents to return (default: 10)")
    command.add_argument("--paths-only", action="store_true", help="print paths only")
    command.add_argument("--list", action="store_true", help="list every document instead of searching")
    command.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from sotad.knowledge.corpus import read

    if not args.folder.is_dir():
        raise NotFound(f"{args.folder}: no such folder", "name a folder of Markdown histories")
    if args.limit < 1:
        raise BadInput(f"--limit {args.limit}: below 1", "give a number of documents")
    corpus = read(args.folder)
    for remark in corpus.remarks:
        say(remark)
    return _list(args, corpus) if args.list else _search(args, corpus)


def _list(args: argparse.Namespace, corpus: Corpus) -> int:
    rows = [
        (each.framework, each.slug, each.language, "open pull requests" if each.watch else "", each.path)
        for each in corpus.documents
    ]
    header = ("FRAMEWORK", "MODEL", "LANGUAGE", "KIND", "PATH")
    if args.json:
        emit_json([dict(zip(map(str.lower, header), row, strict=True)) for row in rows])
    else:
        print(clean("\n".join(row[-1] for row in rows)) if args.paths_only else table(rows, header))
    return 0 if rows else 1


def _search(args: argparse.Namespace, corpus: Corpus) -> int:
    from sotad.knowledge.notes import note
    from sotad.knowledge.query import Query, search

    frameworks = (args.framework,) if args.framework else ()
    query = Query(
        frameworks=frameworks, model=args.model, terms=tuple(args.terms), language=args.language, limit=args.limit
    )
    answers = search(corpus.documents, query)
    if args.json:
        emit_json([{key: value for key, value in note(answer, "").items() if key != "decision"} for answer in answers])
    for answer in answers if not args.json else ():
        lines = [] if args.paths_only else [f"  {line}" for line in answer.snippets]
        print(clean("\n".join([answer.document.path, *lines])))
    return 0 if answers else 1
