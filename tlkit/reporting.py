"""Reporting: the verb `write_report`, from a run folder to a page about it.

In: a run folder, and images with known classes: a folder that is named, else the test part of the
run's own, else what the fit has written down of images that its heads had not learnt from.
Out: a folder with report.html, report.json and figure-*.png, whole or not at all.
Next door: report/page.py (what is on the page), runs.py (what lies in a run folder).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import shlex
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from tlkit import artifact, runs
from tlkit.artifact import Head
from tlkit.card import Card
from tlkit.data.audit import Audit, audit
from tlkit.data.digests import states
from tlkit.data.folder import Catalog, Parts, scan_for_judging, scan_parts
from tlkit.data.quarantine import Move, moved
from tlkit.errors import (
    DiskError,
    FolderError,
    OptionError,
    RunFolderError,
    briefly,
    few,
    raise_machine_error,
    shell_word,
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
from tlkit.options import (
    FitOptions,
    PredictOptions,
    ReportOptions,
    declared,
    own_parameters,
    signature,
)
from tlkit.predict.ensemble import check, match
from tlkit.predict.tta import views_of
from tlkit.report.evaluation import look, warm
from tlkit.report.page import Report, written
from tlkit.report.part import Policy, Subject
from tlkit.settings import with_own_settings
from tlkit.steps import Tick, finish
from tlkit.train.events import Epoch

log = logging.getLogger("tlkit")

LARGEST = 1e12
"""No number of history.csv is larger."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What was written."""

    folder: Path
    page: Path
    scores: Evaluation
    unreadable: int
    broken: tuple[str, ...]
    """Parts of other packages that failed, each with the reason."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run folder, read."""

    place: Path
    files: tuple[Path, ...]
    """Of its heads, at least one."""
    cards: tuple[Card, ...]
    metrics: Mapping[str, Any]
    options: Mapping[str, Any]
    photos: Path
    """The folder that was learnt from, where it is now."""
    parts: Parts | None
    """Of that folder; None where it is not there any more."""

    @property
    def learnt_from(self) -> str:
        """The folder that was learnt from, where it was then; "" where that is not known."""
        return str(self.options.get("folder", ""))

    @property
    def moved(self) -> str:
        """How to say where the photos are now."""
        return f"if they were moved: tlkit report {shell_word(str(self.place))} --photos FOLDER"


def write_report(
    run: str | Path | None = None,
    folder: str | Path | None = None,
    *,
    out: str | Path | None = None,
    weights: str | Path = "",
    **options: Any,
) -> Reported:
    """Write a page about a run (the newest one), judged on a folder with known classes.

    Without `folder` it is judged on the test part of the run's own, else by what the fit has
    written down. `out` is RUN/report where it is not given. `options` are the fields of
    `tlkit.ReportOptions`; `weights` is the file for heads that were fitted on one. Raises
    `TlkitError`.
    """
    steps = report_events(run, folder, ReportOptions.of(options), out=out, weights=str(weights))
    return finish(steps)


write_report.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(write_report), ReportOptions, returns=Reported
)


@with_own_settings
def report_events(
    run: str | Path | None = None,
    folder: str | Path | None = None,
    options: ReportOptions | None = None,
    *,
    out: str | Path | None = None,
    weights: str = "",
) -> Generator[Tick, None, Reported]:
    """The same step by step: yields `Tick`s, returns what was written."""
    options = ReportOptions() if options is None else options
    read = _read(runs.newest() if run is None else as_path(run, "run"), options.photos)
    place = read.place / runs.REPORT if out is None else as_path(out, "out folder")
    refuse_occupied(place, replace=runs.REPORT_FILES)
    _refuse_others(place)
    refuse_unwritable(place)
    if read.parts is not None:
        runs.refuse_among_photos(place, read.photos)
    if folder is not None:
        runs.refuse_among_photos(place, as_path(folder, "folder"))
    catalog, judged = _images(read, folder)
    if catalog is None:
        subject = _told(read, options, weights)
        found, quarantine = yield from _data(read, options)
        report = written(replace(subject, audit=found, moved=quarantine))
    else:
        before = states(catalog.paths)
        subject = yield from _looked(read, catalog, judged, options, weights)
        found, quarantine = yield from _data(read, options)
        subject = replace(subject, audit=found, moved=quarantine)
        report = _written_as_judged(subject, catalog, before)
    with new_folder(place, replace=runs.REPORT_FILES) as staged:
        write_text(staged / "report.html", report.html)
        write_text(staged / "report.json", _strict(report.data))
        for name, png in report.figures.items():
            write_bytes(staged / name, png)
    return Reported(
        folder=place,
        page=place / "report.html",
        scores=subject.scores,
        unreadable=len(subject.bad),
        broken=tuple(
            f"{one['part']} of {one['package']}: {one['reason']}" for one in report.data["broken"]
        ),
    )


def _written_as_judged(subject: Subject, catalog: Catalog, before: NDArray[np.int64]) -> Report:
    """The report, without pictures of images that are not as they were when they were judged."""
    while True:
        same = (states(catalog.paths) == before).all(axis=1)
        shown = {path for path, unchanged in zip(catalog.paths, same, strict=True) if unchanged}
        known = replace(
            subject, paths=tuple(path if path in shown else None for path in subject.paths)
        )
        report = written(known)
        # One may have changed while its picture was made.
        if np.array_equal((states(catalog.paths) == before).all(axis=1) & same, same):
            return report


def _refuse_others(place: Path) -> None:
    """Raise `RunFolderError` for files with the names of a report that no report was written to."""
    if not place.is_dir() or not any(place.iterdir()):
        return
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = runs.read_json(place / "report.json")
        if isinstance(found, dict) and "report" in found:
            return
    raise RunFolderError(
        f"{place} is there already",
        found="files, and no report.json of a report among them",
        expected="a new or empty folder, or a report to replace",
        do="choose another place",
    )


def _read(run: Path, photos: str) -> _Run:
    """Read a run folder; `photos` is where the folder of the fit is now, if it was moved.

    Raises `RunFolderError`, `HeadFileError` for heads that are not whole, and `FolderError` for
    `photos` that are no image folder.
    """
    if not run.is_dir():
        raise RunFolderError(
            f"{run} is not a run folder",
            found="a file" if run.exists() else "nothing at that path",
            expected=f"a folder with {runs.HEAD} in it, as `tlkit fit` leaves it",
            do="name that; put a head file from elsewhere into a folder of its own",
        )
    files = tuple(runs.heads_in(run))
    if not files[0].is_file():
        raise RunFolderError(
            f"{run} is not a run folder",
            found=f"no {runs.HEAD} in it",
            expected="a folder that `tlkit fit` has left",
            do="name the run first, and then the folder to judge it on: tlkit report RUN FOLDER",
        )
    cards = tuple(artifact.read_card(one) for one in files)
    options = _json(run / runs.OPTIONS)
    parts = scan_parts(Path(photos)) if photos else None
    learnt_from = options.get("folder")
    if parts is None and isinstance(learnt_from, str):
        with contextlib.suppress(FolderError):  # gone, or another one by now
            parts = scan_parts(Path(learnt_from))
    return _Run(
        place=run,
        files=files,
        cards=cards,
        metrics=_json(run / runs.METRICS),
        options=options,
        photos=Path(photos or str(learnt_from or "")),
        parts=parts,
    )


def _strict(data: Mapping[str, Any]) -> str:
    """JSON that every reader takes: a name that is no UTF-8 is escaped, and NaN is an error."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _json(path: Path) -> Mapping[str, Any]:
    """What a file of the run folder says; nothing where it is not there."""
    try:
        found = runs.read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise_machine_error(error)
        raise _spoilt(path, briefly(error)) from error
    return found if isinstance(found, dict) else {}


def _spoilt(path: Path, found: str) -> RunFolderError:
    return RunFolderError(
        f"{path} cannot be read",
        found=found,
        expected="what `tlkit fit` has written",
        do="copy the run folder again from where it was whole, or move that file away",
    )


def _images(read: _Run, folder: str | Path | None) -> tuple[Catalog | None, str]:
    """What to look at, and that in words; None where the fit's own answers are to be told."""
    if folder is not None:
        if read.parts is None and read.learnt_from:
            log.warning(
                "the photos of the fit are no longer in %s, so it cannot be told whether these "
                "images are among them; %s", read.learnt_from, read.moved,
            )  # fmt: skip
        return scan_for_judging(as_path(folder, "folder")), f"the images in {folder}"
    tested = read.metrics.get("test") is not None
    if read.parts is not None and read.parts.test is not None:
        return read.parts.test, f"the test part of {read.photos}"
    if _table(read).is_file():
        if tested:
            log.warning(
                "the test images are no longer in %s: the report is by the validation images, as "
                "the fit has written them down; %s", read.learnt_from, read.moved,
            )  # fmt: skip
        return None, ""
    raise FolderError(
        f"there are no images to judge {read.place} by",
        found=f"{read.place} has no {_table(read).name}"
        + (f", and the photos are no longer in {read.learnt_from}" if read.parts is None else "")
        if read.options
        else f"{read.place} does not say what it has learnt from",
        expected="the test part of the folder that was learnt from, or what the fit has written "
        f"down; it writes no more than {runs.MOST_TOLD} probabilities, and none where no class has "
        "two images",
        do=f"name a folder with known classes: tlkit report {shell_word(str(read.place))} FOLDER"
        + (f"; {read.moved}" if read.parts is None and read.learnt_from else ""),
    )


def _table(read: _Run) -> Path:
    """Where the fit has written down what heads made of images that they had not learnt from."""
    return read.place / (runs.OUT_OF_FOLD if len(read.files) > 1 else runs.VALIDATION)


def _told(read: _Run, options: ReportOptions, weights: str) -> Subject:
    """By the answers that the fit has written down."""
    options.refuse(
        ["tta", "batch"],
        "a folder to look at: the fit's own answers are told here, and its heads may have learnt "
        "from those images since",
    )
    told = runs.read_told(_table(read))
    if told.classes != read.cards[0].classes:
        raise _spoilt(_table(read), "other classes than those of the head")
    heads: tuple[Head, ...] = ()
    if options.maps and len(read.files) == 1:
        heads = _heads(read, weights)
    elif weights and not any(map(artifact.needs_file, read.cards)):
        raise OptionError(
            "an option would be ignored",
            found=f"--weights {weights}",
            expected="heads that were fitted on a weight file",
            do="leave --weights out",
        )
    # A path out of the folder is not followed.
    known: dict[str, Path] = {}
    for one in [] if read.parts is None else [read.parts.val, read.parts.train]:
        if one is not None:
            known = dict(zip(one.files, one.paths, strict=True)) | known
    gone = sum(one not in known for one in told.files)
    if gone:
        log.warning(
            "%d of %d photos are no longer in %s, and the report does not show them; %s",
            gone, len(told.files), read.photos if read.parts else read.learnt_from or "any folder "
            "that the run names", read.moved,
        )  # fmt: skip
    return _subject(
        read,
        options,
        heads=heads,
        judged="the validation images of the fit"
        if len(read.files) == 1 and not read.cards[0].options.get("crossed")
        else "the images of the fit, each by a head that did not learn from it",
        judged_by_fit=True,
        of_fit=len(told.files),
        files=told.files,
        paths=tuple(known.get(one) for one in told.files),
        labels=told.labels,
        probabilities=told.probabilities,
        scores=measure(told.labels, told.probabilities, told.classes),
    )


def _looked(
    read: _Run, catalog: Catalog, judged: str, options: ReportOptions, weights: str
) -> Generator[Tick, None, Subject]:
    """By what the heads make of images now."""
    heads = _heads(read, weights)
    catalog = catalog.relabel(heads[0].classes)
    looks = _looks(options)
    for one in looks:
        check(heads, one)
    policies = []
    for one in looks:
        if len(looks) > 1:
            warm(heads, catalog, one)
        seen = yield from look(heads, catalog, one, what=f"looking, {one.tta}")
        rows = seen.probabilities[:, -1]
        scores = measure(seen.labels, rows, heads[0].classes)
        views = len(views_of(one, heads[0].model.spec))
        policies.append(
            Policy(
                name=one.tta,
                scores=scores,
                views=views,
                seconds_per_image=seen.wall_s / len(catalog),
            )
        )
        if one.tta == "none":
            plain = seen
    kept = plain.places.tolist()
    paths = catalog.paths
    named = tuple(f"{one.path}: {one.reason}" for one in plain.bad)
    return _subject(
        read,
        options,
        heads=heads,
        judged=judged,
        judged_by_fit=False,
        of_fit=_of_fit(read.parts, [paths[one] for one in kept]),
        files=tuple(catalog.files[one] for one in kept),
        paths=tuple(paths[one] for one in kept),
        labels=plain.labels,
        probabilities=plain.probabilities[:, -1],
        scores=replace(policies[0].scores, unreadable=named),
        bad=plain.bad,
        policies=tuple(policies) if len(looks) > 1 else (),
    )


def _of_fit(parts: Parts | None, paths: Sequence[Path]) -> int | None:
    """How many of these are files that the fit had; None where its folder is not there."""
    if parts is None:
        return None
    had = {
        os.path.realpath(path)
        for part in (parts.train, parts.val)
        if part is not None
        for path in part.paths
    }
    return sum(os.path.realpath(one) in had for one in paths)


def _looks(options: ReportOptions) -> list[PredictOptions]:
    """The plain view, then each policy that was asked for, once."""
    names = [one.strip() for one in options.tta.split(",") if one.strip()]
    return [
        PredictOptions(tta=one, batch=options.batch, device=options.device, workers=options.workers)
        for one in dict.fromkeys(["none", *names])
    ]


def _heads(read: _Run, weights: str) -> tuple[Head, ...]:
    heads = artifact.load_all(list(read.files), weights=weights)
    match(heads)
    return heads


def _subject(read: _Run, options: ReportOptions, **known: Any) -> Subject:
    return Subject(
        run=read.place,
        cards=read.cards,
        history=_history(read.place / runs.HISTORY),
        recorded=read.metrics,
        command=_command(read),
        maps=options.maps,
        device=options.device,
        **known,
    )


def _data(
    read: _Run, options: ReportOptions
) -> Generator[Tick, None, tuple[Audit | None, tuple[Move, ...]]]:
    """What is wrong with the folder that was learnt from, and what was taken out of it."""
    if not options.check:
        options.refuse(["near"], "--check, of which it is a part")
    if not options.check or read.parts is None:
        return None, ()
    found = yield from audit(read.photos, read.parts, near=options.near, workers=options.workers)
    try:
        return found, tuple(moved(read.photos))
    except DiskError:  # a journal that cannot be read is for `tlkit check --undo` to tell
        return found, ()


def _history(table: Path) -> tuple[Epoch, ...]:
    """The rows of history.csv, as fitting.py writes them; none where it is not there."""
    kinds = {name: kind for name, kind in get_type_hints(Epoch).items() if name != "prior"}
    try:
        text = table.read_text(encoding="utf-8")
        rows = tuple(
            Epoch(**{name: kinds[name](one[name]) for name in kinds}, prior=_prior(one))
            for one in csv.DictReader(io.StringIO(text))
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise_machine_error(error)
        raise _spoilt(table, briefly(error)) from error
    # A loss may be no number; none of these is as large.
    large = {
        name for row in rows for name, one in vars(row).items() if LARGEST < abs(one or 0) < inf
    }
    large |= {"rate" for row in rows if not isfinite(row.rate)}
    if large:
        raise _spoilt(table, f"{few(sorted(large))} beyond what a fit can reach")
    return rows


def _prior(row: Mapping[str, str]) -> float | None:
    """Return the prior in a row of history.csv; tlkit 0.1.0 wrote no such column."""
    return float(row["prior"]) if row.get("prior") else None


def _command(read: _Run) -> str:
    """That the run is from, by the options that were given."""
    given = read.options.get("given")
    if not isinstance(given, Mapping) or "folder" not in read.options:
        return ""
    words: list[str] = ["tlkit", "fit", read.learnt_from]
    for one in declared(FitOptions):
        if one.name in given:
            words += _words(one.flag, given[one.name])
    return shlex.join(words)


def _words(flag: str, value: object) -> Sequence[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, str(value)]
