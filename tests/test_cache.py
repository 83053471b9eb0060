"""The cache."""

import os
import subprocess
import sys

import pytest

from tlkit import cache
from tlkit.errors import OptionError, UnknownName


@pytest.fixture
def three():
    """Entries a, b and c of 1000 bytes and a little, used in that order."""
    for age, name in enumerate("cba"):
        cache.end(cache.begin(cache.root() / name, {"backbone": name}))
        (cache.root() / name / "x.rows").write_bytes(bytes(1000))
        os.utime(cache.root() / name / cache.ABOUT, (1000 - age, 1000 - age))


def names():
    return [one.name for one in cache.entries()]


def test_entries_are_listed_last_used_first(three):
    assert names() == ["c", "b", "a"]
    assert all(1000 < one.size < 1100 for one in cache.entries())
    assert cache.entries()[0].about == {"backbone": "c"}
    cache.end(cache.begin(cache.root() / "a", {"backbone": "a"}))
    assert names()[0] == "a"


def test_clearing_deletes_what_is_named_or_all(three):
    with pytest.raises(UnknownName):
        cache.clear(["a", "z"])
    assert len(names()) == 3
    cache.clear(["a"])
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
    cache.prune(keep)
    assert names() == left


@pytest.mark.parametrize("text", ["many", "-1", "nan"])
def test_a_limit_that_is_none_is_an_error(monkeypatch, text):
    monkeypatch.setenv("TLKIT_CACHE_GB", text)
    with pytest.raises(OptionError, match="TLKIT_CACHE_GB"):
        cache.limit()


def test_a_broken_entry_is_not_one(three):
    (cache.root() / "b" / cache.ABOUT).write_text("{")
    assert names() == ["c", "a"]


def test_what_a_process_uses_is_not_deleted(three, monkeypatch):
    held = cache.begin(cache.root() / "a", {})
    again = cache.begin(cache.root() / "a", {})
    gone, used = cache.clear()
    assert ([one.name for one in gone], [one.name for one in used]) == (["c", "b"], ["a"])
    monkeypatch.setenv("TLKIT_CACHE_GB", "0")
    cache.end(held)
    assert cache.prune([]) == []
    cache.end(again)
    assert [one.name for one in cache.prune([])] == ["a"]


def test_what_a_process_that_was_killed_used_may_go(three):
    code = (
        "import os; from tlkit import cache\n"
        "held = cache.begin(cache.root() / 'a', {}); print('there', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "there\n"
        assert cache.clear(["a"])[1]
        other.kill()
        other.wait()
    gone, used = cache.clear(["a"])
    assert (len(gone), used) == (1, [])
