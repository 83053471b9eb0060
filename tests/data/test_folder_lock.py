"""Folder lock: one process at a time, and nothing of it is left."""

from __future__ import annotations

import os
import signal

import pytest

from tlkit.data.folder_lock import changing, making
from tlkit.errors import RunFolderError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are locked on POSIX")


def test_a_folder_around_one_that_is_changed_is_in_use_and_one_beside_it_is_not(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
    with changing(tmp_path / "a" / "deep"):
        for other in (tmp_path / "a" / "deep", tmp_path / "a"):
            with pytest.raises(RunFolderError, match="in use"), changing(other):
                pytest.fail("the block was entered")
        with changing(tmp_path / "b" / "deep"):
            pass
    with changing(tmp_path / "a"):
        pass


def test_many_may_look_and_none_may_change_meanwhile(tmp_path):
    with changing(reading=[tmp_path]), changing(reading=[tmp_path]):  # noqa: SIM117
        with pytest.raises(RunFolderError, match="in use"), changing(tmp_path):
            pytest.fail("the block was entered")


def test_what_was_made_for_nothing_is_removed(tmp_path):
    with making(tmp_path / "new" / "deep"):
        assert (tmp_path / "new" / "deep").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path):
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        with changing(tmp_path):
            os.write(writes, b".")
            signal.pause()
    os.read(reads, 1)
    with pytest.raises(RunFolderError, match="in use"), changing(tmp_path):
        pytest.fail("the block was entered")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with changing(tmp_path):
        pass
    os.close(reads)
    os.close(writes)
