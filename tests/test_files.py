"""Files: the old content or the new, never half, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.errors import DiskError, RunFolderError
from tlkit.files import (
    new_file,
    new_folder,
    refuse_occupied,
    remove_staged,
    write_bytes,
    write_text,
)

ENDS = [ValueError, KeyboardInterrupt, SystemExit]


def names(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*"))


def write_half(path: Path, end: BaseException) -> None:
    with new_file(path) as file:
        file.write(b"half")
        raise end


def fill_half(path: Path, end: BaseException) -> None:
    with new_folder(path, replace={"old"}) as staged:
        (staged / "half").write_bytes(b"half")
        raise end


@pytest.mark.parametrize("old", [b"old", None])
@pytest.mark.parametrize("end", ENDS)
def test_a_block_that_ends_early_leaves_the_old_file_and_nothing_else(tmp_path, end, old):
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(end):
        write_half(path, end())
    assert names(tmp_path) == ([] if old is None else ["a.bin"])
    assert old is None or path.read_bytes() == old


def test_the_old_file_is_seen_until_the_block_has_ended(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with new_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_what_is_written_is_what_is_read(tmp_path):
    write_bytes(tmp_path / "a.bin", bytes(range(256)))
    assert (tmp_path / "a.bin").read_bytes() == bytes(range(256))
    write_text(tmp_path / "a.txt", "Käfer\n\udcff")
    assert (tmp_path / "a.txt").read_bytes() == "Käfer\n".encode() + b"\xff"
    assert names(tmp_path) == ["a.bin", "a.txt"]


@pytest.mark.parametrize(
    "name", ["漢" * 85, "🐝" * 63, "a" * 255, "..."], ids=["cjk", "bees", "long", "dots"]
)
def test_every_name_that_the_disk_takes_can_be_written(tmp_path, name):
    write_bytes(tmp_path / name, b"x")
    assert names(tmp_path) == [name]


def test_a_relative_name_lands_in_the_current_folder(tmp_path):
    write_bytes(Path("x"), b"1")
    with new_folder(Path("y")) as staged:
        (staged / "z").write_bytes(b"2")
    with new_folder(Path("a/b/c")):
        pass
    assert names(tmp_path) == ["a", "a/b", "a/b/c", "x", "y", "y/z"]


@pytest.mark.parametrize("path", [".", "", "..", "/", "here/.."])
@pytest.mark.parametrize("replace", [(), {"old"}])
def test_the_current_folder_and_those_around_it_are_refused_at_once(path, replace):
    with pytest.raises(RunFolderError), new_folder(Path(path), replace=replace):
        pytest.fail("the block was entered")


def test_a_file_in_the_place_of_a_folder_is_a_disk_error_and_leaves_nothing(tmp_path):
    with pytest.raises(DiskError):
        write_bytes(Path("."), b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError):
        write_bytes(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("below", ["file/a", "file/a/b", "missing/a"])
def test_a_path_that_cannot_be_written_is_a_disk_error_that_names_it(tmp_path, below):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DiskError, match=below) as caught:
        write_bytes(tmp_path / below, b"x")
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_a_disk_error_and_its_block_is_not_entered(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DiskError, match="file/run"), new_folder(tmp_path / "file" / "run"):
        pytest.fail("the block was entered")
    assert names(tmp_path) == ["file"]


def test_a_full_disk_while_writing_is_a_disk_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(DiskError, match="No space left"):
        write_half(path, OSError(28, "No space left on device"))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_folder_appears_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "run"
    with new_folder(path) as staged:
        (staged / "a").write_bytes(b"1")
        assert not path.exists()
    assert names(tmp_path) == ["run", "run/a"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("there", [False, True])
def test_a_block_that_ends_early_leaves_the_old_folder_and_nothing_else(tmp_path, end, there):
    path = tmp_path / "run"
    if there:
        path.mkdir()
        (path / "old").write_bytes(b"old")
    before = names(tmp_path)
    with pytest.raises(end):
        fill_half(path, end())
    assert names(tmp_path) == before


def test_overwriting_replaces_the_folder_as_a_whole(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").write_bytes(b"old")
    with new_folder(path, replace={"old"}) as staged:
        (staged / "new").write_bytes(b"new")
        assert names(path) == ["old"]
    assert names(tmp_path) == ["run", "run/new"]


def test_an_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").write_bytes(b"old")
    real = Path.rename

    def rename(self, target):
        if (self / "new").exists():
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(DiskError), new_folder(path, replace={"old"}) as staged:
        (staged / "new").write_bytes(b"new")
    assert names(tmp_path) == ["run", "run/old"]


def test_a_folder_that_filled_up_meanwhile_is_not_replaced_unasked(tmp_path):
    filling = new_folder(tmp_path / "run")
    filling.__enter__()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other").write_bytes(b"other")
    with pytest.raises(RunFolderError):
        filling.__exit__(None, None, None)
    assert names(tmp_path) == ["run", "run/other"]


def test_only_what_holds_something_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refuse_occupied(tmp_path / "empty", replace=())
    refuse_occupied(tmp_path / "missing", replace=())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_bytes(b"x")
    with pytest.raises(RunFolderError, match="--overwrite"):
        refuse_occupied(tmp_path / "full", replace=())
    refuse_occupied(tmp_path / "full", replace={"a"})
    with pytest.raises(RunFolderError):
        refuse_occupied(tmp_path / "full", replace={"b"})


@pytest.mark.parametrize("replace", [(), {"old"}])
def test_a_file_is_never_replaced_by_a_folder(tmp_path, replace):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RunFolderError, match="a file") as caught:
        refuse_occupied(tmp_path / "file", replace=replace)
    assert "--overwrite" not in caught.value.do


@pytest.mark.parametrize("replaced", [False, True])
def test_what_was_there_comes_back_after_a_kill_between_two_renames(tmp_path, replaced):
    (tmp_path / ".run.0123abcd.old").mkdir()
    (tmp_path / ".run.0123abcd.old" / "a").write_text("before")
    (tmp_path / ".run.89abcdef.tmp").mkdir()
    if replaced:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "a").write_text("after")
    remove_staged(tmp_path / "run")
    assert names(tmp_path) == ["run", "run/a"]
    assert (tmp_path / "run" / "a").read_text() == ("after" if replaced else "before")


def test_what_was_abandoned_is_removed_by_the_next_writer_and_what_is_being_written_is_not(
    tmp_path,
):
    (tmp_path / ".a.txt.0123abcd.tmp").write_text("half")
    (tmp_path / ".run.0123abcd.tmp").mkdir()
    (tmp_path / ".other.0123abcd.tmp").write_text("another's")
    with new_folder(tmp_path / "run") as first, new_file(tmp_path / "a.txt") as file:
        assert not (tmp_path / ".run.0123abcd.tmp").exists()
        assert not (tmp_path / ".a.txt.0123abcd.tmp").exists()
        write_text(tmp_path / "a.txt", "second")
        with new_folder(tmp_path / "run", replace={"x"}):
            assert first.exists()
        file.write(b"first")
        (tmp_path / "run").rmdir()
    assert (tmp_path / "a.txt").read_text() == "first"
    assert names(tmp_path) == [".other.0123abcd.tmp", "a.txt", "run"]
