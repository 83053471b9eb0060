"""What a scan has found, kept for the next start; and digests of files that have not changed."""

import os
import shutil
import time

import pytest

from tlkit import cache
from tlkit.data import digests as digesting
from tlkit.data import folder as scanning
from tlkit.data import manifest
from tlkit.data.digests import digests
from tlkit.data.folder import scan
from tlkit.errors import DiskError, FolderError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few images are many, and any clock is fine enough."""
    monkeypatch.setattr(manifest, "MANY", 1)
    monkeypatch.setattr(manifest, "JUST_NOW_NS", 0)


@pytest.fixture
def place(tmp_path):
    for name in ("a/1.jpg", "a/deep/2.jpg", "b/3.jpg", "b/odd.txt", "b/\udcff.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    time.sleep(0.02)
    return tmp_path / "photos"


@pytest.fixture
def listed(monkeypatch):
    """The folders that were listed."""
    seen, names_in = [], scanning._names_in
    monkeypatch.setattr(scanning, "_names_in", lambda one: seen.append(one) or names_in(one))
    return seen


def same(one, other):
    assert one.files == other.files
    assert one.labels.tolist() == other.labels.tolist()
    assert (one.classes, one.left_out, one.root) == (other.classes, other.left_out, other.root)


def test_a_folder_that_has_not_changed_is_not_listed_again(place, listed):
    first = scan(place)
    assert len(listed) == 3
    same(scan(place), first)
    assert len(listed) == 3
    assert [one.about["folder"] for one in cache.entries()] == [os.path.realpath(place)]


@pytest.mark.parametrize("change", ["add", "remove", "rename", "class", "deep", "replace"])
def test_every_change_of_names_is_seen(place, change):
    scan(place)
    if change == "add":
        (place / "a" / "new.jpg").touch()
    elif change == "remove":
        (place / "a" / "1.jpg").unlink()
    elif change == "rename":
        (place / "b" / "3.jpg").rename(place / "b" / "4.jpg")
    elif change == "class":
        (place / "c").mkdir()
        (place / "c" / "1.jpg").touch()
    elif change == "deep":
        (place / "a" / "deep" / "2.jpg").unlink()
    else:
        shutil.copytree(place / "a", place.parent / "other")
        (place.parent / "other" / "9.jpg").touch()
        (place / "a").rename(place.parent / "away")
        (place.parent / "other").rename(place / "a")
    found = scan(place)
    there = sorted(
        one.relative_to(place).as_posix() for one in place.rglob("*.jpg") if one.is_file()
    )
    assert sorted(found.files) == there


def test_what_has_just_changed_is_not_kept(place, listed, monkeypatch):
    monkeypatch.setattr(manifest, "JUST_NOW_NS", 10**12)
    scan(place)
    scan(place)
    assert len(listed) == 6
    assert cache.entries() == []


@pytest.mark.parametrize("how", ["empty", "cut", "noise"])
def test_a_manifest_that_is_not_whole_is_none(place, how):
    first = scan(place)
    (file,) = cache.root().glob(f"*/{manifest.FILE}")
    data = file.read_bytes()
    file.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": b"\xff" * 99}[how])
    same(scan(place), first)


def test_without_a_cache_nothing_is_kept(place, listed, monkeypatch):
    monkeypatch.setenv("TLKIT_CACHE_GB", "0")
    scan(place)
    scan(place)
    assert len(listed) == 6
    assert len(digests(scan(place).paths)) == 4


def test_an_error_is_told_each_time(tmp_path):
    for _ in range(2):
        with pytest.raises(FolderError):
            scan(tmp_path)


def test_very_much_that_is_left_out_is_counted(place, monkeypatch):
    monkeypatch.setattr(scanning, "MOST_NAMED", 2)
    for number in range(5):
        (place / "a" / f"{number}.txt").touch()
    found = scan(place)
    assert len(found.left_out) == 2
    assert found.more_left_out == 4


# --- digests --------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch):
    """The files that were read."""
    seen, content = [], digesting.content
    monkeypatch.setattr(digesting, "content", lambda one: seen.append(one.name) or content(one))
    return seen


def test_only_what_has_changed_is_read_again(place, read):
    catalog = scan(place)
    first = digests(catalog.paths)
    assert len(read) == 4
    assert digests(catalog.paths).tolist() == first.tolist()
    assert len(read) == 4
    path = place / "a" / "1.jpg"
    before = path.stat()
    path.write_bytes(b"A/1.jpg")  # of the same size, and dated back
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    time.sleep(0.02)
    again = digests(catalog.paths)
    assert read[4:] == ["1.jpg"]
    assert [a == b for a, b in zip(again.tolist(), first.tolist(), strict=True)] == [
        False, True, True, True,
    ]  # fmt: skip
    assert digests(catalog.paths).tolist() == again.tolist()
    assert len(read) == 5


def test_what_was_written_just_now_is_read_again(place, read, monkeypatch):
    monkeypatch.setattr(manifest, "JUST_NOW_NS", 10**12)
    catalog = scan(place)
    digests(catalog.paths)
    digests(catalog.paths)
    assert len(read) == 8


def test_what_cannot_be_read_has_a_digest_of_its_own_and_is_not_remembered(place, read):
    catalog = scan(place)
    (place / "a" / "1.jpg").unlink()
    (place / "b" / "3.jpg").unlink()
    assert len(set(digests(catalog.paths).tolist())) == 4
    (place / "a" / "1.jpg").write_bytes(b"a")
    digests(catalog.paths)
    assert "1.jpg" in read


def test_a_file_that_is_exchanged_and_restored_does_not_spoil_the_index(place, monkeypatch):
    """By a link to a folder, or by renaming: what was there first has the state it had."""
    catalog = scan(place)
    path, away, other = (place / "a" / one for one in ("1.jpg", "away", "other"))
    other.write_bytes(b"other")
    states = digesting.states

    def exchanged(paths):
        found = states(paths)
        path.rename(away)
        other.rename(path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(digesting, "states", exchanged)
        assert digesting.digest_of_bytes(b"other") in [
            one.tobytes() for one in digests(catalog.paths)
        ]
    path.rename(other)
    away.rename(path)
    before = path.stat()
    kept = digesting._kept(manifest.entry(place) / digesting.FILE)
    inodes = kept["state"][:, 0].tolist()
    assert before.st_ino & (1 << 63) - 1 not in inodes
    assert other.stat().st_ino & (1 << 63) - 1 in inodes
    expected = [digesting.digest_of_bytes(one.read_bytes()) for one in catalog.paths]
    assert [one.tobytes() for one in digests(catalog.paths)] == expected


def test_what_is_held_is_what_was_read_as_far_as_there_is_room(place):
    catalog = scan(place)
    held = digesting.Held(2 * len((place / "a" / "1.jpg").read_bytes()))
    digests(catalog.paths, held=held)
    taken = {number: held.take(number) for number in range(len(catalog))}
    there = {number: one for number, one in taken.items() if one is not None}
    assert len(there) == 2
    assert all(catalog.paths[number].read_bytes() == one for number, one in there.items())
    assert [held.take(number) for number in range(len(catalog))] == [None] * len(catalog)


def test_a_cache_that_can_be_read_alone_is_read(place, listed, read, monkeypatch):
    first = digests(scan(place).paths)
    listed.clear()

    def refused(*args):
        raise DiskError("no", found="Read-only file system", expected="", do="")

    monkeypatch.setattr("tlkit.cache.begin", refused)
    count = len(read)
    assert digests(scan(place).paths).tolist() == first.tolist()
    assert listed == []
    assert len(read) == count
    (place / "a" / "1.jpg").write_bytes(b"another")
    assert digests(scan(place).paths).tolist() != first.tolist()


def test_a_cache_that_cannot_be_written_stops_no_scan(place, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert len(set(digests(scan(place).paths).tolist())) == 4
