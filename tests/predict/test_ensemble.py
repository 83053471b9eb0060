"""Ensembles: what several heads say together, and who may be asked together."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import tlkit
from tlkit.classifier import load
from tlkit.data.folder import scan
from tlkit.data.images import BadImage
from tlkit.errors import FolderError, HeadFileError, ImageError, OptionError
from tlkit.options import PredictOptions
from tlkit.predict.ensemble import combined, learnt, match, members, settle, weights_of
from tlkit.steps import finish
from tlkit.testing import make_folder


@pytest.fixture(scope="module")
def files(colours, tmp_path_factory):
    """Three heads of two backbones with inputs of 32 px colour and 28 px grey."""
    folder = tmp_path_factory.mktemp("heads")
    ways = {
        "a": {"backbone": "tiny"},
        "b": {"backbone": "tiny", "pool": "max", "seed": 1},
        "grey": {"backbone": "inception_small", "weights": "none"},
    }
    return [
        tlkit.fit(colours, out=folder / name, epochs=1, **way).head for name, way in ways.items()
    ]


@pytest.fixture
def heads(files):
    return load(files).heads


def rows(results):
    return np.stack([one.probabilities for one in results])


def test_the_mean_is_the_weighted_mean_of_what_each_says(files, colours):
    alone = np.stack([rows(load(file).predict(colours)) for file in files])
    assert np.abs(alone[0] - alone[2]).max() > 0.1
    both = load(files)
    assert np.allclose(rows(both.predict(colours)), alone.mean(axis=0), atol=1e-6)
    given = rows(both.predict(colours, head_weights="3,0,1"))
    assert np.allclose(given, (3 * alone[0] + alone[2]) / 4, atol=1e-6)


def test_logits_are_summed_and_their_softmax_taken(files, colours):
    from tlkit.predict.run import prepare

    paths = scan(colours).paths[:4]
    logits = []
    for file in files:
        (head,) = load(file).heads
        ready = prepare([head], PredictOptions())
        from tlkit.data.images import read
        from tlkit.predict.tta import seen

        looks = [seen(read(path), ready.views, ready.spec) for path in paths]
        temperature = head.card.calibration.temperature
        logits.append(ready._begin(looks)()[0][:, :3].double().numpy() / temperature)
    sums = 2 * logits[0] + 0.5 * logits[1] + logits[2]
    wanted = np.exp(sums) / np.exp(sums).sum(axis=1, keepdims=True)
    given = load(files).predict(paths, combine="logits", head_weights="2,0.5,1")
    assert np.allclose(rows(given), wanted, atol=1e-6)


@pytest.mark.parametrize("combine", ["mean", "logits"])
def test_probabilities_sum_to_one_also_for_certain_heads(combine):
    certain = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]])
    found = combined(certain, np.array([0.5, 0.5]), combine)
    assert np.allclose(found.sum(axis=1), 1)
    assert np.isfinite(found).all()


def test_with_views_each_heads_mean_is_combined(files, colours):
    alone = np.stack([rows(load(file).predict(colours, tta="ten")) for file in files[:2]])
    given = rows(load(files[:2]).predict(colours, tta="ten"))
    assert np.allclose(given, alone.mean(axis=0), atol=1e-6)


def test_a_head_beside_itself_says_the_same(files, colours):
    alone = rows(load(files[0]).predict(colours))
    assert np.allclose(rows(load([files[0]] * 2).predict(colours)), alone, atol=1e-12)


def reordered(head, order):
    """The same head with its outputs, and so its classes, in another order."""
    import torch

    copy = load(head.path).heads[0]
    layer = copy.model.head.layers
    with torch.no_grad():
        layer.weight.copy_(layer.weight[list(order)])
        layer.bias.copy_(layer.bias[list(order)])
    classes = tuple(copy.classes[i] for i in order)
    return replace(copy, card=replace(copy.card, classes=classes))


def test_classes_are_matched_by_name_whatever_their_order(heads, colours):
    from tlkit.predict.ensemble import predict

    paths = scan(colours).paths[::3]
    turned = reordered(heads[1], (2, 0, 1))
    assert [one.tolist() for one in match([heads[0], turned])] == [[0, 1, 2], [1, 2, 0]]
    wanted = list(predict(heads[:2], paths, PredictOptions()))
    given = list(predict([heads[0], turned], paths, PredictOptions()))
    assert given[0].classes == heads[0].classes
    assert np.allclose(rows(given), rows(wanted), atol=1e-6)
    first = list(predict([turned, heads[0]], paths, PredictOptions()))
    assert first[0].classes == ("red", "blue", "green")
    assert [one.label for one in first] == [one.label for one in wanted]


def test_heads_of_different_classes_are_refused_with_the_names(files, tmp_path):
    folder = make_folder(tmp_path / "photos", classes=("red", "green", "grey"), per_class=4)
    other = tlkit.fit(folder, backbone="tiny", out=tmp_path / "other").head
    with pytest.raises(HeadFileError, match="different classes") as caught:
        load([files[0], other])
    assert f"{other} lacks: blue" in caught.value.found
    assert f"{other} has besides: grey" in caught.value.found


def test_an_unreadable_image_is_told_once_and_in_its_place(files, tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=2)
    (folder / "green" / "000.png").write_text("no image")
    results = load(files).predict(folder)
    assert [isinstance(one, BadImage) for one in results] == [False, False, True] + [False] * 3
    assert load(files).evaluate(folder).images == 5


def test_streams_are_closed_when_nobody_wants_more(heads, colours):
    import threading

    def readers():
        return [one for one in threading.enumerate() if one.name.startswith("tlkit-read")]

    before = len(readers())
    stream = members(heads, list(scan(colours).paths) * 20, PredictOptions(batch=2))
    next(stream)
    assert len(readers()) > before
    stream.close()
    assert len(readers()) == before


@pytest.mark.parametrize(
    "text", ["0.5", "1,2,3", "a,b", "", "-1,2", "0,0", "nan,1", "inf,1", "1;2"]
)
def test_weights_that_do_not_fit_are_refused_with_an_example(heads, text):
    with pytest.raises(OptionError, match="2 heads") as caught:
        weights_of(heads[:2], PredictOptions(head_weights=text))
    assert "--head-weights 0.5,0.5" in caught.value.do


def test_weights_of_a_mean_sum_to_one_and_those_of_logits_are_as_given(heads):
    pair = heads[:2]
    assert weights_of(pair, PredictOptions()).tolist() == [0.5, 0.5]
    assert weights_of(pair, PredictOptions(head_weights="3,1")).tolist() == [0.75, 0.25]
    logits = PredictOptions(combine="logits")
    assert weights_of(pair, logits).tolist() == [1, 1]
    assert weights_of(pair, replace(logits, head_weights="3,1")).tolist() == [3, 1]


@pytest.mark.parametrize(
    "options", [{"combine": "logits"}, {"head_weights": "1"}, {"learn_weights": "photos"}]
)
def test_options_of_several_heads_are_refused_for_one(files, colours, options):
    for verb in ("predict", "evaluate"):
        with pytest.raises(OptionError, match="several heads"):
            getattr(load(files[0]), verb)(colours, **options)


def test_given_and_learnt_weights_at_once_are_refused(files, colours):
    with pytest.raises(OptionError, match="--head-weights 1,1"):
        load(files[:2]).predict(colours, head_weights="1,1", learn_weights=colours)


def world(seed, count=400):
    """Probabilities (N, 3, 4) of a good head, a poor one and one that knows nothing; labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    logits = random.normal(size=(count, 3, 4))
    logits[np.arange(count), 0, labels] += 2.5
    logits[np.arange(count), 1, labels] += 0.8
    found = np.exp(logits)
    return found / found.sum(axis=2, keepdims=True), labels


def log_loss(given, labels, weights, combine):
    mixed = combined(given, np.asarray(weights), combine)
    return -np.log(mixed[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("combine", ["mean", "logits"])
@pytest.mark.parametrize("seed", range(5))
def test_learnt_weights_are_the_best_there_are(combine, seed):
    given, labels = world(seed)
    weights = learnt(given, labels, combine)
    assert (weights >= 0).all()
    best = log_loss(given, labels, weights, combine)
    random = np.random.default_rng(0)
    for other in random.dirichlet(np.ones(3), size=200):
        scale = 1 if combine == "mean" else random.uniform(0.1, 6)
        assert best <= log_loss(given, labels, other * scale, combine) + 1e-7
    if combine == "mean":
        assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("combine", ["mean", "logits"])
def test_learnt_weights_are_never_worse_than_equal_ones(combine):
    """Weak heads that err independently: their logits are to be added, not averaged."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, 500)
    logits = random.normal(size=(500, 2, 4))
    logits[np.arange(500), :, labels] += 1.5
    given = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    equal = np.ones(2) if combine == "logits" else np.full(2, 0.5)
    found = log_loss(given, labels, learnt(given, labels, combine), combine)
    assert found <= log_loss(given, labels, equal, combine) + 1e-9
    if combine == "logits":
        assert learnt(given, labels, combine).sum() > 1.5


def test_a_head_that_is_always_wrong_gets_no_weight():
    given, labels = world(0)
    wrong = np.full_like(given[:, 0], 1e-9)
    wrong[np.arange(len(labels)), (labels + 1) % 4] = 1
    weights = learnt(np.stack([given[:, 0], wrong], axis=1), labels, "mean")
    assert weights[0] > 0.99


def test_learning_gives_options_that_do_the_same_next_time(heads, files, colours, tmp_path):
    learning = PredictOptions(learn_weights=str(colours))
    settled = finish(settle(heads, learning))
    assert settled.learn_weights == ""
    assert load(files).learn_weights(colours) == settled.head_weights
    weights = [float(one) for one in settled.head_weights.split(",")]
    assert len(weights) == 3
    assert sum(weights) == pytest.approx(1, abs=2e-4)
    once = load(files).predict(colours, learn_weights=colours)
    again = load(files).predict(colours, head_weights=settled.head_weights)
    assert np.array_equal(rows(once), rows(again))


def test_weights_are_learnt_on_val_and_never_on_test(heads, colours, tmp_path):
    folder = tmp_path / "photos"
    for part in ("train", "val", "test"):
        shutil.copytree(colours, folder / part)
    for path in (folder / "test").rglob("*.png"):
        path.write_text("must not be read")
    settled = finish(settle(heads, PredictOptions(learn_weights=str(folder))))
    assert settled == finish(settle(heads, PredictOptions(learn_weights=str(colours))))
    shutil.rmtree(folder / "val")
    with pytest.raises(FolderError, match="nothing to choose by"):
        finish(settle(heads, PredictOptions(learn_weights=str(folder))))


def test_an_unreadable_image_to_learn_weights_on_is_named(heads, tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=1)
    (folder / "green" / "000.png").write_text("no image")
    with pytest.raises(ImageError, match=r"green/000\.png"):
        finish(settle(heads, PredictOptions(learn_weights=str(folder))))


def test_everything_is_refused_before_an_image_is_read(heads, colours, monkeypatch):
    monkeypatch.setattr("tlkit.data.batches.read", lambda *a, **k: pytest.fail("it was read"))
    for options in (
        {"tta": "dense"},  # the second head pools by the maximum
        {"head_weights": "1,2"},
        {"learn_weights": str(colours), "grid": 2},
    ):
        with pytest.raises(OptionError):
            finish(settle(heads, PredictOptions(**options)))


def test_one_classifier_keeps_its_single_face_and_several_say_what_they_are(files):
    assert load(files[0]).card == load(files[0]).head.card
    several = load(files)
    assert len(several.heads) == 3
    with pytest.raises(OptionError, match="heads"):
        several.card  # noqa: B018
    with pytest.raises(OptionError, match="no head to load"):
        load([])


def test_heads_on_several_networks_see_one_and_the_same_image(heads, tmp_path, monkeypatch):
    """One would call what it is now, and the other what it was."""
    from tlkit.data import pixels
    from tlkit.predict.shared import groups

    photos = make_folder(tmp_path / "photos", per_class=2)
    paths = sorted(photos.rglob("*.png"))
    expected = list(members(heads, paths, PredictOptions()))
    own, read = pixels.content, []

    def once(path):
        found = own(path)
        read.append(path)
        path.write_bytes(b"no image any more")
        return found

    monkeypatch.setattr(pixels, "content", once)
    found = list(members(heads, paths, PredictOptions()))
    assert len(groups(heads)) > 1
    assert sorted(read) == paths
    for some, others in zip(found, expected, strict=True):
        for one, other in zip(some, others, strict=True):
            assert np.allclose(one.probabilities, other.probabilities)
