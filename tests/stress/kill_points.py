"""Kill points: commands that are killed before every call that changes the disk, and given again.

    python tests/stress/kill_points.py [--only link,copy,move,move across,check,write,export,
        report,report over another,features,features again] [--every 1]

A process forks once its imports are done. In the fork every call by which Python changes a disk is
counted (`Calls`), and at the n-th the fork kills itself with SIGKILL, before the call is made; of a
write half is written first, every second time. So it goes for n = 1, 2, 3 and on until the command
ends by itself: no moment is left to chance, and each can be met again by its number. After each
kill no photo may be lost, the same command must end well, what is undone must be the tree that was
there before, and nothing under a temporary name may stay. Sorting is tried by link, copy, move, and
by move to another file system (--other; where that is the same one, renames across are refused
as if it were another). What `export`, `report` and `features` leave is whole or not there, and the
same command leaves what it leaves where nothing was killed. Prints what it found, and ends with
status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import errno
import functools
import gc
import hashlib
import importlib
import io
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image

import tlkit
import tlkit.cli
import tlkit.data.placing
import tlkit.data.quarantine
import tlkit.data.signature
import tlkit.files
import tlkit.reporting
import tlkit.sorting
from tlkit import checking
from tlkit.testing import make_folder

sys.path.append(str(Path(__file__).parents[1]))

import tiny

for heavy in ("matplotlib.figure", "scipy.sparse.csgraph", "torch._dynamo", "torch.export"):
    importlib.import_module(heavy)  # so that a fork begins at once

CHANGING = (
    "chmod", "chown", "fchmod", "fdatasync", "fsync", "ftruncate", "lchown", "link", "mkdir",
    "mkfifo", "posix_fallocate", "pwrite", "pwritev", "remove", "removedirs", "rename", "renames",
    "replace", "rmdir", "sendfile", "copy_file_range", "setxattr", "removexattr", "splice",
    "symlink", "truncate", "unlink", "utime", "write", "writev",
)  # fmt: skip
"""Functions of `os` that change what is on a disk, or make it keep that."""

ERROR = 3
"""The status of a fork whose command raised something."""

Action = Callable[[], object]


class Killed(BaseException):
    """Ends an action in this process, as SIGKILL ends another."""


@dataclass
class Calls:
    """Counts calls that change the disk, and ends the process at one of them."""

    kill_at: int
    """Counted from 1; 0 never kills."""
    apart: tuple[Path, ...] = ()
    """Folders that are to seem to be on file systems of their own."""
    here: bool = False
    """Whether the action is in this process, which lives on: no call has an effect any more then,
    those that clean up included."""
    dead: bool = False
    count: int = 0

    def step(self, half: Action | None = None) -> None:
        """Count a call, or die before it is made."""
        if self.dead:
            raise Killed
        self.count += 1
        if self.count == self.kill_at:
            if half is not None and self.count % 2:
                half()
            if not self.here:
                os.kill(os.getpid(), signal.SIGKILL)
            self.dead = True
            raise Killed

    def across(self, source: object, target: object) -> None:
        """Refuse to rename from one file system to another."""
        sides = [
            next((one for one in self.apart if Path(os.fsdecode(end)).is_relative_to(one)), None)
            for end in (source, target)  # type: ignore[arg-type]
        ]
        if sides[0] != sides[1]:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))


def _counted(calls: Calls, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        half = None
        if name in ("write", "pwrite") and len(args) > 1:
            half = lambda: real(args[0], args[1][: len(args[1]) // 2], *args[2:])  # noqa: E731
        calls.step(half)
        if calls.here and name in ("fsync", "fdatasync"):
            return None  # counted; the machine does not lose its power, and it takes the longest
        if name in ("rename", "replace", "link") and calls.apart:
            calls.across(*args[:2])
        return real(*args, **options)

    return call


def _opening(calls: Calls, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any, flags: int, *args: Any, **options: Any) -> Any:
        if flags & (os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY):
            calls.step()
        return real(path, flags, *args, **options)

    return call


class _Writing(io.FileIO):
    """A file whose writes are counted."""

    calls: Calls

    def write(self, data: Any) -> int:
        data = memoryview(data).cast("B")
        if self.calls.dead:  # what is in its buffer when it is closed
            return len(data)
        self.calls.step(lambda: super(_Writing, self).write(data[: len(data) // 2]))
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.calls.step()
        return super().truncate(size)


def _open(calls: Calls, real: Callable[..., Any]) -> Callable[..., Any]:
    """`open`, which writes by a counted file."""

    def call(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return real(file, mode, buffering, *args, **options)
        calls.step()
        raw = _Writing(file, mode.replace("t", "").replace("b", ""))
        raw.calls = calls
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

    return call


@contextmanager
def counted(calls: Calls) -> Iterator[Calls]:
    """Count calls in this process, by whatever name Python reaches them."""
    with mock.patch.multiple(
        os,
        open=_opening(calls, os.open),
        **{
            name: _counted(calls, name, getattr(os, name)) for name in CHANGING if hasattr(os, name)
        },
    ):
        renamed = tlkit.files.rename_new

        def rename_new(source: Path, target: Path) -> None:
            calls.step()
            if calls.apart:
                calls.across(source, target)
            renamed(source, target)

        opened = _open(calls, open)
        # Before Python 3.11 paths keep functions of their own.
        accessor = getattr(pathlib, "_NormalAccessor", type("_None", (), {}))
        own = {
            name: staticmethod(getattr(os, name)) for name in CHANGING if hasattr(accessor, name)
        } | ({"open": staticmethod(opened)} if hasattr(accessor, "open") else {})
        with (
            mock.patch.multiple(accessor, **own) if own else nullcontext(),
            mock.patch("builtins.open", opened),
            mock.patch.object(io, "open", opened),
            mock.patch.object(tlkit.files, "rename_new", rename_new),
            mock.patch.object(tlkit.data.placing, "rename_new", rename_new),
            mock.patch.object(tlkit.data.quarantine, "rename_new", rename_new),
            mock.patch.object(tlkit.data.signature, "rename_new", rename_new),
            # Those that copy inside of the kernel would be one step for a whole file.
            mock.patch.object(shutil, "_USE_CP_SENDFILE", False),
        ):
            yield calls


@dataclass(frozen=True)
class End:
    """How a fork ended."""

    killed: bool
    error: str = ""


def forked(action: Action, calls: Calls) -> End:
    """Run an action in a fork with its calls counted; an error is told, not raised."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        told = b""
        try:
            with counted(calls):
                action()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")[:4000]
        os.write(writes, told)
        os._exit(ERROR if told else 0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return End(killed=os.WIFSIGNALED(status), error=told)


def here(action: Action, calls: Calls) -> End:
    """Run an action in this process with its calls counted; much faster than a fork."""
    calls.here = True
    error = ""
    with counted(calls):
        try:
            action()
        except Killed:
            pass
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        if calls.dead:
            # What ends with its last name must end now: it may not clean up any more.
            with mock.patch.object(sys, "unraisablehook", return_value=None):
                gc.collect()
    return End(killed=True) if calls.dead else End(killed=False, error=error)


Run = Callable[[Action, Calls], End]


def tree(folder: Path) -> dict[str, object]:
    """What lies below a folder: of files the content and the time, of links where they lead."""
    return {
        one.relative_to(folder).as_posix(): (
            os.readlink(one)
            if one.is_symlink()
            else None
            if one.is_dir()
            else (hashlib.sha256(one.read_bytes()).hexdigest(), one.stat().st_mtime_ns)
        )
        for one in sorted(folder.rglob("*"))
    }


PHOTOS = {"1.png": "cat", "2.png": "", "deep/er/1.png": "cat"}
"""Below the folder of photos, and the class of each; empty: unsure."""

WAYS = {"link": False, "copy": False, "move": False, "move across": True}
"""By which photos are placed, and whether to another file system."""


def make_photos(folder: Path) -> None:
    """Make photos, each with a content and a time of its own."""
    for number, name in enumerate(PHOTOS):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24 + number, 20), (60 * number, 90, 200)).save(path)
        os.utime(path, ns=(10**18 + number, 10**18 + number))


@contextmanager
def without_head() -> Iterator[None]:
    """Sort by the names in `PHOTOS`: a head would take the time, and moves no file."""
    head = SimpleNamespace(
        classes=("cat", "dog"),
        model=SimpleNamespace(familiar=None),
        card=SimpleNamespace(tensors_sha256="0" * 64, calibration=SimpleNamespace(thresholds=())),
    )

    def settle(heads: object, looking: object) -> Iterator[object]:
        yield from ()
        return looking

    def predict(paths: Sequence[Path], source: Callable[[int, int], object]) -> Iterator[object]:
        for position, path in enumerate(paths):
            source(position, 0)
            name = next(one for one in PHOTOS if path.as_posix().endswith(f"photos/{one}"))
            label = PHOTOS[name]
            yield SimpleNamespace(
                path=path, unsure=not label, top=lambda count, label=label: ((label or "dog", 0.9),)
            )

    with mock.patch.multiple(
        tlkit.sorting,
        artifact=mock.Mock(load_all=lambda *args, **options: [head]),
        settle=settle,
        check=lambda *args: None,
        ask=lambda *args: SimpleNamespace(predict=predict),
        rule_of=lambda *args: SimpleNamespace(likely=0.5, familiar=0.0),
    ):
        yield


class Sorting:
    """A folder of photos, sorted and taken back."""

    def __init__(self, where: Path, way: str, other: Path, run: Run = forked) -> None:
        self.where, self.by, self.run = where, way.split()[0], run
        self.photos = where / "near" / "photos"
        self.out = (other if WAYS[way] else where / "near") / "out"
        # Where there is no second file system, it seems to be one.
        one_disk = os.stat(other).st_dev == os.stat(where).st_dev
        self.apart = (where / "near", other) if WAYS[way] and one_disk else ()
        self.across = WAYS[way]

    def begin(self) -> dict[str, object]:
        """Put all back to the begin, and return what is there."""
        shutil.rmtree(self.where / "near", ignore_errors=True)
        shutil.rmtree(self.out, ignore_errors=True)
        make_photos(self.photos)
        return self.all()

    def all(self) -> dict[str, object]:
        """Return all that is there, beside the folders too."""
        far = tree(self.out.parent) if self.across else {}
        return {**tree(self.where), **{f"far: {a}": b for a, b in far.items()}}

    def sort(self) -> None:
        tlkit.sort("head", self.photos, into=self.out, by=self.by)

    def undo(self) -> None:
        left = tlkit.unsort(self.out)
        assert not left, left

    def do(self, action: Action, kill_at: int = 0) -> End:
        return self.run(action, Calls(kill_at, self.apart))

    def lost(self, before: dict[str, object]) -> str:
        """Return what is wrong with the photos after a kill; empty where nothing is."""
        names = {f"near/photos/{one}" for one in PHOTOS}
        contents = [before[one] for one in names]
        now = self.all()
        if self.by != "move":
            touched = [one for one in names if now.get(one) != before[one]]
            return f"touched: {touched}" if touched else ""
        whole = Counter(
            value
            for name, value in now.items()
            if isinstance(value, tuple) and not Path(name).name.startswith(".")
        )
        counts = [whole[one] for one in contents]
        if min(counts) < 1 or sum(counts) > len(counts) + self.across:
            return f"there so often: {counts}"
        return ""

    def sorted_well(self) -> str:
        """Return what is wrong with a sort that has ended; empty where nothing is."""
        there = tree(self.out)
        files = {name for name, value in there.items() if value is not None}
        wanted = {f"{label or '_unsure'}/{name}" for name, label in PHOTOS.items()}
        wanted |= {"sorted.json", "undo.jsonl"}
        return f"in the folder: {sorted(files ^ wanted)}" if files != wanted else ""


def sorting_faults(sorting: Sorting, every: int = 1) -> Iterator[tuple[str, str]]:
    """Kill a sort, and taking it back, at every call; yield each moment, and what was wrong."""
    yield from _after_a_killed_sort(sorting, every)
    yield from _after_a_killed_undo(sorting, every)


def _after_a_killed_sort(sorting: Sorting, every: int) -> Iterator[tuple[str, str]]:
    number, killed = 1, True
    while killed:
        before = sorting.begin()
        killed = sorting.do(sorting.sort, number).killed
        moment = f"sort, call {number}"
        yield moment, sorting.lost(before)
        yield f"{moment}, sorted again", sorting.do(sorting.sort).error or sorting.sorted_well()
        yield f"{moment}, sorted again, undone", sorting.do(sorting.undo).error
        yield f"{moment}, sorted again, undone", _difference(before, sorting.all())
        before = sorting.begin()
        sorting.do(sorting.sort, number)
        if sorting.out.exists():  # before it was made there is nothing to undo
            yield f"{moment}, undone", sorting.do(sorting.undo).error
        yield f"{moment}, undone", _difference(before, sorting.all())
        number += every


def _after_a_killed_undo(sorting: Sorting, every: int) -> Iterator[tuple[str, str]]:
    number, killed = 1, True
    while killed:
        for again in (False, True):
            before = sorting.begin()
            assert not sorting.do(sorting.sort).error
            killed = sorting.do(sorting.undo, number).killed
            moment = f"undo, call {number}"
            yield moment, sorting.lost(before)
            if again:
                moment += ", sorted again"
                yield moment, sorting.do(sorting.sort).error or sorting.sorted_well()
            if sorting.out.exists():  # else the kill came behind the last call
                yield f"{moment}, undone", sorting.do(sorting.undo).error
            yield f"{moment}, undone", _difference(before, sorting.all())
        number += every


def _difference(before: dict[str, object], after: dict[str, object]) -> str:
    other = {one for one in {*before, *after} if before.get(one) != after.get(one)}
    other |= before.keys() ^ after.keys()
    return f"not as before: {sorted(other)}" if other else ""


def make_classes(folder: Path) -> None:
    """Make two classes with a photo in both of them, and a file that is no photo."""
    for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "1.png").read_bytes())
    (folder / "b" / "broken.png").write_bytes(b"none")


def check_faults(where: Path, every: int = 1, run: Run = forked) -> Iterator[tuple[str, str]]:
    """Kill `check --fix` and its undo at every call; yield each moment, and what was wrong."""
    folder = where / "classes"

    def begin() -> dict[str, object]:
        shutil.rmtree(folder, ignore_errors=True)
        make_classes(folder)
        return tree(where)

    def fix() -> None:
        stay = [one for one in checking.fix(tlkit.check(folder, workers=1)) if hasattr(one, "file")
                and not hasattr(one, "kept_as")]  # fmt: skip
        assert not stay, stay

    def undo() -> None:
        checking.undo(folder)

    def lost(before: dict[str, object]) -> str:
        files = Counter(one for one in before.values() if one is not None)
        now = Counter(
            value for name, value in tree(where).items() if value and "moves.jsonl" not in name
        )
        return "" if now == files else f"lost or doubled: {(files - now) + (now - files)}"

    for killing in (fix, undo):
        number, killed = 1, True
        while killed:
            for again in (False, True):
                before = begin()
                if killing is undo:
                    assert not run(fix, Calls(0)).error
                killed = run(killing, Calls(number)).killed
                moment = f"check, {killing.__name__}, call {number}"
                yield moment, lost(before)
                if again:
                    moment += ", again"
                    yield moment, run(fix, Calls(0)).error or lost(before)
                yield f"{moment}, undone", run(undo, Calls(0)).error
                yield f"{moment}, undone", _difference(before, tree(where))
            number += every


def write_faults(where: Path, every: int = 1, run: Run = forked) -> Iterator[tuple[str, str]]:
    """Kill what writes a report or an export (a folder that replaces an older one) and a file at
    every call; yield each moment, and what was wrong.
    """
    folder, file = where / "report", where / "answers.csv"

    def write(text: str) -> None:
        with tlkit.files.new_folder(folder, replace=("a.txt", "b.txt")) as staged:
            tlkit.files.write_text(staged / "a.txt", text)
            tlkit.files.write_text(staged / "b.txt", text)
        tlkit.files.write_text(file, text)

    def there() -> dict[str, str]:
        # Between two renames the older folder has its other name, which the next writer gives back.
        tlkit.files.remove_abandoned(folder)
        return {one.name: one.read_text() for one in folder.glob("*")}

    def whole(text: str) -> dict[str, str]:
        return {"a.txt": text, "b.txt": text}

    def killed_at(number: int) -> bool:
        shutil.rmtree(where)
        where.mkdir()
        write("old")
        return run(lambda: write("new"), Calls(number)).killed

    number, killed = 1, True
    while killed:
        moment = f"write, call {number}"
        killed_at(number)
        shutil.rmtree(folder, ignore_errors=True)
        good = there() in ({}, whole("old"))
        yield f"{moment}, then taken away", "" if good else f"not whole: {there()}"
        killed = killed_at(number)
        good = there() in (whole("old"), whole("new")) and file.read_text() in ("old", "new")
        yield moment, "" if good else f"not whole: {there()}"
        yield f"{moment}, again", run(lambda: write("new"), Calls(0)).error
        now = sorted(one.relative_to(where).as_posix() for one in where.rglob("*"))
        good = now == ["answers.csv", "report", "report/a.txt", "report/b.txt"]
        yield f"{moment}, again", "" if good and there() == whole("new") else f"there: {now}"
        number += every


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that leaves a folder `out`."""

    words: Callable[[Path], Sequence[str]]
    """By the folder that holds `photos` and `run`."""
    over: bool = False
    """Whether what the same command has left before is in the way."""
    in_parts: bool = False
    """Whether files appear one by one, the manifest last; else all of them at once."""


def _words_of_export(ready: Path) -> Sequence[str]:
    return "export", str(ready / "run"), "--to", "torch", "--images", str(ready / "photos")


def _words_of_report(ready: Path) -> Sequence[str]:
    return "report", str(ready / "run"), str(ready / "photos"), "--no-maps"


def _words_of_features(ready: Path) -> Sequence[str]:
    return "features", str(ready / "photos"), "--backbone", "tiny", "--shard", "6"


COMMANDS = {
    "export": Command(words=_words_of_export),
    "report": Command(words=_words_of_report),
    "report over another": Command(words=_words_of_report, over=True),
    "features": Command(words=_words_of_features, in_parts=True),
    "features again": Command(words=_words_of_features, over=True, in_parts=True),
}
"""Those that compute. The backbone is that of `tlkit.testing`."""

MANIFEST = "_manifest.json"


class Leaving:
    """What a command leaves, and a cache of its own, in a folder where nothing else is."""

    def __init__(self, where: Path, command: Command, run: Run = forked, *, ready: Path) -> None:
        """`ready` has the photos and the run, which are made where they are not there."""
        self.command, self.run, self.ready = command, run, ready
        self.ground, self.older = where / "ground", where / "older"
        self.out = self.ground / "out"
        if not self.ready.exists():
            make_folder(self.ready / "photos", per_class=4)
            self._must(self._fit)
        self.before = tree(self.ready)
        self.begin(over=False)
        self._must(self.do)
        self.undisturbed = self.there()
        shutil.rmtree(self.older, ignore_errors=True)
        self.out.rename(self.older)

    def _must(self, action: Action) -> None:
        ended = self.run(action, Calls(0))
        assert not ended.error, ended.error

    def _fit(self) -> None:
        with mock.patch.dict(os.environ, TLKIT_CACHE=str(self.ready / "cache")):
            tlkit.fit(self.ready / "photos", backbone="tiny", epochs=1, out=self.ready / "run")

    def begin(self, *, over: bool) -> None:
        """Put all back to the begin."""
        shutil.rmtree(self.ground, ignore_errors=True)
        self.ground.mkdir()
        if over:
            shutil.copytree(self.older, self.out)

    def do(self) -> None:
        """Give the command, as in a terminal."""
        words = [*self.command.words(self.ready), "--out", str(self.out)]
        with mock.patch.dict(os.environ, TLKIT_CACHE=str(self.ground / "cache")):
            ended = CliRunner().invoke(tlkit.cli.main, words)
        if ended.exit_code:
            raise RuntimeError(f"status {ended.exit_code}: {ended.output}")

    def there(self) -> dict[str, bytes] | None:
        """The files in the folder that have their names, without the time of a report."""
        if not self.out.exists():
            return None
        files = {one.relative_to(self.out).as_posix(): one for one in self.out.rglob("*")}
        found = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
        if "report.json" in found:
            time = json.loads(found["report.json"])["created"].encode()
            found = {name: content.replace(time, b"") for name, content in found.items()}
        return {name: found[name] for name in found if not name.startswith(".")}

    def half(self) -> str:
        """Return what a reader would take for whole and is not; empty where nothing is."""
        if _difference(self.before, tree(self.ready)):
            return "the run or its photos are not as before"
        there = self.there()
        if there is None or there == self.undisturbed:
            return ""
        if self.command.in_parts and MANIFEST not in there:
            there = {**self.undisturbed, **there}
        return _difference(self.undisturbed, there)

    def litter(self) -> str:
        """Return what nobody has a use for."""
        names = {one.relative_to(self.ground).as_posix() for one in self.ground.rglob("*")}
        # A lock in the cache goes with the next who uses that entry, which one who finds all parts
        # done does not.
        left = [one for one in names if one.endswith((".tmp", ".old"))]
        left += [one for one in names if one.endswith(".rows") and f"{one[:-5]}.keys" not in names]
        left += [one for one in names if "/" not in one and one not in ("out", "cache")]
        return f"left: {sorted(left)}" if left else ""


def command_faults(leaving: Leaving, every: int = 1) -> Iterator[tuple[str, str]]:
    """Kill a command at every call; yield each moment, and what was wrong."""
    number, killed = 1, True
    while killed:
        leaving.begin(over=leaving.command.over)
        ended = leaving.run(leaving.do, Calls(number))
        killed = ended.killed
        moment = f"call {number}"
        yield moment, ended.error or leaving.half()
        if killed:
            moment += ", again"
            yield moment, leaving.run(leaving.do, Calls(0)).error
        there = leaving.there()
        yield moment, _difference(leaving.undisturbed, {} if there is None else there)
        yield moment, leaving.litter()
        number += every


@contextmanager
def computed_once() -> Iterator[None]:
    """Compute what takes the longest of `export` and `report` the first time alone: the program of
    the network, and the page. What is written, and how, is the same.
    """
    export, written = torch.export.export, tlkit.reporting.written
    first: dict[str, object] = {}

    def once(name: str, real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if name not in first:
            first[name] = real(*args, **options)
        return first[name]

    with (
        mock.patch.object(torch.export, "export", functools.partial(once, "export", export)),
        mock.patch.object(tlkit.reporting, "written", functools.partial(once, "page", written)),
    ):
        yield


def main(only: Sequence[str], every: int, other: Path, place: Path) -> int:
    os.environ["TLKIT_CACHE"] = str(place / "cache")
    os.environ["TLKIT_OFFLINE"] = "1"
    (place / "site").mkdir()
    tiny.install(place / "site")
    wrong, moments = [], {}
    for name in only:
        where = place / name
        where.mkdir()
        with tempfile.TemporaryDirectory(prefix="tlkit-", dir=other) as far, without_head():
            if name in WAYS:
                each = sorting_faults(Sorting(where, name, Path(far)), every)
            elif name in COMMANDS:
                each = command_faults(Leaving(where, COMMANDS[name], ready=place / "ready"), every)
            else:
                each = {"check": check_faults, "write": write_faults}[name](where, every)
            for moment, fault in each:
                moments[name] = moments.get(name, 0) + 1
                if fault:
                    wrong.append(f"{name}, {moment}: {fault}")
        print(f"{name}: {moments[name]} looks", flush=True)
    print(json.dumps({"looks": sum(moments.values()), "wrong": wrong}))
    return bool(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join([*WAYS, "check", "write", *COMMANDS]))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--other", type=Path, default=Path("/dev/shm"))
    given = parser.parse_args()
    far = given.other if os.access(given.other, os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(given.only.split(","), given.every, far, Path(name)))
