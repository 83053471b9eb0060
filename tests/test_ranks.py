"""Ranks: which part of a job is this process's."""

import pytest

from tlkit import cores, ranks
from tlkit.ranks import Ranks


@pytest.fixture(autouse=True)
def _asked_anew():
    ranks._given.cache_clear()
    yield
    ranks._given.cache_clear()


def test_a_process_that_nobody_started_beside_others_is_the_first_of_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")  # by another launcher, for another program
    alone = ranks.here()
    assert alone == Ranks()
    assert alone.first
    assert not alone.several
    assert alone.agree("x") == "x"
    assert alone.gather("x") == ["x"]
    assert alone.sums(1, 2) == [1, 2]
    assert cores.cores() == cores.every()
    assert not ranks.began_again()
    assert not ranks.lost(RuntimeError("[gloo] Connection closed by peer"))


def test_the_place_is_what_torchrun_says(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "a", "RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert ranks.here() == Ranks(rank=5, size=6, local_rank=1, local_size=2)
    assert cores.cores() == max(1, cores.every() // 2)
    assert ranks.began_again()
    assert ranks.lost(RuntimeError("[gloo/pair.cc] Connection closed by peer"))
    assert not ranks.lost(RuntimeError("shapes differ"))


@pytest.mark.parametrize(("count", "size"), [(0, 2), (1, 2), (7, 3), (8, 3), (9, 3), (100, 7)])
def test_shares_are_in_order_whole_and_even(count, size):
    shares = [list(range(count))[Ranks(rank=rank, size=size).part(count)] for rank in range(size)]
    assert [one for share in shares for one in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_is_the_first_of_one_until_the_block_ends(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "a", "RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1,
        "LOCAL_WORLD_SIZE": 2,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    there = Ranks(rank=1, size=2, local_rank=1, local_size=2)
    with ranks.alone():
        assert ranks.here() == Ranks()
        assert ranks.here().agree("mine") == "mine"
    assert ranks.here() == there
