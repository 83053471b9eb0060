"""Scores: how good the head is, class by class, and how it came to be so.

All intervals are Wilson's (metrics.py), of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tlkit.metrics import wilson
from tlkit.report import svg
from tlkit.report.part import Made, Part, Subject
from tlkit.report.plots import curves
from tlkit.train.events import Epoch

MOST_CLASSES = 1000
"""Rows of the table of classes; report.json has all of them."""


def summary(subject: Subject) -> Made:
    """The scores of all images, beside those that the fit has written down."""
    scores = subject.scores
    right = round(scores.accuracy * scores.images)
    recorded = {
        title: found
        for key, title in (
            ("validation", "the fit's validation images"),
            ("out_of_fold", "the fit's images, out of fold"),
            ("test", "the test part, when it was fitted"),
        )
        if (found := _recorded(subject.recorded, key))
    }
    top5 = None if scores.top5 is None else round(scores.top5 * scores.images)
    data = {
        "judged_on": subject.judged,
        "judged_by_fit": subject.judged_by_fit,
        "of_fit": subject.of_fit,
        **{name: one for name, one in scores.plain().items() if name in SCORES},
        "right": right,
        "top5_95": None if top5 is None else list(wilson(top5, scores.images)),
        "absent": list(scores.absent),
        "unreadable": list(scores.unreadable),
        "recorded": recorded,
        "over_folds": _over_folds(subject.recorded.get("over_folds")),
    }
    return Made(data=data, show={"classes": len(subject.classes)})


SCORES = (
    "images", "accuracy", "accuracy_95", "top5", "balanced_accuracy", "loss", "calibration_error",
    "brier",
)  # fmt: skip


def _recorded(metrics: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """Scores in metrics.json, where they are whole: somebody may have edited it."""
    found = metrics.get(key)
    if not isinstance(found, Mapping):
        return None
    low_high = found.get("accuracy_95")
    shares = [found.get("accuracy")]
    shares += low_high if isinstance(low_high, list) and len(low_high) == 2 else [None]
    if not (_is_number(found.get("images"), 1e15) and all(_is_number(one, 1) for one in shares)):
        return None
    return {name: found[name] for name in ("images", "accuracy", "accuracy_95")}


def _over_folds(found: object) -> Mapping[str, Any] | None:
    """The same of a cross-validation's spreads."""
    if not isinstance(found, Mapping) or "accuracy" not in found:
        return None
    kept = {}
    for name, one in found.items():
        numbers = one.values() if isinstance(one, Mapping) and set(one) == SPREAD else [None]
        if not all(_is_number(value, 1e15 if name == "loss" else 1) for value in numbers):
            return None
        kept[name] = dict(one)
    return kept


SPREAD = {"mean", "std", "min", "max"}


def _is_number(found: object, most: float) -> bool:
    """Whether it is one from 0 to `most`; true and false are none, and neither is NaN."""
    return isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found <= most


def classes(subject: Subject) -> Made:
    """Precision, recall and F1 of each class, the worst recall first on the page."""
    table = subject.scores.confusion
    given, right = table.sum(axis=0), table.diagonal()
    rows = []
    for number, one in enumerate(subject.scores.classes):
        hits = int(right[number])
        rows.append(
            {
                "name": one.name,
                "images": one.images,
                "called": int(given[number]),
                "precision": one.precision if given[number] else None,
                "precision_95": _interval(hits, int(given[number])),
                "recall": one.recall if one.images else None,
                "recall_95": _interval(hits, one.images),
                "f1": one.f1 if one.images else None,
            }
        )
    shown = sorted(rows, key=lambda one: (one["recall"] is None, one["recall"]))
    return Made(
        data={"classes": rows},
        show={"rows": shown[:MOST_CLASSES], "more": max(0, len(rows) - MOST_CLASSES)},
    )


def _interval(hits: int, count: int) -> list[float] | None:
    return list(wilson(hits, count)) if count else None


def training(subject: Subject) -> Made | None:
    """Losses and accuracies over the epochs, or over the penalties of a head that was solved."""
    history = subject.history
    if not history:
        return None
    card = subject.cards[0]
    solved = card.options.get("optimizer") == "lbfgs"
    best = next((n for n, one in enumerate(history) if one.number == _best(card.metrics)), None)
    texts = [f"{one.rate:.2g}" if solved else str(one.number) for one in history]
    x = svg.steps("penalty, from strong to weak" if solved else "epoch", texts)
    left = [("training", "second", [one.train_loss for one in history])]
    left += [("validation", "first", [one.val_loss for one in history])]
    if any(one.prior is not None for one in history):
        left += [("validation + prior", "even", [one.selection_loss for one in history])]
    right = [("balanced", "second", [one.val_balanced_accuracy for one in history])]
    right += [("accuracy", "first", [one.val_accuracy for one in history])]
    return Made(
        data={
            "epochs": [_numbers(one) for one in history],
            "best_epoch": None if best is None else history[best].number,
            "penalty": solved,
        },
        show={
            "charts": [
                svg.chart(
                    title,
                    _lines(named),
                    x=x,
                    y=svg.axis(
                        "", [one for _, _, line in named for one in line],
                        percent=percent, most=1.0 if percent else 1e300,
                    ),
                    mark=None if best is None else float(best),
                )
                for title, named, percent in (
                    ("Loss (nats)", left, False),
                    ("Validation accuracy", right, True),
                )
            ],
            "best": None if best is None else texts[best],
            "selection_loss": [
                one.selection_loss if one.prior is not None else None for one in history
            ],
        },
        figures={"": curves(history, penalty=solved, best=best)},
    )  # fmt: skip


def _best(metrics: Mapping[str, Any]) -> object:
    return metrics.get("best_epoch")


def _lines(named: Sequence[tuple[str, str, Sequence[float]]]) -> list[svg.Line]:
    return [
        svg.Line(
            name=name,
            kind=kind,
            points=[(float(place), value) for place, value in enumerate(values)],
            sizes=[2.6] * len(values) if len(values) <= 30 else (),
        )
        for name, kind, values in named
    ]


def _numbers(epoch: Epoch) -> dict[str, float | None]:
    """What JSON has no number for is null."""
    return {
        name: None if one is None or not math.isfinite(one) else one
        for name, one in vars(epoch).items()
    }


SUMMARY = Part(
    name="summary",
    title="Summary",
    make=summary,
    template="summary.html",
    keys={
        "judged_on": "the images, in words",
        "judged_by_fit": "whether the probabilities are those that the fit has written down",
        "of_fit": "how many of the images the fit had, to learn from or to choose and calibrate by "
        "(its train and val parts); null where these are not there any more",
        "images": "how many could be read",
        "right": "of these, how many were called what they are",
        "accuracy": "their share",
        "accuracy_95": "its 95 % interval (Wilson), like all keys in `_95`",
        "top5": "share with the true class among the five likeliest; null with five or fewer",
        "top5_95": "its interval",
        "balanced_accuracy": "mean recall over the classes that occur",
        "loss": "mean cross-entropy in nats",
        "calibration_error": "expected calibration error, 15 bins",
        "brier": "Brier score, 0 to 2",
        "absent": "classes that no image is of",
        "unreadable": "images that took no part, each with its reason",
        "recorded": "images and accuracy as the fit has written them down",
        "over_folds": "of a cross-validation: mean, std, min and max over the folds",
    },
)
CLASSES = Part(
    name="classes",
    title="Class by class",
    make=classes,
    template="classes.html",
    keys={
        "classes": "of each class name, images, called (how often it was answered), precision, "
        "recall and f1, with intervals; null where there is nothing to divide by",
    },
)
CURVES = Part(
    name="curves",
    title="Training",
    make=training,
    template="curves.html",
    keys={
        "epochs": "the rows of history.csv; null for what is no number; the loss that decides is "
        "val_loss + prior",
        "best_epoch": "the one that was kept",
        "penalty": "whether `rate` is a penalty: the head was solved",
    },
)
