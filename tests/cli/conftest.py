"""A command line to talk to, and a head to talk about."""

import pytest
from click.testing import CliRunner

import tlkit
from tlkit.cli import main


@pytest.fixture
def run():
    """Run a command; the result has `exit_code`, `stdout`, `stderr`."""
    return lambda *words: CliRunner().invoke(main, [str(one) for one in words])


@pytest.fixture(scope="session")
def fitted(colours, tmp_path_factory):
    """A run folder with a head on the tiny backbone."""
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("cli") / "run").run
