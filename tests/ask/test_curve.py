import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

import tlkit
from tlkit.ask.curve import FEWEST, curve_events
from tlkit.ask.law import fit_law, luck_of, spread_of
from tlkit.errors import FolderError, OptionError, RunFolderError
from tlkit.options import CurveOptions
from tlkit.steps import finish
from tlkit.testing import make_folder
from tlkit.train.events import Note, Tick

TINY = CurveOptions(backbone="tiny", penalties=3, draws=3)
PHOTOS = np.array([80.0, 130, 210, 330, 520, 800])


def simulated(a, b, c, *, photos=PHOTOS, judged=2000, seed=0):
    """The law behind judgements of photos, each of which has a difficulty of its own."""
    draw = np.random.default_rng(seed)
    errors = a + b * photos**-c
    wrong = (draw.uniform(size=judged)[:, None] < errors).astype(float)
    # One in ten answers is a matter of luck, so that points are not wholly of one mind.
    lucky = draw.uniform(size=wrong.shape) < 0.1
    wrong = np.where(lucky, draw.uniform(size=wrong.shape) < errors, wrong)
    mean, covariance = spread_of(wrong, np.arange(judged))
    return fit_law(photos, mean, covariance, judged=judged, seed=seed)


@pytest.mark.parametrize(
    ("a", "b", "c"), [(0.0, 2.0, 0.5), (0.02, 1.0, 0.5), (0.05, 4.0, 1.0), (0.0, 0.5, 0.2)]
)
def test_a_power_law_lies_within_its_interval_mostly(a, b, c):
    inside = 0
    for seed in range(40):
        law = simulated(a, b, c, seed=seed)
        for photos in (1600, 8000):
            found = law.accuracy(photos)
            inside += found.low <= 1 - (a + b * photos**-c) <= found.high
    assert inside >= 68  # 95 % of 80 are 76, and the two of a seed mostly go together


def test_a_flat_curve_stays_flat():
    law = simulated(0.1, 0.0, 1.0)
    now, later = law.accuracy(1000).value, law.accuracy(10_000).value
    assert later - now < 0.01
    assert np.median(law.gains(1000, 2.0)) < 0.005


def test_a_steep_curve_gains():
    law = simulated(0.0, 2.0, 0.5)
    assert (law.gains(1000, 2.0) > 0.005).mean() > 0.95


@pytest.mark.parametrize("errors", [(0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1), (0.0,) * 4])
def test_more_photos_are_never_expected_to_be_worse(errors):
    law = fit_law(np.array([10.0, 20, 40, 80]), np.array(errors), np.eye(4) * 1e-4, judged=50)
    found = [law.accuracy(photos) for photos in (80, 100, 200, 1000, 1e6)]
    for name in ("low", "value", "high"):
        values = [getattr(one, name) for one in found]
        assert values == sorted(values)
        assert all(0 <= one <= 1 for one in values)
    assert (law.gains(100, 2.0) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_what_lies_further_off_is_less_sure(seed):
    law = simulated(0.02, 2.0, 0.5, seed=seed)

    def width(times):
        gain = law.gains(800, times)
        return np.quantile(gain, 0.975) - np.quantile(gain, 0.025)

    assert width(10) > width(2) > width(1.1)
    two, ten = law.accuracy(1600), law.accuracy(8000)
    assert ten.high - ten.low > two.high - two.low


def test_no_error_at_all_is_not_taken_for_certainty():
    law = fit_law(PHOTOS, np.zeros(6), np.zeros((6, 6)), judged=100)
    found = law.accuracy(800)
    assert found.value > 0.99
    # Jeffreys' interval for 0 of 100 ends at 2.5 %.
    assert 0.015 < 1 - found.low < 0.035


def test_points_off_every_law_widen_it():
    jagged = np.array([0.10, 0.04, 0.10, 0.04, 0.10, 0.04])
    small = np.eye(6) * 1e-6
    law = fit_law(PHOTOS, jagged, small, judged=5000)
    smooth = fit_law(PHOTOS, 2 * PHOTOS**-0.5, small, judged=5000)
    assert law.misfit > 10 > smooth.misfit
    far, near = (one.accuracy(1600) for one in (law, smooth))
    assert far.high - far.low > 3 * (near.high - near.low)


def test_photos_of_one_owner_count_once():
    draw = np.random.default_rng(0)
    wrong = (draw.uniform(size=(100, 3)) < 0.3).astype(float)
    mean, alone = spread_of(wrong, np.arange(100))
    again, twice = spread_of(np.repeat(wrong, 2, axis=0), np.repeat(np.arange(100), 2))
    assert np.allclose(mean, again)
    assert np.allclose(alone, twice)
    assert np.allclose(np.diag(alone), wrong.var(axis=0, ddof=1) / 100)


def test_luck_is_what_draws_differ_by_beyond_their_photos():
    draw = np.random.default_rng(0)
    number = np.repeat(np.arange(10), 200)
    alike = (draw.uniform(size=2000) < 0.2).astype(float)[:, None]
    apart = (draw.uniform(size=2000) < np.where(number % 2, 0.1, 0.3)).astype(float)[:, None]
    assert luck_of(alike, number)[0] < 1e-4
    assert luck_of(apart, number)[0] == pytest.approx(0.1**2 * 10 / 9 / 10, rel=0.4)


def told(folder, options=TINY, **way):
    notes, ticks = [], []

    def each(event):
        if isinstance(event, Note):
            notes.append(event.text)
        elif isinstance(event, Tick) and event.what == "heads":
            ticks.append(event)

    return finish(curve_events(folder, options, **way), each), notes, ticks


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos") / "photos", per_class=10)


def test_a_curve_has_its_points_its_outlook_and_its_classes(photos, tmp_path):
    found, _, ticks = told(photos, out=tmp_path / "out")
    sizes = [one.photos for one in found.points]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < found.photos == found.looked_at == 30
    assert all(len(one.accuracies) == 3 for one in found.points)
    assert [one.photos for one in found.forecasts] == [30, 60, 300]
    assert sorted(one.name for one in found.classes) == sorted(one.name for one in photos.iterdir())
    gains = [one.gain.value for one in found.classes]
    assert gains == sorted(gains, reverse=True)
    assert all(0 <= one.sure <= 1 for one in found.classes)
    assert "twice the photos: " in found.answer
    assert (ticks[0].done, ticks[-1].done) == (0, ticks[-1].total)
    assert ticks[-1].total == 3 * len(sizes)
    kept = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert kept["answer"] == found.answer
    assert kept["given"] == TINY.changed()
    assert len(kept["points"]) == len(sizes)
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_answer_and_another_another(photos):
    one, other = (told(photos)[0] for _ in range(2))
    assert one.points == other.points
    assert (one.forecasts, one.classes) == (other.forecasts, other.classes)
    third = told(photos, replace(TINY, seed=1))[0]
    assert third.classes != one.classes


def test_no_head_is_judged_by_what_it_has_learnt_from(photos, monkeypatch):
    from tlkit.ask.study import Study

    seen, real = [], Study.told

    def spy(self, learn, judged, *, seed):
        (judge,) = judged
        seen.append((set(learn.catalog.files), set(judge.catalog.files)))
        return real(self, learn, judged, seed=seed)

    monkeypatch.setattr(Study, "told", spy)
    found = told(photos)[0]
    assert all(not learn & judge for learn, judge in seen)
    # Every photo judges once, and what is learnt from grows.
    several = len(found.points)
    own = [seen[number : number + several] for number in range(0, len(seen), several)]
    assert sum(len(draw[0][1]) for draw in own) == 30
    for draw in own:
        for (less, _), (more, _) in itertools.pairwise(draw):
            assert less < more


def test_groups_are_never_on_both_sides(tmp_path, monkeypatch):
    from tlkit.ask.study import Study

    folder = make_folder(tmp_path / "photos", per_class=12)
    for path in sorted(folder.rglob("*.png")):
        number = int("".join(one for one in path.stem if one.isdigit()))
        path.rename(path.with_name(f"{path.parent.name}{number // 3}-{path.name}"))
    seen, real = [], Study.told

    def spy(self, learn, judged, *, seed):
        seen.append([{one.split("/")[1].split("-")[0] for one in part.catalog.files}
                     for part in (learn, *judged)])  # fmt: skip
        return real(self, learn, judged, seed=seed)

    monkeypatch.setattr(Study, "told", spy)
    told(folder, replace(TINY, draws=2, group_by=r"^([^-]+)-"))
    assert seen
    assert all(not learn & judge for learn, judge in seen)


def test_a_test_part_is_left_alone(tmp_path):
    make_folder(tmp_path / "photos" / "train", per_class=6)
    alone = told(tmp_path / "photos")[0]
    make_folder(tmp_path / "photos" / "test", per_class=3, seed=9)
    found, notes, _ = told(tmp_path / "photos")
    assert found.points == alone.points
    assert any("test is left alone" in one for one in notes)


def test_many_photos_are_looked_at_in_part(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=14)
    found, notes, _ = told(folder, replace(TINY, most=36, draws=2))
    assert (found.photos, found.looked_at) == (42, 36)
    assert [one.photos for one in found.classes] == [14, 14, 14]
    assert [one.photos for one in found.forecasts] == [42, 84, 420]
    assert "of 42 photos 36 are looked at" in notes[0]


def test_one_small_class_does_not_stand_in_the_way(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=8)
    small = sorted(folder.iterdir())[0]
    for path in sorted(small.iterdir())[FEWEST:]:
        path.unlink()
    found = told(folder)[0]
    (own,) = [one for one in found.classes if one.name == small.name]
    widest = max(found.classes, key=lambda one: one.now.high - one.now.low)
    assert own.photos == FEWEST
    assert widest.name == own.name
    sorted(small.iterdir())[0].unlink()
    with pytest.raises(FolderError, match=f"2 in '{small.name}'"):
        told(folder)


def test_too_few_photos_for_a_curve_are_refused(tmp_path):
    folder = make_folder(tmp_path / "photos", per_class=FEWEST)
    with pytest.raises(FolderError, match="three or more"):
        told(folder)


@pytest.mark.parametrize(
    "fractions", ["1", "0.5,0.5,1", "0,0.5,1", "0.1,0.5,2", "a,b,c", "nan,0.5,1"]
)
def test_fractions_that_are_none_are_refused(photos, fractions):
    with pytest.raises(OptionError, match="three or more different numbers"):
        told(photos, replace(TINY, fractions=fractions))


def test_fractions_are_those_asked_for(photos):
    found = told(photos, replace(TINY, fractions="1,0.5,0.3"))[0]
    assert [one.photos for one in found.points] == pytest.approx([6, 10, 20], abs=1)


def test_options_that_would_be_ignored_are_refused(photos):
    with pytest.raises(OptionError, match="--penalties 3"):
        tlkit.curve(photos, backbone="tiny", head="mlp", penalties=3)
    with pytest.raises(OptionError, match="--hidden 7"):
        tlkit.curve(photos, backbone="tiny", hidden=7)
    with pytest.raises(OptionError, match="--freeze backbone"):
        tlkit.curve(photos, backbone="tiny", freeze="none")
    with pytest.raises(OptionError, match="did you mean 'draws'"):
        tlkit.curve(photos, draw=3)


def test_nothing_is_written_among_the_photos_or_over_something(photos, tmp_path):
    with pytest.raises(RunFolderError, match="inside the other"):
        told(photos, out=photos / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(RunFolderError, match="is there already"):
        told(photos, out=tmp_path / "out")


def test_a_head_that_is_trained_in_steps_has_a_curve_too(photos):
    found = tlkit.curve(photos, backbone="tiny", head="mlp", draws=2, fractions="0.4,0.7,1")
    assert len(found.points) == 3
