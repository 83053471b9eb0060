"""Rates: the verb `find_lr`, from a folder to learning rates to fit with.

In: a folder, the options of the fit, the rates to try. Out: events on the way, then a `RangeTest`.
Next door: fitting.py (the fit itself), train/range_test.py (the test).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tlkit import runs
from tlkit.data.folder import scan_parts
from tlkit.data.split import split
from tlkit.errors import unknown
from tlkit.files import (
    as_path,
    new_folder,
    refuse_occupied,
    refuse_unwritable,
    write_bytes,
    write_text,
)
from tlkit.options import FitOptions, SweepOptions, declared, own_parameters, signature
from tlkit.plugins import choose
from tlkit.report.plots import rate_range
from tlkit.settings import with_own_settings
from tlkit.steps import finish
from tlkit.train.events import Event
from tlkit.train.range_test import RangeTest, range_test, refuse_idle_in_sweep
from tlkit.train.recipe import refuse_unknown
from tlkit.train.run import ready


@with_own_settings
def find_lr_events(
    folder: str | Path,
    options: FitOptions | None = None,
    sweep: SweepOptions | None = None,
    *,
    out: str | Path | None = None,
) -> Generator[Event, None, RangeTest]:
    """A range test with what `fit` would train on this folder: yields events, returns the result.

    Where `out` is given, that folder appears when all is done, with the losses and a picture of
    them, or not at all. Raises `TlkitError`.
    """
    options = FitOptions() if options is None else options
    sweep = SweepOptions() if sweep is None else sweep
    folder = as_path(folder, "folder")
    refuse_unknown(options)
    refuse_idle_in_sweep(options, sweep)
    place = None if out is None else as_path(out, "out folder")
    if place is not None:
        refuse_occupied(place)
        runs.refuse_among_photos(place, folder)
    chosen = choose(options.backbone)
    parts = scan_parts(folder)
    if parts.val is not None:
        options.refuse(["val_fraction"], "a folder without a val part of its own")
    splits = split(
        parts, val_fraction=options.val_fraction, seed=options.seed, group_by=options.group_by
    )
    if place is not None:
        refuse_unwritable(place)
    made_ready = yield from ready(options, chosen.backbone, splits)
    result = yield from range_test(made_ready, sweep)
    if place is not None:
        with new_folder(place) as staged:
            _write(staged, folder, options, sweep, result)
    return result


def default_out(folder: str | Path, options: FitOptions) -> Path:
    """runs/FOLDER-BACKBONE-lr-find, with a number behind it from the second on."""
    return runs.next_free(Path(folder), f"{options.backbone}-lr-find")


def _write(
    staged: Path, folder: Path, options: FitOptions, sweep: SweepOptions, result: RangeTest
) -> None:
    write_text(staged / "lr-find.csv", range_csv(result))
    write_bytes(
        staged / "lr-find.png",
        rate_range(
            result.rates,
            result.losses,
            result.smoothed,
            suggestion=result.suggestion,
            lowest=result.lowest,
        ),
    )
    write_text(
        staged / runs.OPTIONS,
        runs.as_json(
            {
                "folder": str(folder),
                "given": options.changed() | sweep.changed(),
                "options": dataclasses.asdict(options) | dataclasses.asdict(sweep),
                "skipped_images": len(result.bad),
                "end": result.end,
                "steepest": result.steepest,
                "lowest": result.lowest,
                "suggestion": result.suggestion,
                "why_none": result.why_none,
                "flags": result.flags,
            }
        ),
    )


def range_csv(result: RangeTest) -> str:
    """One row per step."""
    steps = zip(result.rates, result.losses, result.smoothed, strict=True)
    rows = [(number, *row) for number, row in enumerate(steps, start=1)]
    return runs.as_csv(["step", "rate", "loss", "smoothed"], rows)


def find_lr(folder: str | Path, *, out: str | Path | None = None, **options: Any) -> RangeTest:
    """Try growing learning rates on what `fit` would train with these options, and suggest one.

    `options` are the fields of `tlkit.FitOptions` and `tlkit.SweepOptions`; an unknown one is an
    error that lists them. Nothing is written unless `out` says where. Raises `TlkitError`.
    """
    own = {one.name for one in declared(SweepOptions)}
    known = [one.name for one in declared(FitOptions)]
    for name in options:
        if name not in own and name not in known:
            raise unknown([*known, *sorted(own)], name, "option")
    sweep = SweepOptions.of({name: value for name, value in options.items() if name in own})
    fit = FitOptions.of({name: value for name, value in options.items() if name not in own})
    return finish(find_lr_events(folder, fit, sweep, out=out))


find_lr.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(find_lr), SweepOptions, FitOptions, returns=RangeTest
)
