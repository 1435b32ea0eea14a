"""Tests of the texts about endpoints by name."""

from userspace_proxy.causes import names

from . import words


def test_the_recorded_page_contains_all_texts_about_names():
    assert words.changed(names) == []
