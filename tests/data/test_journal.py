"""Journal: what a stranger may have put in the place of one does no harm."""

from __future__ import annotations

import os

import pytest

from tlkit.data.journal import LONGEST_LINE, appending, is_within, records, refuse_outside
from tlkit.errors import DiskError


def read(journal):
    return list(records(journal, wrote="tlkit"))


def test_a_line_longer_than_any_that_is_written_is_refused_unread(tmp_path):
    journal = tmp_path / "journal"
    with journal.open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(DiskError, match="cannot be read"):
        read(journal)
    with pytest.raises(OSError, match="too long"), appending(journal):
        pytest.fail("the block was entered")


def test_lists_in_lists_without_end_are_refused(tmp_path):
    journal = tmp_path / "journal"
    journal.write_text("[" * (LONGEST_LINE // 2) + "\n{}\n")
    with pytest.raises(DiskError, match="cannot be read"):
        read(journal)


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_nothing_is_written_to_a_file_elsewhere_that_has_the_journals_name(tmp_path, make):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    make(mine, tmp_path / "journal")
    with pytest.raises(OSError), appending(tmp_path / "journal"):  # noqa: PT011
        pytest.fail("the block was entered")
    assert mine.read_text() == "mine"


def test_a_pipe_in_its_place_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "journal")
    with pytest.raises(DiskError, match="cannot be read"):
        read(tmp_path / "journal")


def test_names_that_no_disk_takes_are_refused():
    for name in ("../x", "/x", "", "a\0b"):
        with pytest.raises(DiskError, match="cannot be trusted"):
            refuse_outside(name)
    with pytest.raises(ValueError, match="surrogates"):
        refuse_outside("\ud800")


def test_a_link_on_the_way_is_seen_and_one_at_its_end_is_not_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert is_within(tmp_path, "folder/a/b")
    assert is_within(tmp_path, "link")
    assert not is_within(tmp_path, "link/a")
