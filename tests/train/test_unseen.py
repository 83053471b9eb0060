"""What probabilities are calibrated on: images by heads that did not learn from them."""

import numpy as np
import pytest

from tlkit.data.folder import scan_parts
from tlkit.fitting import fit_parts
from tlkit.options import FitOptions
from tlkit.plugins import choose
from tlkit.steps import finish
from tlkit.train.run import PARTS, _parts


def fitted(folder, **options):
    given = FitOptions(backbone="tiny", **options)
    return finish(fit_parts(given, choose("tiny"), scan_parts(folder)))


def test_a_solved_head_is_calibrated_on_every_image(colours):
    one = fitted(colours).trained
    assert len(one.val_labels) < 24
    assert len(one.unseen.labels) == len(one.unseen.probabilities) == 24
    assert np.bincount(one.unseen.labels).tolist() == [8, 8, 8]
    assert np.allclose(one.unseen.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    "way",
    [{"head": "mlp", "epochs": 1}, {"freeze": "none", "epochs": 1}, {"group_by": r"\d(?=\.)"}],
)
def test_other_heads_and_groups_are_calibrated_on_the_validation_images(colours, way):
    one = fitted(colours, **way)
    assert len(one.trained.unseen.labels) == len(one.trained.val_labels)
    assert one.card.calibration.images == len(one.trained.val_labels)


def test_the_head_that_is_kept_is_the_one_that_was_solved_on_all(colours, monkeypatch):
    wanted = fitted(colours).trained.cut.trained_tensors()
    monkeypatch.setattr("tlkit.train.run._worth_crossing", lambda *_: False)
    other = fitted(colours).trained
    assert len(other.unseen.labels) == len(other.val_labels)
    for name, one in other.cut.trained_tensors().items():
        assert np.array_equal(one.detach().numpy(), wanted[name].detach().numpy()), name


@pytest.mark.parametrize("refit", [True, False])
def test_with_and_without_a_last_solution_it_is_the_same_calibration(colours, refit):
    one, other = (fitted(colours, refit=each).card.calibration for each in (refit, True))
    assert (one.temperature, one.images) == (other.temperature, 24)


def test_parts_are_even_and_a_lone_image_is_never_held_out():
    labels = np.repeat(np.arange(4), [1, 2, 10, 23])
    part = _parts(labels, seed=0)
    assert part[0] == -1
    assert sorted(np.unique(part[1:])) == list(range(PARTS))
    for label in range(1, 4):
        counts = np.bincount(part[labels == label], minlength=PARTS)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(part, _parts(labels, seed=0))
    assert not np.array_equal(part, _parts(labels, seed=1))
