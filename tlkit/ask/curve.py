"""Curve: would more photos help? The verb `curve`, from a folder to its learning curve.

In: a folder, the options. Out: events on the way, then a `Curve`: accuracies at growing numbers of
photos, what to expect of more, and which classes need them most.
The photos are shared out evenly; every draw learns from growing shares of all parts but one, and
is judged by that one. So each head is judged by photos that it has not learnt from, and each photo
of the folder judges. A test part of the folder is left alone: it is to judge what was decided with
a curve, and tells the less of it the fewer photos are in it.
Next door: study.py (features and heads), law.py (from points to what is to be expected).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit import runs
from tlkit.ask.law import SURE, Interval, Law, fit_law, interval, luck_of, spread_of
from tlkit.ask.study import Study, study
from tlkit.data.folder import Catalog, scan_parts
from tlkit.data.images import BadImage
from tlkit.data.split import groups
from tlkit.errors import FolderError, OptionError, listing
from tlkit.files import (
    as_path,
    new_folder,
    refuse_occupied,
    refuse_unwritable,
    write_bytes,
    write_text,
)
from tlkit.metrics import logs
from tlkit.options import CurveOptions, FitOptions, own_parameters, signature
from tlkit.report.plots import learning_curve
from tlkit.settings import with_own_settings
from tlkit.steps import finish
from tlkit.train.events import Event, Note, Tick
from tlkit.train.recipe import plan_of, refuse_unknown

PARTS = 5
"""Into so many the photos are shared out; a draw learns from all but one."""

POINTS = 6
"""Numbers of photos, by default."""

FEWEST = 3
"""Photos of a class: two to learn from, one to judge by."""

SOME = 10
"""Photos of each class that are looked at in any case."""

MOST, MOST_OUTPUTS = 8000, 20_000
"""Photos, and photos times classes, that are looked at by default: a head takes seconds then."""

TIMES = (1.0, 2.0, 10.0)
"""Of the folder's photos, for which the accuracy is foretold."""

WORTH = 0.005
"""Half a point: an accuracy that twice the photos raise by less is not helped much."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What heads reached that learnt from so many photos."""

    photos: float
    """Mean over the draws: their parts may differ by a photo."""
    accuracies: tuple[float, ...]
    """Of each draw."""
    accuracy: float
    """Mean over all judgements."""
    spread: float
    """Standard deviation of the draws' accuracies."""
    loss: float
    """Mean cross-entropy in nats."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What to expect of a fit on so many photos like these, judged by photos like these."""

    times: float
    photos: int
    accuracy: Interval
    gain: Interval
    """Over the folder as it is; 0 or more."""


@dataclass(frozen=True, kw_only=True)
class ClassCurve:
    """How one class fares when there are more photos of all."""

    name: str
    photos: int
    recalls: tuple[float, ...]
    """Share of its photos that were called so, at each point."""
    now: Interval
    """Expected recall on the folder as it is."""
    twice: Interval
    """On twice the photos."""
    gain: Interval
    """By how much the second is above the first; 0 or more."""
    sure: float
    """Probability that it gains more than the classes do on average."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A folder's learning curve."""

    folder: Path
    photos: int
    """To learn from in the folder: those of its train part, or all."""
    looked_at: int
    """Of these; --most limits them."""
    points: tuple[Point, ...]
    law: Law
    """To ask for the accuracy at other numbers of photos."""
    forecasts: tuple[Forecast, ...]
    """Of 1, 2 and 10 times the photos."""
    helps: float
    """Probability that twice the photos raise the accuracy by half a point or more."""
    classes: tuple[ClassCurve, ...]
    """Those that would gain most first."""
    bad: tuple[BadImage, ...]
    """Unreadable images that were left out."""

    @property
    def answer(self) -> str:
        """In plain words: would more photos help, how much, and how sure that is."""
        now, twice, _ = self.forecasts
        range_ = f"{_points(twice.accuracy.low)} to {_points(twice.accuracy.high)}"
        expected = (
            f"twice the photos: {_points(twice.accuracy.value)} % ({range_}) "
            f"instead of {_points(now.accuracy.value)} %"
        )
        if self.helps >= 0.5:
            return (
                f"more photos would help. {expected}. "
                f"A gain of half a point or more is {self.helps:.0%} sure."
            )
        return (
            f"more photos will not help much. {expected}. "
            f"A gain of less than half a point is {1 - self.helps:.0%} sure."
        )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """M judgements of photos, each by the heads of one draw, one for every number of photos."""

    photo: NDArray[np.int64]
    """(M,) which photo of the bank."""
    draw: NDArray[np.int64]
    """(M,)"""
    wrong: NDArray[np.float64]
    """(M, S) 1 where the photo was called something else."""
    loss: NDArray[np.float64]
    """(M, S) in nats."""
    photos: NDArray[np.float64]
    """(S,) learnt from, mean over the draws."""


@with_own_settings
def curve_events(
    folder: str | Path, options: CurveOptions | None = None, *, out: str | Path | None = None
) -> Generator[Event, None, Curve]:
    """The learning curve of a folder: yields events, returns the result.

    Where `out` is given, that folder appears when all is done, with curve.json and curve.png, or
    not at all. Raises `TlkitError`.
    """
    options = CurveOptions() if options is None else options
    folder = as_path(folder, "folder")
    fit = _fit_of(options)
    shares = _shares(options)
    place = None if out is None else as_path(out, "out folder")
    if place is not None:
        refuse_occupied(place)
        runs.refuse_among_photos(place, folder)
        refuse_unwritable(place)
    parts = scan_parts(folder)
    whole = parts.train
    _refuse_few(whole)
    if options.group_by:
        groups(whole, options.group_by)  # before minutes are spent
    if left := [name for name in parts.named if name != "train"]:
        yield Note(text=f"the folder's {' and '.join(left)} is left alone: train alone is asked")
    some = _some(whole, options)
    if len(some) < len(whole):
        yield Note(
            text=f"of {len(whole)} photos {len(some)} are looked at, drawn from every class; "
            "what more of them give is foretold (--most)"
        )
    asked = yield from study(fit, [some])
    (bank,) = asked.banks
    _refuse_few(bank.catalog)
    judged = yield from _measure(asked, options, shares)
    result = _told(folder, whole, asked, judged, options)
    if place is not None:
        with new_folder(place) as staged:
            write_text(staged / "curve.json", runs.as_json(as_plain(result, options)))
            write_bytes(staged / "curve.png", picture(result))
    return result


def curve(folder: str | Path, *, out: str | Path | None = None, **options: Any) -> Curve:
    """Tell whether more photos would help: the folder's learning curve, and how it goes on.

    `options` are the fields of `tlkit.CurveOptions`; an unknown one is an error that lists them.
    Nothing is written unless `out` says where. Raises `TlkitError`.
    """
    return finish(curve_events(folder, CurveOptions.of(options), out=out))


curve.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(curve), CurveOptions, returns=Curve
)


def default_out(folder: str | Path, options: CurveOptions) -> Path:
    """runs/FOLDER-BACKBONE-curve, with a number behind it from the second on."""
    return runs.next_free(Path(folder), f"{options.backbone}-curve")


def _fit_of(options: CurveOptions) -> FitOptions:
    """The fit that the heads are asked for. Raises `OptionError`, `UnknownName`."""
    fit = options.narrowed(FitOptions)
    refuse_unknown(fit)
    if plan_of(fit).kind.convex:
        return dataclasses.replace(fit, epochs=options.penalties)
    options.refuse(["penalties"], f"a head that is solved; --head {fit.head} is trained in steps")
    return fit


def _shares(options: CurveOptions) -> tuple[float, ...] | None:
    """The numbers of --fractions; None where the folder decides them. Raises `OptionError`."""
    if options.fractions == "auto":
        return None
    try:
        found = sorted({float(one) for one in options.fractions.split(",")})
    except ValueError:
        found = []
    if len(found) < 3 or not all(0 < one <= 1 for one in found):
        raise OptionError(
            "the fractions are no learning curve",
            found=f"--fractions {options.fractions}",
            expected="auto, or three or more different numbers above 0 and up to 1, with commas "
            "between, such as 0.1,0.3,1",
            do="correct them, or leave them out",
        )
    return tuple(found)


def _refuse_few(catalog: Catalog) -> None:
    """Raise `FolderError` for fewer than two classes, or photos than a curve can be made of."""
    if len(catalog.classes) < 2:
        raise FolderError(
            f"{catalog.root} has one class",
            found=f"only '{catalog.classes[0]}' ({len(catalog)} images)",
            expected="at least two class folders with images",
            do="add a folder for each other class; `others/` will do",
        )
    few = [
        f"{count} in '{name}'"
        for name, count in zip(catalog.classes, catalog.counts.tolist(), strict=True)
        if count < FEWEST
    ]
    if few:
        raise FolderError(
            f"{catalog.root} has classes with too few photos for a learning curve",
            found=listing(few),
            expected=f"at least {FEWEST} photos of each class: two to learn from, one to judge by",
            do="add photos, or remove these folders",
        )


def _some(whole: Catalog, options: CurveOptions) -> Catalog:
    """About --most of the images, the same share of every class and some of each."""
    most = options.most or max(
        SOME * len(whole.classes), min(MOST, MOST_OUTPUTS // len(whole.classes))
    )
    if len(whole) <= most:
        return whole
    taken = []
    for label, count in enumerate(whole.counts.tolist()):
        members = np.flatnonzero(whole.labels == label)
        order = np.random.default_rng([options.seed, label]).permutation(count)
        several = max(min(count, SOME), round(count * most / len(whole)))
        taken.append(members[order[:several]])
    return whole.take(np.sort(np.concatenate(taken)))


def _part_of(
    catalog: Catalog, owner: NDArray[np.int64], options: CurveOptions, turn: int
) -> NDArray[np.int64]:
    """(N,) the part that each image judges with, evenly over the classes; groups are in one."""
    count = min(PARTS, options.draws)
    part = np.empty(len(catalog), np.int64)
    if options.group_by:
        from sklearn.model_selection import StratifiedGroupKFold

        kind = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=options.seed + turn)
        several = len(np.unique(owner))
        if several < count:
            raise _no_way(catalog, f"{several} groups", f"at least {count}, one for every part")
        for number, (_, held) in enumerate(kind.split(catalog.labels, catalog.labels, owner)):
            part[held] = number
        return part
    for label in range(len(catalog.classes)):
        members = np.flatnonzero(catalog.labels == label)
        order = np.random.default_rng([options.seed, turn, label]).permutation(len(members))
        # Classes smaller than the parts do not all leave out the same ones.
        part[members] = (order + label) % count
    return part


def _no_way(catalog: Catalog, found: str, expected: str) -> FolderError:
    return FolderError(
        f"the groups of {catalog.root} cannot be shared out",
        found=found,
        expected=expected,
        do="use a pattern that makes more and smaller groups, or fewer --draws",
    )


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """Photos to learn from, growing, and those to judge by."""

    learn: tuple[NDArray[np.int64], ...]
    judge: NDArray[np.int64]


def _draws(
    catalog: Catalog, owner: NDArray[np.int64], options: CurveOptions, shares: Sequence[float]
) -> Iterator[_Draw]:
    """Each draw's photos. What is learnt from first is also learnt from later."""
    count = min(PARTS, options.draws)
    for number in range(options.draws):
        turn, held = divmod(number, count)
        if held == 0:
            part = _part_of(catalog, owner, options, turn)
        pools = []
        for label in range(len(catalog.classes)):
            pool = np.flatnonzero((catalog.labels == label) & (part != held))
            if len(pool) < 2:
                raise _no_way(
                    catalog,
                    f"{len(pool)} photos of '{catalog.classes[label]}' outside one part",
                    "2 or more photos of each class to learn from in every draw",
                )
            draw = np.random.default_rng([options.seed, number, label, 1])
            pools.append(pool[draw.permutation(len(pool))])
        yield _Draw(
            learn=tuple(
                np.sort(np.concatenate([pool[: _several(len(pool), one)] for pool in pools]))
                for one in shares
            ),
            judge=np.flatnonzero(part == held),
        )


def _several(pool: int, share: float) -> int:
    """Of a class's photos so many, two at least."""
    return min(pool, max(2, round(pool * share)))


def _auto_shares(catalog: Catalog, draws: int) -> tuple[float, ...]:
    """Even steps on a logarithmic scale, from a tenth, or two of a middling class, to all."""
    count = min(PARTS, draws)
    pool = float(np.median(catalog.counts)) * (count - 1) / count
    low = min(0.75, max(0.1, 2 / pool))
    return tuple(float(one) for one in np.geomspace(low, 1, POINTS))


def _distinct(catalog: Catalog, shares: Sequence[float], draws: int) -> tuple[float, ...]:
    """The shares that give different numbers of photos. Raises `FolderError` for two or fewer."""
    count = min(PARTS, draws)
    pools = [max(2, number * (count - 1) // count) for number in catalog.counts.tolist()]
    by_total = {sum(_several(pool, one) for pool in pools): one for one in shares}
    if len(by_total) < 3:
        raise FolderError(
            f"{catalog.root} has too few photos for a learning curve",
            found=f"{len(catalog)} photos of {len(catalog.classes)} classes, which give "
            f"{len(by_total)} numbers of photos to learn from",
            expected="three or more: five photos or so of each class",
            do="add photos, or other --fractions",
        )
    return tuple(by_total[one] for one in sorted(by_total))


def _measure(
    asked: Study, options: CurveOptions, given: tuple[float, ...] | None
) -> Generator[Tick, None, _Judged]:
    """Solve every head of every draw."""
    (bank,) = asked.banks
    catalog = bank.catalog
    shares = _distinct(catalog, given or _auto_shares(catalog, options.draws), draws=options.draws)
    owner = _owners(catalog, options)
    total = options.draws * len(shares)
    photo, of_draw, wrong, loss, sizes = [], [], [], [], []
    for number, one in enumerate(_draws(catalog, owner, options, shares)):
        judge = bank.take(one.judge, views=1)
        labels = judge.labels.numpy()
        mistakes, losses = [], []
        for size, learn in enumerate(one.learn):
            yield Tick(what="heads", done=number * len(shares) + size, total=total)
            rows = asked.told(bank.take(learn, views=1), [judge], seed=options.seed + number)[0]
            mistakes.append(rows.argmax(axis=1) != labels)
            losses.append(-logs(rows[np.arange(len(labels)), labels]))
        photo.append(one.judge)
        of_draw.append(np.full(len(one.judge), number))
        wrong.append(np.stack(mistakes, axis=1).astype(np.float64))
        loss.append(np.stack(losses, axis=1))
        sizes.append([len(learn) for learn in one.learn])
    yield Tick(what="heads", done=total, total=total)
    return _Judged(
        photo=np.concatenate(photo),
        draw=np.concatenate(of_draw),
        wrong=np.concatenate(wrong),
        loss=np.concatenate(loss),
        photos=np.mean(sizes, axis=0),
    )


def _owners(catalog: Catalog, options: CurveOptions) -> NDArray[np.int64]:
    """(N,) the group of each image; each is its own where none are named."""
    return groups(catalog, options.group_by) if options.group_by else np.arange(len(catalog))


def _law(photos: NDArray[np.float64], judged: _Judged, owner: NDArray[np.int64], seed: int) -> Law:
    """The law behind judgements, of photos that belong to these owners (M,)."""
    _, owner = np.unique(owner, return_inverse=True)
    mean, covariance = spread_of(judged.wrong, owner)
    covariance = covariance + np.diag(luck_of(judged.wrong, judged.draw))
    return fit_law(photos, mean, covariance, judged=int(owner.max()) + 1, seed=seed)


def _told(
    folder: Path, whole: Catalog, asked: Study, judged: _Judged, options: CurveOptions
) -> Curve:
    """What the judgements say."""
    (bank,) = asked.banks
    catalog = bank.catalog
    owner = _owners(catalog, options)[judged.photo]
    law = _law(judged.photos, judged, owner, options.seed)
    photos = len(whole) - len(bank.bad)
    now = law.errors(photos)
    gains = law.gains(photos, 2.0)
    return Curve(
        folder=folder,
        photos=photos,
        looked_at=len(catalog),
        points=tuple(_points_of(judged)),
        law=law,
        forecasts=tuple(
            Forecast(
                times=times,
                photos=round(photos * times),
                accuracy=law.accuracy(photos * times),
                gain=interval(now - law.errors(photos * times)),
            )
            for times in TIMES
        ),
        helps=float((gains >= WORTH).mean()),
        classes=_class_curves(whole, catalog, judged, owner, options),
        bad=bank.bad,
    )


def _points_of(judged: _Judged) -> Iterator[Point]:
    draws = [judged.draw == one for one in np.unique(judged.draw)]
    for place, photos in enumerate(judged.photos.tolist()):
        right = 1 - judged.wrong[:, place]
        accuracies = [float(right[one].mean()) for one in draws]
        yield Point(
            photos=photos,
            accuracies=tuple(accuracies),
            accuracy=float(right.mean()),
            spread=float(np.std(accuracies, ddof=1)),
            loss=float(judged.loss[:, place].mean()),
        )


def _class_curves(
    whole: Catalog,
    catalog: Catalog,
    judged: _Judged,
    owner: NDArray[np.int64],
    options: CurveOptions,
) -> tuple[ClassCurve, ...]:
    """Of every class, those that gain most first. All are foretold over the same total numbers."""
    label = catalog.labels[judged.photo]
    laws, recalls = [], []
    for one in range(len(catalog.classes)):
        own = label == one
        part = dataclasses.replace(
            judged,
            photo=judged.photo[own],
            draw=judged.draw[own],
            wrong=judged.wrong[own],
            loss=judged.loss[own],
        )
        laws.append(_law(judged.photos, part, owner[own], options.seed + one))
        recalls.append(tuple((1 - part.wrong.mean(axis=0)).tolist()))
    gains = np.stack([law.gains(len(whole), 2.0) for law in laws])
    average = gains.mean(axis=0)
    found = [
        ClassCurve(
            name=catalog.classes[one],
            photos=int(whole.counts[one]),
            recalls=recalls[one],
            now=law.accuracy(len(whole)),
            twice=law.accuracy(2 * len(whole)),
            gain=interval(gains[one]),
            sure=float((gains[one] > average).mean()),
        )
        for one, law in enumerate(laws)
    ]
    return tuple(sorted(found, key=lambda one: (-one.gain.value, one.name)))


def as_plain(result: Curve, options: CurveOptions) -> dict[str, Any]:
    """As JSON takes it: all of it, with what was asked."""
    a, b, c = result.law.best
    return {
        "folder": str(result.folder),
        "given": options.changed(),
        "options": dataclasses.asdict(options),
        "photos": result.photos,
        "looked_at": result.looked_at,
        "answer": result.answer,
        "sure_of_half_a_point": result.helps,
        "interval": SURE,
        "points": [dataclasses.asdict(one) for one in result.points],
        "law": {
            "error": "a + b * photos^-c",
            "a": a,
            "b": b,
            "c": c,
            "c_interval": dataclasses.asdict(interval(result.law.exponent)),
            "misfit": result.law.misfit,
        },
        "forecasts": [dataclasses.asdict(one) for one in result.forecasts],
        "classes": [dataclasses.asdict(one) for one in result.classes],
        "skipped_images": len(result.bad),
        "unreadable": [f"{one.path}: {one.reason}" for one in result.bad],
    }


def picture(result: Curve) -> bytes:
    """PNG of the points, and of the law from the first of them to ten times the photos."""
    at = np.geomspace(result.points[0].photos, result.photos * TIMES[-1], 60)
    band = [result.law.accuracy(float(one)) for one in at]
    return learning_curve(
        [one.photos for one in result.points],
        [one.accuracies for one in result.points],
        at.tolist(),
        [(one.low, one.value, one.high) for one in band],
        measured=result.points[-1].photos,
        total=result.photos,
    )
