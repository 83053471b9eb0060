"""`tlkit serve`: what is refused before a port is listened on."""

import pytest

from tlkit.cli import serve


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "TLKIT_TOKEN"),
        (["--token", "short"], "the token cannot be used"),
        (["--port", "99999"], "--port: whole number from 0 to 65535"),
        (["--host", "192.0.2.1"], "TLKIT_TOKEN"),
        (["--tta", "fife", "--port", "0"], "did you mean 'five'?"),
        (["--scales", "7", "--port", "0"], "--scales 7"),
        (["--combine", "logits", "--port", "0"], "several heads"),
    ],
)
def test_what_cannot_be_meant_ends_with_an_error(run, fitted, words, said):
    result = run("serve", fitted, "--device", "cpu", *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_run_it_says_so(run):
    result = run("serve", "--port", "0")
    assert result.exit_code == 2
    assert "there is no run yet" in result.stderr


def test_without_its_packages_it_names_the_extra(run, fitted, monkeypatch):
    monkeypatch.setattr(serve, "NEEDED", ("fastapi", "tlkit_is_without_this"))
    result = run("serve", fitted)
    assert result.exit_code == 2
    assert "tlkit[serve]" in result.stderr
    assert "no tlkit_is_without_this" in result.stderr
