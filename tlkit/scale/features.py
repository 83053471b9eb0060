"""Features: what a frozen part makes of every image of a folder, as Parquet parts.

In: a folder of class folders, the options of a fit. Out: parts with the columns `path`, `label`,
`features` and `error`, and a manifest (job.py).
A row holds the very numbers that a fit with these options reads from its bank (train/bank.py), of
the plain view. They stay in the cache too: a fit on a machine whose cache has them computes none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.ask.vectors import extractor_by
from tlkit.card import sha256_of, versions
from tlkit.data.folder import Catalog, scan_parts
from tlkit.data.names import Names
from tlkit.data.transforms import augmentation
from tlkit.files import as_path, as_text
from tlkit.model.device import compute_on
from tlkit.options import (
    FeatureOptions,
    FitOptions,
    SpreadOptions,
    declared,
    own_parameters,
    signature,
)
from tlkit.predict.layout import as_cell
from tlkit.scale.job import Job, begin
from tlkit.scale.pool import Written, refuse_missing, run
from tlkit.settings import with_own_settings
from tlkit.steps import Tick, finish
from tlkit.train.bank import Bank, Extractor

if TYPE_CHECKING:
    import pyarrow

    from tlkit.scale.pool import Do

IDLE = ("device", "workers")
"""Options that change a number by rounding at most: a job may go on with others."""


@dataclass(frozen=True, kw_only=True)
class Extracting:
    """A backbone, and what of it is frozen. See `pool.Work`."""

    options: FeatureOptions
    weights: bytes
    """The weight file, where the options name one."""

    @property
    def device(self) -> str:
        return self.options.device

    def begin(self, job: Job) -> Do:
        options = self.options
        if self.weights and not os.path.isfile(options.weights):
            options = replace(options, weights=_there(self.weights))
        runs = extractor_by(options, job.images)

        def done(rows: pyarrow.Table) -> pyarrow.Table:
            catalog = _catalog(rows, Path(job.folder))
            table = _table(rows, _fill(runs, catalog))
            runs.let_go()
            return table

        return done


def _fill(runs: Extractor, catalog: Catalog) -> Bank:
    plain = augmentation("none", runs.cut.model.spec, FitOptions().seed)
    return finish(runs.look_up(catalog, plain, views=1, what="features"))


def _catalog(rows: pyarrow.Table, root: Path) -> Catalog:
    """The images of a shard as the bank takes them."""
    names = rows.column("label").to_pylist()
    classes = tuple(dict.fromkeys(names))
    return Catalog(
        root=root,
        classes=classes,
        files=Names.of(os.fsdecode(one) for one in rows.column("path").to_pylist()),
        labels=np.array([classes.index(one) for one in names], np.int64),
    )


def _table(rows: pyarrow.Table, bank: Bank) -> pyarrow.Table:
    """A shard's rows with what the bank has of them."""
    import pyarrow

    files = [os.fsdecode(one) for one in rows.column("path").to_pylist()]
    reasons = {str(one.path): one.reason for one in bank.bad}
    errors = [reasons.get(str(bank.catalog.root / one)) for one in files]
    good = np.array([one is None for one in errors], bool)
    width = math.prod(bank.shape)
    found = bank.at(np.arange(len(bank.places)), 0).numpy().reshape(-1)
    ends = np.cumsum(np.where(good, width, 0))
    features = pyarrow.ListArray.from_arrays(
        pyarrow.array(np.concatenate([[0], ends]), pyarrow.int32()),
        pyarrow.array(found, pyarrow.float32()),
        mask=pyarrow.array(~good),
    )
    named = [one.encode("utf-8", "backslashreplace").decode() for one in files]
    table = pyarrow.table(
        {
            "path": pyarrow.array(named, pyarrow.string()),
            "label": rows.column("label").cast(pyarrow.string()),
            "features": features,
            "error": pyarrow.array(errors, pyarrow.string()),
        }
    )
    return table.replace_schema_metadata({b"shape": str(list(bank.shape)).encode()})


def _there(data: bytes) -> str:
    """A file of these bytes, for as long as the process lasts."""
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="tlkit-", suffix=".weights", delete=False) as file:
        file.write(data)
    return file.name


def features(folder: str | Path, out: str | Path, **options: Any) -> Written:
    """Write what a frozen part makes of each image of a folder into a folder of Parquet parts.

    `options` are the fields of `tlkit.FeatureOptions`: with `ray` the work is spread over a
    cluster. What was stopped goes on. Raises `TlkitError`.
    """
    given = FeatureOptions.of(options)
    return finish(features_events(folder, out, given))


@with_own_settings
def features_events(
    folder: str | Path, out: str | Path, options: FeatureOptions
) -> Generator[Tick, None, Written]:
    """The same step by step. Yields ticks."""
    images = as_path(folder, "folder")
    refuse_missing(options)
    if options.precision == "auto":
        # Machines may differ, numbers may not.
        here = compute_on(options.device, "auto").precision
        options = replace(options, precision=here)
    own = os.path.isfile(options.weights)
    work = Extracting(options=options, weights=Path(options.weights).read_bytes() if own else b"")
    plan = {
        "what": "features",
        "folder": os.getcwd(),
        "images": str(images),
        "weight file": sha256_of(work.weights) if own else "",
        **{
            one.flag: getattr(options, one.name)
            for one in declared(FeatureOptions)
            if one.name not in (*IDLE, *(one.name for one in declared(SpreadOptions)))
        },
        "versions": versions(),
    }
    job = begin(as_text(out, "out folder"), plan, lambda: _list(images), shard=options.shard)
    return (yield from run(job, work, options, what="features"))


def _list(folder: Path) -> Iterator[pyarrow.Table]:
    """Every image of all parts of a folder, with the name of its class."""
    import pyarrow

    for part in scan_parts(folder).named.values():
        paths = [os.fsencode(one) for one in part.paths]
        classes = [as_cell(name) for name in part.classes]
        labels = [classes[label] for label in part.labels]
        yield pyarrow.table(
            {
                "path": pyarrow.array(paths, pyarrow.binary()),
                "label": pyarrow.array(labels, pyarrow.string()),
            }
        )


features.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(features), FeatureOptions, returns=Written
)
