"""Failure: how a command ends when it, its machine or tlkit itself fails."""

import errno
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from processes import run_python

from tlkit.cli import failure, main
from tlkit.cli.streams import OutputLost
from tlkit.errors import OptionError

RAISING = """
import sys
from tlkit.cli import main, run

def fail(**values):
    {statement}

main.commands["plugins"].callback = fail
sys.argv = ["tlkit", *sys.argv[1:]]
run()
"""


def raising(statement, *words, where):
    return run_python(RAISING.format(statement=statement), *words, where=where)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files of processes that a test starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_fault_of_tlkit_is_one_line_with_a_status_of_its_own_and_a_file_with_the_traceback(
    tmp_path, temporary
):
    ran = raising("raise KeyError('wing')", "plugins", where=tmp_path)
    assert ran.returncode == failure.FAULT == 70
    (line,) = ran.stderr.splitlines()
    (file,) = temporary.iterdir()
    assert "KeyError: 'wing'" in line
    assert str(file) in line
    text = file.read_text()
    assert "Traceback" in text
    assert "in fail" in text
    assert file.stat().st_mode & 0o077 == 0


def test_a_traceback_that_cannot_be_written_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.mkstemp", lambda **words: os.open("/not/there", os.O_RDONLY))
    with CliRunner().isolation() as (_, err, _):
        assert failure.ended(KeyError("wing")) == failure.FAULT
        text = err.getvalue().decode()
    assert "KeyError: 'wing'" in text
    assert "the traceback above" in text


@pytest.mark.parametrize("words", [["--traceback", "plugins"], ["plugins"]])
def test_a_traceback_is_shown_to_who_wants_it(tmp_path, temporary, monkeypatch, words):
    if words == ["plugins"]:
        monkeypatch.setenv("TLKIT_TRACEBACK", "1")
    ran = raising("raise KeyError('wing')", *words, where=tmp_path)
    assert ran.returncode == failure.FAULT
    assert "Traceback" in ran.stderr
    assert "in fail" in ran.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "x", "photos"), "free some space"),
        (PermissionError(errno.EACCES, "x", "photos"), "photos cannot be read or written"),
        (OSError(errno.EMFILE, "x"), "ulimit -n"),
        (MemoryError("30 GB"), "MemoryError: 30 GB"),
        (OptionError("about", found="f", expected="e", do="the remedy"), "the remedy"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_machine_lacks_is_an_error_that_says_what_to_do(error, text):
    with CliRunner().isolation() as (_, err, _):
        assert failure.ended(error) == failure.ERROR == 2
        assert text in err.getvalue().decode()
        assert "fault" not in err.getvalue().decode()


def test_a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one():
    with CliRunner().isolation() as (_, err, _):
        gone = OutputLost(BrokenPipeError(errno.EPIPE, "Broken pipe"))
        assert failure.ended(gone) == failure.READER_GONE == 141
        assert err.getvalue() == b""
        assert failure.ended(OutputLost(OSError(errno.ENOSPC, "No space left"))) == failure.ERROR
        assert b"standard output cannot be written" in err.getvalue()


def test_a_broken_pipe_of_another_kind_is_a_fault_and_not_taken_for_the_reader_of_the_output(
    monkeypatch, temporary
):
    def fail(**values):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(main.commands["plugins"], "callback", fail)
    assert CliRunner().invoke(main, ["plugins"]).exit_code == failure.FAULT


def test_a_mistyped_option_stays_an_error_of_usage():
    result = CliRunner().invoke(main, ["plugins", "--chek"])
    assert result.exit_code == 2
    assert "--check" in result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["plugins"], ["sample", "digits", "--help"]])
def test_output_that_finds_no_room_ends_with_an_error(tmp_path, words):
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "tlkit", *words],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ran.returncode == 2
    assert "standard output cannot be written" in ran.stderr
    assert "Traceback" not in ran.stderr
