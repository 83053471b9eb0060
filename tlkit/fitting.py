"""Fitting: the verb `fit`, from a folder to a run folder.

In: a folder and options. Out: events on the way, then a `FitResult`, or with folds a `FoldsResult`.
The command line shows them.
Next door: classifier.py (using what was fitted), runs.py (what lies in a run folder).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tlkit import artifact, runs
from tlkit.ask.auto import AUTO, FOUND, refuse_with_auto, settled
from tlkit.calibration import calibration_of, tempered
from tlkit.card import FORMAT, Calibration, Card, WeightsCard, now, sha256_of, versions
from tlkit.data.audit import brief
from tlkit.data.digests import digests
from tlkit.data.folder import Parts, scan_parts
from tlkit.data.images import BadImage
from tlkit.data.manifest import MANY
from tlkit.data.names import Names, Paths
from tlkit.data.split import folds, split
from tlkit.data.transforms import PRESETS
from tlkit.errors import FitEnded, FolderError, OptionError, RunFolderError, few, shell_word
from tlkit.files import (
    as_path,
    new_folder,
    refuse_occupied,
    refuse_unwritable,
    write_bytes,
    write_text,
)
from tlkit.folds import (
    FoldResult,
    FoldsResult,
    fold_card,
    fold_result,
    pooled,
    score_of,
    together,
    write_confusions,
    write_scores,
)
from tlkit.metrics import Evaluation, measure
from tlkit.model.finite import check_finite
from tlkit.model.heads import HEADS
from tlkit.options import FitOptions, declared, own_parameters, signature
from tlkit.plugins import Chosen, Found, choose
from tlkit.ranks import began_again, here
from tlkit.report.plots import confusion, curves
from tlkit.settings import with_own_settings
from tlkit.steps import Result, Tick, finish, passed
from tlkit.tracking import Begun, Ended, tracked, tracker
from tlkit.train.checkpoint import Checkpoints
from tlkit.train.events import Epoch, Event, Note
from tlkit.train.folds import Fold, train_folds
from tlkit.train.recipe import plan_of, refuse_unknown
from tlkit.train.run import Tested, Trained, train
from tlkit.weights import digest


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a fit has left."""

    run: Path
    """The run folder (tlkit/runs.py tells what is in it)."""
    head: Path
    """The head file in it."""
    card: Card
    history: tuple[Epoch, ...]
    best: Epoch
    """The epoch that was kept."""
    validation: Evaluation | None
    """On the images that chose the epoch: a little flattering. Where few images held none out, on
    all of them but the only ones of their class, each as a head judged it that did not learn from
    it; None where that leaves none."""
    test: Evaluation | None
    """On the folder's own test part, which nothing has been chosen by; None where it has none."""
    bad: tuple[BadImage, ...]
    """Unreadable images that were left out."""
    wall_s: float


@with_own_settings
def fit_events(
    folder: str | Path,
    options: FitOptions | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    track: str = "",
) -> Generator[Event, None, FitResult | FoldsResult]:
    """Fit a head on a folder, step by step: yields `Note`, `Tick` and `Epoch`, returns the result.

    With `folds` also a `FoldScore` for each head, and the result is a `FoldsResult`. The run folder
    appears when all is done, or not at all. With `resume` a fit that was interrupted goes on where
    it was; closing the generator interrupts it. `track` is a tracker, NAME or NAME:WHERE
    (`tlkit.tracking.TRACKERS`), which is told how it goes. Raises `TlkitError`.

    In processes that torchrun has started, all of them call it alike and share the work; the first
    of them writes, and each gets the result. Where torchrun starts them again, the fit goes on.
    """
    started = time.perf_counter()
    options = FitOptions() if options is None else options
    folder, resume = as_path(folder, "folder"), resume or began_again()
    replace = runs.FILES if overwrite else ()
    with here().first_before_others():
        _refuse_early(options)
        tell = tracker(track) if track and here().first else None
        run = _run_folder(folder, options, out, overwrite=overwrite)
        if not resume and here().first:
            refuse_occupied(run, replace=replace)
        runs.refuse_among_photos(run, folder)
        if options.backbone == AUTO:
            refuse_with_auto(options)
            chosen = None  # found when the run folder is held
        else:
            chosen = choose(options.backbone)
        parts = scan_parts(folder)
        if parts.val is not None and not options.folds:
            options.refuse(["val_fraction"], "a folder without a val part of its own")
    run = here().agree(run)
    _refuse_different(parts)
    yield from _about(parts)
    for doubt in brief(parts):
        yield Note(text=f"{doubt} (tlkit check {shell_word(str(folder))} lists them)")
    yield from _about_to_read(parts)
    fit = _identity(options, chosen, parts)
    if resume and (began_again() or not overwrite):
        numbered = runs.numbered(folder, options.backbone)
        where = itertools.takewhile(Path.exists, numbered) if out is None else [run]
        _refuse_ended(where, fit)
    with _made(run, replace, fit, options, resume=resume) as place:
        if not resume and place.checkpoints.there:
            yield Note(text="begins anew: --resume would have gone on with an interrupted fit")
            place.checkpoints.clear_files()
        elif resume and not place.checkpoints.there:
            yield Note(text="there is no checkpoint to go on from: begins at the start")
        if chosen is None:
            options = yield from settled(
                folder, options, place.checkpoints.folder, fit=_told(fit), resume=resume
            )
            chosen = choose(options.backbone)
        steps = _kept(folder, options, chosen, parts, place)
        if tell is not None:
            yield Note(text=f"tells {track} how it goes")  # a server may take its time
            begun = Begun(name=run.name, options=dataclasses.asdict(options))
            steps = tracked(steps, tell, begun, _ended)
        result = yield from _importing(steps, "scipy.optimize", "matplotlib.figure")
    return dataclasses.replace(result, wall_s=time.perf_counter() - started)


@contextlib.contextmanager
def _made(
    run: Path,
    replace: Collection[str],
    fit: dict[str, Any],
    given: FitOptions,
    *,
    resume: bool,
) -> Iterator[_Place]:
    """The place of a run folder that this process makes; of several processes the first does.

    The others read and write nothing there.
    """
    with contextlib.ExitStack() as stack:
        if here().first:
            if resume:  # else it was refused before the folder was read
                refuse_occupied(run, replace=replace)
            refuse_unwritable(run)
            stack.enter_context(runs.held(run))
            folder = runs.checkpoint_of(run)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlkit-")))
        yield _Place(run, replace, Checkpoints(folder, fit, resume=resume), fit, given)


def _refuse_different(parts: Parts) -> None:
    """Raise `FolderError` where the processes do not see the same images."""
    seen = here().gather(
        [(name, one.classes, sha256_of("\0".join(one.files))) for name, one in parts.named.items()]
        if here().several
        else []
    )
    others = [number for number, one in enumerate(seen) if one != seen[0]]
    if others:
        raise FolderError(
            f"the processes see different images in {parts.train.root}",
            found=f"other names in the process {others[0]} than in the first",
            expected="the same folder on every machine",
            do="copy or mount it alike",
        )


def _kept(
    folder: Path, options: FitOptions, chosen: Chosen, parts: Parts, place: _Place
) -> Generator[Event, None, FitResult | FoldsResult]:
    """Fit, and when the run folder is there, leave no checkpoints."""
    fit_one = _cross if options.folds else _single
    result: FitResult | FoldsResult = yield from fit_one(folder, options, chosen, parts, place)
    place.checkpoints.clear()
    here().wait()  # no process ends before the run folder is there
    return result


def _ended(result: FitResult | FoldsResult) -> Ended:
    """What trackers are told at the end."""
    if isinstance(result, FoldsResult):
        parts = {"out_of_fold": result.out_of_fold, "test": result.test}
    else:
        parts = {"validation": result.validation, "test": result.test}
    return Ended(
        how="finished",
        scores={
            f"{part}/{name}": getattr(one, name)
            for part, one in parts.items()
            if one is not None
            for name in TRACKED
        },
        options=runs.read_json(result.run / runs.OPTIONS).get("auto", {}),
        run=result.run,
    )


@dataclass(frozen=True)
class _Place:
    """Where a fit is kept."""

    run: Path
    replace: Collection[str]
    """Names of files that may be replaced there."""
    checkpoints: Checkpoints
    identity: Mapping[str, Any]
    """Tells this fit from any other."""
    given: FitOptions
    """As they were given: `auto` is still a backbone in them."""


def _identity(options: FitOptions, chosen: Chosen | None, parts: Parts) -> dict[str, Any]:
    """What two fits have in common that give the same bits, by the names that users know.

    Where the backbone is still to be found, its plugin is not among it.
    """
    given = dataclasses.asdict(options)
    flags = {one.name: one.flag for one in declared(FitOptions) if one.name not in IDLE}
    # A file is what it holds, wherever it lies.
    files = {name: given[name] for name in FILES if os.path.isfile(given[name])}
    return {
        **{flag: given[name] for name, flag in flags.items() if name not in files},
        **_images_of(parts),
        **{
            f"file of {flags[name]}": {"digest": _content_of(Paths(Path(), Names.of([path])))}
            for name, path in files.items()
        },
        **{f"version of {name}": one for name, one in versions().items()},
        **{
            f"version of the plugin {name}": one
            for name, one in _of_packages(
                [
                    None if chosen is None else chosen.found,
                    HEADS.found(options.head),
                    PRESETS.found(options.augment),
                ]
            ).items()
        },
    }


def _of_packages(found: Iterable[Found | None]) -> dict[str, str]:
    """Versions of the distributions that bring something."""
    return {one.distribution: one.version for one in found if one is not None}


def _images_of(parts: Parts) -> dict[str, Any]:
    """Return how many images each part has, and digests of their names and of their bytes.

    Times and places do not count: a copy of the folder holds the same images.
    """
    named = parts.named
    names = [
        f"{part}\0{name}\n".encode("utf-8", "surrogateescape")
        for part, catalog in named.items()
        for name in catalog.files
    ]
    return {
        **{f"number of images in {part}": len(catalog) for part, catalog in named.items()},
        "names of images": {"digest": sha256_of(b"".join(names))},
        "content of images": {"digest": "".join(_content_of(one.paths) for one in named.values())},
    }


def _content_of(paths: Paths) -> str:
    """Return the digest of what files hold, one after another."""
    # Of several processes the first alone compares; a million files need not be read by each.
    return sha256_of(digests(paths).tobytes()) if here().first else ""


def _told(fit: Mapping[str, Any]) -> str:
    """An identity in a few letters."""
    return sha256_of(json.dumps(fit, sort_keys=True))


def _refuse_ended(where: Iterable[Path], fit: Mapping[str, Any]) -> None:
    """Raise `FitEnded` where one of these is the run folder of this very fit.

    A process can be killed when its run folder is there and nothing of it has been told.
    """
    told = _told(fit)
    run = here().agree(next((one for one in where if runs.fit_of(one) == told), None))
    if run is not None:
        if here().first:
            with runs.held(run), contextlib.suppress(RunFolderError):
                # Those of another fit, which is to replace it, are not these and stay.
                Checkpoints(runs.checkpoint_of(run), fit, resume=True).clear()
        ended = FitEnded(
            f"{run} is there: this fit has ended",
            found="the run folder of the same command, images and versions",
            expected="a fit that was interrupted",
            do="use its head; without --resume, and with another --out, it is done once more",
        )
        ended.run = run
        raise ended


FILES = ("augment", "weights")
"""Options that can name a file."""

IDLE = ("workers", "cache", "cache_gb", "bank")
"""Options that change how long a fit takes and nothing else."""

TRACKED = ("accuracy", "balanced_accuracy", "loss", "calibration_error", "brier")
"""Scores that trackers are told."""


def _single(
    folder: Path, options: FitOptions, chosen: Chosen, parts: Parts, place: _Place
) -> Generator[Event, None, FitResult]:
    """One head."""
    fitted = yield from fit_parts(options, chosen, parts, checkpoints=place.checkpoints)
    trained, card, validation = fitted.trained, fitted.card, fitted.validation
    test, bad = None, trained.bad
    if trained.test is not None:
        test = measure(trained.test.labels, trained.test.probabilities, parts.train.classes)
        bad += trained.test.bad
    with _staged(place) as staged:
        artifact.save(staged / runs.HEAD, artifact.tensors_of(trained.cut), card)
        _write_options(staged, folder, trained, place)
        _write_scores(staged, fitted, test, skipped=len(bad))
    return FitResult(
        run=place.run,
        head=place.run / runs.HEAD,
        card=card,
        history=trained.history,
        best=trained.best,
        validation=validation,
        test=test,
        bad=bad,
        wall_s=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A head that was fitted and is not written yet."""

    trained: Trained
    """With the probabilities that the head gives from now on."""
    card: Card
    validation: Evaluation | None


def fit_parts(
    options: FitOptions, chosen: Chosen, parts: Parts, *, checkpoints: Checkpoints | None = None
) -> Generator[Event, None, Fitted]:
    """Fit one head on the images of `parts`, wherever they lie. Raises every `TlkitError`."""
    splits = split(
        parts, val_fraction=options.val_fraction, seed=options.seed, group_by=options.group_by
    )
    raw = yield from train(options, chosen.backbone, splits, checkpoints=checkpoints)
    trained, calibration = _calibrated(raw)
    validation = None
    if len(trained.val_labels):
        validation = measure(trained.val_labels, trained.val_probabilities, parts.train.classes)
    card = _card(options, chosen, trained, parts, validation, calibration)
    return Fitted(trained=trained, card=card, validation=validation)


def _cross(
    folder: Path,
    options: FitOptions,
    chosen: Chosen,
    parts: Parts,
    place: _Place,
) -> Generator[Event, None, FoldsResult]:
    """A head for each fold."""
    plan = folds(parts, count=options.folds, seed=options.seed, group_by=options.group_by)
    run = place.run
    results: list[FoldResult] = []
    tested: list[Tested] = []
    with _staged(place) as staged:
        for one in train_folds(
            options, chosen.backbone, plan, parts.train, checkpoints=place.checkpoints
        ):
            if not isinstance(one, Fold):
                yield one
                continue
            trained, calibration = _calibrated(one.trained)
            one, classes = dataclasses.replace(one, trained=trained), parts.train.classes
            validation = measure(trained.val_labels, trained.val_probabilities, classes)
            if not results:
                card = _card(options, chosen, trained, parts, validation, calibration)
                _write_options(staged, folder, trained, place)
            card = fold_card(card, one, validation, calibration)
            head = runs.fold_head(staged, one.number)
            head.parent.mkdir()
            artifact.save(head, artifact.tensors_of(trained.cut), card)
            results.append(fold_result(one, card, validation, run))
            if one.test is not None:
                tested.append(one.test)
            bad = one.bad
            yield score_of(one, validation)
        result = FoldsResult(
            run=run,
            folds=tuple(results),
            out_of_fold=pooled(results),
            test=together(tested, parts.train.classes),
            bad=bad,
            wall_s=0.0,
        )
        write_scores(staged, result)
    return result


@contextlib.contextmanager
def _staged(place: _Place) -> Iterator[Path]:
    """A folder that becomes the run folder; of another process than the first, nothing."""
    if here().first:
        with new_folder(place.run, replace=place.replace) as staged:
            yield staged
    else:
        with tempfile.TemporaryDirectory(prefix="tlkit-") as nothing:
            yield Path(nothing)


def _importing(
    steps: Generator[Event, None, Result], *modules: str
) -> Generator[Event, None, Result]:
    """Pass steps on, and import what comes later beside the first pass over images.

    Before it, building the network keeps the interpreter as busy as an import does.
    """

    def work() -> None:
        for one in modules:
            importlib.import_module(one)

    begun = False

    def begin(step: Event) -> Iterator[Event]:
        nonlocal begun
        if not begun and isinstance(step, Tick) and step.done:
            begun = True
            threading.Thread(target=work, name="tlkit-import", daemon=True).start()
        yield step

    return passed(steps, begin)


def _refuse_early(options: FitOptions) -> None:
    """What can be told wrong before anything is read."""
    if options.folds == 1:
        raise OptionError(
            "one fold leaves nothing to learn from",
            found="--folds 1",
            expected="at least 2, or 0 for one head and no folds",
            do="use --folds 5, or leave it out",
        )
    if options.folds:
        options.refuse(["val_fraction"], "one head: with --folds, a fold is what is held out")
    refuse_unknown(options)


def _run_folder(
    folder: Path, options: FitOptions, out: str | Path | None, *, overwrite: bool
) -> Path:
    if out is not None:
        return as_path(out, "run folder")
    if overwrite:
        raise OptionError(
            "an option would be ignored",
            found="--overwrite",
            expected="--out DIR, which says what may be replaced: runs without it are numbered",
            do="name the run folder with --out, or leave --overwrite out",
        )
    return runs.next_free(folder, options.backbone)


def _about(parts: Parts) -> Iterator[Note]:
    for name, part in parts.named.items():
        counted = list(zip(part.classes, part.counts, strict=True))
        counts = few([f"{count} {one}" for one, count in counted])
        yield Note(text=f"{name}: {len(part)} images ({counts})")
        if absent := [one for one, count in counted if not count]:
            yield Note(text=f"{name}: no image is of {few(absent)}: its scores say nothing of it")
        if part.left_out:
            first, count = part.left_out[0], len(part.left_out) + part.more_left_out
            yield Note(text=f"{name}: entries that are not used: {count}; the first: {first}")


def _about_to_read(parts: Parts) -> Iterator[Tick]:
    """Show what is done while the bytes of very many images are read, which takes its time."""
    if (images := sum(map(len, parts.named.values()))) >= MANY:
        yield Tick(what="checksums of the images", done=0, total=images)


def _calibrated(trained: Trained) -> tuple[Trained, Calibration]:
    """With the probabilities that the head gives from now on.

    Raises `AnswerError` where what they are from is no number: such a head is not saved.
    """
    _check_answers(trained)
    unseen = trained.unseen
    calibration = calibration_of(unseen.probabilities, unseen.labels, trained.val_similarities)

    def after(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        return tempered(probabilities, calibration.temperature)

    test = trained.test
    if test is not None:
        test = dataclasses.replace(test, probabilities=after(test.probabilities))
    validated = after(trained.val_probabilities)
    return dataclasses.replace(trained, val_probabilities=validated, test=test), calibration


def _check_answers(trained: Trained) -> None:
    """Raise `AnswerError` for answers of the fitted head that are not finite numbers."""
    answers: dict[str, tuple[NDArray[np.float64], Sequence[str]]] = {
        "validation": (trained.val_probabilities, trained.val_files),
        "held-out": (trained.unseen.probabilities, ()),
    }
    if trained.test is not None:
        answers["test"] = trained.test.probabilities, ()
    if trained.val_similarities is not None:
        answers["similar"] = trained.val_similarities, trained.val_files
    for part, (numbers, images) in answers.items():
        check_finite(
            numbers,
            of=f"the fitted head, asked about the {part} images,",
            do="fit it with lower rates (--lr, --backbone-lr), --clip 1, or --precision fp32",
            images=images,
        )


def _card(
    options: FitOptions,
    chosen: Chosen,
    trained: Trained,
    parts: Parts,
    validation: Evaluation | None,
    calibration: Calibration,
) -> Card:
    resolved = dataclasses.asdict(trained.options) | {
        "weights": trained.weights.name,
        "optimizer": trained.recipe.optimizer,
        "augment": Path(trained.recipe.augment).name,
        "refit": trained.recipe.refit,
        "crossed": trained.crossed,
    }
    return Card(
        format=FORMAT,
        created=now(),
        backbone=options.backbone.removeprefix(f"{chosen.found.distribution}:"),
        distribution=chosen.found.distribution,
        distribution_version=chosen.found.version,
        weights=WeightsCard(
            name=trained.weights.name,
            licence=trained.weights.licence,
            classes=trained.weights.classes,
            frozen_sha256=digest(trained.cut.frozen_tensors().items()),
        ),
        input=trained.cut.model.spec,
        classes=parts.train.classes,
        plan=dataclasses.asdict(plan_of(trained.options)) | {"weights": trained.weights.name},
        options=resolved,
        precision=trained.compute.precision,
        images={
            "train": trained.train_images,
            "val": len(trained.val_labels),
            "left_out": len(trained.bad),
        },
        metrics={
            "validation": None if validation is None else validation.in_card(),
            "best_epoch": trained.best.number,
        },
        calibration=calibration,
        versions=versions() | _of_packages([HEADS.found(trained.options.head)]),
        tensors_sha256=digest(artifact.tensors_of(trained.cut).items()),
    )


def _write_scores(staged: Path, fitted: Fitted, test: Evaluation | None, *, skipped: int) -> None:
    trained, card, validation = fitted.trained, fitted.card, fitted.validation
    named = {"validation": validation, "test": test}
    scores = {name: None if one is None else one.plain() for name, one in named.items()}
    write_text(staged / runs.HISTORY, history_csv(trained.history))
    write_text(staged / runs.METRICS, runs.as_json({**scores, "skipped_images": skipped}))
    write_confusions(staged, named)
    if 0 < trained.val_probabilities.size <= runs.MOST_TOLD:
        told = runs.Told(
            files=trained.val_files,
            classes=card.classes,
            labels=trained.val_labels,
            probabilities=trained.val_probabilities,
        )
        write_text(staged / runs.VALIDATION, runs.as_told(told))
    solved = trained.recipe.optimizer == "lbfgs"
    best = trained.history.index(trained.best)
    write_bytes(staged / "curves.png", curves(trained.history, penalty=solved, best=best))
    shown = validation if test is None else test
    if shown is not None:
        write_bytes(staged / "confusion.png", confusion(shown.confusion, card.classes))


def _write_options(staged: Path, folder: Path, trained: Trained, place: _Place) -> None:
    given = place.given
    found = {name: getattr(trained.options, name) for name in FOUND if given.backbone == AUTO}
    text = runs.as_json(
        {
            "fit": _told(place.identity),
            "folder": str(folder.resolve()),  # to be found from wherever the run is asked
            "given": given.changed(),
            "options": dataclasses.asdict(given),
            "auto": found
            | {
                "optimizer": trained.recipe.optimizer,
                "augment": trained.recipe.augment,
                "refit": trained.recipe.refit,
                "crossed": trained.crossed,
                "freeze": trained.options.freeze,
                "lr": trained.options.lr,
                "backbone_lr": trained.options.backbone_lr,
                "batch": trained.options.batch,
                "batchnorm": trained.options.batchnorm,
                "device": str(trained.compute.device),
                "precision": trained.compute.precision,
                "weights": trained.weights.name,
            },
            "versions": versions(),
        }
    )
    write_text(staged / runs.OPTIONS, text)


def history_csv(history: Sequence[Epoch]) -> str:
    """One row per epoch, columns as the fields of `Epoch`."""
    names = [one.name for one in dataclasses.fields(Epoch)]
    return runs.as_csv(names, ([getattr(one, name) for name in names] for one in history))


@overload
def fit(
    folder: str | Path,
    *,
    folds: int,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    track: str = "",
    **options: Any,
) -> FoldsResult: ...


@overload
def fit(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    track: str = "",
    **options: Any,
) -> FitResult: ...


def fit(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    track: str = "",
    **options: Any,
) -> FitResult | FoldsResult:
    """Fit a head on a folder of class folders; with `folds=K`, one for each fold: a `FoldsResult`.

    `options` are the fields of `tlkit.FitOptions`; an unknown one is an error that lists them.
    Raises `TlkitError`. `tlkit.fit_events` does the same step by step.
    """
    given = FitOptions.of(options)
    return finish(
        fit_events(folder, given, out=out, overwrite=overwrite, resume=resume, track=track)
    )


fit.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(fit), FitOptions, returns=FitResult | FoldsResult
)
