"""Checking: what is wrong with a folder, and moving it out of the way.

In: a folder, and, for labels, a run of a cross-validation on it. Out: an `Audit`, and what became
of its findings. The verb behind `tlkit check`; what can be found is in data/audit.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from tlkit import runs
from tlkit.data import quarantine
from tlkit.data.audit import KINDS, Audit, Finding, audit
from tlkit.data.folder import Catalog, scan_parts
from tlkit.data.journal import Left
from tlkit.data.shards import find
from tlkit.errors import OptionError, RunFolderError, listing, pick
from tlkit.files import as_path
from tlkit.options import CheckOptions, own_parameters, signature
from tlkit.report.labels import suspects
from tlkit.settings import with_own_settings
from tlkit.steps import Tick, finish


def check(folder: str | Path, **options: Any) -> Audit:
    """All that is found in a folder.

    `options` are the fields of `tlkit.CheckOptions`. Raises `TlkitError`; `tlkit.check_events` does
    the same step by step.
    """
    return finish(check_events(folder, CheckOptions.of(options)))


check.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(check), CheckOptions, returns=Audit
)


@with_own_settings
def check_events(
    folder: str | Path, options: CheckOptions | None = None
) -> Generator[Tick, None, Audit]:
    """The same step by step: yields `Tick`s, returns the `Audit`."""
    folder = as_path(folder, "folder")
    options = CheckOptions() if options is None else options
    kinds = _kinds(options)
    parts = scan_parts(folder)
    doubts: list[Finding] = []
    if options.labels:
        doubts = list(_doubts(Path(options.labels), parts.train, folder))
    found = yield from audit(folder, parts, near=options.near, workers=options.workers)
    return dataclasses.replace(
        found, findings=tuple(one for one in (*found.findings, *doubts) if one.kind in kinds)
    )


def _kinds(options: CheckOptions) -> list[str]:
    names = [one.strip() for one in options.only.split(",")] if options.only else list(KINDS)
    for one in names:
        pick(KINDS, one, "kind of finding")
    if "label" not in names:
        options.refuse(["labels"], "label among the kinds of --only")
    elif options.only and not options.labels:
        raise OptionError(
            "labels cannot be checked",
            found=f"--only {options.only}",
            expected="--labels RUN, a cross-validation on this folder",
            do="fit one: tlkit fit FOLDER --folds 5 --out RUN",
        )
    return names


def _doubts(run: Path, train: Catalog, folder: Path) -> Iterator[Finding]:
    """Images that their class is not likely of, by the run's out-of-fold probabilities."""
    table = run / runs.OUT_OF_FOLD
    try:
        told = runs.read_told(table)
    except RunFolderError as error:
        raise RunFolderError(
            f"{run} has no out-of-fold probabilities",
            found=error.found,
            expected=f"{runs.OUT_OF_FOLD}, from a cross-validation",
            do="fit one: tlkit fit FOLDER --folds 5 --out RUN",
        ) from error
    known = set(train.files)
    if not known.intersection(told.files):
        raise RunFolderError(
            f"the run {run} is not of this folder",
            found=f"images such as {told.files[0]}",
            expected=f"images of {train.root}",
            do="name a run of `tlkit fit --folds` on it",
        )
    for one in suspects(told.files, told.labels, told.probabilities, told.classes):
        if one.file in known:  # a path out of the folder is not followed
            yield Finding(
                kind="label",
                files=((train.root / one.file).relative_to(folder).as_posix(),),
                about=f"stands in {one.given} ({one.probability:.1%}), looks like {one.likely}",
            )


def fix(found: Audit) -> list[quarantine.Move | Left]:
    """Move what the findings' kinds say into the quarantine; return what became of each file.

    A file that has changed since it was looked at stays, and so does one that a link leads to.
    Raises `RunFolderError`, `DiskError`.
    """
    why: dict[str, str] = {}
    for one in found.findings:
        whole = [found.folder / file for file in one.files]
        linked = {os.path.realpath(path) for path in whole if path.is_symlink()}
        for file in one.to_move:
            path = found.folder / file
            if not path.is_symlink() and os.path.realpath(path) in linked:
                continue  # what a link that may stay is a link to
            why.setdefault(file, f"{one.kind}: {one.about}")
    if packed := [file for file in why if find(found.folder / file) is not None]:
        raise OptionError(
            "images cannot be moved out of a tar file",
            found=listing(packed, most=5),
            expected="files of their own",
            do="write these shards again without them",
        )
    return quarantine.move(found.folder, why, found.stamps) if why else []


def undo(folder: str | Path) -> list[quarantine.Move]:
    """Put back what `fix` has moved. Raises `RunFolderError`, `DiskError`."""
    return quarantine.undo(as_path(folder, "folder"))


def as_json(found: Audit) -> str:
    """All of it."""
    return runs.as_json(
        {
            "folder": str(found.folder),
            "images": found.images,
            "classes": dict(found.classes),
            "compared": found.compared,
            "findings": [
                dataclasses.asdict(one) | {"serious": KINDS[one.kind].serious}
                for one in found.findings
            ],
        }
    )
