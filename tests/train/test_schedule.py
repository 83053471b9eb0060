"""Rates over a run, and when it ends."""

import pytest

from tlkit.errors import OptionError, UnknownName
from tlkit.options import FitOptions
from tlkit.train.judge import Verdict
from tlkit.train.schedule import SCHEDULES, Pace, warmup_share


def pace(steps=10, **options):
    return Pace(FitOptions(**options), steps_per_epoch=steps)


def score(loss=1.0, accuracy=0.5, balanced=0.5):
    return Verdict(loss=loss, accuracy=accuracy, balanced_accuracy=balanced)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", ["auto", "0", "0.4"])
def test_every_schedule_warms_up_and_never_exceeds_the_peak(schedule, warmup):
    one = pace(schedule=schedule, warmup=warmup, epochs=10)
    factors = [one.factor(step) for step in range(100)]
    assert one.rise == round(100 * warmup_share(one.options))
    assert factors[: one.rise] == sorted(factors[: one.rise])
    assert max(factors) == pytest.approx(1.0)
    assert all(0 < one <= 1 for one in factors)
    if one.rise:
        assert factors[0] <= 0.2
        assert factors[one.rise] == pytest.approx(1.0, abs=0.01) or schedule == "step"
    else:
        assert factors[0] == 1.0


def test_one_cycle_rises_from_a_25th_to_the_peak_at_30_percent_and_ends_near_zero():
    factors = [pace(schedule="one-cycle", epochs=10).factor(step) for step in range(100)]
    assert factors[0] < 0.05
    assert factors.index(max(factors)) in (29, 30)
    assert factors[-1] < 0.001


def test_step_cuts_after_every_so_many_epochs():
    one = pace(schedule="step", step_epochs=2, gamma=0.5, warmup="0", epochs=6)
    assert [one.factor(step) for step in (0, 19, 20, 39, 40, 59)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_plateau_cuts_the_rate_and_after_the_last_cut_ends_the_run():
    one = pace(schedule="plateau", plateau_epochs=2, cuts=2, warmup="0", monitor="accuracy")
    rates, end = [], ""
    for accuracy in (0.5, 0.6, 0.6, 0.5, 0.7, 0.7, 0.7, 0.7, 0.7, 0.9):
        end = one.judged(score(accuracy=accuracy))
        rates.append(round(one.factor(0), 4))
        if end:
            break
    #        .5 .6 .6 .5    .7   .7   .7     .7    .7 ends, so that the .9 is never seen
    assert rates == [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    assert "2 cuts" in end


def test_patience_counts_epochs_without_a_better_score_of_the_kind_that_is_watched():
    watching = {"loss": 0, "accuracy": 0, "balanced": 0}
    # The loss gets worse, the accuracy better, the balanced accuracy stays and then the loss tells.
    scores = [score(loss=1 + i, accuracy=0.1 * i, balanced=0.5) for i in range(6)]
    for name in watching:
        one = pace(patience=2, monitor=name)
        watching[name] = next((i for i, s in enumerate(scores) if one.judged(s)), None)
    assert watching == {"loss": 2, "accuracy": None, "balanced": 2}


def test_nothing_stands_still_while_the_rates_rise():
    one = pace(schedule="plateau", plateau_epochs=2, cuts=1, warmup="0.5", epochs=20, patience=8)
    ends = [one.judged(score()) for _ in range(14)]
    # The first 10 epochs are the warm-up; then 2 without a better score are a cut, 2 more the end.
    assert not any(ends[:13])
    assert ends[13]
    assert one.cuts == 1


def test_no_patience_never_ends():
    one = pace(epochs=100)
    assert not any(one.judged(score(loss=i)) for i in range(100))


@pytest.mark.parametrize("warmup", ["-0.1", "1", "nan", "much"])
def test_a_warmup_that_is_no_share_is_refused(warmup):
    with pytest.raises(OptionError, match="--warmup"):
        warmup_share(FitOptions(warmup=warmup))


def test_an_unknown_schedule_is_guessed():
    with pytest.raises(UnknownName, match="did you mean 'cosine'"):
        pace(schedule="cosin")
