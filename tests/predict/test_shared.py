"""Shared frozen parts: run once for all heads on them, and no head's answer changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tlkit
from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.options import PredictOptions
from tlkit.predict.ensemble import members
from tlkit.predict.run import predict
from tlkit.predict.shared import groups


@pytest.fixture(scope="module")
def fitted(colours, tmp_path_factory):
    """Fits once for each set of options; gives the head file."""
    folder = tmp_path_factory.mktemp("heads")
    made = {}

    def run(**options):
        key = repr(sorted(options.items()))
        if key not in made:
            out = folder / f"run{len(made)}"
            made[key] = tlkit.fit(
                colours, out=out, **{"epochs": 1, **options}, backbone="tiny"
            ).head
        return made[key]

    return run


def seeds(fitted, **options):
    return load([fitted(seed=seed, **options) for seed in (0, 1, 2)]).heads


def images_seen(head):
    """Counts the images that pass the first stage of a head's backbone."""
    seen = []
    head.model.features.stage1.register_forward_hook(lambda *a: seen.append(len(a[1][0])))
    return seen


@pytest.mark.parametrize("tta", ["none", "ten", "dense"])
def test_heads_that_differ_by_the_seed_alone_run_their_backbone_once(fitted, colours, tta):
    heads = seeds(fitted)
    assert groups(heads) == [[0, 1, 2]]
    paths = scan(colours).paths
    options = PredictOptions(tta=tta)
    alone = [[one.probabilities for one in predict(head, paths, options)] for head in heads]
    assert not np.allclose(alone[0], alone[1])
    counts = [images_seen(head) for head in heads]
    given = list(members(heads, paths, options))
    # Of the sizes that the features take; of how much work they are, where there are many crops.
    trials = {"none": 0, "ten": 1, "dense": 3}[tta]
    views = {"none": 1, "ten": 10, "dense": 6}[tta]
    assert [sum(one) for one in counts] == [len(paths) * views + trials, 0, 0]
    for number in range(3):
        assert np.allclose([one[number].probabilities for one in given], alone[number], atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"freeze": "to:stage1"},
        {"pool": "flatten"},
        {"attach": "append", "freeze": "backbone"},
        {"attach": "append"},
    ],
    ids=str,
)
@pytest.mark.parametrize("tta", ["none", "dense+crops"])
def test_wherever_the_frozen_part_ends_each_head_answers_as_if_alone(fitted, colours, options, tta):
    heads = seeds(fitted, **options)
    assert len(groups(heads)) == 1
    looking = PredictOptions(tta=tta, grid=2) if tta != "none" else PredictOptions()
    paths = scan(colours).paths[::5]
    given = list(members(heads, paths, looking))
    for number, head in enumerate(heads):
        alone = [one.probabilities for one in predict(head, paths, looking)]
        assert np.allclose([one[number].probabilities for one in given], alone, atol=1e-6)


def test_heads_that_differ_in_anything_else_run_alone(fitted):
    kinds = [{}, {"head": "mlp"}, {"pool": "max"}, {"freeze": "none"}]
    heads = load([fitted(**one) for one in [*kinds, kinds[-1]]]).heads
    assert groups(heads) == [[0], [1], [2], [3], [4]]
    first, second = load([fitted(), fitted(seed=1)]).heads
    card = second.card
    for other in (
        {"precision": "bf16"},
        {"input": replace(card.input, resize_px=40)},
        {"distribution": "another"},
        {"weights": replace(card.weights, frozen_sha256="0" * 64)},
    ):
        assert len(groups([first, replace(second, card=replace(card, **other))])) == 2
    assert len(groups([first, replace(second, cut=None)])) == 2


def test_frozen_tensors_of_heads_that_were_loaded_together_are_in_memory_once(fitted):
    first, second, other = load([fitted(), fitted(seed=1), fitted(freeze="none")]).heads
    one, two, three = (
        head.model.features.stage1[0].weight.data_ptr() for head in (first, second, other)
    )
    assert one == two != three
    assert first.model.head.layers.weight.data_ptr() != second.model.head.layers.weight.data_ptr()


def test_a_head_among_others_is_in_eval_mode_like_alone(fitted, colours):
    heads = seeds(fitted, head="bn-mlp")
    for head in heads:
        head.model.train()
    paths = scan(colours).paths
    first = next(members(heads, paths, PredictOptions()))
    again = next(members(heads, paths, PredictOptions()))
    assert torch.equal(torch.tensor(first[2].probabilities), torch.tensor(again[2].probabilities))
