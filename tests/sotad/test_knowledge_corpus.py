"""Reading a folder as it is found: what cannot be read costs one line, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sotad.knowledge.corpus import READ_BYTES, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus with one good document."""
    (tmp_path / "sglang" / "kimi").mkdir(parents=True)
    (tmp_path / "sglang" / "kimi" / "README.md").write_text("# Kimi\n\n#1\n")
    return tmp_path


def remarks(folder: Path) -> list[str]:
    """What is said of the folder; its good document was read in any case."""
    corpus = read(folder)
    assert "sglang/kimi/README.md" in [document.path for document in corpus.documents]
    assert all("\n" not in remark for remark in corpus.remarks)
    return corpus.remarks


def test_a_good_folder_needs_no_remark(folder: Path) -> None:
    """Other files are nobody's business; a repository's own folder is not read."""
    (folder / "notes.txt").write_bytes(b"\xff\0")
    (folder / ".git").mkdir()
    (folder / ".git" / "description.md").write_text("x")
    assert remarks(folder) == []


def test_other_encodings_are_read_as_far_as_they_go(folder: Path) -> None:
    """The rest of the text stays searchable; a byte-order mark is none of it."""
    (folder / "odd.md").write_bytes("#7 Größe `gate_fn`\n".encode("latin-1"))
    (folder / "mark.md").write_bytes("\N{ZERO WIDTH NO-BREAK SPACE}# Title\r\n".encode())
    assert remarks(folder) == ["odd.md: not UTF-8: other bytes read as \N{REPLACEMENT CHARACTER}"]
    texts = {document.path: document.text for document in read(folder).documents}
    assert "`gate_fn`" in texts["odd.md"]
    assert texts["mark.md"] == "# Title\n"


def test_a_replacement_character_that_was_written_is_no_fault(folder: Path) -> None:
    """Only bytes that are not UTF-8 are."""
    (folder / "quoted.md").write_text("the \N{REPLACEMENT CHARACTER} sign\n")
    assert remarks(folder) == []


def test_the_beginning_of_a_huge_file_is_read(folder: Path) -> None:
    """100 MB: 4 MiB are kept, a character that the cut divides is no fault, and the digest is of the whole file."""
    unit = "é".encode() * (1 << 20)
    with (folder / "huge.md").open("wb") as file:
        file.write(b"x")
        for _ in range(50):
            file.write(unit)
    assert remarks(folder) == ["huge.md: only its first 4 MiB were read"]
    huge = next(document for document in read(folder).documents if document.path == "huge.md")
    assert READ_BYTES - 2 <= len(huge.text.encode()) <= READ_BYTES
    before = huge.digest
    with (folder / "huge.md").open("ab") as file:
        file.write(b"!")
    assert next(each for each in read(folder).documents if each.path == "huge.md").digest != before


def test_binary_and_empty_files_are_left_out(folder: Path) -> None:
    """Each with its reason."""
    (folder / "binary.md").write_bytes(b"# Kimi\0\1\2")
    (folder / "empty.md").write_text("")
    (folder / "blank.md").write_text("\n \n")
    assert remarks(folder) == [
        "binary.md: left out: binary, not text",
        "blank.md: left out: empty",
        "empty.md: left out: empty",
    ]


def test_links_end_nowhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Circles of files and folders, dangling links and ways out are told; a link within the folder is read."""
    outside = tmp_path_factory.mktemp("outside") / "secret.md"
    outside.write_text("#99 secret")
    (folder / "circle.md").symlink_to(folder / "circle.md")
    (folder / "dangling.md").symlink_to(folder / "absent.md")
    (folder / "out.md").symlink_to(outside)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "within.md").symlink_to(folder / "sglang" / "kimi" / "README.md")
    why = "left out: a link that leads nowhere, in a circle or out of the folder"
    assert remarks(folder) == [
        "again: folder left out: a link",
        *(f"{name}: {why}" for name in ("circle.md", "dangling.md", "out.md")),
    ]
    assert not any("secret" in document.text for document in read(folder).documents)


def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    """A pipe would wait for ever, and a folder may be called anything."""
    os.mkfifo(folder / "pipe.md")
    (folder / "folder.md").mkdir()
    assert remarks(folder) == ["pipe.md: left out: not a file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_and_folders_are_left_out(folder: Path) -> None:
    """With the system's reason."""
    (folder / "closed.md").write_text("x")
    (folder / "closed.md").chmod(0)
    (folder / "shut").mkdir(mode=0)
    assert remarks(folder) == [
        "closed.md: left out: Permission denied",
        f"{folder}/shut: folder left out: Permission denied",
    ]


def test_a_read_that_fails_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk error in one file leaves the others; root sees this too."""
    (folder / "bad.md").write_text("x")
    whole = Path.open

    def failing(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == "bad.md":
            raise OSError(5, "Input/output error")
        return whole(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", failing)
    assert remarks(folder) == ["bad.md: left out: Input/output error"]


def test_names_that_are_no_text_do_not_matter(folder: Path) -> None:
    """A file name of odd bytes is read; nothing of it breaks a line or an encoding."""
    Path(os.fsdecode(os.fsencode(folder) + b"/od\xffd\nname.md")).write_text("#5")
    corpus = read(folder)
    assert len(corpus.documents) == 2
    for document in corpus.documents:
        document.path.encode()
    assert len(corpus.digest) == 64


def test_the_digest_is_of_paths_and_contents(folder: Path) -> None:
    """It changes with a text and with a name, and with nothing else."""
    before = read(folder).digest
    (folder / "empty.md").write_text("")
    assert read(folder).digest == before
    (folder / "empty.md").write_text("x")
    changed = read(folder).digest
    (folder / "empty.md").rename(folder / "named.md")
    assert len({before, changed, read(folder).digest}) == 3
