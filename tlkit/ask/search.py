"""Search: which backbone, pooling and head for these photos?

In: a folder, which backbones, how long. Out: events on the way, then a `Found`.
Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943) with photos as what is spent: all
candidates are cross-validated on a share of the photos, the better half on three times as many, and
the last of them on all. What is recommended is judged by photos that took part in no choice. A val
or test part of the folder is not looked at.
Next door: candidates.py (who is tried), trial.py (one of them), tlkit/fitting.py, which fits what
was found (`--backbone auto`).
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlkit import runs
from tlkit.ask.candidates import Candidate, NotTried, candidates
from tlkit.ask.clock import Clock, OutOfTime, seconds_of
from tlkit.ask.trial import Entrant, Score, behind, crossed, enter
from tlkit.card import versions
from tlkit.data.folder import Catalog, Parts, scan_parts
from tlkit.data.geometry import detail
from tlkit.data.images import BadImage, refuse
from tlkit.data.pixels import Room, Shared
from tlkit.data.split import Splits, folds, groups, split
from tlkit.errors import (
    DiskError,
    FolderError,
    ImageError,
    OptionError,
    TlkitError,
    briefly,
    few,
    listing,
    machine_error,
)
from tlkit.files import (
    as_path,
    new_folder,
    refuse_occupied,
    refuse_unwritable,
    write_bytes,
    write_text,
)
from tlkit.metrics import Evaluation, measure
from tlkit.options import FitOptions, SearchOptions, declared, own_parameters, signature
from tlkit.report.plots import front
from tlkit.settings import with_own_settings
from tlkit.steps import Result, finish, passed
from tlkit.train.events import Event, Note, Tick
from tlkit.train.feeds import readable

FOLDS = 5
FIRST = 60
"""Photos of the first round, at least; and `FIRST_EACH` of each class."""
FIRST_EACH = 5
GROWTH = 3
"""Times as many photos in each round as in the one before it."""

FINALISTS = 3
"""Of which the poolings and heads are tried, and so many at least go on from every round."""

CLEARLY = 2.0
"""Standard errors: who is further behind the best than that does not go on."""

WORTH = 0.005
"""Accuracy that speed may cost, at most, where it cannot be told from none."""

HEADS = ("linear", "mlp")

MOST_BYTES = 1 << 30
"""Of networks that stay in memory from round to round; the others are built anew."""

FAILED = "failed"
"""What the outcome of a candidate begins with that cannot be recommended any more."""

DRAWN = 0x5EA2C4
"""Sets the shares of the rounds apart from what else is drawn with the same seed."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate, and how far it came."""

    name: str
    weights: str
    control: bool
    """Random weights: never recommended."""
    scores: tuple[Score, ...]
    """Of its poolings and heads, on the most photos that it came to; the one that counts first."""
    images_per_second: float
    """Of the network, without reading photos: the fastest of a few batches."""
    weights_bytes: int
    outcome: str
    """`in full`, or why it went no further."""
    in_full: bool
    front: bool
    """Whether no other one in full is both as accurate and faster, or more accurate and as fast."""

    @property
    def label(self) -> str:
        """NAME, or NAME=WEIGHTS where they are not its default ones."""
        return self.name if self.weights == "default" else f"{self.name}={self.weights}"

    @property
    def score(self) -> Score:
        """The one that counts."""
        return self.scores[0]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search has found."""

    folder: Path
    best: Tried
    """The recommendation."""
    reason: str
    judged: Evaluation
    """Of the recommendation, on photos that took part in no choice."""
    tried: tuple[Tried, ...]
    """The most accurate first, those that came further before the others."""
    not_tried: tuple[NotTried, ...]
    photos: int
    """That chose."""
    rounds: tuple[int, ...]
    """Photos of each round."""
    bad: tuple[BadImage, ...]
    """Unreadable images that were left out."""
    asked: Mapping[str, Any]
    """Options of the search that a fit has too, where they are not the defaults of `fit`."""
    wall_s: float
    out: Path | None
    """Where it is written down."""

    @property
    def changes(self) -> dict[str, str]:
        """The options of a fit that it stands for, where they are not the defaults of `fit`."""
        own = {
            "backbone": self.best.name,
            "weights": self.best.weights,
            "pool": self.best.score.pool,
            "head": self.best.score.head,
        }
        default = dataclasses.asdict(FitOptions())
        return {
            name: one for name, one in own.items() if name == "backbone" or one != default[name]
        }

    @property
    def command(self) -> str:
        """The fit to go on with."""
        options = {**self.changes, **self.asked}
        flags = [
            word
            for one in declared(FitOptions)
            if one.name in options
            for word in (one.flag, str(options[one.name]))
        ]
        return shlex.join(["tlkit", "fit", str(self.folder), *flags])


@with_own_settings
def search_events(
    folder: str | Path,
    options: SearchOptions | None = None,
    *,
    out: str | Path | None = None,
    heads: Sequence[str] = HEADS,
) -> Generator[Event, None, Found]:
    """Try backbones on the training images of a folder: yields events, returns what was found.

    Where `out` is given, that folder appears when all is done, with search.json and search.png, or
    not at all. `heads` are those that are tried, the first for all. Raises `TlkitError`.
    """
    options = SearchOptions() if options is None else options
    folder = as_path(folder, "folder")
    clock = Clock(seconds_of(options.time))
    place = None if out is None else as_path(out, "out folder")
    if place is not None:
        refuse_occupied(place)
        runs.refuse_among_photos(place, folder)
        refuse_unwritable(place)
    parts = scan_parts(folder)
    whole = Parts(train=parts.train, val=None, test=None)
    nested = split(
        whole, val_fraction=options.val_fraction, seed=options.seed, group_by=options.group_by
    )
    _refuse_few(nested.train)
    tried, left = candidates(options)
    yield from _beginning(parts, nested, tried, left)
    if options.on_bad == "error":
        yield from _refuse_unreadable(nested, options)
    race = _Race(options, clock, nested, images=sum(map(len, parts.named.values())), heads=heads)
    race.left += left
    yield from race.run(tried)
    found = yield from race.end(folder)
    if place is not None:
        found = replace(found, out=place)
        with new_folder(place) as staged:
            write_text(staged / "search.json", runs.as_json(as_plain(found, options)))
            write_bytes(staged / "search.png", picture(found))
    return found


def _beginning(
    parts: Parts, nested: Splits, tried: Sequence[Candidate], left: Sequence[NotTried]
) -> Iterator[Note]:
    yield Note(
        text=f"{len(tried)} backbones to try on {len(nested.train)} photos; {len(nested.val)} that "
        "choose nothing judge the recommendation"
    )
    if aside := [name for name in parts.named if name != "train"]:
        yield Note(text=f"not looked at, so that it can judge the fit: {' and '.join(aside)}")
    if left:
        yield Note(text=f"not tried: {few([one.name for one in left])}")


def _refuse_unreadable(nested: Splits, options: SearchOptions) -> Generator[Event, None, None]:
    """Raise `ImageError` now: those that judge, and many that choose, are looked at last, when all
    the time is spent.
    """
    found: list[BadImage] = []
    for part in (nested.train, nested.val):
        _, bad = yield from readable(part, workers=options.workers)
        found += bad
    refuse(found)


def _refuse_few(chosen: Catalog) -> None:
    small = [
        f"{count} in '{name}'"
        for name, count in zip(chosen.classes, chosen.counts, strict=True)
        if count < 3
    ]
    if small:
        raise FolderError(
            f"{chosen.root} has too few images to choose a backbone by",
            found=listing([f"{one}, besides those that judge" for one in small]),
            expected="at least 3 of each class: two to learn from and one to be told by",
            do="add images, or choose a backbone yourself: tlkit fit FOLDER --backbone NAME",
        )


@dataclass
class _Run:
    """A candidate on its way."""

    candidate: Candidate
    scores: list[Score] = field(default_factory=list)
    """On the photos of the last round that it came through; the one that counts first."""
    speed: float = 0.0
    weights_bytes: int = 0
    build_s: float = 0.0
    photo_s: float = 0.0
    """Of running the network over one photo."""
    score_s: float = 0.0
    """Of cross-validating one head on the photos of the last round."""
    outcome: str = ""

    @property
    def label(self) -> str:
        return self.candidate.label


class _Race:
    """A search while it lasts."""

    def __init__(
        self,
        options: SearchOptions,
        clock: Clock,
        nested: Splits,
        *,
        images: int,
        heads: Sequence[str],
    ) -> None:
        self.options, self.clock, self.nested = options, clock, nested
        self.heads = tuple(heads)
        self.left: list[NotTried] = []
        self.bad: list[BadImage] = []
        self.live: dict[str, Entrant] = {}
        self.runs: list[_Run] = []
        self.sizes = _sizes(len(nested.train), len(nested.train.classes))
        self._images = images
        self._fit = replace(
            options.narrowed(FitOptions), backbone=FitOptions().backbone, head=self.heads[0]
        )

    # -- the rounds -----------------------------------------------------------------------------

    def run(self, tried: Sequence[Candidate]) -> Generator[Event, None, None]:
        """All rounds, and the poolings and heads of the finalists, as far as the time reaches."""
        # Controls last: the time is for the others.
        self.runs = [_Run(candidate=one) for one in sorted(tried, key=lambda one: one.control)]
        going = list(self.runs)
        chosen = self.nested.train
        for number, size in enumerate(self.sizes):
            catalog = chosen if size == len(chosen) else self._part(chosen, size)
            scored = yield from self._round(going, catalog, first=number == 0)
            if not scored:
                break
            going = sorted(scored, key=lambda one: one.scores[0].order)
            if size < len(chosen):
                going = self._better(going, size)
                self._drop(going)
        yield from self._finals()

    def _round(
        self, going: Sequence[_Run], catalog: Catalog, *, first: bool
    ) -> Generator[Event, None, list[_Run]]:
        """Those that were scored on these photos; of the others the outcome says why not."""
        read = Shared(
            {detail(one.candidate.input) for one in self.runs},
            Room("ram", int(self.options.cache_gb * 1e9)),
        )
        splits: list[Splits] = []
        scored = []
        for place, one in enumerate(going):
            # Of what is left each gets its share in the first round, where nothing is known yet.
            share = self.clock.left / (len(going) - place + 1) if first else self.clock.left
            share = min(share, self.clock.left - self._to_judge())
            why = self._too_long(one, len(catalog), share)
            if not why:
                why = yield from self._attempt(one, catalog, splits, read, share)
            if why:
                one.outcome = why
                yield Note(text=f"{one.label}: {why}")
                continue
            scored.append(one)
            one.outcome = f"came as far as {len(catalog)} photos"
            best = one.scores[0]
            yield Note(
                text=f"{one.label}: {best.accuracy:.1%} on {best.photos} photos, "
                f"{one.speed:.0f} images/s"
            )
            if best.photos < len(catalog):
                catalog = catalog.take(
                    np.flatnonzero(np.isin(list(catalog.files), list(best.files)))
                )
        return scored

    def _too_long(self, one: _Run, photos: int, share: float) -> str:
        """Why a candidate is not begun with, by what it has taken before; empty where it is."""
        if self.clock.left <= 0:
            return "the time was over"
        if not one.scores:
            return ""
        seconds = self._expected(one, photos)
        return "" if seconds <= share else _too_slow(one, photos, seconds, share)

    def _expected(self, one: _Run, photos: int) -> float:
        """Seconds that a round of so many photos will take."""
        more = photos - one.scores[0].photos
        build = 0.0 if one.label in self.live else one.build_s
        return build + one.photo_s * more + one.score_s * photos / one.scores[0].photos

    def _to_judge(self) -> float:
        """Seconds that judging the best one so far will take."""
        scored = [one for one in self.runs if one.scores and not one.candidate.control]
        if not scored:
            return 0.0
        best = min(scored, key=lambda one: one.scores[0].order)
        build = 0.0 if best.label in self.live else best.build_s
        photos = best.scores[0].photos
        head = best.score_s / FOLDS * len(self.nested.train) / photos
        return 1.5 * (build + best.photo_s * len(self.nested.val) + head)

    def _attempt(
        self,
        one: _Run,
        catalog: Catalog,
        splits: list[Splits],
        read: Shared,
        share: float,
    ) -> Generator[Event, None, str]:
        """Score a candidate on these photos; why that could not be, or nothing."""
        until = self.clock.left - share

        def steps() -> Generator[Event, None, str]:
            began = self.clock.gone
            entrant = yield from self._enter(one)
            lacking = entrant.lacking(catalog)
            seconds = lacking / one.speed
            if began + share < self.clock.gone + seconds:
                return _too_slow(one, lacking, seconds, self.clock.left - until)
            began = self.clock.gone
            bank = yield from entrant.fill(catalog, read)
            if lacking:
                one.photo_s = (self.clock.gone - began) / lacking
            self._note_bad(bank.bad)
            if not splits:
                splits.extend(self._folds(bank.catalog))
            began = self.clock.gone
            study = yield from entrant.study("keep", self.heads[0], bank.catalog)
            score = yield from crossed(
                study, splits, seed=self.options.seed, what=f"{one.label}, heads"
            )
            one.score_s = self.clock.gone - began
            one.scores = [score]
            return ""

        return (yield from self._caught(one, steps, keep=max(0.0, until)))

    def _caught(
        self,
        one: _Run,
        steps: Callable[[], Generator[Event, None, str]],
        *,
        keep: float,
    ) -> Generator[Event, None, str]:
        """The same, or why it failed: what is wrong with a candidate does not stop the others."""
        try:
            return (yield from _ticks(self.clock.within(steps(), keep=keep)))
        except OutOfTime:
            return "the time was over before it was done"
        except (DiskError, ImageError, FolderError):
            raise  # the machine's fault or the folder's: the next one would meet it too
        except Exception as error:  # a stranger's network raises whatever it likes
            if isinstance(lacking := machine_error(error), DiskError):
                raise lacking from error
            self.live.pop(one.label, None)
            return f"{FAILED}: {_told(error)}"

    def _enter(self, one: _Run) -> Generator[Event, None, Entrant]:
        """The candidate's network, built and timed unless it is there."""
        if one.label in self.live:
            return self.live[one.label]
        began = self.clock.gone
        entrant = enter(one.candidate, self._fit, self.nested.train, self._images)
        one.speed = yield from entrant.speed(self.options.seed)
        one.build_s = self.clock.gone - began
        one.weights_bytes = entrant.weights_bytes
        size = {each.label: each.weights_bytes for each in self.runs}
        while self.live and sum(size[name] for name in [*self.live, one.label]) > MOST_BYTES:
            self.live.pop(next(iter(self.live)))
        self.live[one.label] = entrant
        return entrant

    def _drop(self, going: Sequence[_Run]) -> None:
        """Let go of the networks that are out."""
        labels = {one.label for one in going}
        self.live = {name: one for name, one in self.live.items() if name in labels}

    def _note_bad(self, bad: Sequence[BadImage]) -> None:
        there = {one.path for one in self.bad}
        self.bad += [one for one in bad if one.path not in there]

    def _better(self, ranked: Sequence[_Run], size: int) -> list[_Run]:
        """Who goes on: the better half of these, best first, less who is clearly behind.

        Controls, which cannot be recommended, take nobody's place and are nobody's yardstick.
        """
        real = [one for one in ranked if not one.candidate.control]
        controls = [one for one in ranked if one.candidate.control]
        best = (real or controls)[0].scores[0]
        going = []
        for some in (real, controls):
            most = max(math.ceil(len(some) / 2), FINALISTS)
            for place, one in enumerate(some):
                less, error = behind(one.scores[0], best)
                if less > CLEARLY * error and less > 0:
                    one.outcome = f"clearly behind on {size} photos"
                elif place >= most:
                    one.outcome = f"not in the better half on {size} photos"
                else:
                    going.append(one)
        return sorted(going, key=ranked.index)

    def _part(self, catalog: Catalog, size: int) -> Catalog:
        """A share of the photos, about `size`; a larger one holds every smaller one."""
        found = []
        for label, count in enumerate(catalog.counts):
            members = np.flatnonzero(catalog.labels == label)
            order = np.random.default_rng([DRAWN, self.options.seed, label]).permutation(count)
            wanted = max(FIRST_EACH, round(size * count / len(catalog)))
            found.append(members[order[:wanted]])
        return catalog.take(np.sort(np.concatenate(found)))

    def _folds(self, catalog: Catalog) -> tuple[Splits, ...]:
        """Of these photos: five, or as many as the smallest class has images, or groups."""
        pattern = self.options.group_by
        group = groups(catalog, pattern) if pattern else np.arange(len(catalog))
        several = [len(np.unique(group[catalog.labels == one])) for one in set(catalog.labels)]
        whole = Parts(train=catalog, val=None, test=None)
        count = max(2, min(FOLDS, *several))
        return folds(whole, count=count, seed=self.options.seed, group_by=pattern)

    # -- the finalists --------------------------------------------------------------------------

    def _furthest(self) -> list[_Run]:
        """Those with scores on the most photos that any but a control came to, the most accurate
        first.
        """
        scored = [one for one in self.runs if one.scores and not one.outcome.startswith(FAILED)]
        real = [one for one in scored if not one.candidate.control]
        most = max((one.scores[0].photos for one in real), default=0)
        last = [one for one in scored if one.scores[0].photos == most]
        return sorted(last, key=lambda one: one.scores[0].order)

    def _finals(self) -> Generator[Event, None, None]:
        """Other poolings and heads of the best, from the features that are there."""
        ranked = [one for one in self._furthest() if not one.candidate.control]
        if ranked:
            best = ranked[0].scores[0]
            near = [one for one in ranked if _near(one.scores[0], best, CLEARLY)]
            for one in near[:FINALISTS]:
                yield from self._variants(one)

    def _variants(self, one: _Run) -> Generator[Event, None, None]:
        """The poolings with the first head, then the best of them with the others."""
        plain = one.scores[0]
        catalog = self.nested.train.take(
            np.flatnonzero(np.isin(list(self.nested.train.files), list(plain.files)))
        )
        splits = self._folds(catalog)

        def steps() -> Generator[Event, None, str]:
            entrant = yield from self._enter(one)
            pools = [(pool, self.heads[0]) for pool in entrant.pools[1:]]
            for pool, head in pools:
                yield from score(entrant, pool, head)
            pool = _settled(one.scores).pool
            for head in self.heads[1:]:
                yield from score(entrant, pool, head)
            return ""

        def score(entrant: Entrant, pool: str, head: str) -> Generator[Event, None, None]:
            study = yield from entrant.study(pool, head, catalog)
            what = f"{one.label}, {pool}, {head}"
            one.scores.append(
                (yield from crossed(study, splits, seed=self.options.seed, what=what))
            )

        why = yield from self._caught(one, steps, keep=max(0.0, self._to_judge()))
        if why:
            yield Note(text=f"{one.label}: not all of its poolings and heads were tried: {why}")
        best = _settled(one.scores)
        one.scores.sort(key=lambda each: (each is not best, each.order))

    # -- the end --------------------------------------------------------------------------------

    def end(self, folder: Path) -> Generator[Event, None, Found]:
        """Choose, and have the choice judged by the photos that have not been seen."""
        last = self._furthest()
        real = [one for one in last if not one.candidate.control]
        if not real:
            raise self._nothing()
        pick, reason = _recommended(real)
        best_control = next((one for one in last if one.candidate.control), None)
        if best_control is not None:
            less, error = behind(best_control.scores[0], pick.scores[0])
            if less <= error:
                reason += (
                    f". {best_control.label}, with random weights, tells these photos as well: "
                    "colours or simple patterns give the classes away"
                )
        most = self.sizes[-1] - len(self.bad)  # before more are met, of those that judge
        judged = yield from self._judged(pick)
        full = {one.label for one in last}
        ahead = _front([one for one in last if not one.candidate.control])
        tried = [
            Tried(
                name=one.candidate.name,
                weights=one.candidate.weights,
                control=one.candidate.control,
                scores=tuple(one.scores),
                images_per_second=one.speed,
                weights_bytes=one.weights_bytes,
                outcome="in full" if one.scores[0].photos == most else one.outcome,
                in_full=one.label in full,
                front=one.label in ahead,
            )
            for one in self.runs
            if one.scores
        ]
        tried.sort(key=lambda one: (-one.score.photos, one.score.order))
        (best,) = (one for one in tried if one.label == pick.label)
        never = [NotTried(name=one.label, why=one.outcome) for one in self.runs if not one.scores]
        return Found(
            folder=folder,
            best=best,
            reason=reason,
            judged=judged,
            tried=tuple(tried),
            not_tried=(*never, *self.left),
            photos=best.score.photos,
            rounds=tuple(self.sizes),
            bad=tuple(self.bad),
            asked=_asked(self.options),
            wall_s=self.clock.gone,
            out=None,
        )

    def _judged(self, pick: _Run) -> Generator[Event, None, Evaluation]:
        """What the recommended head makes of the photos that took part in no choice."""
        read = Shared({detail(pick.candidate.input)}, Room("none", 0))
        best, names = pick.scores[0], set(pick.scores[0].files)
        learnt = np.array([one in names for one in self.nested.train.files])
        entrant = yield from _ticks(self._enter(pick))
        bank = yield from _ticks(entrant.fill(self.nested.val, read))
        self._note_bad(bank.bad)
        learn = self.nested.train.take(np.flatnonzero(learnt))
        study = yield from _ticks(entrant.study(best.pool, best.head, learn))
        other = yield from _ticks(entrant.study(best.pool, best.head, bank.catalog))
        (rows,) = study.told(study.banks[0], other.banks, seed=self.options.seed)
        return measure(other.banks[0].labels.numpy(), rows, learn.classes)

    def _nothing(self) -> TlkitError:
        """The error for a search that has found nothing to recommend."""
        lines = [f"{one.label}: {one.outcome}" for one in self.runs]
        return OptionError(
            "no backbone could be scored",
            found=listing(lines, most=8),
            expected="at least one that comes through the first round",
            do="give it more --time, or name fewer and faster ones with --backbone",
        )


def _asked(options: SearchOptions) -> dict[str, Any]:
    """What is asked of a search and is to be asked of the fit behind it."""
    given, default = dataclasses.asdict(options), FitOptions()
    return {
        one.name: given[one.name]
        for one in declared(FitOptions)
        if one.name in given and one.name != "backbone"
        if given[one.name] != getattr(default, one.name)
    }


def _ticks(steps: Generator[Event, None, Result]) -> Generator[Event, None, Result]:
    """The same without notes: what each engine is, and why, would be told for every candidate."""
    return passed(steps, lambda event: [event] if isinstance(event, Tick) else [])


def _told(error: Exception) -> str:
    """In a line."""
    if isinstance(error, TlkitError):
        return f"{error.about}: {error.found}".replace("\n", " ")
    return briefly(error)


def _too_slow(one: _Run, photos: int, seconds: float, there: float) -> str:
    return (
        f"not enough time: {photos} photos would take it about {seconds:.0f} s at "
        f"{one.speed:.3g} images/s, and there were {max(0.0, there):.0f} s"
    )


def _sizes(photos: int, classes: int) -> list[int]:
    """Photos of each round, the last of them all."""
    first = max(FIRST, FIRST_EACH * classes)
    sizes = [photos]
    while sizes[0] / GROWTH >= first:
        sizes.insert(0, round(sizes[0] / GROWTH))
    return sizes


def _near(one: Score, best: Score, errors: float) -> bool:
    less, error = behind(one, best)
    return less <= errors * error


def _settled(scores: Sequence[Score]) -> Score:
    """The pooling and head that count: the first, unless another one is measurably better."""
    best = min(scores, key=lambda one: one.order)
    less, error = behind(scores[0], best)
    # By one photo, `less` is the error itself.
    return best if less > error + 1e-9 else scores[0]


def _recommended(real: Sequence[_Run]) -> tuple[_Run, str]:
    """Which of those that were scored on the same photos, and why."""
    best = min(real, key=lambda one: one.scores[0].order)
    near = []
    for one in real:
        less, error = behind(one.scores[0], best.scores[0])
        if less <= min(error + 1e-9, WORTH):
            near.append((one, less))
    pick, less = max(near, key=lambda each: each[0].speed)
    if pick is best:
        return pick, "the most accurate" + (
            "" if len(near) > 1 or len(real) == 1 else "; no other is within reach of it"
        ) + (", and the fastest of those that are as good" if len(near) > 1 else "")
    return pick, (
        f"the fastest of the {len(near)} that are within one standard error, and within "
        f"{WORTH:.1%}, of {best.label}, the most accurate: {pick.speed / best.speed:.1f} times "
        f"as fast for {100 * less:.1f} points"
    )


def _front(real: Sequence[_Run]) -> set[str]:
    """The Pareto front of accuracy against speed."""

    def beats(one: _Run, other: _Run) -> bool:
        ours, theirs = one.scores[0].accuracy, other.scores[0].accuracy
        no_worse = ours >= theirs and one.speed >= other.speed
        return no_worse and (ours > theirs or one.speed > other.speed)

    return {one.label for one in real if not any(beats(other, one) for other in real)}


def picture(found: Found) -> bytes:
    """Search.png: accuracy against speed."""
    last = [one for one in found.tried if one.in_full]
    return front(
        [one.label for one in last],
        [one.images_per_second for one in last],
        [(one.score.accuracy, one.score.accuracy_low, one.score.accuracy_high) for one in last],
        ahead=[one.label for one in last if one.front],
        pick=found.best.label,
    )


def as_plain(found: Found, options: SearchOptions) -> dict[str, Any]:
    """Search.json."""
    return {
        "folder": str(found.folder),
        "given": options.changed(),
        "options": dataclasses.asdict(options),
        "recommended": found.best.label,
        "changes": found.changes,
        "command": found.command,
        "reason": found.reason,
        "judged": found.judged.plain(),
        "photos": found.photos,
        "rounds": list(found.rounds),
        "tried": [_as_row(one) for one in found.tried],
        "not_tried": [dataclasses.asdict(one) for one in found.not_tried],
        "skipped_images": len(found.bad),
        "unreadable": [{"path": str(one.path), "reason": one.reason} for one in found.bad],
        "method": "cross-validated on training images; accuracy_low and accuracy_high are Wilson's "
        "95 % interval over the photos, fold_std the standard deviation over the folds",
        "wall_s": found.wall_s,
        "versions": versions(),
    }


def _as_row(one: Tried) -> dict[str, Any]:
    row = {
        each.name: getattr(one, each.name)
        for each in dataclasses.fields(one)
        if each.name != "scores"
    }
    return row | {"scores": [_as_score(each) for each in one.scores]}


def _as_score(one: Score) -> dict[str, Any]:
    names = [each.name for each in dataclasses.fields(one) if each.name not in ("right", "files")]
    return {name: getattr(one, name) for name in names}


def default_out(folder: str | Path) -> Path:
    """runs/FOLDER-search, with a number behind it from the second on."""
    return runs.next_free(Path(folder), "search")


def search(folder: str | Path, *, out: str | Path | None = None, **options: Any) -> Found:
    """Which backbone, pooling and head for the photos of this folder: a `Found`.

    `options` are the fields of `tlkit.SearchOptions`; an unknown one is an error that lists them.
    Nothing is written unless `out` says where. Raises `TlkitError`.
    """
    return finish(search_events(folder, SearchOptions.of(options), out=out))


search.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(search), SearchOptions, returns=Found
)
