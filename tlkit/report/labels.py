"""Labels: which images most likely stand in the wrong class.

In: labels, and the probabilities of heads that have not learnt from the image. Out: `Suspect`s,
the least probable label first: those of confident learning (Northcutt, Jiang and Chuang 2021,
arXiv 1911.00068), as cleanlab has it, and those that most of the probability is against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An image whose class is in doubt."""

    file: str
    given: str
    """The class that it stands in."""
    likely: str
    """The class that it looks like."""
    probability: float
    """Of the given class, out of fold."""


def can_tell() -> bool:
    """Whether what finds them is installed."""
    return find_spec("cleanlab") is not None


def suspects(
    files: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
) -> list[Suspect]:
    """(N,) files and labels, (N, C) probabilities -> those in doubt. Raises `OptionError`."""
    if not can_tell():
        raise OptionError(
            "labels cannot be checked",
            found="no package cleanlab",
            expected="what finds label errors",
            do="pip install 'tlkit[labels]'",
        )
    from cleanlab.filter import find_label_issues

    everywhere = np.arange(len(labels))
    called, own = probabilities.argmax(axis=1), probabilities[everywhere, labels]
    # Its threshold is how sure the heads are of a class on average: heads that are sure leave out a
    # third of what was put into a wrong class on purpose. So what the majority is against is added.
    doubted = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    doubted |= (called != labels) & (probabilities.max(axis=1) > 0.5)
    ranked = everywhere[doubted][np.argsort(own[doubted], kind="stable")]
    return [
        Suspect(
            file=files[i],
            given=classes[labels[i]],
            likely=classes[int(called[i])],
            probability=float(own[i]),
        )
        for i in map(int, ranked)
    ]
