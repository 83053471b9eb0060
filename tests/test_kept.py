"""Kept: what earlier versions wrote goes on as it did.

`kept/0.1.0` holds a head that tlkit 0.1.0 fitted on `tiny` with everything trained, photos whose
sides no factor divides, and the probabilities that 0.1.0 gave for them.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tlkit.artifact import load, read_card
from tlkit.backbone import InputSpec
from tlkit.options import PredictOptions
from tlkit.predict.run import predict
from tlkit.testing import TINY

FOLDER = Path(__file__).parent / "kept" / "0.1.0"
ANSWERS = json.loads((FOLDER / "answers.json").read_text())


def answers(head, tta):
    options = PredictOptions(tta=tta, engine="eager", precision="fp32", device="cpu")
    paths = [FOLDER / "photos" / name for name in ANSWERS[tta]]
    return np.stack([one.probabilities for one in predict(head, paths, options)])


@pytest.mark.parametrize("tta", ANSWERS)
def test_a_head_of_0_1_0_answers_as_it_did(tta):
    head = load(FOLDER / "head.safetensors")
    assert head.model.spec.preprocessing == 1
    wanted = np.array(list(ANSWERS[tta].values()))
    assert np.allclose(answers(head, tta), wanted, atol=1e-5)
    # The rounding of today would give other answers: the photos can tell.
    head.model.spec = replace(head.model.spec, preprocessing=2)
    assert not np.allclose(answers(head, tta), wanted, atol=1e-4)


def test_weights_whose_crop_mode_0_1_0_did_not_know_stay_the_middle_for_its_heads(monkeypatch):
    (now,) = TINY.weights()
    squash = replace(now, input=replace(now.input, crop_mode="squash"))
    monkeypatch.setattr("tlkit.model.build.weight_sets", lambda backbone: (squash,))
    head = load(FOLDER / "head.safetensors")
    assert head.model.spec == read_card(FOLDER / "head.safetensors").input
    assert head.model.spec.crop_mode == "center"


def test_rows_of_one_preprocessing_are_not_taken_for_those_of_another():
    from tlkit.model.build import Plan, build
    from tlkit.model.device import compute_on
    from tlkit.model.engine import Work, choose
    from tlkit.train.bank import _about

    plan = Plan(
        weights="none", attach="replace", head="linear", hidden=1, dropout=0.0, pool="keep",
        freeze="features", seed=0,
    )  # fmt: skip
    compute = compute_on("cpu", "fp32")
    choice = choose("eager", compute, Work(images=1, multiply_adds=0))
    texts = set()
    half = (0.5,) * 3
    for spec in (
        InputSpec(crop_px=32, resize_px=36, mean=half, std=half),
        InputSpec(crop_px=32, resize_px=36, mean=half, std=half, crop_mode="squash"),
        InputSpec(crop_px=32, resize_px=36, mean=half, std=half).as_of_0_1_0(),
    ):
        cut = build(TINY, plan, 3).cut
        cut.model.spec = spec
        texts.add(str(_about(cut, compute, choice, "tiny")))
    assert len(texts) == 3
