"""Listing: what files, folders, globs, manifests and URIs mean, as one list.

In: what a user names. Out: paths and URIs in order, each once.
A manifest is a Parquet file with a column `path`; a path in it that is not absolute is one below
the manifest's own folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tlkit.data.folder import ENDINGS, expand, find_images, is_image_name
from tlkit.errors import FolderError, briefly, listing
from tlkit.scale.places import found, inside, is_uri, opened

COLUMN = "path"
MANIFEST = ".parquet"


def listed(given: Sequence[str]) -> list[str]:
    """The images that paths, folders, globs, manifests and URIs mean.

    Raises `FolderError` for what is not there, all faults in one.
    """
    images: dict[str, None] = {}
    faults: list[str] = []
    for one in given:
        try:
            images.update(dict.fromkeys(_meant(one)))
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
    return list(images)


def _meant(one: str) -> Iterator[str]:
    if is_uri(one):
        yield from _of_uri(one)
        return
    for path in expand([one]):
        if path.suffix.lower() == MANIFEST:
            yield from _of_manifest(str(path))
        else:
            yield from map(str, find_images([path]))


def _of_uri(uri: str) -> Iterator[str]:
    there = found(uri)
    if there is None:
        raise _missing(f"{uri}: no such file or folder")
    if there == [uri]:
        yield from _of_manifest(uri) if _ending(uri) == MANIFEST else there
        return
    images = [one for one in there if is_image_name(one.partition("?")[0]) and not _hidden(one)]
    if not images:
        raise _missing(f"{uri}: a folder without images")
    yield from images


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
