"""Scoring: what heads make of a long list of images, as Parquet parts: `score`.

In: what names images, head files, a folder for the results. Out: parts and a manifest (job.py).
The heads are asked as `predict` asks them, with the engine that it would choose for the whole list.
What differs is which images go through the network together: those of one shard. That changes a
probability by rounding and nothing else; one shard that holds all is bit for bit the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.artifact import load_all
from tlkit.card import sha256_of, versions
from tlkit.data.images import Detail, Pixels, Unreadable, decode
from tlkit.errors import TlkitError, briefly
from tlkit.files import as_list, as_text
from tlkit.options import PredictOptions, ScoreOptions, declared, own_parameters, signature
from tlkit.predict.ensemble import ask, settle
from tlkit.predict.layout import layout_for
from tlkit.predict.run import Source
from tlkit.runs import Paths, head_files
from tlkit.scale import places
from tlkit.scale.job import Job, begin
from tlkit.scale.listing import listed
from tlkit.scale.pool import Written, refuse_missing, run
from tlkit.settings import with_own_settings
from tlkit.steps import Tick, finish

if TYPE_CHECKING:
    import pyarrow

    from tlkit.scale.pool import Do

IDLE = ("batch", "device", "workers")
"""Options that change a probability by rounding at most: a job may go on with others."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Heads, as their files are, and how they are asked. See `pool.Work`."""

    heads: tuple[bytes, ...]
    weights: bytes
    """The weight file of heads that were fitted on one."""
    options: PredictOptions
    """Settled."""
    top: int

    @property
    def device(self) -> str:
        return self.options.device

    def begin(self, job: Job) -> Do:
        with tempfile.TemporaryDirectory(prefix="tlkit-") as name:
            files = [Path(name) / f"{number}.safetensors" for number in range(len(self.heads))]
            for file, data in zip(files, self.heads, strict=True):
                file.write_bytes(data)
            weights = Path(name) / "weights"
            weights.write_bytes(self.weights)
            heads = load_all(files, weights=str(weights) if self.weights else "")
        asked = ask(heads, self.options, job.images)
        layout = layout_for(self.options, self.top, len(heads[0].classes))

        def done(rows: pyarrow.Table) -> pyarrow.Table:
            names = [os.fsdecode(one) for one in rows.column("path").to_pylist()]
            where = [one if places.is_uri(one) else os.path.join(job.folder, one) for one in names]
            answers = asked.predict([Path(one) for one in where], _source(where))
            # The names as they were given: a path knows no URI.
            cells = [[name, *layout.row(one)[1:]] for name, one in zip(names, answers, strict=True)]
            return layout.table(cells)

        return done


def _source(where: Sequence[str]) -> Source | None:
    """What fetches pixels that are on no disk; None where all are."""
    if not any(places.is_uri(one) for one in where):
        return None

    def pixels(position: int, at_least_px: Detail) -> Pixels:
        try:
            data = places.read(where[position])
        except (OSError, TlkitError) as error:
            raise Unreadable(briefly(error)) from error
        return decode(data, at_least_px=at_least_px)

    return pixels


def score(
    paths: Paths,
    out: str | Path,
    *,
    head: Paths | None = None,
    weights: str | Path = "",
    top: int = 3,
    **options: Any,
) -> Written:
    """Predict a long list of images into a folder of Parquet parts; go on where one was stopped.

    `paths` are files, folders, globs, Parquet manifests with a column `path`, and URIs; `out` is a
    folder, or a URI. `options` are the fields of `tlkit.ScoreOptions`: with `ray` the work is
    spread over a cluster. `head` and `weights` as in `tlkit.load`. Raises `TlkitError`.
    """
    # Not by way of a path, which knows no URI.
    given = tuple(as_text(one, "image") for one in as_list(paths, "image"))
    place = as_text(out, "out folder")
    asked = Asked(paths=given, out=place, head=head, weights=str(weights), top=top)
    return finish(score_events(asked, ScoreOptions.of(options)))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be scored, by whom, and where that is written."""

    paths: tuple[str, ...]
    out: str
    head: Paths | None = None
    weights: str = ""
    top: int = 3


@with_own_settings
def score_events(asked: Asked, options: ScoreOptions) -> Generator[Tick, None, Written]:
    """The same step by step. Yields ticks."""
    refuse_missing(options)
    files = head_files(asked.head)
    # Read here, too: what can be refused is refused before a cluster is asked.
    heads = load_all(files, weights=asked.weights)
    settled = yield from settle(heads, options.narrowed(PredictOptions))
    work = Scoring(
        heads=tuple(file.read_bytes() for file in files),
        weights=Path(asked.weights).read_bytes() if asked.weights else b"",
        options=settled,
        top=asked.top,
    )
    plan = {
        "what": "predictions",
        "paths": list(asked.paths),
        "folder": os.getcwd(),
        "heads": [sha256_of(one) for one in work.heads],
        "weights": sha256_of(work.weights) if asked.weights else "",
        "--top": asked.top,
        **{
            one.flag: getattr(settled, one.name)
            for one in declared(PredictOptions)
            if one.name not in IDLE
        },
        "versions": versions(),
    }
    job = begin(asked.out, plan, lambda: _list(asked.paths), shard=options.shard)
    return (yield from run(job, work, options, what="predicting"))


def _list(given: Sequence[str]) -> Iterator[pyarrow.Table]:
    import pyarrow

    paths = [os.fsencode(one) for one in listed(given)]
    yield pyarrow.table({"path": pyarrow.array(paths, pyarrow.binary())})


score.__signature__ = signature(  # type: ignore[attr-defined]
    own_parameters(score), ScoreOptions, returns=Written
)
