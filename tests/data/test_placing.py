"""Placing: every photo is there exactly once, whenever it was stopped, and can be taken back."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import tlkit.data.placing as module
import tlkit.files
from tlkit.data.placing import (
    BY,
    CHANGED,
    JOURNAL,
    Ground,
    Left,
    Line,
    begin,
    forget,
    ground_of,
    held,
    place,
    placed,
    state_of,
    take_back,
)  # fmt: skip
from tlkit.data.signature import sign
from tlkit.errors import DiskError, FolderError, RunFolderError
from tlkit.steps import finish

GOES = {"1.jpg": "cat/1.jpg", "2.jpg": "_unsure/2.jpg", "deep/er/1.jpg": "cat/deep/er/1.jpg"}
STEPS = ("open", "write", "fsync", "rename", "unlink", "mkdir", "rmdir", "symlink", "truncate")
"""Of `os`: all by which a file system is changed, or by which it is made to keep it."""


class Killed(BaseException):
    """The process is no more."""


@contextmanager
def killed(at: int, across: bool = False):
    """From the step with that number on nothing has an effect, clean-up included: as after SIGKILL.

    Every second time half of what is written still is. With `across` the photos and the folder that
    they go to are on two file systems, as far as `rename_new` can tell. Yields a count of steps.
    """
    count = [0]

    def dead() -> bool:
        count[0] += 1
        return count[0] > at

    def dying(function, half=None):
        def step(*args, **options):
            if dead():
                if half is not None and count[0] == at + 1 and at % 2:
                    half(*args)
                raise Killed
            return function(*args, **options)

        return step

    def rename_new(source, target):
        if across and ("photos" in source.parts) != ("photos" in target.parts):
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(source))
        return renamed(source, target)

    renamed = dying(tlkit.files.rename_new)
    write, copyfile = os.write, shutil.copyfile
    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, dying(getattr(os, name)))
        patch.setattr(os, "write", dying(write, lambda at, data: write(at, data[: len(data) // 2])))
        patch.setattr(module, "rename_new", rename_new)
        patch.setattr(
            shutil, "copyfile",
            dying(copyfile, lambda a, b: b.write_bytes(a.read_bytes()[:3])),
        )  # fmt: skip
        patch.setattr(shutil, "copystat", dying(shutil.copystat))
        yield count


def digests(folder: Path) -> list[str]:
    """Of all files but the journal, those included that are hidden."""
    return sorted(
        hashlib.sha256(one.read_bytes()).hexdigest()
        for one in folder.rglob("*")
        if one.is_file() and not one.is_symlink() and one.name not in (JOURNAL, ".lock")
    )


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        one.relative_to(folder).as_posix(): (one.read_bytes(), one.stat().st_mtime_ns)
        for one in folder.rglob("*")
        if one.is_file()
    }


@pytest.fixture(autouse=True)
def _key():
    """The key is there, as after the first sort: it is not made anew in one of many kills."""
    sign({})


@pytest.fixture
def ground(tmp_path):
    return make_ground(tmp_path, "move")


def make_ground(where: Path, by: str) -> Ground:
    for number, file in enumerate(GOES):
        path = where / "photos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"photo {number}".encode() * (number + 1))
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    return Ground(photos=where / "photos", out=where / "out", by=by)


def wanted(ground: Ground, goes=GOES, at_once: int = 2):
    """Lines of the photos that are still there, in groups."""
    every = [
        Line(file=file, place=to, state=state_of(os.stat(ground.photos / file)), told={})
        for file, to in goes.items()
        if os.path.lexists(ground.photos / file)
    ]
    return [every[at : at + at_once] for at in range(0, len(every), at_once)]


def sort(ground: Ground, goes=GOES) -> list[Line | Left]:
    """What a sort does, without a head."""
    found: list[Line | Left] = []
    with held(ground):
        begin(ground, {})
        done = {one.file for one in placed(ground)}
        for group in wanted(ground, {a: b for a, b in goes.items() if a not in done}):
            found += place(ground, group)
    return found


def unsort(ground: Ground) -> tuple[Left, ...]:
    there = ground_of(ground.out)
    with held(there or ground):
        if there is None:
            forget(ground.out)
            return ()
        return finish(take_back(there))


def steps_of(action, across=False) -> int:
    with killed(10**9, across) as count:
        action()
    return count[0]


WAYS = [("link", False), ("copy", False), ("move", False), ("move", True)]


@pytest.fixture(params=WAYS, ids=["link", "copy", "move", "move across"])
def way(request):
    return request.param


def placed_well(ground: Ground, before) -> None:
    """All lie in their places, exactly once."""
    for file, to in GOES.items():
        assert (ground.out / to).read_bytes() == before[file][0]
    inside = [one for one in ground.out.rglob("*") if not one.is_dir() and one.name[0] != "."]
    assert len(inside) == len(GOES) + 1
    if ground.by == "move":
        assert contents(ground.photos) == {}
    else:
        assert contents(ground.photos) == before


def test_photos_are_placed_and_taken_back(tmp_path, way):
    by, across = way
    ground = make_ground(tmp_path, by)
    before = contents(ground.photos)
    with killed(10**9, across):
        assert [one.place for one in sort(ground)] == list(GOES.values())
    placed_well(ground, before)
    assert sort(ground) == []
    placed_well(ground, before)
    with killed(10**9, across):
        assert unsort(ground) == ()
    assert contents(ground.photos) == before
    assert not ground.out.exists()


def test_whenever_it_is_killed_the_same_command_goes_on(tmp_path, way):
    by, across = way
    first = make_ground(tmp_path / "count", by)
    count = steps_of(lambda: sort(first), across)
    assert count > 15
    for at in range(count):
        ground = make_ground(tmp_path / f"{at}", by)
        before, digest = contents(ground.photos), digests(ground.photos)
        with killed(at, across), pytest.raises(Killed):
            sort(ground)
        found = digests(tmp_path / f"{at}")
        assert set(digest) <= set(found)
        if by == "link" or (by == "move" and not across):
            assert found == digest
        with killed(10**9, across):
            sort(ground)
        placed_well(ground, before)


def test_whenever_it_is_killed_it_can_be_taken_back(tmp_path, way):
    by, across = way
    first = make_ground(tmp_path / "count", by)
    count = steps_of(lambda: sort(first), across)
    for at in range(count):
        ground = make_ground(tmp_path / f"{at}", by)
        before = contents(ground.photos)
        with killed(at, across), pytest.raises(Killed):
            sort(ground)
        try:
            with killed(10**9, across):
                assert unsort(ground) == ()
        except FolderError:
            pass  # before the folder was made there is nothing to take back
        assert not ground.out.exists()
        assert contents(ground.photos) == before


def test_whenever_taking_back_is_killed_it_goes_on_or_is_sorted_again(tmp_path, way):
    by, across = way

    def sorted_in(where: Path) -> Ground:
        ground = make_ground(where, by)
        with killed(10**9, across):
            sort(ground)
        return ground

    first = sorted_in(tmp_path / "count")
    count = steps_of(lambda: unsort(first), across)
    assert count > 5
    for at in range(count):
        for again in (False, True):
            where = tmp_path / f"{at}{again}"
            before = contents(make_ground(where, by).photos)
            digest = digests(where / "photos")
            ground = sorted_in(where)
            with killed(at, across), pytest.raises(Killed):
                unsort(ground)
            assert set(digest) <= set(digests(where))
            with killed(10**9, across):
                if again:
                    sort(ground)
                    placed_well(ground, before)
                if (ground.out / JOURNAL).exists():
                    assert unsort(ground) == ()
            assert contents(ground.photos) == before
            assert not [one for one in ground.out.rglob("*") if one.name != ".lock"]


def test_nothing_is_overwritten(tmp_path, way):
    by, across = way
    ground = make_ground(tmp_path, by)
    before = contents(ground.photos)
    with killed(10**9, across):
        sort(ground, {"1.jpg": "cat/1.jpg"})
        found = [*place(ground, [replaced(one, "cat/1.jpg") for one in wanted(ground)[-1]])]
    assert found[0].place == "cat/1-2.jpg"
    assert (ground.out / "cat/1.jpg").read_bytes() == before["1.jpg"][0]
    with killed(10**9, across):
        assert unsort(ground) == ()
    assert contents(ground.photos) == before


def replaced(line: Line, place: str) -> Line:
    return Line(file=line.file, place=place, state=line.state, told={})


def test_a_name_that_is_taken_between_the_look_and_the_step_is_left_alone(
    tmp_path, way, monkeypatch
):
    by, across = way
    ground = make_ground(tmp_path, by)
    looked = module._free

    def late(out, place):
        free = looked(out, place)
        if free == "cat/1.jpg":
            (out / "cat").mkdir(exist_ok=True)
            (out / free).write_bytes(b"another's")
        return free

    monkeypatch.setattr(module, "_free", late)
    with killed(10**9, across):
        sort(ground)
        assert (ground.out / "cat/1.jpg").read_bytes() == b"another's"
        assert (ground.out / "cat/1-2.jpg").exists()
        left = unsort(ground)
    if by == "move":
        assert left == ()
    assert (ground.out / "cat/1.jpg").read_bytes() == b"another's"


def test_what_has_changed_or_is_gone_stays(tmp_path, way):
    by, across = way
    ground = make_ground(tmp_path, by)
    with held(ground), killed(10**9, across):
        begin(ground, {})
        groups = wanted(ground, at_once=3)
        (ground.photos / "1.jpg").write_bytes(b"new")
        (ground.photos / "2.jpg").unlink()
        found = [*place(ground, groups[0])]
    assert found[:2] == [Left(file="1.jpg", why=CHANGED), Left(file="2.jpg", why="it is gone")]
    assert found[2].place == "cat/deep/er/1.jpg"
    assert (ground.photos / "1.jpg").read_bytes() == b"new"


def test_what_changes_while_it_is_copied_stays(tmp_path, monkeypatch):
    ground = make_ground(tmp_path, "move")
    copyfile = shutil.copyfile

    def slow(source, target):
        copyfile(source, target)
        source.write_bytes(b"written meanwhile")

    monkeypatch.setattr(shutil, "copyfile", slow)
    with killed(10**9, across=True):
        found = sort(ground)
    assert found == [Left(file=file, why=CHANGED) for file in GOES]
    assert {one.read_bytes() for one in ground.photos.rglob("*.jpg")} == {b"written meanwhile"}
    assert not list(ground.out.rglob("*.jpg"))
    assert not list(tmp_path.rglob("*.tlkit-part"))


def test_a_photo_that_may_not_be_removed_is_there_once(tmp_path, monkeypatch):
    ground = make_ground(tmp_path, "move")
    digest, unlink = digests(ground.photos), os.unlink

    def refuse(path, **options):
        if "photos" in Path(path).parts:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    with killed(10**9, across=True):
        found = sort(ground)
    assert {one.why for one in found} == {"Operation not permitted"}
    assert digests(tmp_path) == digest


def test_a_full_disk_ends_it_and_the_same_command_goes_on(tmp_path, monkeypatch, way):
    by, across = way
    ground = make_ground(tmp_path, by)
    before = contents(ground.photos)

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DiskError, match="No space left"):
            sort(ground)
    assert contents(ground.photos) == before
    with pytest.MonkeyPatch.context() as patch, killed(10**9, across):
        patch.setattr(shutil, "copyfile", full)
        patch.setattr(os, "symlink", full)
        patch.setattr(module, "rename_new", full)
        with pytest.raises(DiskError, match="No space left"):
            sort(ground)
    assert contents(ground.photos) == before
    with killed(10**9, across):
        sort(ground)
    placed_well(ground, before)


def test_what_has_taken_a_photos_place_is_left_alone_and_named(ground):
    before = contents(ground.photos)
    sort(ground)
    (ground.photos / "1.jpg").write_bytes(b"new")
    assert unsort(ground) == (Left(file="1.jpg", why=module.TAKEN),)
    assert (ground.photos / "1.jpg").read_bytes() == b"new"
    assert (ground.out / "cat/1.jpg").read_bytes() == before["1.jpg"][0]
    (ground.photos / "1.jpg").unlink()
    assert unsort(ground) == ()
    assert contents(ground.photos) == before


def test_a_link_in_a_photos_place_to_where_it_lies_now_does_not_cost_it(ground):
    before = contents(ground.photos)
    sort(ground)
    (ground.photos / "1.jpg").symlink_to(ground.out / "cat/1.jpg")
    sort(ground)
    assert [one.file for one in unsort(ground)] == ["1.jpg"]
    assert (ground.out / "cat/1.jpg").read_bytes() == before["1.jpg"][0]


def test_what_was_dragged_into_another_class_is_named_and_stays(ground):
    sort(ground)
    (ground.out / "_unsure/2.jpg").rename(ground.out / "cat/2.jpg")
    (left,) = unsort(ground)
    assert left == Left(file="2.jpg", why="it is no longer _unsure/2.jpg")
    assert (ground.out / "cat/2.jpg").exists()
    assert sorted(one.name for one in ground.photos.rglob("*.jpg")) == ["1.jpg", "1.jpg"]


@pytest.mark.parametrize("by", ["link", "copy"])
def test_what_was_changed_in_its_place_is_not_deleted(tmp_path, by):
    ground = make_ground(tmp_path, by)
    sort(ground)
    target = ground.out / "cat/1.jpg"
    target.unlink()
    target.write_bytes(b"retouched")
    assert [one.file for one in unsort(ground)] == ["1.jpg"]
    assert target.read_bytes() == b"retouched"


def test_a_copy_is_not_deleted_where_it_is_the_only_one(tmp_path):
    ground = make_ground(tmp_path, "copy")
    sort(ground)
    (ground.photos / "1.jpg").unlink()
    status = os.stat(ground.photos / "2.jpg")
    (ground.photos / "2.jpg").write_bytes(b"x" * status.st_size)
    assert [one.file for one in unsort(ground)] == ["1.jpg", "2.jpg"]
    assert (ground.out / "cat/1.jpg").exists()
    assert (ground.out / "_unsure/2.jpg").exists()


def test_names_that_are_no_text_come_and_go(tmp_path):
    name = os.fsdecode(b"\xff\xfe\n.jpg")
    for by in BY:
        ground = make_ground(tmp_path / by, by)
        try:
            (ground.photos / name).write_bytes(b"odd")
        except OSError:
            pytest.skip("the file system takes text only")
        before = contents(ground.photos)
        sort(ground, {name: f"cat/{name}"})
        assert (ground.out / "cat" / name).read_bytes() == b"odd"
        assert unsort(ground) == ()
        assert contents(ground.photos) == before


def test_two_names_of_one_file_are_two_photos(ground):
    os.link(ground.photos / "1.jpg", ground.photos / "twin.jpg")
    before = contents(ground.photos)
    for across in (False, True):
        with killed(10**9, across):
            sort(ground, {**GOES, "twin.jpg": "cat/twin.jpg"})
            assert not contents(ground.photos)
            assert unsort(ground) == ()
        assert contents(ground.photos) == before


def test_another_sort_into_the_same_folder_is_refused(ground, tmp_path):
    sort(ground)
    other = Ground(photos=ground.photos, out=ground.out, by="copy")
    with pytest.raises(RunFolderError) as caught:
        sort(other)
    assert "--undo" in caught.value.do
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is there already"):
        sort(Ground(photos=ground.photos, out=tmp_path / "mine", by="move"))
    with pytest.raises(FolderError, match="nothing to take back"):
        ground_of(tmp_path / "mine")


def test_two_at_once_are_refused(ground):
    with held(ground), pytest.raises(RunFolderError, match="in use"):
        sort(ground)


def test_a_journal_of_somebody_elses_is_not_followed(ground):
    sort(ground)
    journal = ground.out / JOURNAL
    head, *said = journal.read_text().splitlines()
    for bad in ("../../x.jpg", "/etc/x.jpg", "", "a\\u0000b"):
        journal.write_text("\n".join([head, said[0].replace('"1.jpg"', f'"{bad}"'), ""]))
        with pytest.raises(DiskError, match="cannot be trusted"):
            unsort(ground)
    for bad in ('{"file": 1}', "[]", "words"):
        journal.write_text("\n".join([head, bad, said[0], ""]))
        with pytest.raises(DiskError, match="no journal"):
            unsort(ground)


def test_photos_whose_disk_is_not_there_are_not_taken_back_to_nowhere(ground, tmp_path):
    sort(ground)
    ground.photos.rename(tmp_path / "away")
    with pytest.raises(FolderError, match="cannot be taken back"):
        unsort(ground)
    assert not ground.photos.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="no second file system is known")
def test_it_works_between_two_file_systems(tmp_path):
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is no second file system")
    ground = make_ground(tmp_path, "move")
    before = contents(ground.photos)
    out = other / f"tlkit-test-{os.getpid()}"
    far = Ground(photos=ground.photos, out=out, by="move")
    try:
        sort(far)
        placed_well(far, before)
        assert unsort(far) == ()
    finally:
        shutil.rmtree(out, ignore_errors=True)
    assert contents(ground.photos) == before
