"""Which backbone, pooling and head: the choice is honest, cheap, and stopped by nobody's fault."""

import json
from pathlib import Path

import numpy as np
import pytest

import tlkit
from tlkit import runs
from tlkit.ask import search as module
from tlkit.ask.search import search_events
from tlkit.ask.trial import Score, behind
from tlkit.data.folder import scan_parts
from tlkit.data.split import Parts, split
from tlkit.errors import FolderError, ImageError, OptionError, UnknownName, WeightsError
from tlkit.fitting import fit_events
from tlkit.options import FitOptions, SearchOptions
from tlkit.steps import finish
from tlkit.testing import TINY, make_folder
from tlkit.train.bank import Extractor
from tlkit.train.events import Note

BROKEN = """
from dataclasses import replace
from tlkit.testing import TINY
def fails(weights):
    raise RuntimeError("no such layer")
sick = replace(TINY, name="sick", build=fails)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three colours, 20 of each, and a test part."""
    folder = tmp_path_factory.mktemp("photos")
    make_folder(folder / "train", per_class=20, size=(40, 40))
    make_folder(folder / "test", per_class=4, size=(40, 40), seed=1)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One round."""
    return make_folder(tmp_path_factory.mktemp("small"), per_class=8, size=(40, 40))


def told(events):
    """(notes, the result)"""
    notes = []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return notes, end.value
        notes.append(getattr(event, "text", ""))


def score_of(right, loss=0.1, **more):
    values = {
        "pool": "keep", "head": "linear", "photos": len(right), "accuracy": float(np.mean(right)),
        "fold_std": 0.0, "accuracy_low": 0.0, "accuracy_high": 1.0, "loss": loss, "head_bytes": 1,
        "right": np.array(right, bool), "files": tuple(str(one) for one in range(len(right))),
    }  # fmt: skip
    return Score(**{**values, **more})


def test_the_judging_photos_take_no_part_and_the_test_part_is_not_read(photos, monkeypatch):
    read = set()
    own = module.Shared.__call__

    def noted(self, path, at_least_px):
        read.add(path)
        return own(self, path, at_least_px)

    monkeypatch.setattr(module.Shared, "__call__", noted)
    monkeypatch.setattr(module, "FIRST", 15)
    found = tlkit.search(photos, backbone="tiny,tiny=none", bank="none", seed=3)
    parts = scan_parts(photos)
    nested = split(Parts(train=parts.train, val=None, test=None), val_fraction=0.2, seed=3)
    assert found.rounds == (16, 48)
    assert set(found.best.score.files) == set(nested.train.files)
    assert found.judged.images == len(nested.val) == 12
    assert not read & set(parts.test.paths)


def test_a_random_network_is_never_recommended(small):
    found = tlkit.search(small, backbone="tiny=none,tiny")
    assert (found.best.name, found.best.weights) == ("tiny", "default")
    assert [one.control for one in found.tried if one is not found.best] == [True]
    with pytest.raises(OptionError, match="there is no backbone to choose"):
        tlkit.search(small, backbone="tiny=none,resnet20")


def test_the_fit_finds_every_row_of_every_pooling(small, monkeypatch):
    found = tlkit.search(small, backbone="tiny")
    assert {one.pool for one in found.best.scores} == {"keep", "max", "avgmax"}
    assert {one.head for one in found.best.scores} == {"linear", "mlp"}

    def started(self):
        raise AssertionError("something was computed again")

    monkeypatch.setattr(Extractor, "start", started)
    for pool in ("keep", "max", "avgmax"):
        tlkit.fit(small, backbone="tiny", pool=pool, out=f"runs/{pool}")


def test_photos_are_decoded_once_for_all_candidates(small, monkeypatch):
    decoded = []
    own = tlkit.data.images._upright

    def counted(image):
        decoded.append(image)
        return own(image)

    # Behind every way to the pixels of a PNG.
    monkeypatch.setattr("tlkit.data.images._upright", counted)
    found = tlkit.search(small, backbone="tiny,tiny=none,resnet20", on_bad="skip")
    chosen = sum(one.photos for one in [found.best.score])
    assert len(decoded) == chosen + found.judged.images


def test_what_fails_is_named_and_the_rest_goes_on(small, install):
    install("tlkit-sick", BROKEN, backbones=["sick"])
    install("tlkit-odd", "raise ImportError('gone')", backbones=["odd"])
    notes, found = told(search_events(small, SearchOptions(backbone="sick,odd,tiny,vgg11")))
    assert found.best.name == "tiny"
    why = {one.name: one.why for one in found.not_tried}
    assert "no such layer" in why["sick"]
    assert "gone" in why["odd"]
    assert why["vgg11"] == "its weights are not on this disk"
    assert any("sick: failed" in one for one in notes)


def test_installed_ones_are_those_with_weights(install, monkeypatch):
    monkeypatch.setenv("TLKIT_PLUGINS", "tlkit-tiny,tlkit")
    tried, left = module.candidates(SearchOptions())
    assert {one.label for one in tried} >= {"tiny", "efficientnet_lite0"}
    assert not [one for one in tried if one.control]
    assert "vgg16" in {one.name for one in left}
    both, _ = module.candidates(SearchOptions(installed=True, backbone="resnet20,tiny"))
    assert {one.label for one in both} == {one.label for one in tried} | {"resnet20=none"}
    more, _ = module.candidates(SearchOptions(download=True))
    assert {"vgg16", "tiny"} <= {one.label for one in more}


def test_a_family_tells_what_is_on_the_disk(install):
    install(
        "tlkit-hub",
        "from dataclasses import replace\nfrom tlkit.backbone import Family\n"
        "from tlkit.testing import TINY\n"
        "hub = Family(name='hub', about='', names=lambda: ['a', 'b'], on_disk=lambda: ['b'],\n"
        "             backbone=lambda name: replace(TINY, name=f'hub/{name}'))",
        families=["hub"],
    )
    tried, _ = module.candidates(SearchOptions())
    assert [one.name for one in tried if "hub" in one.name] == ["hub/b"]


def test_a_time_that_is_too_short_says_so(small):
    with pytest.raises(OptionError, match="give it more --time"):
        tlkit.search(small, backbone="tiny", time="0.001s")


def test_what_cannot_be_is_refused_before_anything_is_read(small, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'tiny'"):
        tlkit.search(small, backbone="tinny")
    with pytest.raises(WeightsError, match="no weight file"):
        tlkit.search(small, backbone="tiny=missing.pth")
    with pytest.raises(OptionError, match="name is missing"):
        tlkit.search(small, backbone="tiny,,resnet20")
    with pytest.raises(FolderError, match="too few images"):
        tlkit.search(make_folder(tmp_path / "few", per_class=3), backbone="tiny")


def test_unreadable_images_end_it_or_are_left_out(small, tmp_path):
    folder = make_folder(tmp_path / "some", per_class=10, size=(40, 40))
    for one in sorted((folder / "red").iterdir())[:4]:
        one.write_bytes(b"nothing")
    with pytest.raises(ImageError, match="unreadable"):
        tlkit.search(folder, backbone="tiny")
    found = tlkit.search(folder, backbone="tiny,tiny=none", on_bad="skip")
    assert len(found.bad) == 4
    assert found.best.score.photos + found.judged.images == 26


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_unreadable_image_is_told_before_any_time_is_spent(tmp_path, monkeypatch, part):
    folder = make_folder(tmp_path / "some", per_class=10, size=(40, 40))
    whole = Parts(train=scan_parts(folder).train, val=None, test=None)
    (broken, *_) = getattr(split(whole, val_fraction=0.2, seed=0), part).paths
    broken.write_bytes(b"nothing")
    monkeypatch.setattr(module, "enter", lambda *given: pytest.fail("a candidate was tried"))
    with pytest.raises(ImageError, match="1 unreadable image") as caught:
        tlkit.search(folder, backbone="tiny")
    assert str(broken) in caught.value.found


def test_groups_are_not_learnt_from_and_judged_by(tmp_path):
    folder = make_folder(tmp_path / "bursts", per_class=12, size=(40, 40))
    for path in folder.glob("*/*.png"):
        path.rename(path.with_name(f"burst{int(path.stem) // 2}-{path.name}"))
    found = tlkit.search(folder, backbone="tiny", group_by=r"burst\d+")
    chosen = {one.split("/")[1].split("-")[0] for one in found.best.score.files}
    assert len(chosen) < 6


def test_a_difference_is_paired():
    best = score_of([1, 1, 1, 1, 0, 0])
    less, error = behind(score_of([1, 1, 1, 0, 0, 0]), best)
    assert (less, error) == (
        pytest.approx(1 / 6),
        pytest.approx(1 / 6),
    )
    assert behind(best, best) == (0.0, 0.0)


def test_the_default_stays_unless_another_is_measurably_better():
    plain = score_of([1, 1, 0, 0] * 10)
    little = score_of([1, 1, 0, 0] * 9 + [1, 1, 1, 0], pool="max")
    far = score_of([1, 1, 1, 0] * 10, pool="avgmax")
    assert module._settled([plain, little]) is plain
    assert module._settled([plain, little, far]) is far


def test_the_rounds_grow_to_all_photos():
    assert module._sizes(195, 2) == [65, 195]
    assert module._sizes(50, 2) == [50]
    assert module._sizes(50_000, 10)[-1] == 50_000
    assert module._sizes(1000, 100) == [1000]


def test_search_writes_a_table_a_picture_and_the_fit_to_go_on_with(small, tmp_path):
    found = tlkit.search(small, backbone="tiny,resnet20=none", out=tmp_path / "found")
    assert sorted(one.name for one in found.out.iterdir()) == ["search.json", "search.png"]
    told = json.loads((found.out / "search.json").read_text())
    assert told["recommended"] == "tiny"
    assert told["command"].startswith(f"tlkit fit {small} --backbone tiny")
    assert {one["name"] for one in told["tried"]} == {"tiny", "resnet20"}
    for one in told["tried"]:
        for score in one["scores"]:
            assert score["accuracy_low"] <= score["accuracy"] <= score["accuracy_high"]


def test_fit_auto_searches_and_says_what_it_became(small, monkeypatch):
    monkeypatch.setenv("TLKIT_PLUGINS", "tlkit-tiny")
    result = tlkit.fit(small, backbone="auto")
    assert result.run.name == f"{small.name}-auto"
    assert result.card.backbone == "tiny"
    options = json.loads((result.run / "options.json").read_text())
    assert options["given"]["backbone"] == "auto"
    assert options["auto"]["backbone"] == "tiny"
    assert {"pool", "head", "weights"} <= set(options["auto"])
    folds = tlkit.fit(small, backbone="auto", folds=2)
    assert len(folds.heads) == 2


def test_a_resumed_fit_goes_on_with_what_was_found(small, monkeypatch):
    monkeypatch.setenv("TLKIT_PLUGINS", "tlkit-tiny")
    own = tlkit.fitting.choose

    def stopped(name, *more):
        raise KeyboardInterrupt

    monkeypatch.setattr(tlkit.fitting, "choose", stopped)
    with pytest.raises(KeyboardInterrupt):
        tlkit.fit(small, backbone="auto", out="runs/mine")
    monkeypatch.setattr(tlkit.fitting, "choose", own)

    def again(*args, **kwargs):
        raise AssertionError("searched again")

    monkeypatch.setattr("tlkit.ask.auto.search_events", again)
    choice = runs.checkpoint_of(Path("runs/mine")) / "search.json"
    whole = choice.read_bytes()
    for damaged, why in (
        (whole[:-9], "is damaged"),
        (whole.replace(b'"fit": "', b'"fit": "x'), "another fit"),
    ):
        choice.write_bytes(damaged)
        told = []
        with pytest.raises(AssertionError):
            finish(
                fit_events(small, FitOptions(backbone="auto"), out="runs/mine", resume=True),
                told.append,
            )
        assert any(
            f"{choice} is" in one.text and why in one.text for one in told if isinstance(one, Note)
        )
    choice.write_bytes(whole)
    assert tlkit.fit(small, backbone="auto", out="runs/mine", resume=True).card.backbone == "tiny"
    with pytest.raises(AssertionError):  # another fit has found nothing yet
        tlkit.fit(small, backbone="auto", out="runs/other", resume=True)


@pytest.mark.parametrize(
    "option", [{"pool": "max"}, {"head": "mlp"}, {"weights": "none"}, {"lr": 0.1}]
)
def test_fit_auto_refuses_what_the_search_decides(small, option):
    with pytest.raises(OptionError, match="--backbone auto"):
        tlkit.fit(small, backbone="auto", **option)


def test_what_a_control_alone_came_to_is_not_what_counts(small):
    options = SearchOptions(backbone="tiny,tiny=none")
    real, control = module.candidates(options)[0]
    nested = split(scan_parts(small), val_fraction=0.2, seed=0)
    race = module._Race(options, module.Clock(60), nested, images=24, heads=["linear"])
    race.runs = [
        module._Run(candidate=real, scores=[score_of([1, 0, 1])]),
        module._Run(candidate=control, scores=[score_of([1, 0, 1, 1])]),
    ]
    assert [one.candidate for one in race._furthest()] == [real]


def run_of(name, right, *, control=False, speed=1.0):
    spec = TINY.weights()[0].input
    one = module.Candidate(name=name, weights="default", control=control, input=spec)
    return module._Run(candidate=one, scores=[score_of(right)], speed=speed)


def race_of(small):
    nested = split(scan_parts(small), val_fraction=0.2, seed=0)
    options = SearchOptions(backbone="tiny")
    return module._Race(options, module.Clock(60), nested, images=24, heads=["linear"])


def test_controls_take_nobodys_place_and_are_nobodys_yardstick(small):
    right = {"a": 50, "b": 49, "c": 49, "d": 48, "e": 48, "f": 20}
    real = [run_of(name, [1] * n + [0] * (60 - n)) for name, n in right.items()]
    controls = [run_of(f"r{n}", [1] * 60, control=True) for n in range(3)]
    alone = race_of(small)._better(real, 60)
    together = race_of(small)._better([*controls, *real], 60)
    assert [one.label for one in alone] == ["a", "b", "c"]
    assert [one.label for one in together if not one.candidate.control] == ["a", "b", "c"]
    assert real[-1].outcome == "clearly behind on 60 photos"
    assert real[-2].outcome == "not in the better half on 60 photos"


def test_the_front_is_whom_no_other_beats_in_both():
    runs = [
        run_of("slow and best", [1] * 40, speed=1),
        run_of("fast", [1] * 30 + [0] * 10, speed=9),
        run_of("slower and worse", [1] * 20 + [0] * 20, speed=5),
        run_of("middling", [1] * 35 + [0] * 5, speed=4),
    ]
    assert set(module._front(runs)) == {"slow and best", "fast", "middling"}


def test_recommended_is_the_fastest_of_those_that_are_as_good():
    best = run_of("best", [1] * 999 + [0], speed=1)
    alike = run_of("alike", [1] * 998 + [0] * 2, speed=5)
    faster = run_of("faster and worse", [1] * 900 + [0] * 100, speed=50)
    pick, reason = module._recommended([best, alike, faster])
    assert pick.label == "alike"
    assert "best" in reason


def test_the_command_asks_the_fit_for_what_the_search_was_asked_for(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=8)
    (folder / "red" / "000.png").write_bytes(b"none")
    found = tlkit.search(folder, backbone="tiny", seed=3, on_bad="skip", group_by=r"^(.*)$")
    words = found.command.split()
    assert words[words.index("--seed") + 1] == "3"
    assert words[words.index("--on-bad") + 1] == "skip"
    assert "--group-by" in words
    assert "--time" not in words
