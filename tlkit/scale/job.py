"""Job: a list of images cut into shards, and one Parquet part of each.

In: a folder for the results (a path or a URI), what is to be done, the list. Out: a `Job`, which
knows what is done already and writes what is done now.

    OUT/_paths.parquet         the list, one row group for each shard
    OUT/_plan.json             what this job is: whatever its answers depend on
    OUT/part-00000123.parquet  the answers for shard 123, in the order of the list
    OUT/_manifest.json         when all is done: every part with its rows, bad images and digest

Whoever reads OUT as one table skips names that begin with `_`.
The plan is written behind the list: where it is there, the list is whole, and the next start takes
the list from there and asks no folder again.
Next door: pool.py (who does the shards).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.card import sha256_of
from tlkit.errors import ClusterError, RunFolderError, briefly, few, listing, raise_machine_error
from tlkit.files import json_text, remove_abandoned
from tlkit.scale.places import inside, is_uri, make_folder, names, on_disk, opened, read, write

if TYPE_CHECKING:
    import pyarrow

PLAN, LIST, MANIFEST = "_plan.json", "_paths.parquet", "_manifest.json"
PART = "part-{:08d}.parquet"
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
OWN = re.compile(r"_plan\.json|_paths\.parquet|_manifest\.json|part-\d{8,}\.parquet|\..*\.tmp")
"""Names of what a job writes."""

ABOUT = b"tlkit"
"""The key in a part's metadata."""

SHOWN = 20
"""Unreadable images that are named; their part tells of every one."""

READERS = 16
"""Threads that look at parts which are there already."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What can be said of the part of a shard."""

    shard: int
    rows: int
    bad: int
    """Images that could not be read."""
    sha256: str
    """Of the file."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """The first of them, with their reasons."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that was begun. Small, and can be sent to other machines."""

    out: str
    """An absolute path, or a URI."""
    id: str
    """A digest of the plan: parts of another job are none of this."""
    images: int
    shard: int
    """Images of a shard; the last one may have fewer."""
    folder: str
    """Which paths in the list that are not absolute are below."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that the answers depend on."""

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard)

    def size(self, shard: int) -> int:
        """Images of one shard."""
        return min(self.shard, self.images - shard * self.shard)

    def rows(self, shard: int) -> pyarrow.Table:
        """The list of one shard: `path` in bytes, and what stands beside it."""
        return self._list.read_row_group(shard)

    @cached_property
    def _list(self) -> Any:
        from pyarrow import parquet

        place = inside(self.out, LIST)
        try:
            return parquet.ParquetFile(io.BytesIO(read(place)) if is_uri(place) else place)
        except OSError as error:
            raise_machine_error(error)
            raise ClusterError(
                "a machine of the cluster does not see the folder of the job",
                found=f"{place}: {briefly(error)}",
                expected="a folder that all machines share, or an object store",
                do="name such a one with --out",
            ) from error

    def done(self, shard: int) -> Part | None:
        """The part of a shard where it is there, of this job, and whole."""
        from pyarrow import ArrowException, parquet

        try:
            data = read(inside(self.out, PART.format(shard)))
            table = parquet.read_table(io.BytesIO(data))
            about = json.loads((table.schema.metadata or {})[ABOUT])
        except (OSError, ArrowException, ValueError, LookupError):
            return None
        same = about == {"job": self.id, "shard": shard} and len(table) == self.size(shard)
        return _part(shard, table, data) if same else None

    def finish(self, shard: int, table: pyarrow.Table) -> Part:
        """Write the part of a shard. Raises `DiskError`."""
        from pyarrow import parquet

        if len(table) != self.size(shard):
            raise RuntimeError(f"{len(table)} answers for the {self.size(shard)} of shard {shard}")
        about = json.dumps({"job": self.id, "shard": shard}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), ABOUT: about})
        file = io.BytesIO()
        parquet.write_table(table, file)
        write(inside(self.out, PART.format(shard)), file.getvalue())
        return _part(shard, table, file.getvalue())

    def found(self) -> dict[int, Part]:
        """What is done already, by shard. Reads it all: what was damaged is not among it."""
        there = set(names(self.out))
        shards = [one for one in range(self.shards) if PART.format(one) in there]
        with ThreadPoolExecutor(READERS, thread_name_prefix="tlkit-parts") as pool:
            parts = pool.map(self.done, shards)
            return {one.shard: one for one in parts if one is not None}

    def complete(self, parts: Mapping[int, Part]) -> None:
        """Write the manifest, now that there is a part of every shard. Raises `DiskError`."""
        told = [
            {
                "file": PART.format(one.shard),
                "rows": one.rows,
                "bad": one.bad,
                "sha256": one.sha256,
            }
            for one in (parts[shard] for shard in range(self.shards))
        ]
        write_json(
            inside(self.out, MANIFEST),
            {
                "complete": True,
                "job": self.id,
                "images": self.images,
                "bad": sum(one.bad for one in parts.values()),
                "parts": told,
            },
        )


def begin(
    out: str,
    plan: Mapping[str, Any],
    make_list: Callable[[], Iterator[pyarrow.Table]],
    *,
    shard: int,
) -> Job:
    """Begin a job, or go on with the one whose plan is in `out` already.

    `plan` holds what the answers depend on, in words that a user knows; `make_list` gives the list
    in tables, and is not asked where there is one. Raises `RunFolderError` where `out` holds
    anything else, or another job; `DiskError`.
    """
    out = on_disk(out)
    # Others, in folders of their own, are to see the same.
    out = out if is_uri(out) else os.path.abspath(out)
    plan = json.loads(json.dumps({**plan, "--shard": shard}))
    if not is_uri(out):
        _remove_abandoned(out)
    there = names(out)
    strangers = [one for one in there if not OWN.fullmatch(one)]
    if strangers:
        raise RunFolderError(
            f"{out} holds something else",
            found=few(strangers),
            expected="a new or empty folder, or that of a job to go on with",
            do="name another folder with --out",
        )
    if PLAN in there:
        known = _read_plan(out)
        _refuse_other(out, known["asked"], plan)
    else:
        make_folder(out)
        known = {"asked": plan, **_write_list(out, make_list(), shard)}
        write_json(inside(out, PLAN), known)
    _must_be_whole(out, known)
    return Job(
        out=out,
        id=sha256_of(json.dumps(known, sort_keys=True)),
        images=known["images"],
        shard=shard,
        folder=plan["folder"],
        versions=plan["versions"],
    )


def _remove_abandoned(out: str) -> None:
    """Remove what processes that were killed have left under temporary names."""
    for match in filter(None, map(TEMPORARY.fullmatch, names(out))):
        remove_abandoned(Path(out, match[1]))


def write_json(place: str, data: Any) -> None:
    """Raises `DiskError`."""
    text = json_text(data, indent=2) + "\n"
    write(place, text.encode("utf-8", "surrogateescape"))


def _write_list(out: str, tables: Iterator[pyarrow.Table], shard: int) -> dict[str, Any]:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.concat_tables(list(tables))
    file = io.BytesIO()
    parquet.write_table(table, file, row_group_size=shard)
    write(inside(out, LIST), file.getvalue())
    return {"images": len(table), "list": sha256_of(file.getvalue())}


def _read_plan(out: str) -> dict[str, Any]:
    place = inside(out, PLAN)
    try:
        known = json.loads(read(place).decode("utf-8", "surrogateescape"))
        if {"asked", "images", "list"} <= set(known) and isinstance(known["asked"], dict):
            return dict(known)
        fault = "not what a job has written"
    except (OSError, ValueError) as error:
        raise_machine_error(error)
        fault = briefly(error)
    raise RunFolderError(
        f"{place} cannot be used",
        found=fault,
        expected="the plan of a job to go on with",
        do="name another folder with --out",
    )


def _refuse_other(out: str, known: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Raise `RunFolderError` where the job there is another one, which names the differences."""
    keys = list(dict.fromkeys([*plan, *known]))
    other = [one for one in keys if known.get(one) != plan.get(one)]
    if other:
        raise RunFolderError(
            f"{out} holds another job",
            found=listing([f"{one}: {_told(known.get(one))}" for one in other]),
            expected=listing([f"{one}: {_told(plan.get(one))}" for one in other]),
            do="name another folder with --out, or start it as it was",
        )


def _told(value: Any) -> str:
    """A part of a plan in one line."""
    if isinstance(value, Mapping):
        return few([f"{name} {one}" for name, one in value.items()])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return few([str(one) for one in value])
    return "not given" if value in (None, "") else str(value)


def _must_be_whole(out: str, known: Mapping[str, Any]) -> None:
    place = inside(out, LIST)
    try:
        digest = hashlib.sha256()
        with opened(place) as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
        found = digest.hexdigest()
    except OSError as error:
        raise_machine_error(error)
        found = briefly(error)
    if found != known["list"]:
        raise RunFolderError(
            f"{place} is not the list of this job",
            found=found,
            expected=f"the digest {known['list']}",
            do="name another folder with --out: a job whose list was lost cannot go on",
        )


def _part(shard: int, table: pyarrow.Table, data: bytes) -> Part:
    from pyarrow import compute

    told = table.select(["path", "error"]).filter(compute.is_valid(table.column("error")))
    first = told.slice(0, SHOWN)
    return Part(
        shard=shard,
        rows=len(table),
        bad=len(told),
        sha256=sha256_of(data),
        unreadable=tuple(
            zip(first.column("path").to_pylist(), first.column("error").to_pylist(), strict=True)
        ),
    )
