"""Listing: what files, folders, globs, manifests and URIs mean, as one list.

In: what a user names. Out: paths and URIs in order, as often as they are named; only folders that
overlap are merged.
A manifest is a Parquet file with a column `path`; a path in it that is not absolute is one below
the manifest's own folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tlkit.data.folder import ENDINGS, expand, find_images, is_image_name, merged
from tlkit.data.shards import is_shard
from tlkit.errors import FolderError, briefly, listing
from tlkit.scale.places import found, inside, is_uri, opened

COLUMN = "path"
MANIFEST = ".parquet"


def listed(given: Sequence[str]) -> list[str]:
    """List the images that paths, folders, globs, manifests and URIs mean.

    Raises `FolderError` for what is not there, all faults in one.
    """
    lists: list[tuple[list[str], str]] = []
    faults: list[str] = [] if given else ["an empty list"]
    for one in given:
        try:
            lists += [(list(names), root) for names, root in _meant(one)]
        except FolderError as error:
            faults.append(error.found)
        except OSError as error:
            faults.append(f"{one}: {briefly(error)}")
    if faults:
        raise FolderError(
            "there is nothing to look at",
            found=listing(faults),
            expected=f"image files, folders of them ({' '.join(sorted(ENDINGS))}), or Parquet "
            f"files with a column {COLUMN}",
            do="correct the paths",
        )
    return list(merged(lists))


def _meant(one: str) -> Iterator[tuple[Iterable[str], str]]:
    """Yield the images, and the folder that they were found in, or ""; see `merged`."""
    if is_uri(one):
        yield _of_uri(one)
        return
    for path in expand([one]):
        if path.suffix.lower() == MANIFEST and not path.is_dir():
            yield _of_manifest(str(path)), ""
        else:
            holds_many = path.is_dir() or is_shard(path.name)
            yield find_images([path]).texts(), str(path) if holds_many else ""


def _of_uri(uri: str) -> tuple[Iterable[str], str]:
    """Return the images of a URI, and the folder that they were found in, or ""."""
    there = found(uri)
    if there is None:
        raise _missing(f"{uri}: no such file or folder")
    if there == [uri]:
        return (_of_manifest(uri) if _ending(uri) == MANIFEST else there), ""
    images = [one for one in there if is_image_name(one.partition("?")[0]) and not _hidden(one)]
    if not images:
        raise _missing(f"{uri}: a folder without images")
    return images, uri


def _of_manifest(place: str) -> Iterator[str]:
    from pyarrow import ArrowException, parquet

    folder = place.partition("?")[0].rpartition("/")[0] if is_uri(place) else ""
    options = place[len(place.partition("?")[0]) :] if folder else ""
    try:
        with opened(place) as file:
            table = parquet.ParquetFile(file)
            if COLUMN not in table.schema_arrow.names:
                raise _missing(
                    f"{place}: no column {COLUMN}, but {', '.join(table.schema_arrow.names)}"
                )
            for batch in table.iter_batches(columns=[COLUMN]):
                for one in batch.column(0).to_pylist():
                    if one is None:
                        raise _missing(f"{place}: a row without a {COLUMN}")
                    text = one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else one
                    yield _below(text, place, folder, options)
    except ArrowException as error:
        raise _missing(f"{place}: {briefly(error)}") from error


def _below(text: str, place: str, folder: str, options: str) -> str:
    """What a manifest's row means."""
    if is_uri(text):
        return text
    if folder:
        return inside(f"{folder}{options}", text)
    return str(Path(place).parent / text)


def _ending(uri: str) -> str:
    return Path(uri.partition("?")[0]).suffix.lower()


def _hidden(uri: str) -> bool:
    return any(part.startswith(".") for part in uri.partition("?")[0].split("/")[3:])


def _missing(what: str) -> FolderError:
    return FolderError(what, found=what, expected="images", do="correct the paths")
