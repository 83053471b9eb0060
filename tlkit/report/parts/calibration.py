"""Calibration: whether a probability is how often the head is right, and what the temperature did.

Reliability diagrams: Niculescu-Mizil and Caruana 2005 (doi 10.1145/1102351.1102430); temperature
scaling and expected calibration error: Guo et al. 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import math
from typing import Any

from tlkit.calibration import tempered
from tlkit.metrics import BINS, Bin, Evaluation, measure, reliability, wilson
from tlkit.report import svg
from tlkit.report.part import Made, Part, Subject
from tlkit.report.plots import reliability as plotted


def calibration(subject: Subject) -> Made:
    """The reliability diagram, with and without the temperature where that is one number."""
    temperatures = [one.calibration.temperature for one in subject.cards]
    after = reliability(subject.labels, subject.probabilities)
    before: list[Bin] | None = None
    raw: dict[str, Any] | None = None
    if len(temperatures) == 1:
        # What was divided by T is multiplied by it again: the softmax of the logits themselves.
        untouched = tempered(subject.probabilities, 1 / temperatures[0])
        before = reliability(subject.labels, untouched)
        raw = _scores(measure(subject.labels, untouched, subject.classes))
    data = {
        "bins": [vars(one) for one in after],
        "bins_before": None if before is None else [vars(one) for one in before],
        "temperatures": temperatures,
        "calibrated_on": sum(one.calibration.images for one in subject.cards),
        **_scores(subject.scores),
        "before": raw,
    }
    return Made(
        data=data,
        show={"chart": _chart(after, before), "bins": BINS, "own": subject.judged_by_fit},
        figures={"": plotted(after, before)},
    )


def _scores(scores: Evaluation) -> dict[str, float]:
    return {
        "calibration_error": scores.calibration_error,
        "brier": scores.brier,
        "loss": scores.loss,
    }


def _chart(after: list[Bin], before: list[Bin] | None) -> svg.Chart:
    shares = [(one / 5, f"{20 * one} %") for one in range(6)]
    x, y = (
        svg.Axis(label=label, low=-0.03, high=1.03, ticks=shares)
        for label in ("how sure it is", "how often it is right")
    )
    lines = [svg.Line(name="ideal", kind="even", points=[(0.0, 0.0), (1.0, 1.0)])]
    if before is not None:
        lines.append(_line("without temperature", "second", before))
    lines.append(_line("as it answers", "first", after))
    return svg.chart("Reliability", lines, x=x, y=y)


def _line(name: str, kind: str, bins: list[Bin]) -> svg.Line:
    images = sum(one.images for one in bins)
    return svg.Line(
        name=name,
        kind=kind,
        points=[(one.sure, one.right) for one in bins],
        sizes=[round(2 + 7 * math.sqrt(one.images / images), 1) for one in bins],
        spans=[wilson(round(one.right * one.images), one.images) for one in bins]
        if kind == "first"
        else (),
    )


CALIBRATION = Part(
    name="calibration",
    title="How sure is sure",
    make=calibration,
    template="calibration.html",
    keys={
        "bins": "of each bin that holds images: sure (mean probability of the likeliest class), "
        "right (share that is), images",
        "bins_before": "the same without the temperature; null where several heads answer",
        "temperatures": "of each head: what its logits are divided by",
        "calibrated_on": "images that the temperatures were learnt from",
        "calibration_error": "expected calibration error",
        "brier": "Brier score",
        "loss": "mean cross-entropy in nats",
        "before": "the three without the temperature; null where several heads answer",
    },
)
