"""Images judged by heads that did not learn from them: what is calibrated on, and, of few, chosen
by.
"""

import csv
import json
import math

import numpy as np
import pytest

import tlkit
from tlkit.data.folder import scan_parts
from tlkit.errors import FolderError, OptionError
from tlkit.fitting import fit_parts
from tlkit.model.engine import Runner
from tlkit.options import FitOptions
from tlkit.plugins import choose
from tlkit.steps import finish
from tlkit.testing import make_folder
from tlkit.train.cross import PARTS, USUAL, chosen, parts_of
from tlkit.train.judge import Verdict
from tlkit.train.probe import penalties
from tlkit.train.run import extractor_for


def fitted(folder, **options):
    given = FitOptions(backbone="tiny", **options)
    return finish(fit_parts(given, choose("tiny"), scan_parts(folder)))


@pytest.fixture
def many(monkeypatch):
    """However few there are, a part is held out."""
    monkeypatch.setattr("tlkit.train.run.FEW", 0)


def tensors(one):
    return {name: t.detach().numpy().copy() for name, t in one.cut.trained_tensors().items()}


def test_of_few_images_none_is_held_out_and_each_is_judged(colours):
    one = fitted(colours).trained
    assert one.crossed
    assert (one.train_images, len(one.val_labels), len(set(one.val_files))) == (24, 24, 24)
    assert np.bincount(one.val_labels).tolist() == [8, 8, 8]
    assert [one.val_files[0].partition("/")[0]] == [sorted(p.name for p in colours.iterdir())[0]]
    assert np.allclose(one.val_probabilities.sum(axis=1), 1)
    assert len(one.unseen.labels) == len(one.val_similarities) == 24


@pytest.mark.parametrize(
    ("seen", "of_each"),
    [({}, 1), ({"augment": "mirror"}, 2), ({"augment": "light", "views": 3}, 4)],
    ids=str,
)
def test_the_engine_is_chosen_for_the_views_that_are_computed(colours, monkeypatch, seen, of_each):
    chosen_for, computed = [], []
    real, each = extractor_for, Runner.each

    def noted(options, cut, compute, images):
        chosen_for.append(images)
        return real(options, cut, compute, images)

    def counted(self, parts):
        return each(self, ((part, computed.append(len(one)) or one) for part, one in parts))

    monkeypatch.setattr("tlkit.train.run.extractor_for", noted)
    monkeypatch.setattr(Runner, "each", counted)
    fitted(colours, **seen)
    assert chosen_for == [sum(computed)] == [24 * of_each]


def test_an_image_is_judged_by_a_head_that_did_not_learn_from_it(colours, tmp_path):
    """Under a wrong name it is called what it is, and would not be by a head that learnt it."""
    folder = make_folder(tmp_path / "photos")
    odd = next((folder / "red").iterdir())
    odd.rename(folder / "blue" / f"odd{odd.suffix}")
    one = fitted(folder)
    classes = list(one.card.classes)
    row = one.trained.val_files.index(f"blue/odd{odd.suffix}")
    assert classes[one.trained.val_probabilities[row].argmax()] == "red"


def test_the_losses_of_the_history_are_those_of_the_images_that_are_judged(colours):
    one = fitted(colours).trained
    assert [round(math.log10(each.rate), 3) for each in one.history] == [
        round(math.log10(each), 3) for each in penalties(20)
    ]
    # `unseen` is as it was before the calibration.
    of_truth = one.unseen.probabilities[np.arange(24), one.unseen.labels]
    assert -np.log(of_truth).mean() == pytest.approx(one.best.val_loss, rel=1e-4)


@pytest.mark.parametrize("monitor", ["loss", "accuracy", "balanced"])
def test_the_kept_penalty_is_the_best_by_the_figure_that_is_recorded(colours, tmp_path, monitor):
    """Beside the loss stands the prior, and their sum decides; so it does in history.csv."""
    result = tlkit.fit(colours, backbone="tiny", monitor=monitor, out=tmp_path / "run")
    name = {"accuracy": "val_accuracy", "balanced": "val_balanced_accuracy"}.get(monitor)

    def rank(epoch):
        return (-getattr(epoch, name) if name else 0, epoch.selection_loss)

    assert all(epoch.prior >= 0 for epoch in result.history)
    assert result.best == min(result.history, key=rank)
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    sums = [float(row["val_loss"]) + float(row["prior"]) for row in rows]
    assert sums == pytest.approx([epoch.selection_loss for epoch in result.history])
    # Of images that are all right, the loss alone would have kept the weakest penalty.
    assert min(result.history, key=lambda epoch: epoch.val_loss).rate < result.best.rate


@pytest.mark.parametrize("images", [0, 1, 10, 100_000])
def test_the_fewer_images_are_judged_the_nearer_is_the_penalty_to_the_usual_one(images):
    # They speak for the weakest of all.
    verdicts = [Verdict(loss=1 - 0.001 * n, accuracy=1, balanced_accuracy=1) for n in range(20)]
    path = penalties(20)
    place = chosen(verdicts, images=images, monitor="loss")
    usual = min(range(20), key=lambda n: abs(math.log10(path[n] / USUAL)))
    assert (place == usual) == (images <= 10)
    assert (place == 19) == (images > 1000)
    assert usual <= place


def test_one_image_of_each_class_is_learnt_and_nothing_is_said_of_it(tmp_path, capsys):
    folder = make_folder(tmp_path / "photos", per_class=1)
    result = tlkit.fit(folder, backbone="tiny", out=tmp_path / "run")
    assert result.validation is None
    assert result.card.metrics["validation"] is None
    assert result.best.rate == min(penalties(20), key=lambda one: abs(math.log10(one / USUAL)))
    calibration = result.card.calibration
    assert (calibration.images, calibration.thresholds, calibration.similarities) == (0, (), ())
    assert calibration.temperature == pytest.approx(1, abs=1e-3)
    scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert scores == {"validation": None, "test": None, "skipped_images": 0}
    names = {one.name for one in (tmp_path / "run").iterdir()}
    assert not names & {"validation.csv", "confusion.png"}
    photos = [one for one in sorted(folder.rglob("*.*")) if one.is_file()]
    found = tlkit.load(tmp_path / "run").predict(photos)
    assert [one.label for one in found] == [one.path.parent.name for one in found]
    assert found[0].familiarity is None
    with pytest.raises(OptionError, match="rejected") as caught:
        tlkit.load(tmp_path / "run").predict(photos, reject_below="precision:0.9")
    assert "one of each class" in caught.value.expected


def test_the_only_image_of_a_class_is_learnt_and_judges_nobody(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=6)
    for one in sorted((folder / "red").iterdir())[1:]:
        one.unlink()
    result = tlkit.fit(folder, backbone="tiny", out=tmp_path / "run")
    assert result.card.images["train"] == 13
    assert result.validation.images == result.card.images["val"] == 12
    assert result.validation.absent == ("red",)
    (red,) = (folder / "red").iterdir()
    assert tlkit.load(tmp_path / "run").predict([red])[0].label == "red"


@pytest.mark.parametrize("way", [{"head": "mlp"}, {"freeze": "none"}, {"refit": False}])
def test_what_needs_an_image_to_choose_by_says_so(tmp_path, way):
    folder = make_folder(tmp_path / "photos", per_class=1)
    with pytest.raises(FolderError, match="nothing to hold out"):
        tlkit.fit(folder, backbone="tiny", epochs=2, **way)


@pytest.mark.parametrize("way", [{"refit": False}, {"group_by": r"\d(?=\.)"}, {"head": "mlp"}])
def test_where_a_part_is_to_be_held_out_it_is(colours, way):
    one = fitted(colours, epochs=2, **way).trained
    assert not one.crossed
    assert one.train_images + len(one.val_labels) == 24


def test_views_that_are_learnt_from_are_judged_plain(colours):
    one = fitted(colours, augment="light", views=3, optimizer="lbfgs").trained
    assert one.crossed
    assert len(one.val_labels) == 24


@pytest.mark.usefixtures("many")
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


@pytest.mark.usefixtures("many")
def test_the_head_that_is_kept_is_the_one_that_was_solved_on_all(colours, monkeypatch):
    wanted = tensors(fitted(colours).trained)
    monkeypatch.setattr("tlkit.train.run._worth_crossing", lambda *_: False)
    other = fitted(colours).trained
    assert len(other.unseen.labels) == len(other.val_labels)
    for name, one in tensors(other).items():
        assert np.array_equal(one, wanted[name]), name


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("refit", [True, False])
def test_with_and_without_a_last_solution_it_is_the_same_calibration(colours, refit):
    one, other = (fitted(colours, refit=each).card.calibration for each in (refit, True))
    assert (one.temperature, one.images) == (other.temperature, 24)


def test_parts_are_even_and_a_lone_image_is_never_held_out():
    labels = np.repeat(np.arange(4), [1, 2, 10, 23])
    part = parts_of(labels, seed=0)
    assert part[0] == -1
    assert sorted(np.unique(part[1:])) == list(range(PARTS))
    for label in range(1, 4):
        counts = np.bincount(part[labels == label], minlength=PARTS)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(part, parts_of(labels, seed=0))
    assert not np.array_equal(part, parts_of(labels, seed=1))
