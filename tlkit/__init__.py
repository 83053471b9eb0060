"""tlkit: from a folder of photos to a classifier you can trust, on any backbone.

The front door. Names below are loaded when they are first used, so `import tlkit` costs nothing.

    import tlkit
    result = tlkit.fit("cats_dogs/train", backbone="vgg16_bn", freeze="features")
    head = tlkit.load(result.head)
    for one in head.predict("photos/", tta="mirror"):
        print(one)
    print(head.evaluate("cats_dogs/test").accuracy)

Letters in every docstring: B batch, C your classes, D the backbone's vector, F feature channels,
H W pixels, K the backbone's own classes, N images, T tokens, V views.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# torch's OpenMP threads wait for each other by spinning, by default for a long time. Beside any
# other busy thread, tlkit's own image readers among them, that costs a time slice per operation:
# a head took 15 s instead of 0.9 s. Read when torch is first imported; a user's own value stays.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from tlkit.ask.compare import Comparison, compare, compare_events
    from tlkit.ask.curve import Curve, curve, curve_events
    from tlkit.ask.search import Found, search, search_events
    from tlkit.ask.similar import Similar, similar, similar_events
    from tlkit.ask.suggest import Suggested, suggest, suggest_events
    from tlkit.backbone import Backbone, Family, InputSpec, Network, WeightSet
    from tlkit.checking import check, check_events
    from tlkit.classifier import Classifier, backbones, load
    from tlkit.data.audit import Audit
    from tlkit.data.images import BadImage
    from tlkit.data.transforms import Preset
    from tlkit.errors import TlkitError
    from tlkit.estimator import ImageClassifier
    from tlkit.fitting import FitResult, fit, fit_events
    from tlkit.folds import FoldsResult
    from tlkit.metrics import Evaluation
    from tlkit.model.heads import HeadKind
    from tlkit.model.summary import Summary
    from tlkit.options import (
        CheckOptions,
        CompareOptions,
        CurveOptions,
        FeatureOptions,
        FitOptions,
        PredictOptions,
        ReportOptions,
        ScoreOptions,
        SearchOptions,
        SimilarOptions,
        SortOptions,
        SuggestOptions,
        SummaryOptions,
        SweepOptions,
    )
    from tlkit.predict.run import Prediction
    from tlkit.predict.tta import Policy, View
    from tlkit.rates import find_lr, find_lr_events
    from tlkit.reporting import report_events, write_report
    from tlkit.scale.features import features
    from tlkit.scale.pool import Written
    from tlkit.scale.scoring import score
    from tlkit.sizing import summary
    from tlkit.sorting import Sorted, sort, sort_events, unsort, unsort_events
    from tlkit.train.range_test import RangeTest

__version__ = "0.1.0"

_WHERE = {
    "Audit": "tlkit.data.audit",
    "Backbone": "tlkit.backbone",
    "BadImage": "tlkit.data.images",
    "CheckOptions": "tlkit.options",
    "Classifier": "tlkit.classifier",
    "CompareOptions": "tlkit.options",
    "Comparison": "tlkit.ask.compare",
    "Curve": "tlkit.ask.curve",
    "CurveOptions": "tlkit.options",
    "Evaluation": "tlkit.metrics",
    "Family": "tlkit.backbone",
    "FeatureOptions": "tlkit.options",
    "FitOptions": "tlkit.options",
    "FitResult": "tlkit.fitting",
    "FoldsResult": "tlkit.folds",
    "Found": "tlkit.ask.search",
    "HeadKind": "tlkit.model.heads",
    "ImageClassifier": "tlkit.estimator",
    "InputSpec": "tlkit.backbone",
    "Network": "tlkit.backbone",
    "Policy": "tlkit.predict.tta",
    "PredictOptions": "tlkit.options",
    "Prediction": "tlkit.predict.run",
    "Preset": "tlkit.data.transforms",
    "RangeTest": "tlkit.train.range_test",
    "ReportOptions": "tlkit.options",
    "ScoreOptions": "tlkit.options",
    "SearchOptions": "tlkit.options",
    "Similar": "tlkit.ask.similar",
    "SimilarOptions": "tlkit.options",
    "SortOptions": "tlkit.options",
    "Sorted": "tlkit.sorting",
    "SuggestOptions": "tlkit.options",
    "Suggested": "tlkit.ask.suggest",
    "Summary": "tlkit.model.summary",
    "SummaryOptions": "tlkit.options",
    "SweepOptions": "tlkit.options",
    "TlkitError": "tlkit.errors",
    "View": "tlkit.predict.tta",
    "WeightSet": "tlkit.backbone",
    "Written": "tlkit.scale.pool",
    "backbones": "tlkit.classifier",
    "check": "tlkit.checking",
    "check_events": "tlkit.checking",
    "compare": "tlkit.ask.compare",
    "compare_events": "tlkit.ask.compare",
    "curve": "tlkit.ask.curve",
    "curve_events": "tlkit.ask.curve",
    "features": "tlkit.scale.features",
    "find_lr": "tlkit.rates",
    "find_lr_events": "tlkit.rates",
    "fit": "tlkit.fitting",
    "fit_events": "tlkit.fitting",
    "load": "tlkit.classifier",
    "report_events": "tlkit.reporting",
    "score": "tlkit.scale.scoring",
    "search": "tlkit.ask.search",
    "search_events": "tlkit.ask.search",
    "similar": "tlkit.ask.similar",
    "similar_events": "tlkit.ask.similar",
    "sort": "tlkit.sorting",
    "sort_events": "tlkit.sorting",
    "suggest": "tlkit.ask.suggest",
    "suggest_events": "tlkit.ask.suggest",
    "summary": "tlkit.sizing",
    "unsort": "tlkit.sorting",
    "unsort_events": "tlkit.sorting",
    "write_report": "tlkit.reporting",
}

__all__ = [
    "Audit",
    "Backbone",
    "BadImage",
    "CheckOptions",
    "Classifier",
    "CompareOptions",
    "Comparison",
    "Curve",
    "CurveOptions",
    "Evaluation",
    "Family",
    "FeatureOptions",
    "FitOptions",
    "FitResult",
    "FoldsResult",
    "Found",
    "HeadKind",
    "ImageClassifier",
    "InputSpec",
    "Network",
    "Policy",
    "PredictOptions",
    "Prediction",
    "Preset",
    "RangeTest",
    "ReportOptions",
    "ScoreOptions",
    "SearchOptions",
    "Similar",
    "SimilarOptions",
    "SortOptions",
    "Sorted",
    "SuggestOptions",
    "Suggested",
    "Summary",
    "SummaryOptions",
    "SweepOptions",
    "TlkitError",
    "View",
    "WeightSet",
    "Written",
    "__version__",
    "backbones",
    "check",
    "check_events",
    "compare",
    "compare_events",
    "curve",
    "curve_events",
    "features",
    "find_lr",
    "find_lr_events",
    "fit",
    "fit_events",
    "load",
    "report_events",
    "score",
    "search",
    "search_events",
    "similar",
    "similar_events",
    "sort",
    "sort_events",
    "suggest",
    "suggest_events",
    "summary",
    "unsort",
    "unsort_events",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load an exported name where it is defined."""
    if name not in _WHERE:
        raise AttributeError(f"module 'tlkit' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
