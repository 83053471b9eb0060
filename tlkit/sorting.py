"""Sorting: the verbs `sort` and `unsort`, photos into class folders by a head, and back.

In: a head, a folder of photos, a new folder. Out: the photos in a folder for each class and in
`_unsure`, below which they keep their sub-folders; `sorted.json`, which says how many and how sure;
and what takes them back (data/placing.py).
It stands beside checking.py, which moves files too: a question (ask/) leaves the photos alone.
Photos stream through: what is kept of each is its name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import unicodedata
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlkit import artifact, runs
from tlkit.artifact import Head
from tlkit.data.folder import find_images
from tlkit.data.images import BadImage, Detail, Pixels, Unreadable, read
from tlkit.data.journal import Left
from tlkit.data.names import Names, Paths
from tlkit.data.placing import (
    JOURNAL,
    OWN,
    Ground,
    Line,
    State,
    begin,
    forget,
    ground_of,
    held,
    lines,
    place,
    placed,
    state_of,
    take_back,
)
from tlkit.data.shards import find
from tlkit.errors import FolderError, OptionError, address, listing, shell_word
from tlkit.files import (
    as_path,
    disk_errors,
    refuse_unwritable,
    remove_abandoned,
    remove_staged,
    shortened,
    write_text,
)
from tlkit.options import PredictOptions, SortOptions, own_parameters, signature
from tlkit.predict.ensemble import ask, check, settle
from tlkit.predict.reject import OF_PRECISION, Rule, rule_of
from tlkit.predict.run import Prediction
from tlkit.runs import Paths as Heads
from tlkit.steps import Tick, finish

UNSURE = "_unsure"
SUMMARY = "sorted.json"

PRECISION = 0.99
"""Of what is named, by default."""
LIKELY = 0.9
"""That the class of several heads must be, by default: they have no common card."""
UNLIKE = 0.005
"""The share of validation images that were stranger than what is named, by default."""

AT_ONCE = 32
"""Photos that stand in the journal before the first of them is touched."""

LONGEST_FOLDER = 200
"""Bytes of a class folder's name: a number comes behind it, and most disks take 255."""


@dataclass(frozen=True, kw_only=True)
class Pile:
    """The photos in one folder."""

    name: str
    """The class; "unsure" for those of no class."""
    folder: str
    """Below the folder that all are in."""
    photos: int
    probability: float | None
    """Mean of the likeliest class; None where there is no photo."""
    wrong: float | None
    """Photos that are likely in the wrong folder: the sum of 1 - p. None for the unsure."""


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """What became of a folder of photos."""

    photos: Path
    out: Path
    by: str
    piles: tuple[Pile, ...]
    """One of each class, in the head's order, and the unsure."""
    unreadable: tuple[BadImage, ...]
    """They stay where they are."""
    left: tuple[Left, ...]
    """Other photos that stay, and why."""
    likely: float
    """The probability that a class must have; 0 where any will do."""
    familiar: float
    """The familiarity that a photo must have; 0 where any will do."""
    wrong_spread: float
    """Standard deviation of all that are likely in the wrong folder, if each probability p is
    right and photos err by themselves: the root of the sum of p (1 - p)."""

    @property
    def count(self) -> int:
        """Photos that lie in a folder now."""
        return sum(one.photos for one in self.piles)

    @property
    def unsure(self) -> float:
        """The share of these that have no class."""
        return self.piles[-1].photos / self.count if self.count else 0.0

    @property
    def wrong(self) -> float:
        """How many of those with a class are likely in the wrong folder."""
        return sum(one.wrong or 0.0 for one in self.piles)

    @property
    def wrong_95(self) -> tuple[float, float]:
        """A 95 % interval of that: the normal approximation with `wrong_spread`, from 0."""
        reach = 1.96 * self.wrong_spread
        return max(0.0, self.wrong - reach), self.wrong + reach


def sort(
    head: Heads | None,
    photos: str | Path,
    *,
    into: str | Path,
    weights: str | Path = "",
    **options: Any,
) -> Sorted:
    """Put the photos of a folder into class folders in `into`, by a head or several.

    `options` are the fields of `tlkit.SortOptions`. Given again after a stop, it goes on. Raises
    `TlkitError`; `tlkit.sort_events` does the same step by step.
    """
    asked = SortOptions.of(options)
    return finish(sort_events(head, photos, asked, into=into, weights=weights))


sort.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(sort), SortOptions, returns=Sorted
)


def sort_events(
    head: Heads | None,
    photos: str | Path,
    options: SortOptions | None = None,
    *,
    into: str | Path,
    weights: str | Path = "",
) -> Generator[Tick, None, Sorted]:
    """The same step by step: yields `Tick`s, returns what `sort` does."""
    options = SortOptions() if options is None else options
    ground = _ground(as_path(photos, "folder"), as_path(into, "out folder"), options.by)
    looking = _looking(options)
    remove_abandoned(ground.out)
    refuse_unwritable(ground.out)
    heads = artifact.load_all(runs.head_files(head), weights=str(weights))
    looking = yield from settle(heads, _thresholds(heads, options, looking))
    with held(ground):
        # Not before: another sort, which has ended meanwhile, may have moved them.
        found = _photos_in(ground)
        _refuse_shards(found)
        if options.by == "move":
            _refuse_read_only(found)
        begin(ground, _asked(heads, looking))
        tally = _Tally(heads[0].classes, ground)
        with disk_errors(ground.out):
            _forget_summary(ground.out)
            done = {tally.add(line) for line in placed(ground)}
            fresh = Paths(Path(), Names.of(_fresh(ground, found, done, tally)))
        del done
        yield from _sort(ground, heads, looking, fresh, tally)
        result = tally.result(rule_of(heads, looking))
        write_text(ground.out / SUMMARY, as_json(result, looking))
    return result


def _photos_in(ground: Ground) -> Paths:
    """All that are there: none where a sort was stopped that had moved the last of them."""
    try:
        return find_images([ground.photos])
    except FolderError:
        if ground.photos.is_dir() and (ground.out / JOURNAL).exists():
            return Paths(Path(), Names.of([]))
        raise


def unsort(out: str | Path, into: str | Path | None = None) -> tuple[Left, ...]:
    """Take back what `sort` has put into a folder; the photos that could not be, and why.

    The folder is gone then, unless something of yours is in it. Given again after a stop, it goes
    on. `into` is the folder that photos were moved from; name it where they were sorted on another
    machine or by another user, for a journal from elsewhere may name any folder. Raises
    `TlkitError`; `tlkit.unsort_events` does the same step by step.
    """
    return finish(unsort_events(out, into))


def unsort_events(
    out: str | Path, into: str | Path | None = None
) -> Generator[Tick, None, tuple[Left, ...]]:
    """The same step by step: yields `Tick`s, returns what `unsort` does."""
    out = Path(os.path.realpath(as_path(out, "folder")))
    back_to = None if into is None else Path(os.path.realpath(as_path(into, "folder")))
    if back_to is not None:
        _refuse_nested(back_to, out)
    # What was not sorted into is refused before anything is made in it.
    ground = ground_of(out, back_to)
    with held(ground or Ground(photos=out.parent, out=out, by="link")):
        ground = ground_of(out, back_to)
        with disk_errors(out):
            if ground is None:
                forget(out)
                return ()
            _forget_summary(out)
        total = sum(1 for _ in lines(ground))
        back = take_back(ground)
        for done in range(1, total + 1):
            next(back)
            yield Tick(what="taking back", done=done, total=total)
        return finish(back)


def _forget_summary(out: Path) -> None:
    """Remove the summary, and one that was begun and never renamed. Raises `OSError`."""
    remove_staged(out / SUMMARY)
    (out / SUMMARY).unlink(missing_ok=True)


def as_json(result: Sorted, options: PredictOptions) -> str:
    """All of it."""
    return runs.as_json(
        {
            "photos": str(result.photos),
            "by": result.by,
            "sorted": result.count,
            "unsure": result.unsure,
            "wrong": result.wrong,
            "wrong_95": list(result.wrong_95),
            "folders": [dataclasses.asdict(one) for one in result.piles],
            "likely": result.likely,
            "familiar": result.familiar,
            "options": dataclasses.asdict(options),
            "unreadable": {str(one.path): one.reason for one in result.unreadable},
            "left": {one.file: one.why for one in result.left},
        }
    )


def folders_of(classes: Sequence[str]) -> dict[str, str]:
    """For each class a folder's name that every file system takes, and that no other one has.

    Anybody may have made a head file: its classes may be called anything.
    """
    taken = {UNSURE, SUMMARY, *OWN}
    found = {}
    for name in classes:
        plain = folder = _as_folder(name)
        number = 1
        while _alike(folder) in taken:
            number += 1
            folder = f"{plain}-{number}"
        taken.add(_alike(folder))
        found[name] = folder
    return found


def _as_folder(name: str) -> str:
    safe = "".join(
        "_" if one in '/\\:*?"<>|' or unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp") else one
        for one in name
    )
    plain = shortened(safe, LONGEST_FOLDER).rstrip(". ")
    lonely = not plain or plain.startswith(".") or _is_reserved(plain)
    return f"_{plain}" if lonely else plain


def _is_reserved(name: str) -> bool:
    """Tell whether Windows means a device by that name, with whatever ending."""
    stem = name.partition(".")[0].rstrip().casefold()
    return stem in {"con", "prn", "aux", "nul"} or bool(re.fullmatch("(com|lpt)[0-9¹²³]", stem))


def _alike(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", name).casefold()


def _what_is_at(path: Path) -> str:
    if address(path):
        return "an address on a network"
    return "a file" if path.exists() else "nothing at that path"


def _ground(photos: Path, out: Path, by: str) -> Ground:
    """Raises `FolderError` for no folder, and where one is inside the other."""
    if not photos.is_dir():
        raise FolderError(
            f"{address(photos) or photos} is not a folder",
            found=_what_is_at(photos),
            expected="a folder of photos, in sub-folders or not",
            do="fetch the photos first" if address(photos) else "check the path",
        )
    real, there = Path(os.path.realpath(photos)), Path(os.path.realpath(out))
    _refuse_nested(real, there)
    return Ground(photos=real, out=there, by=by)


def _refuse_nested(photos: Path, out: Path) -> None:
    """Raise `FolderError` where the photos and the folder of sorted ones are not apart."""
    if _is_within(out, photos) or _is_within(photos, out):
        raise FolderError(
            "the photos and the folder to sort them into are one inside the other",
            found=f"photos {photos}, sorted into {out}",
            expected="a folder elsewhere: what was sorted is not to be sorted again",
            do="name one beside them, such as "
            + shell_word(str(photos.parent / (photos.name + "-sorted"))),
        )


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder, whatever the letter case."""
    return any(
        one.exists() and folder.exists() and one.samefile(folder) for one in (path, *path.parents)
    )


def _refuse_shards(found: Paths) -> None:
    packed = (one for one in found.texts() if ".tar" in one.lower() and find(one) is not None)
    first = next(packed, None)
    if first is not None:
        raise FolderError(
            "images in tar files cannot be sorted",
            found=first,
            expected="photos that are files of their own",
            do="unpack the tar files, or `tlkit predict FOLDER --format csv` names their images",
        )


def _refuse_read_only(found: Paths) -> None:
    folders = dict.fromkeys(os.path.dirname(one) for one in found.texts())
    closed = [one for one in folders if not os.access(one, os.W_OK | os.X_OK)]
    if closed:
        raise FolderError(
            "photos cannot be moved out of folders that are read-only",
            found=listing(closed, most=8),
            expected="the permission to write there",
            do="give it, or use --by link or --by copy",
        )


def _looking(options: SortOptions) -> PredictOptions:
    """What of the options says how photos are looked at. Raises `OptionError`."""
    fields = {one.name for one in dataclasses.fields(PredictOptions)} - {
        "reject_below",
        "reject_unlike",
    }
    below, unlike = options.reject_below, _number(options.reject_unlike)
    if options.reject_unlike != "auto" and unlike is None:
        raise OptionError(
            "an option has a value that it cannot have",
            found=f"--reject-unlike {options.reject_unlike}",
            expected="auto, or a number from 0 to 1",
            do="correct the value",
        )
    return PredictOptions(
        **{name: getattr(options, name) for name in fields},
        reject_below="" if below == "auto" or _number(below) == 0 else below,
        reject_unlike=unlike or 0.0,
    )


def _number(text: str) -> float | None:
    """From 0 to 1, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


def _thresholds(
    heads: Sequence[Head], options: SortOptions, looking: PredictOptions
) -> PredictOptions:
    """What `auto` means for these heads.

    Measured (docs/howto/sort.md): precision alone leaves most photos of something else in a class
    folder, and the familiarity alone leaves those between two classes.
    """
    if options.reject_below == "auto":
        looking = replace(looking, reject_below=_below(heads))
    if options.reject_unlike == "auto" and all(one.model.familiar is not None for one in heads):
        looking = replace(looking, reject_unlike=UNLIKE)
    return looking


def _below(heads: Sequence[Head]) -> str:
    if len(heads) > 1:
        return f"{LIKELY}"
    # Shares grow: the last one is what the head comes to at best.
    best = max((share for _, share in heads[0].card.calibration.thresholds), default=0.0)
    return f"{OF_PRECISION}{min(PRECISION, best)!r}" if best > 0 else f"{LIKELY}"


def _asked(heads: Sequence[Head], looking: PredictOptions) -> dict[str, Any]:
    """What must be the same for a sort that goes on."""
    answers = ("tta", "scales", "grid", "mirror", "combine", "head_weights")
    rejects = ("reject_below", "reject_unlike")
    return {
        "heads": [one.card.tensors_sha256 for one in heads],
        **{name: getattr(looking, name) for name in (*answers, *rejects)},
    }


def _fresh(ground: Ground, found: Paths, done: set[str], tally: _Tally) -> Iterator[str]:
    """Paths of the photos that are still to be sorted; those that stay are told."""

    @functools.cache
    def real(folder: str) -> str:
        return os.path.realpath(folder)

    root = os.path.join(ground.photos, "")
    out = os.path.join(ground.out, "")
    for text in found.texts():
        folder, name = os.path.split(text)
        there = os.path.join(real(folder), name)
        file = text[len(root) :]
        if there.startswith(out):
            tally.leave(file, "a link leads into the folder that photos are sorted into")
        elif ground.by != "move":
            if file not in done:
                yield text
        elif os.path.islink(text):
            tally.leave(file, "it is a link: what it leads to may be moved, or not be yours")
        elif not there.startswith(root):
            tally.leave(file, "a link leads to it, out of the folder of photos")
        elif there[len(root) :] in done and not os.path.lexists(there):
            pass  # a stop had left it in both folders, which was put right just now
        else:
            yield there


def _sort(
    ground: Ground, heads: Sequence[Head], looking: PredictOptions, paths: Paths, tally: _Tally
) -> Generator[Tick, None, None]:
    states: dict[int, tuple[State, int]] = {}

    def source(position: int, at_least_px: Detail) -> Pixels:
        path = paths[position]
        try:
            # Heads with networks of their own read it each for themselves: the first one counts.
            status = os.stat(path)
            states.setdefault(position, (state_of(status), status.st_ctime_ns))
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error
        return read(path, at_least_px=at_least_px)

    if not paths:
        return
    check(heads, looking)
    waiting: list[Line] = []
    for position, one in enumerate(ask(heads, looking, len(paths)).predict(paths, source)):
        state = states.pop(position, None)
        if isinstance(one, BadImage) or state is None:
            tally.spoil(one)
        else:
            waiting.append(tally.line(one, *state))
        if len(waiting) == AT_ONCE or position + 1 == len(paths):
            for each in place(ground, waiting):
                tally.take(each)
            waiting.clear()
        yield Tick(what="sorting", done=position + 1, total=len(paths))


@dataclass
class _Tally:
    """Counts while photos go by."""

    classes: tuple[str, ...]
    ground: Ground
    folders: dict[str, str] = field(init=False)
    counts: dict[str, list[float]] = field(init=False)
    """Of each folder: photos, the sum of p, the sum of p (1 - p)."""
    bad: list[BadImage] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folders = folders_of(self.classes)
        self.counts = {one: [0.0, 0.0, 0.0] for one in (*self.folders.values(), UNSURE)}

    def line(self, one: Prediction, state: State, inode_ns: int) -> Line:
        """Where a photo is to go."""
        file = self._file(one.path)
        ((name, likely),) = one.top(1)
        folder = UNSURE if one.unsure else self.folders[name]
        return Line(
            file=file, place=f"{folder}/{file}", state=state, told={"p": likely}, inode_ns=inode_ns
        )

    def _file(self, path: Path) -> str:
        return str(path)[len(os.path.join(self.ground.photos, "")) :].replace(os.sep, "/")

    def add(self, line: Line) -> str:
        """Count a photo that lies in its place; which one it is."""
        # Another head's folders are refused before; a journal may say anything.
        sums = self.counts.get(line.place.partition("/")[0])
        likely = line.told.get("p")
        if sums is not None and isinstance(likely, float):
            sums[0] += 1
            sums[1] += likely
            sums[2] += likely * (1 - likely)
        return line.file

    def take(self, one: Line | Left) -> None:
        """Count what became of a photo."""
        if isinstance(one, Left):
            self.left.append(one)
        else:
            self.add(one)

    def leave(self, file: str, why: str) -> None:
        """A photo stays."""
        self.left.append(Left(file=file, why=why))

    def spoil(self, one: Prediction | BadImage) -> None:
        """A photo could not be read, or has gone since the folder was listed."""
        if isinstance(one, BadImage) and os.path.lexists(one.path):
            self.bad.append(one)
        else:
            self.leave(self._file(one.path), "it is gone")

    def result(self, rule: Rule) -> Sorted:
        """All of it."""
        named = {folder: name for name, folder in self.folders.items()}
        piles = [
            Pile(
                name=named.get(folder, "unsure"),
                folder=folder,
                photos=int(count),
                probability=likely / count if count else None,
                wrong=None if folder == UNSURE else count - likely,
            )
            for folder, (count, likely, _) in self.counts.items()
        ]
        spread = math.sqrt(sum(sums[2] for one, sums in self.counts.items() if one != UNSURE))
        return Sorted(
            photos=self.ground.photos,
            out=self.ground.out,
            by=self.ground.by,
            piles=tuple(piles),
            unreadable=tuple(self.bad),
            left=tuple(self.left),
            likely=rule.likely,
            familiar=rule.familiar,
            wrong_spread=spread,
        )
