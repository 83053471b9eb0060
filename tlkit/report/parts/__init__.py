"""Parts: the sections of a report, each a function and a row in its file, here in their order."""

from __future__ import annotations

from collections.abc import Mapping

from tlkit import plugins
from tlkit.report.part import Part
from tlkit.report.parts.calibration import CALIBRATION
from tlkit.report.parts.confusion import CONFUSION
from tlkit.report.parts.data import DATA
from tlkit.report.parts.origin import ORIGIN
from tlkit.report.parts.photos import PHOTOS
from tlkit.report.parts.scores import CLASSES, CURVES, SUMMARY
from tlkit.report.parts.views import VIEWS
from tlkit.rows import Rows

OWN: Mapping[str, Part] = {
    one.name: one
    for one in (
        SUMMARY, CONFUSION, PHOTOS, CLASSES, CALIBRATION, CURVES, VIEWS, DATA, ORIGIN,
    )
}  # fmt: skip

PARTS = Rows(Part, plugins.REPORTS, OWN)
