"""Kill points: whatever call a process is killed at, no photo is lost, and all can be undone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "stress"))

import kill_points

from tlkit.data.signature import sign


def faults(looks, at_least=20):
    seen = list(looks)
    assert len(seen) > at_least
    return [f"{moment}: {fault}" for moment, fault in seen if fault]


@pytest.mark.parametrize("way", kill_points.WAYS)
def test_a_sort_or_its_undo_that_is_killed_loses_nothing_and_leaves_nothing(way, tmp_path):
    sign({})  # the key is there, as after the first sort
    where, far = tmp_path / "where", tmp_path / "far"
    where.mkdir()
    far.mkdir()
    with kill_points.without_head():
        sorting = kill_points.Sorting(where, way, far, kill_points.here)
        assert faults(kill_points.sorting_faults(sorting)) == []


def test_a_check_that_moves_files_and_is_killed_loses_nothing_and_leaves_nothing(tmp_path):
    assert faults(kill_points.check_faults(tmp_path, run=kill_points.here)) == []


def test_what_is_written_is_whole_whenever_the_writer_is_killed(tmp_path):
    (tmp_path / "there").mkdir()
    assert faults(kill_points.write_faults(tmp_path / "there", run=kill_points.here)) == []


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    return tmp_path_factory.mktemp("commands") / "ready"


# All of their calls are for tests/stress; each seventeenth is enough here.
@pytest.mark.parametrize("command", ["export", "report over another", "features"])
def test_what_a_killed_command_leaves_is_whole_and_the_command_given_again_ends_well(
    command, ready, tmp_path
):
    with kill_points.computed_once():
        leaving = kill_points.Leaving(
            tmp_path, kill_points.COMMANDS[command], kill_points.here, ready=ready
        )
        assert faults(kill_points.command_faults(leaving, every=17), at_least=10) == []
