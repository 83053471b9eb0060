"""`python -m tlkit`: the command line."""

from tlkit.cli import run

run()
