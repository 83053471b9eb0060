"""Familiar images: prototypes are near what was learnt from, and strangers are told from it."""

import numpy as np
import pytest
import torch

import tlkit
from tlkit.artifact import load as load_head
from tlkit.calibration import familiarity
from tlkit.classifier import load
from tlkit.errors import HeadFileError, OptionError
from tlkit.model.familiar import TENSOR, Familiar, familiar_with, most_prototypes
from tlkit.predict.run import UNSURE


def clusters(count=40, width=24, seed=0):
    """Two classes of two clusters each, and a stranger far from all of them."""
    random = np.random.default_rng(seed)
    middles = 10 * random.normal(size=(5, width))
    place = np.repeat(np.arange(5), count)
    vectors = middles[place] + random.normal(size=(5 * count, width))
    return torch.from_numpy(vectors).float(), place


def test_strangers_are_less_like_it_than_anything_learnt_from():
    vectors, place = clusters()
    known = place < 4
    labels = place[known] // 2
    familiar = familiar_with(lambda at: vectors[known][at], labels, seed=0)
    assert familiar.prototypes.dtype == torch.float16
    assert familiar.prototypes.shape[0] <= 2 * most_prototypes(2, 24)
    assert torch.allclose(familiar.prototypes.float().norm(dim=1), torch.tensor(1.0), atol=1e-2)
    found = familiar(vectors)
    assert found[torch.from_numpy(known)].min() > found[torch.from_numpy(~known)].max()
    assert found.abs().max() <= 1.01
    # What counts is the direction.
    assert torch.allclose(familiar(3 * vectors), found, atol=1e-5)


def test_the_same_seed_finds_the_same_prototypes():
    vectors, place = clusters()
    one, other = (familiar_with(lambda at: vectors[at], place, seed=3) for _ in range(2))
    assert torch.equal(one.prototypes, other.prototypes)


def test_a_class_of_one_image_has_one_prototype_and_many_classes_have_few():
    vectors, _ = clusters(count=1)
    assert len(familiar_with(lambda at: vectors[at], np.arange(5), seed=0).prototypes) == 5
    assert most_prototypes(2, 1280) == 6
    assert most_prototypes(2, 64) == 8
    assert most_prototypes(1000, 1280) == most_prototypes(2, 25088) == 1


def test_familiarity_is_the_share_of_validation_images_that_are_less_like_it():
    from tlkit.calibration import calibration_of

    rows, labels = np.full((5, 2), 0.5), np.zeros(5, np.int64)
    one = calibration_of(rows, labels, np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert familiarity(one, 0.3) == pytest.approx(0.5)
    assert (familiarity(one, -1.0), familiarity(one, 0.9)) == (0.0, 1.0)


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").run


def test_images_of_something_else_get_no_name(run, colours, tmp_path):
    from PIL import Image

    # The network has learnt from colours: the stripes of no colour are not among them.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    head = load(run)
    (stranger,) = head.predict(tmp_path / "stripes.png", reject_unlike=0.02)
    assert stranger.familiarity == 0
    assert stranger.unsure
    assert stranger.label == UNSURE
    known = head.predict(colours, reject_unlike=0.02)
    assert np.mean([one.unsure for one in known]) < 0.5
    assert all(0 <= one.familiarity <= 1 for one in known)
    scores = head.evaluate(colours, reject_unlike=0.02)
    assert scores.answered == pytest.approx(1 - np.mean([one.unsure for one in known]))


def test_views_and_several_heads_have_the_mean_familiarity(run, colours, tmp_path):
    other = tlkit.fit(colours, backbone="tiny", pool="max", out=tmp_path / "other").run
    one, two, both = (load(which).predict(colours) for which in (run, other, [run, other]))
    for first, second, joined in zip(one, two, both, strict=True):
        assert joined.familiarity == pytest.approx((first.familiarity + second.familiarity) / 2)
    assert all(x.familiarity is not None for x in load(run).predict(colours, tta="ten"))


def test_folds_know_each_their_own(colours, tmp_path):
    result = tlkit.fit(colours, backbone="tiny", folds=3, out=tmp_path / "run")
    heads = [load_head(one) for one in result.heads]
    first, *others = (one.model.familiar.prototypes for one in heads)
    assert all(not torch.equal(first, one) for one in others)
    assert all(len(one.card.calibration.similarities) == 101 for one in heads)


def test_a_head_whose_backbone_was_trained_does_not_know(colours, tmp_path):
    run = tlkit.fit(colours, backbone="tiny", freeze="none", epochs=1, out=tmp_path / "run").run
    head = load(run)
    assert head.predict(colours)[0].familiarity is None
    with pytest.raises(OptionError, match="reject-unlike"):
        head.predict(colours, reject_unlike=0.1)


def test_prototypes_that_do_not_fit_are_refused(run, tmp_path):
    from dataclasses import replace

    from tlkit.artifact import save, tensors_of
    from tlkit.weights import digest

    head = load(run).head
    tensors = tensors_of(head.cut)
    for other in (tensors[TENSOR][:, :-1].clone(), tensors[TENSOR][0].clone(), None):
        changed = {**tensors, TENSOR: other}
        if other is None:
            del changed[TENSOR]
        card = replace(head.card, tensors_sha256=digest(changed.items()))
        save(tmp_path / "head.safetensors", changed, card)
        with pytest.raises(HeadFileError, match=r"familiar\.prototypes"):
            load_head(tmp_path / "head.safetensors")
    assert isinstance(head.model.familiar, Familiar)
