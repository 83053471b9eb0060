"""Confusion: which class is taken for which, and the photos of each cell.

Up to `MOST_CELLS` classes the page has the whole matrix, with more a picture of it; the largest
confusions are a table in either case. Photos are those of confusions first.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlkit.report.part import Made, Part, Subject
from tlkit.report.plots import confusion as plotted
from tlkit.report.thumbnails import thumbnails, uri

MOST_CELLS = 30
"""Classes up to which every cell is on the page."""
MOST_PAIRS = 50
"""Confusions in the table."""
MOST_PHOTOS, MOST_RIGHT = 24, 12
"""Photos of a cell of confusions, and of one on the diagonal."""
MOST_OPEN = 1000
"""Photos of all cells together: a cell beyond them is a number alone."""
PHOTO_BYTES = 5 << 20
"""Of all photos of cells together."""
MOST_PICTURED = 500
"""Side of the picture of a larger matrix."""
SHADES = 9
"""Of a cell, besides none."""


def confusion(subject: Subject) -> Made:
    """The matrix, its largest confusions, and photos of them."""
    table, names = subject.scores.confusion, subject.classes
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[: max(MOST_PAIRS, MOST_CELLS**2)]
    cells = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    cells = [cell for cell in cells if wrong[cell]]
    totals = table.sum(axis=1)
    pairs = [
        {
            "is": names[i],
            "called": names[j],
            "images": int(table[i, j]),
            "share": float(table[i, j] / totals[i]),
        }
        for i, j in cells[:MOST_PAIRS]
    ]
    whole = len(names) <= MOST_CELLS
    wanted = cells[:MOST_PAIRS]
    if whole:
        wanted = cells + [(i, i) for i in range(len(names)) if table[i, i]]
    photos, full = _photos(subject, wanted)
    rows, columns = np.nonzero(table)
    return Made(
        data={
            "classes": list(names),
            "cells": [
                [int(i), int(j), int(table[i, j])] for i, j in zip(rows, columns, strict=True)
            ],
            "pairs": pairs,
        },
        show={
            "whole": whole,
            "names": names,
            "table": table.tolist() if whole else [],
            "shades": _shades(table).tolist() if whole else [],
            "photos": photos,
            "opened": {one["id"] for one in photos},
            "full": full,
            "pairs": [
                one | {"id": f"cell-{i}-{j}"} for one, (i, j) in zip(pairs, cells, strict=False)
            ],
            "more_pairs": int((wrong > 0).sum()) - len(pairs),
            "picture": "" if whole else _picture(table),
            "classes_per_point": math.ceil(len(names) / MOST_PICTURED),
        },
        figures={"": plotted(table, names)},
    )


def _photos(
    subject: Subject, cells: Sequence[tuple[int, int]]
) -> tuple[list[dict[str, Any]], bool]:
    """What lies in these cells, and whether there was no room for all of them."""
    called, sure = subject.called, subject.probabilities.max(axis=1)
    chosen = []
    for i, j in cells:
        inside = np.flatnonzero((subject.labels == i) & (called == j))
        # Of what is right, what was nearly wrong is worth a look; of what is wrong, what is sure.
        order = inside[np.argsort(sure[inside] if i == j else -sure[inside], kind="stable")]
        chosen.append(order[: MOST_RIGHT if i == j else MOST_PHOTOS].tolist())
        if sum(map(len, chosen)) >= MOST_OPEN:
            break
    flat = [one for those in chosen for one in those]
    made, left = thumbnails([subject.paths[one] for one in flat], most_bytes=PHOTO_BYTES)
    pictures = dict(zip(flat, made, strict=True))
    table, names = subject.scores.confusion, subject.classes
    return [
        {
            "id": f"cell-{i}-{j}",
            "is": names[i],
            "called": names[j],
            "right": i == j,
            "images": int(table[i, j]),
            "photos": [
                {
                    "file": subject.files[one],
                    "picture": pictures[one],
                    "sure": float(sure[one]),
                }
                for one in those
            ],
        }
        for (i, j), those in zip(cells, chosen, strict=False)
    ], left <= 0 or len(chosen) < len(cells)


def _shades(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """From 0 (none) to `SHADES`: shares of the row, small ones with more of the scale."""
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    shades: NDArray[np.int64] = np.ceil(SHADES * share**0.5).astype(np.int64)
    return shades


def _picture(table: NDArray[np.int64]) -> str:
    """A large matrix as a picture: blue what is right, red what is wrong, seen through where none.

    Where classes share a point it has the largest share of them, so that no confusion is lost.
    """
    step = math.ceil(len(table) / MOST_PICTURED)
    share = (table / np.maximum(table.sum(axis=1, keepdims=True), 1)) ** 0.5
    right = np.diag(np.diag(share))
    layers = []
    for one in (share - right, right):
        room = -len(one) % step
        padded = np.pad(one, ((0, room), (0, room)))
        side = len(padded) // step
        layers.append(padded.reshape(side, step, side, step).max(axis=(1, 3)))
    wrong, good = layers
    colours = np.array([[200, 85, 61], [47, 128, 200]], dtype=np.uint8)
    pixels = np.empty((*wrong.shape, 4), dtype=np.uint8)
    pixels[:, :, :3] = colours[(good >= wrong).astype(int)]
    strongest = np.maximum(good, wrong)
    pixels[:, :, 3] = np.where(strongest > 0, 55 + 200 * strongest, 0).round()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return uri(file.getvalue(), "png")


CONFUSION = Part(
    name="confusion",
    title="What is taken for what",
    make=confusion,
    template="confusion.html",
    keys={
        "classes": "the names, in the order of the numbers in `cells`",
        "cells": "[is, called, images] for every cell that is not empty",
        "pairs": f"the {MOST_PAIRS} largest confusions: is, called, images, share of the class",
    },
)
