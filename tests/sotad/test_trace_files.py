"""Which files of a folder are read as traces, and what their paths tell."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from sotad.trace.errors import TraceError
from sotad.trace.files import find

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
TRACE = json.dumps({"traceEvents": [{"ph": "X"}]})


def put(folder: Path, name: str, content: str = TRACE, age: int = 0) -> Path:
    """A file of this age in seconds."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def found(path: Path) -> list[tuple[str, int | None, str | None]]:
    """Name, rank and stage of what is found, in order."""
    return [(file.path.name, file.rank, file.stage) for file in find(path)]


def test_a_file_is_itself(tmp_path: Path) -> None:
    """A file that is named is taken, whatever it is called."""
    path = put(tmp_path, "notes.txt", "x")
    assert [file.path for file in find(path)] == [path]


def test_every_rank_is_returned_once_per_stage(tmp_path: Path) -> None:
    """All ranks come back, prefill before decode, the newest file of each."""
    for age, stamp in ((50, "1"), (0, "2")):
        for rank in (0, 1, 10, 2):
            put(tmp_path, f"{stamp}-TP-{rank}-DECODE.trace.json.gz", age=age)
            put(tmp_path, f"{stamp}-TP-{rank}-EXTEND.trace.json.gz", age=age)
    assert found(tmp_path) == [
        *[(f"2-TP-{rank}-EXTEND.trace.json.gz", rank, "prefill") for rank in (0, 1, 2, 10)],
        *[(f"2-TP-{rank}-DECODE.trace.json.gz", rank, "decode") for rank in (0, 1, 2, 10)],
    ]


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("a_tp3_b.trace.json", 3),
        ("1795.5-TP-12.trace.json.gz", 12),
        ("rank7.1795.pt.trace.json.gz", 7),
        ("host_worker2.trace.json", 2),
        ("trace_rank_5.json", 5),
        ("dp0_pp0_tp1_dcp0_ep1_rank1.17.pt.trace.json.gz", 1),
        ("http3.trace.json", None),
    ],
)
def test_ranks_in_names(tmp_path: Path, name: str, rank: int | None) -> None:
    """Every framework's way to name a rank is understood."""
    assert found(put(tmp_path, name)) == [(name, rank, None)]


def test_data_parallel_ranks_are_different_files(tmp_path: Path) -> None:
    """Two replicas' tensor-parallel ranks 0 are not each other's older version."""
    names = ["1-TP-0-DP-0.trace.json", "1-TP-0-DP-1.trace.json"]
    for name in names:
        put(tmp_path, name)
    assert found(tmp_path) == [(name, 0, None) for name in names]


def test_front_ends_give_way_to_ranks(tmp_path: Path) -> None:
    """A file without a rank is left out beside ranks, and is the trace where it is alone."""
    put(tmp_path, "host_17.async_llm.19.pt.trace.json.gz")
    assert len(found(tmp_path)) == 1
    put(tmp_path, "rank0.18.pt.trace.json.gz", age=9)
    assert found(tmp_path) == [("rank0.18.pt.trace.json.gz", 0, None)]


def test_files_that_name_no_rank_are_apart_by_more_than_a_time(tmp_path: Path) -> None:
    """Ranks that are told by their process only are all read, of each the newest file, and no front end of theirs."""
    put(tmp_path, "host_11.1795295209214979772.pt.trace.json", age=30)
    put(tmp_path, "host_11.1795295309214979772.pt.trace.json", age=10)
    put(tmp_path, "host_12.1795295309214979999.pt.trace.json", age=10)
    put(tmp_path, "host_9.async_llm.1795295309214979999.pt.trace.json")
    names = [name for name, _, _ in found(tmp_path)]
    assert names == ["host_11.1795295309214979772.pt.trace.json", "host_12.1795295309214979999.pt.trace.json"]


def test_folders_named_for_stages_are_one_capture(tmp_path: Path) -> None:
    """The stages of the newest capture belong together; an older capture beside it is not mixed in."""
    put(tmp_path, "new/prefill/1795/x-TP-0.trace.json", age=5)
    put(tmp_path, "new/decode/1799/x-TP-0.trace.json", age=1)
    put(tmp_path, "old/prefill/1700/x-TP-0.trace.json", age=90)
    put(tmp_path, "old/decode/1701/y-TP-0.trace.json", age=3)
    assert found(tmp_path) == [("x-TP-0.trace.json", 0, "prefill"), ("x-TP-0.trace.json", 0, "decode")]
    assert {file.path.parts[-4] for file in find(tmp_path)} == {"new"}
    assert found(tmp_path / "old" / "prefill") == [("x-TP-0.trace.json", 0, "prefill")]


def test_a_folder_that_only_mentions_a_stage_is_none(tmp_path: Path) -> None:
    """`decode_results3` is not the decode stage: a wrong stage would hide the right ones."""
    put(tmp_path, "decode_results3/x-TP-0.trace.json")
    assert found(tmp_path) == [("x-TP-0.trace.json", 0, None)]


def test_other_json_is_left_out(tmp_path: Path) -> None:
    """Generic names are looked into; server arguments, results and unreadable files are no traces."""
    put(tmp_path, "server_args.json")
    put(tmp_path, "bench.json", '{"ttft": 1}')
    put(tmp_path, "rows.json", '[{"framework": "vllm"}]')
    put(tmp_path, "empty.json", "")
    for name in ("bare.json", "packed.json.gz"):
        put(tmp_path / name.split(".")[0], name, '[ {"name": "a", "ph": "X"}]')
        assert found(tmp_path / name.split(".")[0]) == [(name, None, None)]
    put(tmp_path / "late", "late.json", '{"deviceProperties": [1], "traceEvents" : [ ]}')
    assert found(tmp_path / "late") == [("late.json", None, None)]
    with pytest.raises(TraceError, match="no trace in this folder"):
        find(put(tmp_path / "none", "config.json").parent)


def test_merged_files_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    """A merged file repeats its ranks."""
    put(tmp_path, "merged-1.trace.json.gz")
    assert found(tmp_path) == [("merged-1.trace.json.gz", None, None)]
    put(tmp_path, "1-TP-0.trace.json.gz", age=99)
    assert found(tmp_path) == [("1-TP-0.trace.json.gz", 0, None)]


def test_missing_paths_are_said(tmp_path: Path) -> None:
    """A path that is not there, or an empty folder, gives one line that says what to give instead."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(TraceError, match="; give ") as caught:
            find(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not (DATA / "h200").is_dir(), reason="no captured traces here")
def test_captured_folders() -> None:
    """Real folders of both frameworks give their stages."""
    for framework in ("sgl", "vllm"):
        assert [file[1:] for file in found(DATA / "h200" / framework / "traces" / "graph")] == [
            (0, "prefill"),
            (0, "decode"),
        ]
