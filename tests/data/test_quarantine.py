"""Quarantine: what is moved can be put back, whenever it was stopped."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.data import quarantine
from tlkit.data.folder_lock import changing
from tlkit.data.journal import Left
from tlkit.data.quarantine import NAME, move, undo
from tlkit.errors import DiskError, RunFolderError

FILES = ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/deep/er/3.jpg")


@pytest.fixture
def folder(tmp_path):
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {
        one.relative_to(folder).as_posix(): one.read_text()
        for one in folder.rglob("*")
        if one.is_file()
    }


def test_files_are_moved_with_their_names_and_put_back(folder):
    before = contents(folder)
    moved = move(folder, {"a/1.jpg": "broken", "b/deep/er/3.jpg": "dark"})
    assert [(one.file, one.why) for one in moved] == [
        ("a/1.jpg", "broken"), ("b/deep/er/3.jpg", "dark"),
    ]  # fmt: skip
    assert (folder / NAME / "b/deep/er/3.jpg").read_text() == "b/deep/er/3.jpg"
    assert not (folder / "a/1.jpg").exists()
    assert undo(folder) == moved
    assert contents(folder) == before
    assert not (folder / NAME).exists()
    assert undo(folder) == []


def test_a_second_file_of_a_name_gets_another(folder):
    move(folder, {"a/1.jpg": "one"})
    (folder / "a/1.jpg").write_text("new")
    (second,) = move(folder, {"a/1.jpg": "two"})
    assert second.kept_as == "a/2-1.jpg"
    assert (folder / NAME / "a/1.jpg").read_text() == "a/1.jpg"
    assert (folder / NAME / "a/2-1.jpg").read_text() == "new"


def test_nothing_is_overwritten_when_it_is_put_back(folder):
    move(folder, {"a/1.jpg": "", "a/2.jpg": ""})
    (folder / "a/2.jpg").write_text("new")
    there = contents(folder)
    with pytest.raises(DiskError, match="another file in its place"):
        undo(folder)
    assert contents(folder) == there


def test_what_somebody_else_has_put_there_stays(folder):
    move(folder, {"a/1.jpg": ""})
    (folder / NAME / "a" / "mine.txt").write_text("mine")
    undo(folder)
    assert (folder / NAME / "a" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_moves_that_were_stopped_can_be_undone(folder, monkeypatch, stop):
    before, renamed, rename = contents(folder), [], quarantine.rename_new

    def stopped(source, target):
        if len(renamed) == stop:
            raise KeyboardInterrupt
        renamed.append(source)
        rename(source, target)

    monkeypatch.setattr(quarantine, "rename_new", stopped)
    with pytest.raises(KeyboardInterrupt):
        move(folder, dict.fromkeys(FILES, "why"))
    monkeypatch.undo()
    assert len(undo(folder)) == stop
    assert contents(folder) == before


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(1, 60))
def test_a_journal_whose_last_line_was_cut_off_is_read(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    (folder / "a.jpg").write_text("a")
    move(folder, {"a.jpg": "why"})
    journal = folder / NAME / quarantine.JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[: min(cut, len(whole) - 2)])
    assert len(undo(folder)) == 1
    assert (folder / "a.jpg").read_text() == "a"


def test_a_journal_of_somebody_elses_is_not_followed(folder):
    move(folder, {"a/1.jpg": "", "a/2.jpg": ""})
    journal = folder / NAME / quarantine.JOURNAL
    lines = journal.read_text().splitlines()
    for bad in ("../../x.jpg", "/etc/x.jpg"):
        journal.write_text(lines[0].replace('"file": "a/1.jpg"', f'"file": "{bad}"') + "\n")
        with pytest.raises(DiskError, match="cannot be trusted"):
            undo(folder)
    journal.write_text("words\n" + lines[1])
    with pytest.raises(DiskError, match="no journal of moves"):
        undo(folder)


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(folder, monkeypatch):
    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiskError, match="Permission denied"):
        move(folder, {"a/1.jpg": ""})


def test_two_files_from_one_place_are_not_put_back_over_each_other(folder):
    move(folder, {"a/1.jpg": ""})
    (folder / "a" / "1.jpg").write_text("another")
    move(folder, {"a/1.jpg": ""})
    before = contents(folder)
    with pytest.raises(DiskError, match="two files that were there"):
        undo(folder)
    assert contents(folder) == before
    (folder / NAME / "a" / "2-1.jpg").rename(folder / "elsewhere.jpg")
    assert len(undo(folder)) == 1
    assert (folder / "elsewhere.jpg").read_text() == "another"


def test_after_a_line_that_was_cut_off_the_next_begins_one_of_its_own(folder):
    move(folder, {"a/1.jpg": ""})
    journal = folder / NAME / quarantine.JOURNAL
    whole = journal.read_bytes()
    for tail, lines in ((whole[:9], 2), (whole.strip(), 3)):
        journal.write_bytes(whole + tail)
        move(folder, {"a/2.jpg": ""})
        assert len(journal.read_text().splitlines()) == lines
        assert len(undo(folder)) == 2
        move(folder, {"a/1.jpg": ""})


def test_a_move_that_was_stopped_and_made_later_is_undone_once(folder, monkeypatch):
    before = contents(folder)
    with monkeypatch.context() as patch:
        refuse = mock.Mock(side_effect=PermissionError(13, "no"))
        patch.setattr(quarantine, "rename_new", refuse)
        with pytest.raises(DiskError):
            move(folder, {"a/1.jpg": ""})
    move(folder, {"a/1.jpg": ""})
    assert len(undo(folder)) == 1
    assert contents(folder) == before


@pytest.mark.parametrize("name", [NAME, "a"])
def test_a_link_leads_no_file_out_of_the_folder(folder, tmp_path_factory, name):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    if name == NAME:
        (folder / NAME).symlink_to(elsewhere)
        for action in (lambda: move(folder, {"a/1.jpg": ""}), lambda: undo(folder)):
            with pytest.raises(DiskError, match="a link"):
                action()
    else:
        (folder / "a").rename(elsewhere / "a")
        (folder / "a").symlink_to(elsewhere / "a")
        (left,) = move(folder, {"a/1.jpg": ""})
        assert left == Left(file="a/1.jpg", why=quarantine.LINKED)
    assert (folder / "a" / "1.jpg").read_text() == "a/1.jpg"
    assert list(elsewhere.rglob("*.jsonl")) == []


def test_nothing_is_put_back_through_a_link(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    move(folder, {"a/1.jpg": "", "a/2.jpg": ""})
    (folder / "a").rmdir()
    (folder / "a").symlink_to(elsewhere)
    with pytest.raises(DiskError, match="a link on the way"):
        undo(folder)
    assert list(elsewhere.iterdir()) == []
    assert len(quarantine.moved(folder)) == 2


def test_a_file_that_has_changed_since_it_was_looked_at_stays(folder):
    stamps = {file: quarantine.stamp_of(folder / file) for file in FILES}
    (folder / "a/1.jpg").write_text("another")
    (folder / "a/2.jpg").rename(folder / "away")
    (folder / "away").rename(folder / "a/2.jpg")  # the same file, and it was not there meanwhile
    (folder / "b/1.jpg").unlink()
    done = move(folder, dict.fromkeys(FILES, "why"), stamps)
    assert done[:3] == [
        Left(file="a/1.jpg", why=quarantine.CHANGED),
        Left(file="a/2.jpg", why=quarantine.CHANGED),
        Left(file="b/1.jpg", why="it is gone"),
    ]
    assert done[3].file == "b/deep/er/3.jpg"


def test_two_at_once_are_refused(folder):
    with changing(folder):
        for action in (lambda: move(folder, {"a/1.jpg": ""}), lambda: undo(folder)):
            with pytest.raises(RunFolderError, match="in use"):
                action()
