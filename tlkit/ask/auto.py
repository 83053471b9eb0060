"""Auto: what `--backbone auto` becomes in a fit.

In: the folder and the options of a fit. Out: the options with the backbone, its weights, the
pooling and the head that a search has found. What it was is written beside the checkpoints, so that
a fit which is resumed goes on with it.
Next door: search.py (the search).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path

from tlkit import ranks, runs
from tlkit.ask.search import HEADS, search_events
from tlkit.errors import briefly
from tlkit.files import write_text
from tlkit.options import FitOptions, SearchOptions
from tlkit.train.events import Event, Note
from tlkit.train.recipe import STEPS

AUTO = "auto"
"""The backbone's name that asks for a search."""

FOUND = ("backbone", "weights", "pool", "head")
"""Options of a fit that a search decides."""

CHOICE = "search.json"
"""What a search has found, in the folder of the checkpoints."""


def refuse_with_auto(options: FitOptions) -> None:
    """Raise `OptionError` for options that the search decides, or that depend on what it finds."""
    options.refuse(
        [*FOUND[1:], "attach", "hidden", "dropout"],
        "a backbone by its name: with --backbone auto a search decides this",
    )
    solved = options.optimizer == "auto" and options.strategy in ("auto", "probe")
    if solved and options.freeze in ("auto", "features", "backbone"):
        options.refuse(
            STEPS,
            "training in steps: with --backbone auto the head may be one that is solved "
            "(--optimizer adamw)",
        )


def settled(
    folder: Path, options: FitOptions, place: Path, *, fit: str, resume: bool
) -> Generator[Event, None, FitOptions]:
    """The options with what was found in them; the search runs unless `place` tells it already.

    `fit` tells this fit from any other.

    Of several processes the first searches, on its own, and the others get what it has found.
    """
    changes: dict[str, str] | None = None
    failed: Exception | None = None
    if ranks.here().first:
        with ranks.alone():
            try:
                changes, why = _kept(place, fit) if resume else (None, "")
                if why:
                    yield Note(text=f"{place / CHOICE} {why}: the search is done again")
                if changes is None:
                    changes = yield from _search(folder, options)
                    told = {"fit": fit, "found": changes}
                    write_text(place / CHOICE, runs.as_json(told))
            except Exception as error:  # the others wait: they have to hear of it
                failed = error
    changes, failed = ranks.here().agree((changes, failed))
    if failed is not None:
        raise failed
    found = FitOptions.of(asdict(options) | (changes or {}))
    if options.folds:
        yield Note(
            text="the backbone was chosen by the same training images: the scores of the folds "
            "flatter it a little"
        )
    return found


def _search(folder: Path, options: FitOptions) -> Generator[Event, None, dict[str, str]]:
    asked = replace(options.narrowed(SearchOptions), backbone="")
    heads = HEADS[:1] if options.optimizer == "lbfgs" else HEADS
    found = yield from search_events(folder, asked, heads=heads)
    judged = found.judged
    yield Note(
        text=f"backbone auto: {found.best.label}, pooling {found.best.score.pool}, head "
        f"{found.best.score.head}: {found.reason}; {judged.accuracy:.1%} "
        f"({judged.accuracy_low:.1%} to {judged.accuracy_high:.1%}) on {judged.images} photos "
        "that took part in no choice"
    )
    return found.changes


def _kept(place: Path, fit: str) -> tuple[dict[str, str] | None, str]:
    """Return what this fit has found before it was interrupted, or why a file of it is of no use.

    Neither, where it had not come so far.
    """
    try:
        told = runs.read_json(place / CHOICE)
        found = {name: str(one) for name, one in told["found"].items() if name in FOUND}
        same = told["fit"] == fit
        if "backbone" not in found:
            return None, "is damaged (it names no backbone)"
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return None, f"is damaged ({briefly(error)})"
    return (found, "") if same else (None, "is of another fit")
