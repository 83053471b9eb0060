"""The cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlkit import cache
from tlkit.errors import DiskError, OptionError, UnknownName

ID = "-" + 32 * "0"


@pytest.fixture
def three():
    """Entries a, b and c of 1000 bytes and a little, used in that order."""
    for age, name in enumerate("cba"):
        cache.end(cache.begin(cache.root() / (name + ID), {"backbone": name}))
        (cache.root() / (name + ID) / "x.rows").write_bytes(bytes(1000))
        os.utime(cache.root() / (name + ID) / cache.ABOUT, (1000 - age, 1000 - age))


def names():
    return [one.name.removesuffix(ID) for one in cache.entries()]


def test_entries_are_listed_last_used_first(three):
    assert names() == ["c", "b", "a"]
    assert all(1000 < one.size < 1100 for one in cache.entries())
    assert cache.entries()[0].about == {"backbone": "c"}
    cache.end(cache.begin(cache.root() / f"a{ID}", {"backbone": "a"}))
    assert names()[0] == "a"


def test_clearing_deletes_what_is_named_or_all(three):
    with pytest.raises(UnknownName):
        cache.clear([f"a{ID}", "z"])
    assert len(names()) == 3
    cache.clear([f"a{ID}"])
    assert names() == ["c", "b"]
    cache.clear()
    assert names() == []


@pytest.mark.parametrize(
    ("limit", "keep", "left"),
    [("1", [], ["c", "b", "a"]), ("0.0000025", [], ["c", "b"]), ("0", ["a"], ["a"])],
)
def test_what_was_used_longest_ago_goes_first_and_what_is_kept_stays(
    three, monkeypatch, limit, keep, left
):
    monkeypatch.setenv("TLKIT_CACHE_GB", limit)
    cache.prune([one + ID for one in keep])
    assert names() == left


@pytest.mark.parametrize("text", ["many", "-1", "nan"])
def test_a_limit_that_is_none_is_an_error(monkeypatch, text):
    monkeypatch.setenv("TLKIT_CACHE_GB", text)
    with pytest.raises(OptionError, match="TLKIT_CACHE_GB"):
        cache.limit()


def test_a_broken_entry_is_not_one(three):
    (cache.root() / f"b{ID}" / cache.ABOUT).write_text("{")
    assert names() == ["c", "a"]


def test_what_a_process_uses_is_not_deleted(three, monkeypatch):
    held = cache.begin(cache.root() / f"a{ID}", {})
    again = cache.begin(cache.root() / f"a{ID}", {})
    gone, used = cache.clear()
    assert [one.name for one in gone] == [f"c{ID}", f"b{ID}"]
    assert [one.name for one in used] == [f"a{ID}"]
    monkeypatch.setenv("TLKIT_CACHE_GB", "0")
    cache.end(held)
    assert cache.prune([]) == []
    cache.end(again)
    assert [one.name for one in cache.prune([])] == [f"a{ID}"]


def test_what_a_process_that_was_killed_used_may_go(three):
    code = (
        "import os; from tlkit import cache\n"
        f"held = cache.begin(cache.root() / 'a{ID}', {{}}); print('there', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "there\n"
        assert cache.clear([f"a{ID}"])[1]
        other.kill()
        other.wait()
    gone, used = cache.clear([f"a{ID}"])
    assert (len(gone), used) == (1, [])


def test_what_is_not_the_caches_is_never_deleted(three, monkeypatch):
    other = cache.root() / "mysite"
    other.mkdir()
    (other / cache.ABOUT).write_text('{"title": "mine"}')
    (other / "thesis.tex").write_text("words")
    monkeypatch.setenv("TLKIT_CACHE_GB", "0")
    assert len(cache.prune([])) == 3
    cache.clear()
    assert (other / "thesis.tex").read_text() == "words"


def test_a_deletion_that_was_stopped_leaves_nothing_that_looks_whole(three, monkeypatch):
    def stopped(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("tlkit.cache.shutil.rmtree", stopped)
        with pytest.raises(DiskError):
            cache.clear([f"a{ID}"])
    assert names() == ["c", "b"]
    assert not (cache.root() / f"a{ID}").exists()
    cache.prune([])
    assert len(list(cache.root().iterdir())) == 2


def test_a_lock_that_another_process_took_for_that_of_a_dead_one_is_made_anew(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path))
    acquire, tried = cache.FileLock.acquire, []

    def removed_at_first(self, timeout):
        got = acquire(self, timeout=timeout)
        tried.append(Path(self.lock_file))
        if len(tried) == 1:
            tried[0].unlink()
        return got

    monkeypatch.setattr(cache.FileLock, "acquire", removed_at_first)
    lock = cache.begin(tmp_path / "a", {"what": "rows"})
    monkeypatch.undo()
    assert len(tried) == 2
    assert Path(lock.lock_file) == tried[1] != tried[0]
    assert cache.is_held(tmp_path / "a")
    cache.end(lock)
    assert not cache.is_held(tmp_path / "a")
