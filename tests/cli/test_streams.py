"""Streams: a reader that goes, a disk that is full, an encoding that lacks letters."""

import io
import os
import subprocess
import sys
import threading

import click
import pytest

import tlkit
from tlkit.cli import streams
from tlkit.cli.streams import OutputLost, guard
from tlkit.testing import make_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


@pytest.fixture
def guarded(monkeypatch):
    """Guard streams that are given; standard output and error are the test's again behind it."""
    monkeypatch.setattr(streams, "_OUTPUT", [])

    def use(out, err=None):
        for name, stream in (("stdout", out), ("stderr", err)):
            monkeypatch.setattr(sys, name, stream)
            monkeypatch.setattr(sys, f"__{name}__", stream)
        guard()
        return sys.stdout

    return use


def text_of(number, encoding="utf-8"):
    return open(number, "w", encoding=encoding, closefd=False)


def test_writing_after_the_reader_has_gone_raises_nothing_and_is_remembered(guarded):
    reader, writer = os.pipe()
    out = guarded(text_of(writer))
    click.echo("before")
    assert os.read(reader, 100) == b"before\n"
    streams.check_output()
    os.close(reader)
    click.echo("behind")
    out.buffer.write(b"bytes")
    out.flush()
    assert isinstance(streams.fault(), BrokenPipeError)
    with pytest.raises(OutputLost):
        streams.check_output()
    os.close(writer)


def test_a_reader_that_is_slow_gets_all_of_it_through_a_pipe_that_does_not_block(guarded):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    guarded(text_of(writer))
    pieces = []

    def read():
        while piece := os.read(reader, 4096):
            pieces.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    click.echo("x" * 1_000_000)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert b"".join(pieces) == b"x" * 1_000_000 + b"\n"
    assert streams.fault() is None


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_letters_that_an_encoding_lacks_are_written_as_escapes(guarded, tmp_path, encoding):
    with (tmp_path / "out").open("w", encoding=encoding) as file:
        guarded(file)
        click.echo("Käfer 猫 \udcff 93.1 ± 2 %")
        streams.flush()
    data = (tmp_path / "out").read_bytes()
    text = data.decode(encoding)
    assert "\\udcff" in text
    assert ("猫" in text) == (encoding == "utf-8")
    assert ("\\u732b" in text) == (encoding != "utf-8")
    assert ("Käfer" in text) == (encoding != "ascii")
    assert ("93.1 +- 2 %" in text) == (encoding == "ascii")


def test_a_stream_that_is_not_a_file_is_left_as_it_is(guarded):
    own = io.StringIO()
    assert guarded(own) is own
    assert streams.fault() is None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("streams")
    make_folder(place / "photos", classes=("red", "blue"), per_class=30)
    tlkit.fit(place / "photos", backbone="tiny", epochs=2, out=place / "run")
    return place


@pytest.fixture
def start(place, tiny_plugin, monkeypatch):
    """Start a command in that folder."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny_plugin), *sys.path]))

    def start(*words, **streams):
        return subprocess.Popen(
            [sys.executable, "-m", "tlkit", *map(str, words)], cwd=place, text=True,
            **{"stderr": subprocess.PIPE, **streams},
        )  # fmt: skip

    return start


def without_reader(start, *words):
    """Run a command whose output nobody reads; its status and what it says on standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    with start(*words, stdout=writer) as process:
        os.close(writer)
        _, said = process.communicate()
    return process.returncode, said


def test_a_prediction_that_nobody_reads_ends_in_silence(start):
    status, said = without_reader(start, "predict", "photos", "--head", "run", "--format", "csv")
    assert status == 141
    assert "rror" not in said


def test_a_fit_goes_on_when_nobody_reads_its_table(start, place):
    words = ["fit", "photos", "--backbone", "tiny", "--epochs", 2, "--out", "unread"]
    status, said = without_reader(start, *words)
    assert (status, "rror" in said) == (0, False)
    assert tlkit.load(place / "unread").classes == ("blue", "red")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_predictions_that_find_no_room_end_with_an_error(start, form):
    with open("/dev/full", "w") as full:
        words = ["predict", "photos", "--head", "run", "--format", form]
        with start(*words, stdout=full) as process:
            _, said = process.communicate()
    assert process.returncode == 2
    assert "standard output cannot be written" in said
    assert "No space left" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("closed", "status"), [((0,), 0), ((2,), 0), ((1,), 2), ((0, 1, 2), 2)], ids=str
)
def test_closed_streams_take_no_file_for_themselves(
    place, tiny_plugin, monkeypatch, closed, status
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny_plugin), *sys.path]))
    shell = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    words = f"-m tlkit inspect run --json card-{len(closed)}-{closed[0]}.json"
    ran = subprocess.run(
        ["bash", "-c", f"{sys.executable} {words} {shell}"], cwd=place, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == status
    assert "Traceback" not in ran.stderr
    text = (place / f"card-{len(closed)}-{closed[0]}.json").read_text()
    assert text.startswith("{")
    assert text.rstrip().endswith("}")
