"""Layout: what of a prediction is written, one row for each image.

In: predictions and bad images. Out: cells for tables, CSV and Parquet; records for JSON.
Not here: who writes them (tlkit/cli/predict.py, tlkit/scale/scoring.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlkit.data.images import BadImage
from tlkit.options import PredictOptions
from tlkit.predict.run import Prediction

if TYPE_CHECKING:
    import pyarrow

NUMBERS = ("probability", "familiarity")
"""What the names of columns with numbers begin with."""


@dataclass(frozen=True)
class Layout:
    """What of a prediction is written."""

    top: int
    """Classes of each image."""
    answers: bool
    """Whether the answer stands there too, since it may be none of the classes."""
    familiarity: bool
    """Whether that stands there too."""

    @property
    def columns(self) -> list[str]:
        """Names, as a file has them; the last is for images that could not be read."""
        each = [f"{name}_{i}" for i in range(1, self.top + 1) for name in ("class", "probability")]
        asked = ["answer"] * self.answers + ["familiarity"] * self.familiarity
        return ["path", *asked, *each, "error"]

    def row(self, one: Prediction | BadImage) -> list[Any]:
        """A cell for each column."""
        if isinstance(one, BadImage):
            return [str(one.path), *[""] * (len(self.columns) - 2), one.reason]
        asked = [one.label] * self.answers + [one.familiarity] * self.familiarity
        return [str(one.path), *asked, *(cell for pair in one.top(self.top) for cell in pair), ""]

    def record(self, one: Prediction | BadImage) -> dict[str, Any]:
        """As JSON takes it."""
        if isinstance(one, BadImage):
            return {"path": str(one.path), "error": one.reason}
        top = [{"class": name, "probability": likely} for name, likely in one.top(self.top)]
        answer = {"answer": one.label, "unsure": one.unsure} if self.answers else {}
        known = {"familiarity": one.familiarity} if self.familiarity else {}
        return {"path": str(one.path), **answer, **known, "top": top}

    def table(self, rows: Sequence[Sequence[Any]]) -> pyarrow.Table:
        """As Parquet takes it; an empty cell is null. Needs pyarrow."""
        import pyarrow

        kinds = [
            pyarrow.float64() if name.startswith(NUMBERS) else pyarrow.string()
            for name in self.columns
        ]
        cells = [[as_cell(row[i]) for row in rows] for i in range(len(kinds))]
        arrays = [pyarrow.array(each, kind) for each, kind in zip(cells, kinds, strict=True)]
        return pyarrow.table(dict(zip(self.columns, arrays, strict=True)))


def as_cell(value: Any) -> Any:
    """Return a value as Parquet takes it: the bytes of a name that are no UTF-8 as \\udcXX."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode() if value else None
    return value


def layout_for(options: PredictOptions, top: int, classes: int) -> Layout:
    """What these options ask for, of at most `top` classes of so many."""
    return Layout(
        top=min(top, classes),
        answers=bool(options.reject_below or options.reject_unlike),
        familiarity=options.reject_unlike > 0,
    )
