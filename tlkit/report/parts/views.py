"""Views: the plain view against test-time policies, in accuracy and in time (predict/tta.py)."""

from __future__ import annotations

from collections.abc import Mapping

from tlkit.metrics import Evaluation
from tlkit.report import svg
from tlkit.report.part import Made, Part, Subject
from tlkit.report.plots import policies as plotted


def views(subject: Subject) -> Made | None:
    """What each policy reached and what it cost; None where none was asked for."""
    if not subject.policies:
        return None
    named = {"plain" if one.name == "none" else one.name: one for one in subject.policies}
    rows = [
        {
            "policy": name,
            "views": one.views,
            "seconds_per_image": one.seconds_per_image,
            "images": one.scores.images,
            "accuracy": one.scores.accuracy,
            "accuracy_95": [one.scores.accuracy_low, one.scores.accuracy_high],
            "balanced_accuracy": one.scores.balanced_accuracy,
            "loss": one.scores.loss,
        }
        for name, one in named.items()
    ]
    scores = {name: one.scores for name, one in named.items()}
    return Made(
        data={"policies": rows},
        show={"chart": _chart(scores)},
        figures={"": plotted(scores)},
    )


def _chart(named: Mapping[str, Evaluation]) -> svg.Chart:
    scores = named.values()
    spans = [(one.accuracy_low, one.accuracy_high) for one in scores]
    line = svg.Line(
        name="accuracy",
        kind="apart",
        points=[(float(place), one.accuracy) for place, one in enumerate(scores)],
        sizes=[5.0] * len(spans),
        spans=spans,
    )
    ends = [end for span in spans for end in span]
    y = svg.axis("", ends, percent=True, most=1.0)
    return svg.chart("Accuracy", [line], x=svg.steps("test-time views", list(named)), y=y)


VIEWS = Part(
    name="views",
    title="More than one look",
    make=views,
    template="views.html",
    keys={
        "policies": "of the plain view and each `--tta`: policy, views, seconds_per_image, images, "
        "accuracy with its interval, balanced_accuracy, loss",
    },
)
