"""Compare: which of several heads is better, on images that none has learnt from.

In: two or more heads, or runs; a folder with known classes, or the test part of the folder that
they were fitted on. Out: a `Comparison`: scores, the difference of each two with its interval and p
value (paired.py), what each costs, and where they disagree. The heads of a cross-validation count
as one. They look at the images in turns, block by block, so that what else the machine does, it
does to all.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit import artifact, runs
from tlkit.artifact import Head
from tlkit.ask.paired import (
    LEVEL,
    accuracy_interval,
    holm,
    images_needed,
    interval,
    mcnemar,
)
from tlkit.data.batches import even_parts
from tlkit.data.folder import Catalog, Parts, scan_for_judging, scan_parts
from tlkit.data.images import BadImage, refuse
from tlkit.errors import FolderError, OptionError, listing, shell_word
from tlkit.files import (
    as_path,
    new_folder,
    refuse_occupied,
    refuse_unwritable,
    write_bytes,
    write_text,
)
from tlkit.metrics import Evaluation, logs, measure
from tlkit.options import CompareOptions, PredictOptions, own_parameters, signature
from tlkit.predict.ensemble import Asked, ask, check, match
from tlkit.report.plots import comparison
from tlkit.report.sheet import Group, Shown, sheet
from tlkit.settings import with_own_settings
from tlkit.steps import finish
from tlkit.train.events import Event, Note, Tick

JSON, PICTURE, PAGE = "compare.json", "compare.png", "index.html"

TURNS = 10
"""Each head's, at the images."""
LEAST_OF_TURN = 32
"""Images; fewer would time the start of a pass."""

MOST_SHOWN = 60
"""Photos of a group on the page."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A head, or the heads of a run that are asked together, and how it fared."""

    name: str
    files: tuple[Path, ...]
    scores: Evaluation
    images_per_s: float
    slowest: float
    fastest: float
    """Images per second over all turns, and in the slowest and the fastest of them."""
    head_bytes: int
    """Of the head files."""
    parameters: int
    weights_bytes: int
    """Of all that is in memory: parameters and buffers."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two contestants on the same images; differences are the first's less the second's."""

    names: tuple[str, str]
    """The one with more right answers first."""
    images: int
    alone: tuple[int, int]
    """Images that the first alone, and the second alone, is right of."""
    accuracy: float
    accuracy_95: tuple[float, float]
    loss: float
    """Of the mean log loss in nats: negative where the first's is the lower."""
    loss_95: tuple[float, float]
    p: float
    """Of McNemar's exact test."""
    p_holm: float
    """The same, corrected for the number of pairs."""
    needed: int | None
    """Images that would tell the two apart; None where there is no difference."""

    @property
    def apart(self) -> bool:
        """Whether the images tell the two apart."""
        return self.p_holm < LEVEL

    def __str__(self) -> str:
        first, second = self.names
        points = (
            f"{100 * self.accuracy:+.1f} points ({100 * self.accuracy_95[0]:.1f} to "
            f"{100 * self.accuracy_95[1]:.1f}), p = {self.p_holm:.2g}"
        )
        if self.apart:
            return f"{first} is better than {second}: {points}"
        if self.needed is None:
            return f"{self.images} images do not tell {first} and {second} apart: {points}"
        return (
            f"{self.images} images do not tell {first} and {second} apart: {points}; "
            f"about {_rounded(self.needed)} would, if they differ as here"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What N images say of several heads."""

    folder: Path
    """Of the images."""
    contestants: tuple[Contestant, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    """What is not as it should be."""
    files: tuple[str, ...]
    """N, below the folder."""
    labels: NDArray[np.int64] = field(repr=False)
    """(N,), as the first contestant's classes are ordered."""
    probabilities: NDArray[np.float64] = field(repr=False)
    """(N, contestants, C)"""
    bad: tuple[BadImage, ...]


def compare(
    heads: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    weights: str | Path = "",
    **options: Any,
) -> Comparison:
    """Hold two or more heads, or run folders, against each other on the same images.

    `options` are the fields of `tlkit.CompareOptions`. Where `out` is given, that folder appears
    with all of it. Raises `TlkitError`; `tlkit.compare_events` does the same step by step.
    """
    return finish(compare_events(heads, CompareOptions.of(options), out=out, weights=weights))


compare.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(compare), CompareOptions, returns=Comparison
)


@with_own_settings
def compare_events(
    heads: Sequence[str | Path],
    options: CompareOptions | None = None,
    *,
    out: str | Path | None = None,
    weights: str | Path = "",
) -> Generator[Event, None, Comparison]:
    """The same step by step: yields `Tick`s and `Note`s, returns what `compare` does."""
    options = CompareOptions() if options is None else options
    named = runs.as_paths(heads, "head")
    if len(named) < 2:
        raise OptionError(
            "there is nothing to compare",
            found=f"{len(named)} of the heads or runs that it takes",
            expected="two or more",
            do="name another one; `tlkit evaluate FOLDER` judges one alone",
        )
    place = None if out is None else as_path(out, "out folder")
    if place is not None:
        refuse_occupied(place)
        refuse_unwritable(place)
    files = [runs.heads_in(one) for one in named]
    catalog, notes = _catalog(named, options.on)
    for text in notes:
        yield Note(text=text)
    if place is not None:
        runs.refuse_among_photos(place, catalog.root)
    loaded = [artifact.load_all(some, weights=str(weights)) for some in files]
    names = runs.short_names([one / runs.HEAD if one.is_dir() else one for one in named])
    result = yield from _compared(names, loaded, catalog, options, notes)
    if place is not None:
        with new_folder(place) as staged:
            _write(staged, result, options)
    return result


def default_out(heads: Sequence[str | Path]) -> Path:
    """runs/NAME-compare of the first one's name, with a number behind it from the second on."""
    first = Path(heads[0]) if heads else Path("heads")
    return runs.next_free(first.parent if first.is_file() else first, "compare")


def _catalog(named: Sequence[Path], on: str) -> tuple[Catalog, tuple[str, ...]]:
    """The images to compare on, and what is not as it should be.

    Raises `FolderError` for images that a head has learnt from, and for no images at all.
    """
    learnt = {one: runs.folder_of(one) for one in named}
    catalog = scan_for_judging(Path(on)) if on else _common_test(learnt)
    notes = []
    for one, folder in learnt.items():
        if folder is None:
            notes.append(
                f"{one} does not say what it has learnt from: these images may be among it"
            )
        elif os.path.isdir(folder):
            notes += _overlaps(one, scan_parts(folder), catalog)
        else:
            notes.append(
                f"{one} was fitted on {folder}, which is not there any more: these images may be "
                "among it"
            )
    return catalog, tuple(notes)


def _common_test(learnt: Mapping[Path, Path | None]) -> Catalog:
    folders = {str(one) if one is None else os.path.realpath(one): one for one in learnt.values()}
    (folder, *others) = folders.values()
    if others or folder is None:
        raise FolderError(
            "it is not said which images to compare on",
            found=listing([f"{run}: fitted on {one or '?'}" for run, one in learnt.items()]),
            expected="runs that were fitted on one folder, whose test part is then taken",
            do="name a folder of images that none has learnt from: --on FOLDER",
        )
    if not os.path.isdir(folder):
        raise FolderError(
            "the photos that these runs were fitted on are no longer there",
            found=f"no folder {folder}",
            expected="its test part, by which the runs are compared",
            do="if it was moved, name its test part where it is now, else images that none has "
            "learnt from: --on FOLDER",
        )
    test = scan_parts(folder).test
    if test is None:
        raise FolderError(
            f"{folder} has no images to compare on",
            found="no test part: the heads have learnt from all of it",
            expected="images that none has learnt from",
            do="name some: --on FOLDER",
        )
    return test


def _overlaps(run: Path, parts: Parts, catalog: Catalog) -> list[str]:
    """Notes on images that chose among heads. Raises `FolderError` for such that were learnt."""
    if _shares(parts.train, catalog):
        raise FolderError(
            f"{run} has learnt from these images",
            found=f"--on {catalog.root}, fitted on {parts.train.root}",
            expected="images that no head has learnt from: by heart is not as good",
            do="name others"
            + (
                f", such as --on {shell_word(str(parts.test.root))}"
                if parts.test is not None
                else ""
            ),
        )
    if parts.val is not None and _shares(parts.val, catalog):
        return [f"{run} was chosen by these images: its scores are a little too good"]
    return []


def _shares(one: Catalog, other: Catalog) -> bool:
    """Whether one folder is, or is inside of, the other."""
    first, second = (Path(os.path.realpath(each.root)) for each in (one, other))
    return first.is_relative_to(second) or second.is_relative_to(first)


def _compared(
    names: Sequence[str],
    heads: Sequence[Sequence[Head]],
    catalog: Catalog,
    options: CompareOptions,
    notes: tuple[str, ...],
) -> Generator[Event, None, Comparison]:
    looking = options.narrowed(PredictOptions)
    match([one for some in heads for one in some])
    for some in heads:
        check(some, looking if len(some) > 1 else dataclasses.replace(looking, combine="mean"))
    if all(len(some) == 1 for some in heads):
        options.refuse(["combine"], "a run with folds, whose heads are asked together")
    sizes = [_size(some) for some in heads]
    classes = heads[0][0].classes
    known = catalog.relabel(classes)
    asked = [ask(some, looking, len(known)) for some in heads]
    rows, bad, took = yield from _looked(asked, known)
    good = np.flatnonzero(~np.isnan(rows).any(axis=(1, 2)))
    if not len(good):
        refuse(bad, do="name a folder with readable images")
    labels, rows = known.labels[good], rows[good]
    contestants = []
    for i, (name, some) in enumerate(zip(names, heads, strict=True)):
        rates = [images / seconds for images, seconds in took[i]]
        contestants.append(
            Contestant(
                name=name,
                files=tuple(one.path for one in some),
                scores=measure(labels, rows[:, i], classes),
                images_per_s=sum(n for n, _ in took[i]) / sum(s for _, s in took[i]),
                slowest=min(rates),
                fastest=max(rates),
                head_bytes=sum(os.path.getsize(one.path) for one in some),
                parameters=sizes[i][0],
                weights_bytes=sizes[i][1],
            )
        )
    return Comparison(
        folder=catalog.root,
        contestants=tuple(contestants),
        pairs=tuple(pairs_of(names, labels, rows, seed=options.seed)),
        notes=notes,
        files=tuple(known.files[int(i)] for i in good),
        labels=labels,
        probabilities=rows,
        bad=tuple(bad),
    )


def _looked(
    asked: Sequence[Asked], known: Catalog
) -> Generator[Tick, None, tuple[NDArray[np.float64], list[BadImage], list[list[Turn]]]]:
    """(N, contestants, C) probabilities, NaN where an image is unreadable; images and seconds of
    each one's turns.
    """
    paths, classes = known.paths, known.classes
    rows = np.full((len(paths), len(asked), len(classes)), np.nan)
    bad: dict[int, BadImage] = {}
    took: list[list[Turn]] = [[] for _ in asked]
    for one in asked:  # unmeasured: a network's first pass takes memory and picks algorithms
        next(one.predict(paths[:1]), None)
    blocks = even_parts(len(paths), max(LEAST_OF_TURN, -(-len(paths) // TURNS)))
    begin = done = 0
    for turn, size in enumerate(blocks):
        # Who begins changes: the first to read a file finds it on the disk, the next in memory.
        for i in np.roll(np.arange(len(asked)), -turn).tolist():
            order = [asked[i].heads[0].classes.index(name) for name in classes]
            started = time.perf_counter()
            for place, answer in enumerate(asked[i].predict(paths[begin : begin + size]), begin):
                if isinstance(answer, BadImage):
                    bad[place] = answer
                else:
                    rows[place, i] = answer.probabilities[order]
            took[i].append((size, time.perf_counter() - started))
            done += size
            yield Tick(what="comparing", done=done, total=len(paths) * len(asked))
        begin += size
    return rows, [bad[place] for place in sorted(bad)], took


Turn = tuple[int, float]
"""Images, seconds."""


def _size(heads: Sequence[Head]) -> tuple[int, int]:
    """Parameters, and bytes of these and of buffers; what heads share counts once."""
    parameters = {id(one): one for head in heads for one in head.model.parameters()}
    buffers = {id(one): one for head in heads for one in head.model.buffers()}
    every = [*parameters.values(), *buffers.values()]
    return (
        sum(one.numel() for one in parameters.values()),
        sum(one.numel() * one.element_size() for one in every),
    )


def pairs_of(
    names: Sequence[str],
    labels: NDArray[np.int64],
    rows: NDArray[np.float64],
    *,
    seed: int,
) -> list[Pair]:
    """Each two of the contestants, from labels (N,) and probabilities (N, contestants, C)."""
    right = rows.argmax(axis=2) == labels[:, None]
    losses = -logs(rows[np.arange(len(labels)), :, labels])
    order = np.argsort(-right.sum(axis=0), kind="stable").tolist()
    both = list(itertools.combinations(order, 2))
    alone = [
        (int((right[:, a] & ~right[:, b]).sum()), int((right[:, b] & ~right[:, a]).sum()))
        for a, b in both
    ]
    values = [mcnemar(*one) for one in alone]
    found = []
    for (a, b), only, p, corrected in zip(both, alone, values, holm(values), strict=True):
        accuracy = right[:, a].astype(float) - right[:, b]
        loss = losses[:, a] - losses[:, b]
        found.append(
            Pair(
                names=(names[a], names[b]),
                images=len(labels),
                alone=only,
                accuracy=float(accuracy.mean()),
                accuracy_95=accuracy_interval(*only, len(labels)),
                loss=float(loss.mean()),
                loss_95=interval(loss, seed=seed),
                p=p,
                p_holm=corrected,
                needed=images_needed(*only, len(labels), tests=len(both)),
            )
        )
    return found


def _write(staged: Path, result: Comparison, options: CompareOptions) -> None:
    write_text(staged / JSON, as_json(result, options))
    write_bytes(
        staged / PICTURE,
        comparison(
            {
                one.name: (one.scores.accuracy, one.scores.accuracy_low, one.scores.accuracy_high)
                for one in result.contestants
            },
            {one.names: (one.accuracy, *one.accuracy_95) for one in result.pairs},
        ),
    )
    write_text(staged / PAGE, page(result))


def as_json(result: Comparison, options: CompareOptions) -> str:
    """All of it, with what was asked."""
    names = [one.name for one in result.contestants]
    return runs.as_json(
        {
            "folder": str(result.folder),
            "images": len(result.labels),
            "options": dataclasses.asdict(options),
            "notes": list(result.notes),
            "heads": {
                one.name: {
                    "files": [str(path) for path in one.files],
                    **one.scores.plain(),
                    "images_per_s": one.images_per_s,
                    "images_per_s_of_turns": [one.slowest, one.fastest],
                    "head_bytes": one.head_bytes,
                    "parameters": one.parameters,
                    "weights_bytes": one.weights_bytes,
                }
                for one in result.contestants
            },
            "pairs": [
                dataclasses.asdict(one) | {"apart": one.apart, "says": str(one)}
                for one in result.pairs
            ],
            "disagree": [
                {
                    "file": result.files[i],
                    "is": _classes(result)[result.labels[i]],
                    "called": dict(zip(names, called, strict=True)),
                }
                for i, called in _disagreements(result).items()
            ],
            "unreadable": {str(one.path): one.reason for one in result.bad},
        }
    )


def page(result: Comparison) -> str:
    """Where they disagree, with photos."""
    names = [one.name for one in result.contestants]
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, called in _disagreements(result).items():
        true = _classes(result)[result.labels[i]]
        who = tuple(name for name, given in zip(names, called, strict=True) if given == true)
        groups.setdefault(who, []).append(i)
    lead = [*map(str, result.pairs), *result.notes]
    lead.append(f"{sum(map(len, groups.values()))} of {len(result.labels)} images are called "
                "differently; in each group the surest come first.")  # fmt: skip
    ordered = sorted(groups.items(), key=lambda one: (not one[0], -len(one[1])))
    return sheet(
        f"{', '.join(names[:-1])} and {names[-1]} on {result.folder}",
        lead,
        [_group(result, who, some) for who, some in ordered],
    )


def _group(result: Comparison, who: tuple[str, ...], some: Sequence[int]) -> Group:
    sure = result.probabilities.max(axis=2).max(axis=1)
    shown = sorted(some, key=lambda i: -sure[i])[:MOST_SHOWN]
    more = f"; the {len(shown)} surest are shown" if len(some) > len(shown) else ""
    return Group(
        heading=f"Right by {' and '.join(who)} alone" if who else "Wrong by all, in several ways",
        about=f"{len(some)} images{more}",
        photos=[
            Shown(path=result.folder / result.files[i], caption=_caption(result, i)) for i in shown
        ],
    )


def _caption(result: Comparison, i: int) -> list[str]:
    classes = _classes(result)
    return [
        f"is {classes[result.labels[i]]}",
        *(
            f"{one.name}: {classes[row.argmax()]} {row.max():.2f}"
            for one, row in zip(result.contestants, result.probabilities[i], strict=True)
        ),
    ]


def _classes(result: Comparison) -> list[str]:
    return [one.name for one in result.contestants[0].scores.classes]


def _disagreements(result: Comparison) -> dict[int, list[str]]:
    """What each called the images that not all called the same."""
    classes, called = _classes(result), result.probabilities.argmax(axis=2)
    differ = np.flatnonzero((called != called[:, :1]).any(axis=1)).tolist()
    return {i: [classes[one] for one in called[i]] for i in differ}


def _rounded(count: int) -> str:
    """1234 -> 1,200"""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"
