"""Signature: only what this user has signed on this machine is recognised."""

from __future__ import annotations

import os

import pytest

from tlkit import cache
from tlkit.data.signature import KEY, is_ours, sign

RECORD = {"photos": "/a"}


def test_what_was_signed_is_ours_and_nothing_else_is():
    signature = sign(RECORD)
    assert is_ours(RECORD, signature)
    assert not is_ours({"photos": "/b"}, signature)
    for other in ("", "0" * 64, None, 1, "\ud800"):
        assert not is_ours(RECORD, other)


def test_another_key_does_not_recognise_it(monkeypatch, tmp_path):
    signature = sign(RECORD)
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "another"))
    assert not is_ours(RECORD, signature)
    sign(RECORD)
    assert not is_ours(RECORD, signature)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_key_that_others_can_read_is_none():
    signature = sign(RECORD)
    (cache.root() / KEY).chmod(0o644)
    assert not is_ours(RECORD, signature)
    assert sign(RECORD) == ""


def test_where_no_key_can_be_written_nothing_is_signed(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert sign(RECORD) == ""
    assert not is_ours(RECORD, "")
