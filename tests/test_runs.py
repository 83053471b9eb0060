"""Run folders: which heads a path means."""

import json
import math
from pathlib import Path

import pytest

from tlkit.classifier import load
from tlkit.errors import HeadFileError, RunFolderError
from tlkit.runs import HEAD, RUNS, as_json, fit_of, heads_in, newest, read_told, short_names


def put(folder):
    folder.mkdir(parents=True)
    (folder / HEAD).write_bytes(b"")
    return folder / HEAD


def test_a_file_means_itself_and_a_run_its_head(tmp_path):
    head = put(tmp_path / "run")
    assert heads_in(head) == [head]
    assert heads_in(tmp_path / "run") == [head]


def test_a_run_of_folds_means_all_of_them_in_order(tmp_path):
    folds = [put(tmp_path / "run" / f"fold-{number}") for number in (10, 2, 1)]
    assert heads_in(tmp_path / "run") == folds[::-1]
    (tmp_path / "run" / "fold-3").mkdir()  # begun, and without a head
    assert len(heads_in(tmp_path / "run")) == 3
    assert heads_in(tmp_path / "run" / "fold-2") == [folds[1]]


def test_a_head_of_its_own_comes_before_folds(tmp_path):
    own = put(tmp_path / "run")
    put(tmp_path / "run" / "fold-1")
    assert heads_in(tmp_path / "run") == [own]


def test_a_folder_without_heads_is_an_error_of_reading(tmp_path):
    with pytest.raises(HeadFileError, match="no file at that path"):
        load(tmp_path)


def test_heads_are_called_by_their_folders_with_numbers_where_these_are_alike():
    assert short_names([Path("runs/a") / HEAD, Path("b.safetensors")]) == ["a", "b"]
    assert short_names([Path("x/a") / HEAD, Path("y/a") / HEAD]) == ["a (1)", "a (2)"]


def test_the_newest_run_may_be_one_of_folds(tmp_path):
    import os

    for age, name in enumerate(("one/fold-1", "one/fold-2", "two", ".half")):
        path = tmp_path / "runs" / name / HEAD
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        os.utime(path, (100 - age, 100 - age))
    assert newest() == RUNS / "one"
    assert [one.parent.name for one in heads_in(newest())] == ["fold-1", "fold-2"]
    os.utime(tmp_path / "runs" / "two" / HEAD, (200, 200))
    assert newest() == RUNS / "two"


def test_a_fit_is_known_beside_a_name_that_is_no_text(tmp_path):
    text = as_json({"fit": "abc", "folder": "caf\udce9"})
    (tmp_path / "options.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert fit_of(tmp_path) == "abc"


@pytest.mark.parametrize(
    "data",
    [
        {"a": [[1, 2], [3.5, -4e-9]], "b": [], "c": [1, "x"], "d": [None], "e": {"f": [0]}},
        ["[\n  1,\n  2\n]", "[ 1, 2 ]", [1e300], [True], [math.inf, 1]],
        [[[1], [2, 3]], 4],
    ],
    ids=str,
)
def test_lists_of_numbers_are_written_on_a_line_and_read_as_they_were(data):
    text = as_json(data)
    assert json.loads(text) == data
    assert as_json([[1, 2], [3, 4]]) == "[\n  [1, 2],\n  [3, 4]\n]\n"


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("a,x,0.5,0.5\nb,y,0.25,0.7", "does not end"),
        ("a,x,0.5,0.5\na,y,0.25,0.75\n", "twice"),
        ("a,x,0,0\n", "no probabilities"),
        ("a,x,-1,2\n", "no probabilities"),
        ("a,x,1e308,1e308\n", "no probabilities"),
        ("a,x,nan,1\n", "no probabilities"),
    ],
)
def test_a_table_that_no_fit_has_written_is_one_error(tmp_path, rows, fault):
    table = tmp_path / "validation.csv"
    table.write_text("path,class,probability_x,probability_y\n" + rows)
    with pytest.raises(RunFolderError, match="cannot be read") as caught:
        read_told(table)
    assert fault in caught.value.found
