"""Tests of the texts about a Service's slices."""

from userspace_proxy.causes import slices

from . import words


def test_the_recorded_page_contains_all_texts_about_slices():
    assert words.changed(slices) == []
